"""Heads: parameter-free last layers that turn what a net gives into class scores, always shaped (rows, classes).

    scores -> softmax -> probabilities -> threshold or argmax -> prediction (the last two in tabrun)

With the sigmoid head the scores of one row are [0, z], and softmax([0, z]) = [1 - sigmoid(z), sigmoid(z)]: binary
cross-entropy on z and cross-entropy on [0, z] are the same number. So one loss and one metric path serve both heads.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from tabrun.cli.errors import UserError


def at_least_float32(scores: Tensor) -> Tensor:
    """The loss needs the digits that bfloat16 and float16 do not have."""
    return scores.float() if scores.itemsize < 4 else scores


class Sigmoid(nn.Module):
    """One free score z for class 1, and 0 for class 0: (rows, 1) -> (rows, 2)."""

    @staticmethod
    def in_features(num_classes: int) -> int:
        if num_classes != 2:
            raise UserError(f"head=sigmoid is for 2 classes, the data has {num_classes}: say head=auto")
        return 1

    def forward(self, z: Tensor) -> Tensor:
        return F.pad(at_least_float32(z), (1, 0))


class Softmax(nn.Module):
    """One free score per class: (rows, classes) -> (rows, classes)."""

    @staticmethod
    def in_features(num_classes: int) -> int:
        return num_classes

    def forward(self, scores: Tensor) -> Tensor:
        return at_least_float32(scores)


HEADS: dict[str, type[Sigmoid] | type[Softmax]] = {"sigmoid": Sigmoid, "softmax": Softmax}


def head_for(name: str, num_classes: int) -> type[Sigmoid] | type[Softmax]:
    """The head called `name`; auto means sigmoid for two classes, softmax for more."""
    if name == "auto":
        return Sigmoid if num_classes == 2 else Softmax
    if name not in HEADS:
        raise UserError(f"head={name} is not a head: say auto, {' or '.join(HEADS)}")
    return HEADS[name]
