"""Values: a column's values as dates, numbers, texts or names of classes, and in which row one is wrong."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import date, datetime
from typing import Any

import numpy as np
import polars as pl

from tabrun.cli.errors import UserError

log = logging.getLogger(__name__)

OFFSET_FROM = 1000  # standard deviations between 0 and the mean, above which float32 would lose digits


HEADER = "the header stands here again: leave this row out"


class RowError(UserError):
    """What is wrong in a row, counted from 0; whoever took that row from a longer table says where (`numbered`)."""

    def __init__(self, column: str, row: Any, what: str) -> None:
        super().__init__(column, row, what)  # all of them, as pickle makes it again from these
        self.column, self.row = column, int(row)

    def __str__(self) -> str:
        return f"{f'column {self.column}, ' if self.column else ''}row {self.row + 1}: {self.args[2]}"


@contextmanager
def numbered(rows: Sequence[int] | np.ndarray) -> Iterator[None]:
    """Within it, row i of a RowError is row rows[i] of the table that the rows were taken from."""
    try:
        yield
    except RowError as error:
        error.row = int(rows[error.row])
        raise


def check_rows(column: pl.Series, wrong: pl.Series | np.ndarray, what: str) -> None:
    """Raises RowError with the first value that is `wrong`, (rows,), and what is wrong with it."""
    if wrong.any():
        row = int(pl.Series(wrong).arg_max() or 0)
        if column[row] == column.name:
            raise RowError(column.name, row, HEADER)
        raise RowError(column.name, row, f"{column[row]!r}{what}")


def check_kind(column: pl.Series, todo: str) -> None:
    """Raises UserError for a column of lists, bytes, durations and the like, of which nothing is made."""
    if column.dtype.is_nested() or column.dtype in (pl.Binary, pl.Duration, pl.Time, pl.Object):
        raise UserError(f"column {column.name} holds {column.dtype}: {todo}")


def typed(column: pl.Series, kind: str) -> pl.Series:
    """Texts as the dates or booleans that training saw."""
    check_kind(column, f"training saw {kind}")
    if column.dtype != pl.String or kind not in ("Date", "Datetime", "Boolean"):
        return column
    found = read_as(column, polars_type(kind))
    check_rows(column, found.is_null() & column.is_not_null(), f" is not a {kind.lower()}")
    return found


def read_as(text: pl.Series, kind: Any) -> pl.Series:
    """Texts as values of this polars type, null where they are none."""
    if kind == pl.Boolean:
        return text.str.to_lowercase().replace_strict({"true": True, "false": False}, default=None)
    try:
        return text.str.to_datetime(strict=False) if kind in (pl.Date, pl.Datetime) else text.cast(kind, strict=False)
    except pl.exceptions.ComputeError:  # none is a date
        return pl.Series(text.name, [None] * len(text), kind)


def as_float64(column: pl.Series) -> np.ndarray:
    """A new array; dates are seconds since 1970, missing values NaN. UserError: a text that is no number."""
    if column.dtype in (pl.Date, pl.Datetime):
        return column.cast(pl.Datetime("us")).dt.timestamp("us").cast(pl.Float64).to_numpy(writable=True) / 1e6
    try:
        values = column.cast(pl.Float64, strict=False)
    except pl.exceptions.PolarsError:
        raise UserError(f"column {column.name} holds {column.dtype}, not numbers") from None
    if values.null_count() > column.null_count():
        check_rows(column, values.is_null() & column.is_not_null(), " is not a number")
    return values.to_numpy(writable=True)


def polars_type(name: str) -> Any:
    """The polars type of this name; UserError for another name, as a checkpoint may say what it likes."""
    found = getattr(pl, name, None)
    plain = (pl.String, pl.Boolean, pl.Date, pl.Datetime, pl.Time, pl.Duration, pl.Null)
    if not isinstance(found, type(pl.String)) or not (found in plain or found.is_numeric()):
        raise UserError(f"{name[:80]!r} is no type of polars")
    return found()


def as_text(column: pl.Series, part: str | None) -> pl.Series:
    """Text, "" where a value is missing; `part` of a date, such as its month, as a number in text."""
    if part is not None:
        column = getattr(column.cast(pl.Datetime("us")).dt, part)()
    if column.dtype.is_float():
        column = column.fill_nan(None)
    return column.cast(pl.String).fill_null("")


def plain(text: pl.Series) -> pl.Series:
    """One text for what is the same in another type: 7 for 7.0 and 007, true for True."""
    lower = text.str.to_lowercase()
    whole = text.str.replace(r"^\+?(-?)0*([0-9]+)(\.0*)?$", "${1}${2}")
    return whole.zip_with(~lower.is_in(["true", "false"]), lower)


def of_kind(classes: Sequence[str], kind: str) -> np.ndarray:
    """What a column of this kind held that these names (`as_class`) were made of, (classes,)."""
    reads: Any = {"Boolean": "true".__eq__, "Date": date.fromisoformat, "Datetime": datetime.fromisoformat}
    read = reads.get(kind, int if "Int" in kind else float if "Float" in kind else str)
    native = {"Boolean": "bool", "Int128": "object"}.get(kind, kind.lower() if read in (int, float) else "object")
    return np.array([read(name) for name in classes], dtype=native)


def as_class(value: Any) -> str:
    """The name of a class: 1.0 is 1, and True is true as in a file."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value)


def known(frame: pl.DataFrame, names: Iterable[str], why: str = "") -> None:
    """Raises UserError for a column that the table does not have; `why` it is looked for."""
    for name in names:
        if name not in frame.columns:
            close = difflib.get_close_matches(name, frame.columns, 1)
            hint = f" (did you mean {close[0]!r}?)" if close else ""  # quoted, as it may hold spaces
            there = f"there are {', '.join(frame.columns[:20])}"
            if len(frame.columns) == 1 and not frame.columns[0].isidentifier():
                there = f"there is one, {frame.columns[0]!r}: if it is several, say data.read.separator"
            raise UserError(f"there is no column {name}{why}{hint}: {there}")


def alike(names: Iterable[str], wanted: Iterable[str]) -> dict[str, str]:
    """Names of columns that are wanted but for case and blanks, and how they are wanted; said."""
    there, found = list(names), {}
    for want in wanted:
        close = [name for name in there if bare(name) == bare(want)] if want not in there else []
        if len(close) == 1:
            found[close[0]] = want
    if found:
        log.info("taken for the same: %s", ", ".join(f"{name!r} and {want!r}" for name, want in found.items()))
    return found


def bare(name: str) -> str:
    return "".join(name.lower().split())


def columns_of(names: Any) -> list[str]:
    """A list of column names, from one, several or None."""
    return [] if names is None else [str(name) for name in (names if isinstance(names, list | tuple) else [names])]


def aligned(lines: Iterable[Iterable[Any]]) -> str:
    """Lines of cells as columns of text; floats with four decimals, - for None."""
    cells = [["-" if c is None else f"{c:.4f}" if isinstance(c, float) else str(c) for c in line] for line in lines]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join("  ".join(map(str.rjust, line, widths)) for line in cells)
