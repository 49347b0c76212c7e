"""Target: the column of classes, or the columns that hold a probability for each class; and a weight for each row."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl
import torch

from tabrun.cli.errors import UserError
from tabrun.reading.values import RowError, as_class, as_float64, check_kind, check_rows, columns_of, known, numbered

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Wanted:
    """What is to be made of the target's values.

    rare_classes: merge or drop those of fewer than rare_below rows. bins: as many classes of equal size of a target of
    numbers.
    """

    rare_classes: str | None = None
    rare_below: int = 10
    bins: int | None = None

    def settle(self, column: pl.Series, known: Sequence[str]) -> pl.Series:
        """The classes, null in rows that are to be left out; known: those of a finished run, of another table."""
        if self.bins:
            column = binned(column, self.bins, known)
        if not self.rare_classes:
            return column
        counts = column.alias("value").value_counts()
        rare = [v for v, n in counts.iter_rows() if (as_class(v) not in known if known else n < self.rare_below)]
        if not rare:
            return column
        todo = "merged as 'rare'" if self.rare_classes == "merge" else "left out"
        log.warning("%s: %s", todo, ", ".join(f"class {as_class(value)}" for value in sorted(rare, key=str)))
        if self.rare_classes == "drop":
            return column.replace(dict.fromkeys(rare))
        names = {value: "rare" if value in rare else as_class(value) for value in counts["value"]}
        return column.replace_strict(names, return_dtype=pl.String)


def binned(column: pl.Series, bins: int, known: Sequence[str]) -> pl.Series:
    """Numbers as classes such as "2.5 to 7.0", of equal size, or with the edges of those that are known."""
    if column.dtype == pl.String:
        wrong = column.cast(pl.Float64, strict=False).is_null()
        check_rows(column, wrong, f" is not a number, which data.bins={bins} needs")
    elif not column.dtype.is_numeric():
        raise UserError(f"column {column.name} holds {column.dtype}: data.bins={bins} needs numbers")
    values = as_float64(column)
    ends = [float(name.split("to ")[-1]) for name in known if "to " in name]
    edges = np.array(sorted(ends)) if ends else np.unique(np.quantile(values, np.linspace(0, 1, bins + 1)[1:-1]))
    if not known and len(np.unique(values)) < bins:
        raise UserError(f"column {column.name} holds {len(np.unique(values))} values: data.bins={bins} are too many")
    edges = np.unique([float(f"{edge:.6g}") for edge in edges])
    names = [f"up to {edges[0]}", *(f"{a} to {b}" for a, b in pairwise(edges)), f"above {edges[-1]}"]
    found = pl.Series(column.name, np.array(names)[np.searchsorted(edges, values)])
    if not known and found.n_unique() < bins:
        log.warning("data.bins=%d make %d classes, as many rows share a value", bins, found.n_unique())
    return found


def with_target(
    frame: pl.DataFrame, target: str | Sequence[str], drop_missing: bool, wanted: Wanted, classes: Sequence[str] = ()
) -> tuple[pl.DataFrame, Sequence[int] | np.ndarray]:
    """The rows that have a target, and where they stood; UserError when some have none and are not to be left out.

    classes: of the finished run whose table, or another one, this is.
    """
    targets = columns_of(target)
    known(frame, targets, ": data.target names it")
    for name, kind in frame.select(targets).schema.items():
        check_kind(frame[name], "a target is text, numbers, booleans or dates")
        if kind.is_float() or kind.is_decimal():
            exact = pl.col(name).cast(pl.String) if kind == pl.Float32 else pl.col(name)  # 0.1, not 0.10000000149
            frame = frame.with_columns(exact.cast(pl.Float64).fill_nan(None))
    empty = frame.select(pl.any_horizontal(pl.col(targets).is_null()).alias("empty"))["empty"]
    rows: Sequence[int] | np.ndarray = range(len(frame))
    if empty.any():
        if not drop_missing:
            what = f"the target is missing in {empty.sum()} rows; data.drop_missing_target=true leaves them out"
            raise RowError(targets[0], empty.arg_max(), what)
        log.warning("%d rows without a target are left out", empty.sum())
        frame, rows = frame.filter(~empty), np.flatnonzero(~empty)
    if not len(frame):
        raise UserError("the table has no rows with a target")
    if isinstance(target, str) and (wanted.bins or wanted.rare_classes):
        with numbered(rows):
            column = wanted.settle(frame[target], classes)
        kept = column.is_not_null()
        frame, rows = frame.with_columns(column).filter(kept), np.asarray(rows)[kept.to_numpy()]
        if not len(frame):
            raise UserError(f"data.rare_classes=drop leaves no rows: all classes have fewer than {wanted.rare_below}")
    return frame, rows


def classes_of(frame: pl.DataFrame, target: str | Sequence[str]) -> tuple[np.ndarray, list[str]]:
    """The class of each row as a number, (rows,), and the names; of several target columns, the most probable."""
    if not isinstance(target, str):
        return probabilities(frame, target).argmax(1), list(target)
    column = frame[target]
    if column.dtype.is_float():
        check_rows(
            column,
            column != column.round(),
            ": a target is a class, not a quantity: data.bins=4 makes four classes of it",
        )
    values = column.unique().sort()
    codes = dict(zip(values, range(len(values)), strict=True))
    return column.replace_strict(codes, return_dtype=pl.Int32).to_numpy(), [as_class(value) for value in values]


def probabilities(frame: pl.DataFrame, targets: Sequence[str]) -> np.ndarray:
    """The target columns, (rows, classes); UserError at the first row that does not sum to 1."""
    shares = np.stack([as_float64(frame[name]) for name in targets], 1)
    wrong = (np.abs(shares.sum(1) - 1) > 1e-4) | (shares < 0).any(1) | ~np.isfinite(shares).all(1)
    if wrong.any():
        row = wrong.argmax()
        what = f"columns {', '.join(targets)} hold {shares[row].tolist()}, which are no probabilities that sum to 1"
        raise RowError("", row, f"{what} but to {shares[row].sum():g}")
    return shares


def weights_of(frame: pl.DataFrame, name: str | None, parts: Mapping[str, Any]) -> torch.Tensor | None:
    """The column `name` in float32, (rows,), None without a name; RowError at the first that is no weight.

    parts: row numbers by name; UserError for one in which no row counts.
    """
    if name is None:
        return None
    known(frame, [name], ": data.weight names it")
    column = frame[name]
    if column.dtype.is_temporal():
        raise UserError(f"column {name} holds {column.dtype}, not numbers")
    with np.errstate(over="ignore"):  # infinite, which is refused
        weights = as_float64(column).astype(np.float32)
    wrong = ~np.isfinite(weights) | (weights < 0)
    check_rows(column, wrong, " is no weight: data.weight needs a number of at least 0 in every row")
    for part, rows in parts.items():
        if not weights[rows].any():
            raise UserError(f"column {name}: every weight of the {part} rows is 0")
    return torch.from_numpy(weights)
