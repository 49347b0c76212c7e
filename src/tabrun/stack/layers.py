"""Layers: how those that a stack knows are computed for all members at once; rows come last, (P, features, rows)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Layer = Callable[[Sequence[Tensor], Tensor], Tensor]  # of all the stack's parameters, (P, ...), and rows


def linear(weight: int, bias: int) -> Layer:
    """nn.Linear, whose parameters have these places; without a bias, -1."""
    if bias < 0:
        return lambda values, rows: values[weight] @ rows
    return lambda values, rows: torch.baddbmm(values[bias].unsqueeze(-1), values[weight], rows)


def norm(layer: nn.LayerNorm, weight: int, bias: int) -> Layer:
    def call(values: Sequence[Tensor], rows: Tensor) -> Tensor:
        found = F.layer_norm(rows.transpose(1, 2), layer.normalized_shape, eps=layer.eps).transpose(1, 2)
        return found * values[weight].unsqueeze(-1) + values[bias].unsqueeze(-1)

    return call


def dropped(layer: nn.Dropout, rows: Tensor) -> Tensor:
    """What nn.Dropout gives, by other random numbers: four of each 64 bits drawn, in 40 % of its time on a CPU."""
    if not layer.training or not layer.p:
        return rows
    words = torch.randint(-(2**63), 2**63 - 1, (rows.numel() // 4 + 1,), device=rows.device)
    bits = words.view(torch.int16)[: rows.numel()].view(rows.shape)
    kept = bits >= round(layer.p * 2**16) - 2**15
    return rows * kept.to(rows.dtype).mul_(1 / (1 - layer.p))


def rows_first(layer: nn.Module) -> Callable[[Tensor], Tensor]:
    return lambda rows: layer(rows.transpose(1, 2)).transpose(1, 2)


def elementwise(layer: nn.Module) -> bool:
    """Whether a layer treats each number by itself, as activations and dropout do: as seen, not by its name."""
    if [*layer.parameters(), *layer.buffers(), *layer.children()]:
        return False
    probe, training = torch.linspace(-3, 3, 35).view(5, 7), layer.training
    try:
        layer.eval()
        return torch.equal(layer(probe.T), layer(probe).T) and torch.equal(layer(probe[:1]), layer(probe)[:1])
    except (RuntimeError, ValueError):  # of a layer that needs another shape
        return False
    finally:
        layer.train(training)
