"""Data: a table, split into training, validation and test rows, as batches on a LightningDataModule."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import lightning
import numpy as np
import polars as pl
import torch
from torch import Tensor

from classify.columns import Columns
from classify.schema import Rows, Schema
from classify.split import Split
from classify.values import as_class, known

log = logging.getLogger(__name__)

EVALUATION_BATCH = 8192  # rows; nothing is learned from these batches, so their size is a matter of speed alone


class Batches:
    """Some rows of a table in memory, a batch at a time: (rows, labels).

    Whole batches are gathered with one index tensor each, which costs a tenth of collating row by row.
    The order of an epoch depends on the seed and the epoch alone; without a seed it is the table's own.
    Under DDP each process takes every num_processes-th row, and the last ones are repeated to share evenly.
    """

    def __init__(self, rows: Rows, labels: Tensor, index: Tensor, batch_size: int, seed: int | None = None) -> None:
        self.rows, self.labels, self.index, self.batch_size, self.seed = rows, labels, index, batch_size, seed
        self.epoch: Callable[[], int] = lambda: 0
        self.process, self.num_processes = 0, 1

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

    def __iter__(self) -> Iterator[tuple[Rows, Tensor]]:
        for batch in self.order().split(self.batch_size):
            yield take(self.rows, batch), self.labels[batch]


def take(rows: Rows, index: Tensor) -> Rows:
    return (rows[0][index], rows[1][index]) if isinstance(rows, tuple) else rows[index]


class TabularData(lightning.LightningDataModule):
    """The table read by `read(path)`, its training rows shuffled by `seed`.

    target: the column of classes, or a list of columns that hold a probability for each class.
    id: columns that are no features and that predictions carry.
    batches_per_step: mini-batches of batch_size rows that the Trainer is handed as one.
    After `setup`: schema (fitted on the training rows, unless a finished run's is given), rows and labels of the whole
    table, index (the row numbers of each part) and sha256 (of all that the net will see).
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
    ) -> None:
        super().__init__()
        self.path, self.read, self.columns, self.id = str(path), read, columns, columns_of(id)
        self.target: str | list[str] = columns_of(target) if isinstance(target, list) else str(target)
        if wrong := [
            name for name in self.id if name.startswith(("prediction", "probability_")) or self.id.count(name) > 1
        ]:
            raise ValueError(
                f"data.id={wrong[0]} is twice there, or a name that predictions have for columns of their own"
            )
        self.split = replace(split, num_folds=num_folds, fold=fold)
        self.drop_missing_target, self.seed, self.schema = drop_missing_target, seed, schema
        self.batch_size, self.batches_per_step = batch_size, batches_per_step
        self.index: dict[str, Tensor] = {}

    def setup(self, stage: str | None = None) -> None:
        if self.index:
            return
        try:
            frame = self.labelled()
            parts = self.split.rows(frame, *self._classes(frame))
            unused = [*self.id, *self.split.columns]
            known(frame, unused)
            self.schema = self.schema or Schema.fit(frame, self.target, parts["train"], self.columns, unused)
            self.labels, self.rows = self.schema.labels(frame), self.schema.rows(frame)
        except ValueError as error:
            raise ValueError(f"{self.path}: {error}" if self.path not in str(error) else str(error)) from error
        self.index = {name: torch.from_numpy(rows) for name, rows in parts.items()}
        self.sha256 = self._sha256()

    def labelled(self) -> pl.DataFrame:
        """The table's rows that have a target."""
        return with_target(self.read(path=self.path, target=self.target), self.target, self.drop_missing_target)

    def _classes(self, frame: pl.DataFrame) -> tuple[np.ndarray, list[str]]:
        """The class of each row as a number, (rows,), and the names; of several target columns, the most probable."""
        if isinstance(self.target, str):
            column = frame[self.target]
            if column.dtype.is_float() and (quantity := column != column.round()).any():
                raise ValueError(
                    f"column {self.target} holds {column.filter(quantity)[0]}: a target is a class, not a quantity"
                )
            values = column.unique().sort()
            codes = dict(zip(values, range(len(values)), strict=True))
            return column.replace_strict(codes, return_dtype=pl.Int64).to_numpy(), [as_class(value) for value in values]
        shares = probabilities(frame, self.target)
        return shares.argmax(1), list(self.target)

    def _sha256(self) -> str:
        digest = hashlib.sha256()
        rows: Sequence[Tensor] = self.rows if isinstance(self.rows, tuple) else (self.rows,)
        for tensor in (*rows, self.labels, *self.index.values()):
            digest.update(tensor.numpy().data)
        return digest.hexdigest()

    def to(self, device: torch.device) -> None:
        """Moves the table to a GPU with twice the memory free: batches are gathered there, without a transfer each."""
        tensors = [*(self.rows if isinstance(self.rows, tuple) else (self.rows,)), self.labels]
        if device.type == "cuda" and sum(tensor.nbytes for tensor in tensors) > torch.cuda.mem_get_info(device)[0] / 2:
            return
        *rows, self.labels = (tensor.to(device) for tensor in tensors)
        self.rows = (rows[0], rows[1]) if isinstance(self.rows, tuple) else rows[0]

    def batches(self, part: str, batch_size: int = EVALUATION_BATCH, seed: int | None = None) -> Batches:
        """The rows of train, val or test, in the table's order unless there is a seed."""
        if self.trainer:
            self.to(self.trainer.strategy.root_device)
        batches = Batches(self.rows, self.labels, self.index[part], batch_size, seed)
        if trainer := self.trainer:
            batches.process, batches.num_processes = trainer.global_rank, trainer.world_size
            batches.epoch = lambda: trainer.current_epoch
        return batches

    def train_dataloader(self) -> Batches:
        return self.batches("train", self.batch_size * self.batches_per_step, self.seed)

    def val_dataloader(self) -> Batches:
        return self.batches("val")

    def test_dataloader(self) -> Batches:
        return self.batches("test")


