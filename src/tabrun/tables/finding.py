"""Finding: what is noticed of a table, and what is of one column by itself."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from tabrun.tables.columns import Category, Number

SENTINEL = re.compile(r"-?9{2,}(\.0)?|-1(\.0)?|-?9{2,}8(\.0)?")
MOST_CODES = 20


@dataclass(frozen=True)
class Finding:
    """column: its name, or "" of the whole table. what: in words, with the key to act by. number: what was measured."""

    column: str
    what: str
    number: float

    def __str__(self) -> str:
        return f"{f'column {self.column}: ' if self.column else ''}{self.what}"


def of_column(column: pl.Series, feature: Number | Category | None, labels: np.ndarray) -> Iterator[Finding]:
    """What one column shows by itself; labels: class indices of its rows, (rows,)."""
    name, size = column.name, len(column)
    missing, of = column.null_count() / size, f"of {size:,} training rows"
    if missing > 0.95:
        yield Finding(name, f"missing in {missing:.1%} {of}: data.columns.ignore=[{name}] leaves it out", missing)
        return
    if feature is None:
        return
    values = column.drop_nulls()
    top, count = next(values.alias("value").value_counts(sort=True).iter_rows())
    if count > 0.99 * len(values):
        yield Finding(name, f"{top} in {count / size:.2%} {of}", count / size)
        return
    if not isinstance(feature, Number) or not column.dtype.is_numeric():
        return
    if column.dtype.is_integer():
        if values.n_unique() == len(values) > 50:
            what = f"another whole number in each {of}: an id? data.id={name} carries it along"
            yield Finding(name, what, 1.0)
        yield from codes(values, labels[column.is_not_null().to_numpy()])
    yield from sentinels(values, of, size)


def sentinels(values: pl.Series, of: str, size: int) -> Iterator[Finding]:
    """The least or the most value, if it is one such as -999, is repeated and far from the others."""
    ends: Any = (values.min(), values.max())
    for value in ends:
        rest = values.filter(values != value)
        if not len(rest) or not SENTINEL.fullmatch(str(value)):
            continue
        low, high = float(rest.min()), float(rest.max())  # type: ignore[arg-type]
        often, gap = (len(values) - len(rest)) / size, max(low - value, value - high)
        if often >= 0.005 and (low >= 0 and rest.n_unique() > 10 if value == -1 else gap > high - low):
            what = f"{int(value)} in {often:.1%} {of}, where the others are from {low:g} to {high:g}: of a CSV file, "
            yield Finding(values.name, f"{what}data.read.null_values=[{int(value)}] has it missing", often)


def codes(values: pl.Series, labels: np.ndarray) -> Iterator[Finding]:
    """A few whole numbers, repeated, whose order says little of the classes and each of which says more.

    Shares of the variance of the classes' indicators: between the values, and along a line, with an F test of what the
    line lacks.
    """
    numbers, which, counts = np.unique(values.to_numpy(), return_inverse=True, return_counts=True)
    if not 3 <= len(numbers) <= MOST_CODES or len(which) < 20 * len(numbers):
        return
    from scipy.special import fdtrc

    classes = np.eye(labels.max() + 1)[labels]
    classes -= classes.mean(0)
    sums = np.zeros((len(numbers), classes.shape[1]))
    np.add.at(sums, which, classes)
    centred = numbers[which] - numbers[which].mean()
    total = (classes**2).sum()
    if not total:  # all of one class
        return
    each = float((sums**2 / counts[:, None]).sum() / total)
    line = float(((centred @ classes) ** 2).sum() / (centred @ centred) / total)
    own, rest = len(numbers) - 2, len(which) - len(numbers)
    left = max(1 - each, 1e-9)  # 0 where they tell the class
    if each < max(0.02, 2 * line) or fdtrc(own, rest, (each - line) / own / (left / rest)) > 0.001:
        return
    what = f"{len(numbers)} whole numbers, each of which says more of the classes ({each:.1%} of their variance) than "
    todo = f"their order does ({line:.1%}): if they are codes, data.columns.categories=[{values.name}]"
    yield Finding(values.name, what + todo, each)
