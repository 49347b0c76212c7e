"""Batches: some rows of a table in memory, a batch at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tabrun.tables.schema import Rows, take

EVALUATION_BATCH = 8192  # rows; nothing is learned from these batches, so their size is a matter of speed alone


@dataclass(eq=False)
class Batches:
    """Some rows of a table in memory, a batch at a time: (rows, labels), or (rows, labels, weights).

    Whole batches are gathered with one index tensor each, which costs a tenth of collating row by row.
    The order of an epoch depends on the seed and the epoch alone; without a seed it is the table's own.
    Under DDP each process takes every num_processes-th row, and the last ones are repeated to share evenly.
    Lightning asks for `state_dict` when it saves within an epoch, which then goes on after the batches that were taken.
    """

    rows: Rows
    labels: Tensor
    index: Tensor
    batch_size: int
    seed: int | None = None
    weights: Tensor | None = None
    epoch: Callable[[], int] = lambda: 0
    process: int = 0
    num_processes: int = 1
    num_taken: int = 0  # batches of this epoch
    num_skipped: int = 0

    def order(self) -> Tensor:
        """This epoch's row numbers in this process, (rows,)."""
        order = self.index
        if self.seed is not None:
            # SeedSequence mixes the two, so that no epoch of one seed equals another epoch of the next
            mixed = np.random.SeedSequence((self.seed, self.epoch())).generate_state(1, np.uint64)
            order = order[torch.randperm(len(order), generator=torch.Generator().manual_seed(int(mixed[0])))]
            if len(order) % self.num_processes:
                order = torch.cat([order, order[: -len(order) % self.num_processes]])
        return order[self.process :: self.num_processes].to(self.labels.device)

    @property
    def num_rows(self) -> int:
        """Of an epoch in this process."""
        repeated = self.num_processes - 1 if self.seed is not None else self.num_processes - 1 - self.process
        return (len(self.index) + repeated) // self.num_processes

    def __len__(self) -> int:
        return math.ceil(self.num_rows / self.batch_size)

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        skipped, self.num_skipped = self.num_skipped, 0
        for i, batch in enumerate(self.order().split(self.batch_size)[skipped:], skipped + 1):
            self.num_taken = i
            weights = () if self.weights is None else (self.weights.index_select(0, batch),)
            yield take(self.rows, batch), self.labels.index_select(0, batch), *weights

    def state_dict(self) -> dict[str, int]:
        return {"num_taken": self.num_taken}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.num_skipped = state["num_taken"]
