"""Weights: a loss in which each row counts as often as data.weight says."""

from inspect import signature

import torch
from torch import Tensor, nn

from tabrun.cli.errors import UserError


class Weighted(nn.Module):
    """The weighted mean of a loss over rows: as if each row stood in the batch as often as its weight says.

    Takes scores (rows, classes), labels (rows,) or (rows, classes), and weights (rows,). loss: a module with
    reduction="mean", as those of torch.nn have it; UserError for one that has none.
    """

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.loss = loss
        if getattr(loss, "reduction", None) != "mean":
            name = type(loss).__name__
            raise UserError(f"data.weight: {name} has no reduction=mean, and no argument `weights` in its forward")
        loss.reduction = "none"  # type: ignore[assignment]

    def forward(self, scores: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
        losses = self.loss(scores, labels)  # (rows,)
        shares = weights
        if isinstance(self.loss, nn.CrossEntropyLoss) and self.loss.weight is not None and labels.dim() == 1:
            shares = weights * self.loss.weight[labels]  # by which its own mean is divided
        return (losses * weights).sum() / shares.sum().clamp_min(torch.finfo(losses.dtype).tiny)


def by_row(loss: nn.Module) -> nn.Module:
    """The loss, if its forward takes `weights` itself, or Weighted."""
    return loss if "weights" in signature(loss.forward).parameters else Weighted(loss)
