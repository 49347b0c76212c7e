"""Mean: an ensemble of nets as one net."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn


class Mean(nn.Module):
    """Gives log(mean of the nets' softmax) as scores, (rows, classes), whose softmax is the mean of probabilities."""

    def __init__(self, nets: Iterable[nn.Module]) -> None:
        super().__init__()
        self.nets = nn.ModuleList(nets)

    def forward(self, rows: Any) -> Tensor:
        scores = torch.stack([net(rows) for net in self.nets])  # (nets, rows, classes)
        return scores.log_softmax(-1).logsumexp(0) - math.log(len(self.nets))
