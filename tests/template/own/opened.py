"""What a fork may put into a file of its package: see test_open.py."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tabrun import Schema, TabularData
from tabrun.tables.columns import FIRST_CODE


class Residual(nn.Module):
    def __init__(self, in_features: int, out_features: int, depth: int = 2) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(in_features, in_features) for _ in range(depth))
        self.last = nn.Linear(in_features, out_features)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = x + layer(x).relu()
        return self.last(x)


class OwnColumns(nn.Module):
    def __init__(self, schema: Schema, out_features: int, width: int = 3) -> None:
        super().__init__()
        sizes = [FIRST_CODE + len(category.values) for category in schema.categories]
        self.embed = nn.ModuleList(nn.Embedding(size, width) for size in sizes)
        self.last = nn.Linear(len(schema.numbers) + width * len(sizes), out_features)

    def forward(self, rows: Tensor | tuple[Tensor, Tensor]) -> Tensor:
        numbers, codes = rows if isinstance(rows, tuple) else (rows, rows[:, :0])
        embedded = [embed(codes[:, i].long()) for i, embed in enumerate(self.embed)]
        return self.last(torch.cat([numbers.nan_to_num(), *embedded], -1))


class Both(OwnColumns):
    def __init__(self, schema: Schema, in_features: int, out_features: int) -> None:
        nn.Module.__init__(self)
        self.names = [feature.name for feature in schema.features]
        self.last = nn.Linear(in_features, out_features)

    def forward(self, rows: Tensor) -> Tensor:
        return self.last(rows)


def residual(in_features: int, out_features: int) -> Residual:
    return Residual(in_features, out_features, depth=1)


def untold(in_features: int, out_features: int):
    return Residual(in_features, out_features)


def three(in_features: int, out_features: int) -> int:
    return 3


class Focal(nn.Module):
    def __init__(self, gamma: float = 2.0, weight: Tensor | None = None) -> None:
        super().__init__()
        self.gamma = gamma
        self.register_buffer("weight", weight)

    def forward(self, scores: Tensor, labels: Tensor) -> Tensor:
        log_share = F.log_softmax(scores, -1).gather(-1, labels[:, None])[:, 0]
        losses = -((1 - log_share.exp()) ** self.gamma) * log_share
        return (losses if self.weight is None else losses * self.weight[labels]).mean()


def focal(gamma: float) -> nn.Module:
    return Focal(gamma)


class Thinned(TabularData):
    """Every n-th row."""

    def __init__(self, *arguments, every: int = 1, **named) -> None:
        super().__init__(*arguments, **named)
        self.every = every

    def labelled(self):
        frame, rows = super().labelled()
        return frame.gather_every(self.every), rows[:: self.every]
