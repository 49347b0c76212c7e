"""Data: a table, split into training, validation and test rows, as batches on a LightningDataModule."""

from __future__ import annotations

import hashlib
import json
import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import lightning
import numpy as np
import polars as pl
import torch
from lightning.fabric.utilities import move_data_to_device
from torch import Tensor

from tabrun.cli.errors import UserError
from tabrun.tables.columns import Columns
from tabrun.tables.reader import in_file
from tabrun.tables.schema import SLICE_ROWS, Rows, Schema, take
from tabrun.tables.split import Split
from tabrun.tables.target import classes_of, weights_of, with_target
from tabrun.tables.values import columns_of, known, numbered

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


class TabularData(lightning.LightningDataModule):
    """The table read by `read(path, target, kinds)`, its training rows shuffled by `seed`.

    target: the column of classes, or a list of columns that hold a probability for each class.
    id: columns that are no features and that predictions carry.
    weight: a column that is no feature: how often each row counts in the loss and in measures. What the schema says
    (means, kinds, counts of classes) and the split count each row once.
    batches_per_step: mini-batches of batch_size rows that the Trainer is handed as one.
    ensemble_folds: into how many folds the rows that do not test are cut; all of them are train, and val too.
    After `setup`: schema (fitted on the training rows, unless a finished run's is given), rows, labels and weights
    (float32, (rows,), or None) of the whole table, index (the row numbers of each part), sha256 (of all these),
    and numbers (where each row stood in the file, from 0).
    """

    def __init__(
        self,
        path: str,
        read: Callable[..., pl.DataFrame],
        target: str | list[str],
        split: Split,
        columns: Columns,
        id: str | list[str] | None = None,
        drop_missing_target: bool = False,
        num_folds: int | None = None,
        fold: int = 0,
        batch_size: int = 32,
        seed: int | None = 0,
        schema: Schema | None = None,
        batches_per_step: int = 1,
        weight: str | None = None,
        ensemble_folds: int | None = None,
    ) -> None:
        super().__init__()
        self.path, self.read, self.columns, self.id = str(path), read, columns, columns_of(id)
        self.target: str | list[str] = columns_of(target) if isinstance(target, list) else str(target)
        for name in self.id:
            if name.startswith(("prediction", "probability_")) or self.id.count(name) > 1:
                raise UserError(f"data.id={name} is twice there, or a name that predictions have for their own columns")
        self.weight = None if weight is None else str(weight)
        if self.weight in columns_of(self.target):
            raise UserError(f"data.weight={weight} is the target: name another column")
        self.split = replace(split, num_folds=num_folds, fold=fold)
        self.drop_missing_target, self.seed, self.schema = drop_missing_target, seed, schema
        self.batch_size, self.batches_per_step = batch_size, batches_per_step
        self.ensemble_folds = ensemble_folds
        self.index: dict[str, Tensor] = {}
        self.weights: Tensor | None = None

    def setup(self, stage: str | None = None) -> None:
        if self.index:
            return
        with in_file(self.path):
            frame, rows = self.labelled()
            with numbered(rows):
                classes, folds = classes_of(frame, self.target), self.ensemble_folds
                parts = self.split.folds(frame, *classes, folds) if folds else self.split.rows(frame, *classes)
                unused = [*self.id, *self.split.columns, *columns_of(self.weight)]
                known(frame, unused)
                self.schema = self.schema or Schema.fit(frame, self.target, parts["train"], self.columns, unused)
                self.labels, self.weights = self.schema.labels(frame), weights_of(frame, self.weight, parts)
                num_rows, slices = len(frame), deque(frame.iter_slices(SLICE_ROWS))
                del frame  # so that what was read together is freed once it is encoded
                self.rows = self.schema.encoded(num_rows, (slices.popleft() for _ in range(len(slices))))
        self.index = {name: torch.from_numpy(rows) for name, rows in parts.items()}
        self.sha256, self.numbers = self._sha256(), rows

    def labelled(self) -> tuple[pl.DataFrame, Sequence[int] | np.ndarray]:
        """The table's rows that have a target, and where they stood."""
        kinds: dict[str, Any] = dict.fromkeys(self.columns.ignore)
        texts = [*self.id, *self.split.columns, *columns_of(self.weight), *self.columns.categories]
        kinds |= dict.fromkeys(texts, pl.String())
        kinds |= dict.fromkeys(self.columns.numbers, pl.Float64())
        for inferred in (*columns_of(self.target), *columns_of(self.split.time)):
            kinds.pop(inferred, None)
        if not isinstance(self.target, str):
            kinds |= dict.fromkeys(self.target, pl.Float64())  # checked to sum to 1
        frame = self.read(path=self.path, target=self.target, kinds=kinds)
        return with_target(frame, self.target, self.drop_missing_target)

    def _sha256(self) -> str:
        assert self.schema
        names = [self.schema.classes, [(feature.name, feature.kind) for feature in self.schema.features]]
        digest = hashlib.sha256(json.dumps(names).encode())
        for tensor in (*self._tensors(), *self.index.values()):
            digest.update(tensor.numpy().data)
        return digest.hexdigest()

    def _tensors(self) -> list[Tensor]:
        rows = self.rows if isinstance(self.rows, tuple) else (self.rows,)
        return [*rows, self.labels, *([] if self.weights is None else [self.weights])]

    def to(self, device: torch.device) -> None:
        """Moves the table to a GPU with twice the memory free: batches are gathered there, without a transfer each."""
        size = sum(tensor.nbytes for tensor in self._tensors())
        if device.type != "cuda" or size <= torch.cuda.mem_get_info(device)[0] / 2:
            whole = self.rows, self.labels, self.weights
            self.rows, self.labels, self.weights = move_data_to_device(whole, device)

    def batches(self, part: str, batch_size: int = EVALUATION_BATCH, seed: int | None = None) -> Batches:
        """The rows of train, val or test, in the table's order unless there is a seed."""
        if self.trainer:
            self.to(self.trainer.strategy.root_device)
        batches = Batches(self.rows, self.labels, self.index[part], batch_size, seed, self.weights)
        if trainer := self.trainer:
            batches.process, batches.num_processes = trainer.global_rank, trainer.world_size
            batches.epoch = lambda: trainer.current_epoch
        return batches

    def part(self, name: str) -> tuple[Any, ...]:
        """All rows of train, val or test as one batch."""
        return next(iter(self.batches(name, len(self.index[name]))))

    def train_dataloader(self) -> Batches:
        return self.batches("train", self.batch_size * self.batches_per_step, self.seed)

    def val_dataloader(self) -> Batches:
        return self.batches("val")

    def test_dataloader(self) -> Batches:
        return self.batches("test")
