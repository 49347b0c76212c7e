"""Schema: what the training rows say about how to read a table; frozen, comparable, plain values only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import polars as pl
import torch
from torch import Tensor


@dataclass(frozen=True)
class Number:
    """A column of numbers, and the mean and standard deviation of its training rows."""

    name: str
    mean: float
    std: float


@dataclass(frozen=True)
class Schema:
    """How to turn a table into tensors: its number columns, its target column and the classes in it."""

    target: str
    classes: tuple[str, ...]
    class_counts: tuple[int, ...]  # training rows of each class
    numbers: tuple[Number, ...]

    @classmethod
    def fit(cls, training_rows: pl.DataFrame, target: str) -> Schema:
        """Learns from training rows only; columns that hold one value there are left out."""
        counts = training_rows[target].value_counts().sort(target)
        numbers = []
        for column in training_rows.drop(target).iter_columns():
            if not (column.dtype.is_numeric() or column.dtype == pl.Boolean):
                raise ValueError(f"column {column.name} holds {column.dtype}, not numbers")
            values = column.cast(pl.Float64)
            mean, std = values.mean(), values.std(ddof=0)
            if std:
                numbers.append(Number(column.name, mean, std))  # type: ignore[arg-type]
        if len(counts) < 2:
            raise ValueError(f"the training rows hold {len(counts)} class in column {target}: at least 2 are needed")
        if not numbers:
            raise ValueError("every feature column is constant in the training rows: there is nothing to learn from")
        classes = tuple(str(value) for value in counts[target])
        return cls(target, classes, tuple(counts["count"]), tuple(numbers))

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    def rows(self, frame: pl.DataFrame) -> Tensor:
        """The net's input, (rows, numbers) in float32."""
        columns = frame.select(pl.col(number.name).cast(pl.Float32) for number in self.numbers)
        return torch.from_numpy(columns.to_numpy(order="c", writable=True))  # row by row, as batches are gathered

    def labels(self, frame: pl.DataFrame) -> Tensor:
        """Class indices, (rows,)."""
        codes = {name: code for code, name in enumerate(self.classes)}
        return frame[self.target].cast(pl.String).replace_strict(codes, return_dtype=pl.Int64).to_torch()

    def balanced_weights(self) -> list[float]:
        """One weight a class, rows / (classes * rows of the class), as in scikit-learn's class_weight='balanced'."""
        return [sum(self.class_counts) / (self.num_classes * count) for count in self.class_counts]

    def plain(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_plain(cls, values: dict[str, Any]) -> Schema:
        """The Schema that `plain` was called on; lists are taken where tuples were."""

        def names(key: str) -> Sequence[Any]:
            return tuple(values[key])

        numbers = tuple(Number(**number) for number in values["numbers"])
        return cls(values["target"], tuple(names("classes")), tuple(names("class_counts")), numbers)
