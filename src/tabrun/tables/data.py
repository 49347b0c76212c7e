"""Data: a table, split into training, validation and test rows, as batches on a LightningDataModule."""

from __future__ import annotations

import hashlib
import json
import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import lightning
import numpy as np
import polars as pl
import torch
from lightning.fabric.utilities import move_data_to_device
from torch import Tensor

from tabrun.cli.errors import UserError
from tabrun.reading.formats import as_told
from tabrun.reading.guess import told
from tabrun.reading.reader import in_file
from tabrun.reading.values import alike, as_class, columns_of, known, numbered
from tabrun.tables.batches import EVALUATION_BATCH, Batches
from tabrun.tables.columns import Columns
from tabrun.tables.look import Finding, numbered_rows
from tabrun.tables.overview import looked_at
from tabrun.tables.schema import SLICE_ROWS, Schema
from tabrun.tables.split import Split, one_fold, suitable_batch
from tabrun.tables.target import Wanted, classes_of, weights_of, with_target

log = logging.getLogger(__name__)


class TabularData(lightning.LightningDataModule):
    """The table read by `read(path, target, kinds)`, its training rows shuffled by `seed`.

    target: the column of classes, or a list of columns that hold a probability for each class.
    id: columns that are no features and that predictions carry.
    weight: a column that is no feature: how often each row counts in the loss and in measures. What the schema says
    (means, kinds, counts of classes) and the split count each row once.
    look: whether the table is looked at before it is learned from. positive: the class, of two, that is the second.
    rare_classes, rare_below, bins: see `Wanted`.
    batch_size: of the training rows; None: by their number, which `setup` finds.
    batches_per_step: mini-batches of batch_size rows that the Trainer is handed as one.
    ensemble_folds: into how many folds the rows that do not test are cut; all of them are train, and val too.
    After `setup`: schema (fitted on the training rows, unless a finished run's is given), rows, labels and weights
    (float32, (rows,), or None) of the whole table, index (the row numbers of each part), sha256 (of all these),
    and numbers (where each row stood in the file, from 0).
    """

    def __init__(
        self,
        path: str | list[str],
        read: Callable[..., pl.DataFrame],
        target: str | list[str],
        split: Split,
        columns: Columns,
        id: str | list[str] | None = None,
        drop_missing_target: bool = False,
        num_folds: int | None = None,
        fold: int = 0,
        batch_size: int | None = 32,
        seed: int | None = 0,
        schema: Schema | None = None,
        batches_per_step: int = 1,
        weight: str | None = None,
        look: bool = True,
        rare_classes: str | None = None,
        rare_below: int = 10,
        bins: int | None = None,
        positive: Any = None,
        ensemble_folds: int | None = None,
    ) -> None:
        super().__init__()
        self.path, self.read, self.columns, self.id = path, read, columns, columns_of(id)
        self.formats: dict[str, str] = dict(schema.formats) if schema else {}
        self.target: str | list[str] = columns_of(target) if isinstance(target, list) else str(target)
        self.weight = None if weight is None else str(weight)
        self.split = replace(split, num_folds=num_folds, fold=fold)
        self.drop_missing_target, self.seed, self.schema = drop_missing_target, seed, schema
        self.batch_size, self.batches_per_step, self.ensemble_folds = batch_size or 0, batches_per_step, ensemble_folds
        self.look, self.positive, self.wanted = look, positive, Wanted(rare_classes, rare_below, bins)
        self.report: tuple[pl.DataFrame, list[Finding]] | None = None
        self.index: dict[str, Tensor] = {}
        self.weights: Tensor | None = None
        self.check_names()

    def check_names(self) -> None:
        """Raises UserError for names of columns that cannot stand beside each other."""
        for name in self.id:
            if name.startswith(("prediction", "probability_")) or self.id.count(name) > 1:
                raise UserError(f"data.id={name} is twice there, or a name that predictions have for their own columns")
        if self.weight in columns_of(self.target):
            raise UserError(f"data.weight={self.weight} is the target: name another column")

    def setup(self, stage: str | None = None) -> None:
        if self.index:
            return
        with in_file(self.path):
            frame, rows = self.labelled()
            with numbered(rows):
                (codes, names), folds = classes_of(frame, self.target), self.ensemble_folds
                split = partial(self.split.folds, num_folds=folds) if folds else self.split.rows
                parts = split(frame, codes, names)
                for key in ("id", "weight"):
                    known(frame, columns_of(getattr(self, key)), f": data.{key} names it")
                unused = self.unused()
                if not self.schema:
                    asked = [*self.columns.numbers, *self.columns.categories, *self.columns.ignore, *unused]
                    unused |= numbered_rows(frame, {*asked, *columns_of(self.target)})
                    train = parts["train"]
                    self.schema = Schema.fit(frame, self.target, train, self.columns, unused, self.formats)
                    if self.positive is not None:
                        self.schema = self.schema.with_positive(as_class(self.positive))
                    if self.look:
                        kinds = dict.fromkeys(self.columns.ignore, "left out: data.columns.ignore") | unused
                        kinds |= dict.fromkeys(columns_of(self.target), "target")
                        seen = one_fold(parts) if folds else parts
                        self.report = looked_at(frame, self.schema, codes, seen, self.columns, kinds)
                self.labels, self.weights = self.schema.labels(frame), weights_of(frame, self.weight, parts)
                num_rows, slices = len(frame), deque(frame.iter_slices(SLICE_ROWS))
                del frame  # so that what was read together is freed once it is encoded
                self.rows = self.schema.encoded(num_rows, (slices.popleft() for _ in range(len(slices))))
        self.index = {name: torch.from_numpy(rows) for name, rows in parts.items()}
        self.batch_size = self.batch_size or suitable_batch(len(parts["train"]))
        self.sha256, self.numbers = self._sha256(), rows

    def unused(self) -> dict[str, str]:
        """Columns that are no features, and what they are."""
        weight = dict.fromkeys(columns_of(self.weight), "weight")
        return dict.fromkeys(self.split.columns, "split") | weight | dict.fromkeys(self.id, "id")

    def labelled(self) -> tuple[pl.DataFrame, Sequence[int] | np.ndarray]:
        """The table's rows that have a target, and where they stood."""
        kinds: dict[str, Any] = dict.fromkeys(self.columns.ignore)
        formats = self.columns.formats or {}
        texts = [*self.id, *self.split.columns, *columns_of(self.weight), *self.columns.categories]
        kinds |= dict.fromkeys([*texts, *self.columns.numbers, *formats], pl.String())
        for inferred in (*columns_of(self.target), *columns_of(self.split.time)):
            kinds.pop(inferred, None)
        if not isinstance(self.target, str) or self.wanted.bins:  # checked to sum to 1, or cut
            kinds |= dict.fromkeys(columns_of(self.target), pl.String() if self.wanted.bins else pl.Float64())
        frame = self.read(path=self.path, target=self.target, kinds=kinds)
        if self.target == "-1" and "-1" not in frame.columns:
            self.target = frame.columns[-1]
        targets = columns_of(self.target)
        wanted = [*targets, *self.columns.ignore, *texts, *self.columns.numbers, *formats]
        frame = frame.rename(alike(frame.columns, wanted))
        if not self.schema:
            skip = {*self.id, *columns_of(self.split.column), *columns_of(self.split.group), *self.columns.ignore}
            skip |= {*self.columns.categories, *columns_of(self.weight)}
            self.formats = told(frame, formats, skip, () if self.wanted.bins else targets, self.columns.numbers)
        frame = as_told(frame, self.formats, self.id, marked=True)  # where it was read
        return with_target(frame, self.target, self.drop_missing_target, self.wanted)

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