def with_target(frame: pl.DataFrame, target: str | list[str], drop_missing: bool) -> pl.DataFrame:
    """The rows that have a target; ValueError when some have none, unless these are to be left out."""
    targets = columns_of(target)
    known(frame, targets)
    frame = frame.with_columns(pl.col(name).fill_nan(None) for name in targets if frame[name].dtype.is_float())
    empty = frame.select(pl.any_horizontal(pl.col(targets).is_null()).alias("empty"))["empty"]
    if empty.any():
        if not drop_missing:
            raise ValueError(
                f"column {targets[0]}, row {int(empty.arg_max() or 0) + 1}: the target is missing in {empty.sum()} "
                "rows; data.drop_missing_target=true leaves them out"
            )
        log.warning("%d rows without a target are left out", empty.sum())
        frame = frame.filter(~empty)
    if not len(frame):
        raise ValueError("the table has no rows with a target")
    return frame


def probabilities(frame: pl.DataFrame, targets: Sequence[str]) -> np.ndarray:
    """The target columns, (rows, classes); ValueError at the first row that does not sum to 1."""
    shares = frame.select(pl.col(targets).cast(pl.Float64)).to_numpy()
    wrong = (np.abs(shares.sum(1) - 1) > 1e-4) | (shares < 0).any(1) | ~np.isfinite(shares).all(1)
    if wrong.any():
        row = int(wrong.argmax())
        raise ValueError(
            f"row {row + 1}: columns {', '.join(targets)} hold {shares[row].tolist()}, which are no probabilities that "
            f"sum to 1 but to {shares[row].sum():g}"
        )
    return shares


def columns_of(names: Any) -> list[str]:
    """A list of column names, from one, several or None."""
    return [] if names is None else [str(name) for name in (names if isinstance(names, list) else [names])]
