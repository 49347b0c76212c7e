"""Numbers: how the net sees those of a table: centred and scaled, and, where wanted, each column embedded by itself.

What is said of shapes holds for one net; in a stack of P each has a first dimension P more, or is shared by all.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from tabrun.cli.errors import UserError
from tabrun.tables.columns import Number

FLAT = 200.0  # thirds of a width from the centre, where the clip has been flat for long; its square fits float16


def centers_and_widths(numbers: Sequence[Number], scale: str | None) -> tuple[list[float], list[float]]:
    """What is subtracted from each number and what it is then divided by; 1 for a constant that is sometimes missing.

    standard: mean and standard deviation; robust: median and interquartile range, or the deviation where that is 0, as
    it is where most numbers are one.
    """
    if scale != "robust":
        return [number.mean for number in numbers], [number.std or 1.0 for number in numbers]
    quantiles = [quantiles_of(number, 4) for number in numbers]
    widths = [(q[3] - q[1]) or number.std or 1.0 for q, number in zip(quantiles, numbers, strict=True)]
    return [q[2] for q in quantiles], widths


def quantiles_of(number: Number, parts: int) -> list[float]:
    """The parts + 1 borders between so many equal shares of the training rows, as far as the schema tells them."""
    if not number.quantiles:
        raise UserError(f"encode: the run's schema is an older one, without quantiles of {number.name}: train it again")
    if not 1 < parts < len(number.quantiles):
        raise UserError(f"encode.bins={parts} is out of range: it must be from 2 to {len(number.quantiles) - 1}")
    levels = np.linspace(0, 1, len(number.quantiles))
    return np.interp(np.linspace(0, 1, parts + 1), levels, number.quantiles).tolist()


def clipped(x: Tensor) -> Tensor:
    """x / sqrt(1 + (x/3)^2), a smooth clip to (-3, 3) (Holzmüller et al. 2024, arXiv:2407.04491); x is written over."""
    third = x.div_(3).clamp_(-FLAT, FLAT)
    return (3 * third).div_((1 + third.square()).sqrt_())


class Periodic(nn.Module):
    """Embeds each number x as W cos(2 pi f x + b) + c, all learned: (rows, numbers) -> (rows, numbers * outputs).

    It is PBLD of Holzmüller et al. 2024 (arXiv:2407.04491), which has x itself beside it. The f of a column are so many
    `frequencies`, drawn from a normal distribution of the deviation `std`.
    """

    def __init__(self, numbers: int, frequencies: int, outputs: int, std: float) -> None:
        super().__init__()
        self.out_features, bound = numbers * outputs, frequencies**-0.5  # as torch draws a Linear's
        self.frequencies = nn.Parameter(std * torch.randn(numbers, frequencies))
        self.phases = nn.Parameter(math.pi * (2 * torch.rand(numbers, frequencies) - 1))
        self.weight = nn.Parameter(bound * (2 * torch.rand(numbers, outputs, frequencies) - 1))
        self.bias = nn.Parameter(bound * (2 * torch.rand(numbers, outputs) - 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.stacked({}, x)

    def stacked(self, values: Mapping[str, Tensor], x: Tensor) -> Tensor:
        own = {**dict(self.named_parameters()), **values}
        frequencies, phases, bias = (own[name].unsqueeze(-1) for name in ("frequencies", "phases", "bias"))
        columns = x.mT.unsqueeze(-2)  # (numbers, 1, rows): a batched product takes weights as they are then
        angles = torch.addcmul(phases + math.pi / 2, frequencies, columns, value=2 * math.pi)
        # (numbers, frequencies, rows); cos a is sin(a + pi/2), whose gradient is one pass less
        return (own["weight"] @ angles.sin() + bias).flatten(-3, -2).mT


class Piecewise(nn.Module):
    """Gives the share of each bin that lies below x: (rows, numbers) -> (rows, numbers * bins).

    The piecewise linear encoding of Gorishniy et al. 2022 (arXiv:2203.05556), whose first bin goes on below and whose
    last goes on above. A bin without width, as columns of few values have them, gives 0. borders: (numbers, bins + 1).
    """

    left: Tensor
    width: Tensor
    least: Tensor
    most: Tensor

    def __init__(self, borders: Tensor) -> None:
        super().__init__()
        widths = borders.diff()
        filled = widths > 0
        first, last = (filled.cumsum(-1) == 1) & filled, (filled.flip(-1).cumsum(-1).flip(-1) == 1) & filled
        own = {
            "left": borders[:, :-1],
            "width": widths.where(filled, math.inf),
            "least": torch.zeros_like(widths).where(~first, -math.inf),
            "most": torch.ones_like(widths).where(~last, math.inf),
        }
        for name, value in own.items():
            self.register_buffer(name, value[None].contiguous(), persistent=False)  # (1, numbers, bins)
        self.out_features = widths.numel()

    def forward(self, x: Tensor) -> Tensor:
        return self.stacked({}, x)

    def stacked(self, values: Mapping[str, Tensor], x: Tensor) -> Tensor:
        own = {**dict(self.named_buffers()), **values}
        share = (x.unsqueeze(-1) - own["left"]).div_(own["width"])
        return torch.minimum(torch.maximum(share, own["least"]), own["most"]).flatten(-2)
