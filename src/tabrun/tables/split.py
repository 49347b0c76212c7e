"""Split: which rows train, which validate, which test."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl

from tabrun.cli.errors import UserError
from tabrun.reading.values import check_kind, check_rows, columns_of, known

NAMES = ("train", "val", "test")


RARE = ": data.rare_classes=drop or merge takes those of fewer than data.rare_below rows (of a quantity: data.bins=4)"


@dataclass(frozen=True)
class Split:
    """Stratified and seeded, unless the table says otherwise.

    column: holds train, val or test for each row.  group: rows with the same value stay together.
    time: the earliest rows train, the latest test.  num_folds: the rows that do not test are cut into so many folds;
    `fold` validates, the others train.
    """

    validation_fraction: float = 0.2
    test_fraction: float = 0.2
    seed: int = 0
    column: str | None = None
    group: str | None = None
    time: str | None = None
    num_folds: int | None = None
    fold: int = 0

    def __post_init__(self) -> None:
        for name in ("column", "group", "time"):  # a column may be called 1
            if getattr(self, name) is not None:
                object.__setattr__(self, name, str(getattr(self, name)))

    @property
    def columns(self) -> list[str]:
        return [name for name in (self.column, self.group, self.time) if name]

    def rows(self, frame: pl.DataFrame, labels: np.ndarray, classes: list[str]) -> dict[str, np.ndarray]:
        """Row numbers of train, val and test, each in the table's order; labels are numbers of classes, (rows,)."""
        if (len(self.columns) > 1 and self.column) or (self.time and (self.group or self.num_folds)):
            raise UserError(f"data.split: {' and '.join(self.columns)} and folds cannot be combined")
        if self.fold and not self.num_folds:
            raise UserError(f"data.fold={self.fold} needs data.num_folds")
        if self.num_folds and (self.column or not 0 <= self.fold < self.num_folds or self.num_folds < 2):
            raise UserError(
                f"data.num_folds={self.num_folds} needs data.fold from 0 to {self.num_folds - 1}, no column"
            )
        if self.validation_fraction + self.test_fraction >= 1:
            raise UserError("data.split: validation_fraction + test_fraction leave no rows to train on")
        for key in ("column", "group", "time"):
            known(frame, columns_of(getattr(self, key)), f": data.split.{key} names it")
        for name in self.columns:
            check_kind(frame[name], "data.split takes text, numbers or dates")
        if self.column:
            parts = self._by_column(frame[self.column].cast(pl.String))
        elif self.time:
            parts = self._by_time(frame[self.time])
        else:
            parts = self._stratified(labels, classes, self._groups(frame))
        check(parts, labels, classes)
        return parts

    def _by_column(self, column: pl.Series) -> dict[str, np.ndarray]:
        check_rows(column, ~column.is_in(NAMES).fill_null(False), " is not train, val or test")
        return {name: np.flatnonzero(column == name) for name in NAMES}

    def _by_time(self, column: pl.Series) -> dict[str, np.ndarray]:
        check_rows(column, column.is_null(), " is no time")
        order = np.argsort(column.rank("dense").to_numpy(), kind="stable")
        test = round(len(order) * (1 - self.test_fraction))
        val = round(len(order) * (1 - self.test_fraction - self.validation_fraction))
        cut = np.split(order, [val, test])
        return {name: np.sort(part) for name, part in zip(NAMES, cut, strict=True)}

    def folds(
        self, frame: pl.DataFrame, labels: np.ndarray, classes: list[str], num_folds: int
    ) -> dict[str, np.ndarray]:
        """Row numbers of train and val, which are both all that do not test, of test, and of fold0, fold1, ...

        UserError: a class has fewer rows than there are folds, or fewer groups.
        """
        parts = self.rows(frame, labels, classes)
        rows = np.sort(np.concatenate([parts["train"], parts["val"]]))
        groups = self._groups(frame)
        numbers, counts = np.unique(labels[rows], return_counts=True)
        few = f"fewer than ensemble.folds={num_folds}: lower it, or say ensemble.seeds"
        if counts.min() < num_folds:
            name = classes[numbers[counts.argmin()]]
            raise UserError(f"class {name} has {counts.min()} rows beside those that test, {few}")
        if groups is not None and len(np.unique(groups[rows])) < num_folds:
            own = len(np.unique(groups[rows]))
            raise UserError(f"column {self.group} holds {own} groups beside those that test, {few}")
        found = {"train": rows, "val": rows, "test": parts["test"]}
        for number, (train, val) in enumerate(self._folds(rows, labels, groups, num_folds)):
            check({"train": train, "val": val, "test": parts["test"]}, labels, classes)
            found[f"fold{number}"] = val
        return found

    def _groups(self, frame: pl.DataFrame) -> np.ndarray | None:
        return frame[self.group].cast(pl.String).fill_null("").to_numpy() if self.group else None

    def _folds(
        self, rows: np.ndarray, labels: np.ndarray, groups: np.ndarray | None, num_folds: int
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Of these rows, those that train and those that do not, for each fold."""
        from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

        kind: Callable = StratifiedKFold if groups is None else StratifiedGroupKFold
        maker = kind(num_folds, shuffle=True, random_state=self.seed)
        of_rows = None if groups is None else groups[rows]
        return ((rows[a], rows[b]) for a, b in maker.split(rows, labels[rows], of_rows))

    def _stratified(self, labels: np.ndarray, names: list[str], groups: np.ndarray | None) -> dict[str, np.ndarray]:
        from sklearn.model_selection import train_test_split

        classes, counts = np.unique(labels, return_counts=True)
        if counts.min() < 3:
            rarest = names[classes[counts.argmin()]]
            raise UserError(f"class {rarest} has {counts.min()} rows: train, val and test need one each{RARE}")

        def part(rows: np.ndarray, fraction: float) -> tuple[np.ndarray, np.ndarray]:
            if groups is not None:  # a fold of whole groups comes closest to a fraction
                num_folds = min(20, len(np.unique(groups[rows])))
                cut = list(self._folds(rows, labels, groups, num_folds))[: max(1, round(fraction * num_folds))]
                taken = [other for _, other in cut]
                other = np.isin(rows, np.concatenate(taken))
                return rows[~other], rows[other]
            size = max(round(fraction * len(rows)), len(classes))
            parts = train_test_split(rows, test_size=size, stratify=labels[rows], random_state=self.seed)
            return np.sort(parts[0]), np.sort(parts[1])

        if groups is not None and len(np.unique(groups)) < max(3, self.num_folds or 0) + (self.num_folds is not None):
            raise UserError(
                f"column {self.group} holds {len(np.unique(groups))} groups: too few for train, val and test"
            )
        rest, test = part(np.arange(len(labels)), self.test_fraction)
        if self.num_folds:
            train, val = list(self._folds(rest, labels, groups, self.num_folds))[self.fold]
        else:
            train, val = part(rest, self.validation_fraction / (1 - self.test_fraction))
        parts = {"train": train, "val": val, "test": test}
        for name, rows in parts.items() if groups is None else ():
            if absent := set(classes.tolist()) - set(np.unique(labels[rows]).tolist()):
                few = absent.pop()
                raise UserError(
                    f"class {names[few]} has {(labels == few).sum()} rows: too few for some in {name} too{RARE}"
                )
        return parts


def check(parts: dict[str, np.ndarray], labels: np.ndarray, classes: list[str]) -> None:
    """Raises UserError for a part without rows, training rows of one class, or a class that they lack."""
    for name, rows in parts.items():
        if not len(rows):
            raise UserError(f"the split leaves no {name} rows: change data.split")
    learned = set(np.unique(labels[parts["train"]]).tolist())
    if len(learned) < 2:
        raise UserError(f"the training rows hold one class, {classes[learned.pop()]}: at least 2 are needed")
    for name in ("val", "test"):
        if strange := set(np.unique(labels[parts[name]]).tolist()) - learned:
            raise UserError(f"class {classes[strange.pop()]} is among the {name} rows and not among the training rows")


def suitable_batch(num_rows: int) -> int:
    """Rows of a mini-batch: a power of two from 32 to 1024, about a 32nd of few rows and the square root of many."""
    wanted = max(32, min(num_rows / 32, 256), min(num_rows**0.5, 1024))
    return 2 ** math.ceil(math.log2(wanted))


def one_fold(parts: dict[str, np.ndarray], number: int = 0) -> dict[str, np.ndarray]:
    """Of the parts of `folds`, those of a member: its fold validates, the others train."""
    val = parts[f"fold{number}"]
    return {"train": np.setdiff1d(parts["train"], val), "val": val, "test": parts["test"]}
