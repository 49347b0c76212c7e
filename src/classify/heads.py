"""Heads: parameter-free last layers that turn what a net gives into class scores, always shaped (rows, classes).

    scores -> softmax -> probabilities -> threshold or argmax -> prediction (the last two in tabrun)

With the sigmoid head the scores of one row are [0, z], and softmax([0, z]) = [1 - sigmoid(z), sigmoid(z)]: binary
cross-entropy on z and cross-entropy on [0, z] are the same number. So one loss and one metric path serve both heads.
"""

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from tabrun.cli.errors import UserError

SHARP = 8.0  # of the softplus: where q is smoothing / classes, p is 9 % of that; nothing is surer than 4e-4 of that
LEAST = 1e-6  # smoothing, of which float32 knows something


def at_least_float32(scores: Tensor) -> Tensor:
    """The loss needs the digits that bfloat16 and float16 do not have."""
    return scores.float() if scores.itemsize < 4 else scores


def unsmoothed(scores: Tensor, smoothing: float) -> Tensor:
    """Scores whose softmax are the probabilities p of the labels as they were before they were smoothed.

    From smoothed labels a net learns q = (1 - smoothing) p + smoothing / classes, so p is what of q is above
    smoothing / classes. A softplus takes the place of a clip at 0, so that scores which differ go on to differ.
    """
    share = smoothing / scores.shape[-1]
    return F.softplus(scores.softmax(-1) - share, beta=SHARP / share).log()


def undone(loss: Any) -> float:
    """How much label smoothing the head undoes, as the config's `loss` says; UserError for what cannot be undone."""
    if not (isinstance(loss, dict) and loss.get("undo_smoothing") is True):
        return 0.0
    smoothing = loss.get("label_smoothing", 0.0)
    if not (isinstance(smoothing, int | float) and 0 <= smoothing < 1):
        raise UserError(f"loss.undo_smoothing is for loss.label_smoothing from 0 to below 1, not {smoothing}")
    return smoothing if smoothing > LEAST else 0.0


class Head(nn.Module):
    """Gives scores; in evaluation those of labels that are not smoothed, of a net that learned from `smoothing`."""

    def __init__(self, smoothing: float = 0.0) -> None:
        super().__init__()
        self.smoothing = smoothing

    def forward(self, outputs: Tensor) -> Tensor:
        scores = at_least_float32(self.scores(outputs))
        return unsmoothed(scores, self.smoothing) if self.smoothing and not self.training else scores

    def scores(self, outputs: Tensor) -> Tensor:
        return outputs


class Sigmoid(Head):
    """One free score z for class 1, and 0 for class 0: (rows, 1) -> (rows, 2)."""

    @staticmethod
    def in_features(num_classes: int) -> int:
        if num_classes != 2:
            raise UserError(f"head=sigmoid is for 2 classes, the data has {num_classes}: say head=auto")
        return 1

    def scores(self, outputs: Tensor) -> Tensor:
        return F.pad(outputs, (1, 0))


class Softmax(Head):
    """One free score per class: (rows, classes) -> (rows, classes)."""

    @staticmethod
    def in_features(num_classes: int) -> int:
        return num_classes


HEADS: dict[str, type[Sigmoid] | type[Softmax]] = {"sigmoid": Sigmoid, "softmax": Softmax}


def head_for(name: str, num_classes: int) -> type[Sigmoid] | type[Softmax]:
    """The head called `name`; auto means sigmoid for two classes, softmax for more."""
    if name == "auto":
        return Sigmoid if num_classes == 2 else Softmax
    if name not in HEADS:
        raise UserError(f"head={name} is not a head: say auto, {' or '.join(HEADS)}")
    return HEADS[name]
