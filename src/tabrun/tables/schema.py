"""Schema: what the training rows say about how to read a table; frozen, comparable, plain values only."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor

from tabrun.cli.errors import UserError
from tabrun.reading.formats import NAMES
from tabrun.reading.values import RowError, as_class, known, numbered, polars_type, typed
from tabrun.tables.columns import FIRST_CODE, UNSEEN, Category, Columns, Number, features
from tabrun.tables.plain import fits

log = logging.getLogger(__name__)

Rows = Tensor | tuple[Tensor, Tensor]  # numbers (rows, numbers), and with categories also codes (rows, categories)
SLICE_ROWS = 2**14  # filled column by column, a slice of the table stays in the cache


@dataclass(frozen=True)
class Schema:
    """How to turn a table into tensors, and its classes.

    target: a column of classes, or several columns that hold a probability for each class.
    class_counts: the training rows of each class (with several columns, their sums).
    """

    target: str | tuple[str, ...]
    classes: tuple[str, ...]
    class_counts: tuple[float, ...]
    numbers: tuple[Number, ...]
    categories: tuple[Category, ...] = ()
    target_kind: str = "String"  # of polars
    formats: tuple[tuple[str, str], ...] = ()  # of columns of text, and how they are written

    @classmethod
    def fit(
        cls, frame: pl.DataFrame, target: str | Sequence[str], rows: np.ndarray, columns: Columns,
        unused: Iterable[str], formats: Mapping[str, str] | None = None,
    ) -> Schema:  # fmt: skip
        """Learns from the training rows alone, a column at a time; `unused` columns are no features.

        formats: those by which the columns of text were read.
        """
        targets = [target] if isinstance(target, str) else list(target)
        for key in ("ignore", "numbers", "categories", "formats"):
            known(frame, getattr(columns, key) or (), f": data.columns.{key} names it")
        made: list[Number | Category] = []
        left_out: dict[str, list[str]] = {}
        for name in frame.columns:
            if name not in {*targets, *columns.ignore, *unused}:
                with numbered(rows):
                    found = features(frame[name].gather(rows), columns)
                if isinstance(found, str):
                    left_out.setdefault(found, []).append(name)
                else:
                    made += found
        for reason, names in left_out.items():
            log.warning("left out, as the training rows hold %s there: %s", reason, ", ".join(names))
        if not made:
            raise UserError("every feature column is constant or left out: there is nothing to learn from")
        if isinstance(target, str):
            counted = frame[target].alias("value").gather(rows).value_counts().sort("value")
            classes, counts = [as_class(value) for value in counted["value"]], counted["count"].to_list()
        else:
            classes, counts = targets, [float(frame[name].gather(rows).sum()) for name in targets]
        named = target if isinstance(target, str) else tuple(target)
        kind = str(frame[targets[0]].dtype.base_type())
        kind = kind if kind not in ("Categorical", "Enum") else "String"
        numbers = tuple(feature for feature in made if isinstance(feature, Number))
        categories = tuple(feature for feature in made if isinstance(feature, Category))
        return cls(named, tuple(classes), tuple(counts), numbers, categories, kind, tuple((formats or {}).items()))

    def with_positive(self, name: str) -> Schema:
        """The same with this class as the second of two, which a threshold is for; UserError where it is none."""
        if len(self.classes) != 2 or name not in self.classes:
            raise UserError(f"data.positive={name} is not one of two classes: there are {', '.join(self.classes)}")
        if name == self.classes[1]:
            return self
        return replace(self, classes=self.classes[::-1], class_counts=self.class_counts[::-1])

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def features(self) -> list[Number | Category]:
        return [*self.numbers, *self.categories]

    @property
    def feature_names(self) -> list[str]:
        """The columns that are read, each once."""
        return list(dict.fromkeys(feature.name for feature in self.features))

    @property
    def kinds(self) -> dict[str, Any]:
        """The polars type in which a file without types is searched for each of these columns; categories as text."""
        kinds = {c.name: polars_type(c.kind) if c.part else pl.String() for c in self.categories}
        kinds |= {n.name: polars_type(n.kind) for n in self.numbers}
        return kinds | {n.name: pl.Float32() for n in self.numbers if n.kind == "Float64" and not n.offset}

    def rows(self, frame: pl.DataFrame) -> Rows:
        """The net's input."""
        return self.encoded(len(frame), frame.iter_slices(SLICE_ROWS) if len(frame) else [frame])

    def encoded(self, num_rows: int, parts: Iterable[pl.DataFrame]) -> Rows:
        """The same, of a table that comes in parts, of which the caller need not keep one until the next is encoded."""
        most = FIRST_CODE + max((len(category.values) for category in self.categories), default=0)
        smallest = np.uint8 if most < 2**8 else np.int16 if most < 2**15 else np.int32
        numbers = np.empty((num_rows, len(self.numbers)), np.float32)
        codes = np.empty((num_rows, len(self.categories)), smallest)
        start = 0
        for part in parts:
            known(part, self.feature_names, ": the classifier was trained with it")
            here = slice(start, start := start + len(part))
            with numbered(range(here.start, start)):
                for i, number in enumerate(self.numbers):
                    numbers[here, i] = number.read(typed(part[number.name], number.kind))
                for i, category in enumerate(self.categories):
                    codes[here, i] = category.read(
                        typed(part[category.name], category.kind if category.part else "String")
                    )
        return (torch.from_numpy(numbers), torch.from_numpy(codes)) if self.categories else torch.from_numpy(numbers)

    def unseen(self, frame: pl.DataFrame, rows: Rows) -> dict[str, int]:
        """How many values of each category, of these rows of this frame, training never saw."""
        counts = (rows[1] == UNSEEN).sum(0).tolist() if isinstance(rows, tuple) else []
        empty = [0 if c.has_missing else frame[c.name].null_count() for c in self.categories]
        return {c.label: n - gone for c, n, gone in zip(self.categories, counts, empty, strict=True)}

    def labels(self, frame: pl.DataFrame) -> Tensor:
        """Class indices, (rows,), or with several target columns probabilities, (rows, classes)."""
        if not isinstance(self.target, str):
            return torch.from_numpy(frame.select(self.target).cast(pl.Float32).to_numpy(order="c", writable=True))
        column, classes = frame[self.target], {name: i for i, name in enumerate(self.classes)}
        codes = {value: classes.get(as_class(value)) for value in column.unique()}
        labels = column.replace_strict(codes, return_dtype=pl.Int64)
        if labels.null_count():
            row = labels.is_null().arg_max() or 0
            what = f"the training rows have no class {as_class(column[row])}, only {', '.join(self.classes)}"
            raise RowError(self.target, row, what)
        return labels.to_torch()

    def balanced_weights(self) -> list[float]:
        """One weight a class, rows / (classes * rows of the class), as in scikit-learn's class_weight='balanced'."""
        if 0 in self.class_counts:
            raise UserError("loss.class_weights=balanced: a class has no training rows")
        return [sum(self.class_counts) / (self.num_classes * count) for count in self.class_counts]

    def plain(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_plain(cls, values: dict[str, Any]) -> Schema:
        """The Schema that `plain` was called on; UserError for values that are of none."""
        values = {"formats": (), **values}  # which older ones lack
        if not fits(values, cls) or not values["class_counts"]:
            raise UserError("its schema has other fields, or of other types")
        numbers = tuple(Number(**number) for number in values["numbers"])
        categories = tuple(Category(**{**c, "values": tuple(c["values"])}) for c in values["categories"])
        target = values["target"] if isinstance(values["target"], str) else tuple(values["target"])
        counts = tuple(values["class_counts"])
        features: list[Number | Category] = [*numbers, *categories]
        names = [values["classes"], [feature.label for feature in features], *(c.values for c in categories)]
        sizes = [*counts, *(number.std for number in numbers)]
        if not all(map(math.isfinite, [*sizes, *(n.mean for n in numbers), *(n.offset for n in numbers)])):
            raise UserError("its schema holds a number that is not finite")
        few = len(counts) != len(names[0]) or len(counts) < 2 or not features
        if few or min(sizes) < 0 or any(len(set(texts)) < len(texts) for texts in names):
            raise UserError("its schema holds a name twice, a negative size, or too few classes, counts or columns")
        for kind in (values["target_kind"], *(feature.kind for feature in features)):
            polars_type(kind)
        formats = tuple((name, format) for name, format in values["formats"])
        if strange := [format for _, format in formats if format not in NAMES]:
            raise UserError(f"its schema holds {strange[0][:80]!r}, which is no format")
        return cls(target, tuple(values["classes"]), counts, numbers, categories, values["target_kind"], formats)


def take(rows: Rows, index: Tensor) -> Rows:
    """These rows; index_select copies whole rows, five times as fast as rows[index]."""
    if isinstance(rows, tuple):
        return rows[0].index_select(0, index), rows[1].index_select(0, index)
    return rows.index_select(0, index)
