"""Observed: a step is taken on copies in float64, and what it does beside giving a loss is noticed."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tabrun.stack.batches import numbers_of
from tabrun.stack.member import Unplayed

PLAIN, COLLECTIONS = (int, float, str, type(None)), (list, dict, set)
OF_ALL = vars(nn.Module()).keys()  # hooks, and what is looked at by itself
ROWS = 2**21  # products in a step's forward pass, above which fewer rows of the first mini-batch prove as much


class Unread:
    """Stands in for what a step must not read, and says that it did."""

    def __init__(self, name: str) -> None:
        self.name = name

    def refuse(self, *arguments: Any) -> Any:
        raise Unplayed(f"its training_step reads {self.name}")

    __getattr__ = __bool__ = __int__ = __index__ = __float__ = __str__ = __hash__ = refuse  # type: ignore[assignment]
    __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = __mod__ = __floordiv__ = refuse  # type: ignore[assignment]
    __add__ = __sub__ = __mul__ = __truediv__ = __radd__ = __rsub__ = __rmul__ = refuse


class Step(nn.Module):
    """A module whose forward is another's training_step."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, batch: Any) -> Tensor:
        found = self.module.training_step(batch, Unread("batch_idx"))  # type: ignore[operator]
        loss = found["loss"] if isinstance(found, dict) else found
        if not isinstance(loss, Tensor):
            raise Unplayed("its training_step gives no loss")
        return loss


def refuse_log(*arguments: Any, **options: Any) -> None:
    raise Unplayed("its training_step logs")


def left_behind(module: nn.Module) -> dict[str, Any]:
    """What a step could change beside weights: plain attributes, the lengths of collections, sums of buffers."""
    found: dict[str, Any] = {}
    for prefix, part in module.named_modules():
        for name, value in vars(part).items():
            if isinstance(value, PLAIN):
                found[f"{prefix}.{name}".lstrip(".")] = "nan" if value != value else value
            elif isinstance(value, COLLECTIONS) and name not in OF_ALL:
                found[f"{prefix}.{name}".lstrip(".")] = len(value)
    return found | {name: value.sum().item() for name, value in module.named_buffers()}


@contextmanager
def in_float64(modules: Sequence[Any]) -> Iterator[None]:
    """Has the modules hold copies of their weights in float64, and then what they held."""
    own = [[(p, p.data) for p in module.parameters()] for module in modules]
    buffers = [[(b, b.data) for b in module.buffers()] for module in modules]
    try:
        for parameter, data in (pair for pairs in own for pair in pairs):
            parameter.data = data.to(torch.float64, copy=True)
        for buffer, data in (pair for pairs in buffers for pair in pairs):
            buffer.data = data.to(torch.float64, copy=True) if data.is_floating_point() else data.clone()
        yield
    finally:
        for pairs in (*own, *buffers):
            for tensor, data in pairs:
                tensor.grad = None
                tensor.data = data


@contextmanager
def kept_random() -> Iterator[None]:
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])


def random_states() -> list[Any]:
    arrays: Any = np.random.get_state()
    return [random.getstate(), arrays[1].tobytes(), arrays[2:], torch.get_rng_state().numpy().tobytes()]


def cut(batch: Any, module: nn.Module) -> Any:
    """A mini-batch in float64, on the module's device; where its rows make much work, the first that do not."""
    weights = sum(p.numel() for p in module.parameters())
    device, rows = next(module.parameters()).device, max(8, ROWS // max(weights, 1))
    rows = min(rows, len(numbers_of(batch)))

    def moved(part: Tensor) -> Tensor:
        part = part[:rows].to(device)
        return part.double() if part.is_floating_point() else part

    own = tuple(map(moved, batch[0])) if isinstance(batch[0], tuple) else moved(batch[0])
    return own, *map(moved, batch[1:])
