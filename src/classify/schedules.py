"""Schedules of RealMLP (Holzmüller et al. 2024, arXiv:2407.04491): factors of the rate over a run of total_steps."""

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


def coslog4(optimizer: Optimizer, total_steps: int) -> LambdaLR:
    """Four waves from 0 to the rate and back, each twice as long as the last: (1 - cos(2 pi log2(1 + 15 t))) / 2."""
    return LambdaLR(optimizer, lambda step: (1 - math.cos(2 * math.pi * math.log2(1 + 15 * step / total_steps))) / 2)


def flat_cosine(optimizer: Optimizer, total_steps: int) -> LambdaLR:
    """The rate for half of the run, and then a cosine down to 0: (1 + cos(pi (max(1, 2 t) - 1))) / 2."""
    return LambdaLR(optimizer, lambda step: (1 + math.cos(math.pi * (max(1, 2 * step / total_steps) - 1))) / 2)
