"""Columns: what a table's columns are, and how each becomes numbers or codes."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from tabrun.cli.errors import UserError
from tabrun.reading.formats import NAMES
from tabrun.reading.values import OFFSET_FROM, as_float64, as_text, check_kind, check_rows, plain

log = logging.getLogger(__name__)

UNSEEN, MISSING, FIRST_CODE = 0, 1, 2  # codes of a category; MISSING only where training rows had missing values
QUANTILES = 32  # equal shares of the training rows
DATE_PARTS = ("month", "weekday", "hour")
FLOAT32_MOST = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Columns:
    """What a person knows about a table's columns and the table does not say.

    ignore, numbers, categories: columns to leave out, to read text as numbers, to read numbers as categories.
    small_integers: integer columns of at most so many values are categories.
    date_parts: of month, weekday and hour, the ones to add for each date as categories.
    missing_indicators: for each number column with missing values, add whether it is missing.
    max_one_hot: categories of more values are embedded.
    formats: how a column's texts are written, by example: see `formats.NAMES`; text: as they are.
    """

    ignore: Sequence[str] = ()
    numbers: Sequence[str] = ()
    categories: Sequence[str] = ()
    small_integers: int = 0
    date_parts: Sequence[str] = ()
    missing_indicators: bool = False
    max_one_hot: int = 64
    formats: Mapping[str, str] | None = None

    def __post_init__(self) -> None:
        for name in ("ignore", "numbers", "categories"):  # a column may be called 1
            object.__setattr__(self, name, tuple(map(str, getattr(self, name))))
        if self.formats is not None and not isinstance(self.formats, Mapping):
            raise UserError(f"data.columns.formats={self.formats} is no group of keys, as in {{price: text}}")
        if wrong := set(self.date_parts) - set(DATE_PARTS):
            raise UserError(f"data.columns.date_parts: {wrong.pop()} is not month, weekday or hour")
        if strange := [f"{name}: {word}" for name, word in (self.formats or {}).items() if word not in NAMES]:
            raise UserError(f"data.columns.formats={{{strange[0]}}} is none of {'  '.join(NAMES)}")


@dataclass(frozen=True)
class Number:
    """A column of numbers (dates: seconds since 1970), with the mean and standard deviation of its training rows.

    offset: subtracted in float64 before the values become float32; mean is what is left of the mean after that.
    quantiles: of what is left, at QUANTILES even steps from the least to the most; () in an older schema.
    """

    name: str
    mean: float
    std: float
    offset: float = 0.0
    indicator: bool = False
    kind: str = "Float64"  # of polars
    quantiles: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "quantiles", tuple(self.quantiles))  # a list, where it was JSON
        rising = all(map(math.isfinite, self.quantiles)) and [*self.quantiles] == sorted(self.quantiles)
        if len(self.quantiles) not in (0, QUANTILES + 1) or not rising:
            raise UserError(f"{self.name[:80]!r}: its quantiles are not {QUANTILES + 1} finite numbers that rise")

    @property
    def label(self) -> str:
        """What an exported model calls it."""
        return self.name

    def read(self, column: pl.Series) -> np.ndarray:
        """The values in float32, (rows,); missing and infinite ones are NaN."""
        single = column.dtype == pl.Float32 and not self.offset
        values = column.to_numpy(writable=True) if single else as_float64(column) - self.offset
        values[np.isinf(values)] = np.nan
        if not single:
            check_rows(column, np.abs(values) > FLOAT32_MOST, " is beyond float32: rescale it")
        return values.astype(np.float32, copy=False)


@dataclass(frozen=True)
class Category:
    """A column of categories; the code of values[i] is FIRST_CODE + i. part: of a date, such as month."""

    name: str
    values: tuple[str, ...]
    has_missing: bool
    embedded: bool
    kind: str = "String"  # of polars
    part: str | None = None

    def __post_init__(self) -> None:
        if self.part not in (None, *DATE_PARTS):
            raise UserError(f"{self.name[:80]!r}: {self.part!r} is not month, weekday or hour")

    @property
    def label(self) -> str:
        """What an exported model calls it: its name, or name.part of a date."""
        return f"{self.name}.{self.part}" if self.part else self.name

    @property
    def codes(self) -> dict[str, int]:
        """Text -> code; a missing value is "", as an empty text is."""
        values = {value: FIRST_CODE + i for i, value in enumerate(self.values)}
        return values | {"": MISSING if self.has_missing else UNSEEN}

    def read(self, column: pl.Series) -> np.ndarray:
        """The codes, (rows,); a value that training saw in another type (7 as "7" or 7.0) is the same one."""
        text = as_text(column, self.part)
        codes = text.replace_strict(self.codes, default=None, return_dtype=pl.Int32)
        if codes.null_count():
            same = {value: FIRST_CODE + i for i, value in enumerate(plain(pl.Series(self.values, dtype=pl.String)))}
            codes = codes.fill_null(plain(text).replace_strict(same, default=UNSEEN, return_dtype=pl.Int32))
        return codes.to_numpy()


def features(column: pl.Series, columns: Columns) -> list[Number | Category] | str:
    """What to make of a column's training rows: a number, a category, several for a date, or why it is left out."""
    name, dtype = column.name, column.dtype
    check_kind(column, f"leave it out with data.columns.ignore=[{name}]")
    small = columns.small_integers and dtype.is_integer() and column.drop_nulls().n_unique() <= columns.small_integers
    if not dtype.is_numeric() and column.n_unique() < 2:
        return "one value"
    if dtype in (pl.Date, pl.Datetime):
        parts = [part for part in columns.date_parts if part != "hour" or dtype == pl.Datetime]
        return [number(column, columns), *(category(column, columns, part) for part in parts)]
    if name in columns.categories or small:
        return [category(column, columns)]
    if dtype.is_numeric() or dtype == pl.Boolean or name in columns.numbers:
        found = number(column, columns)
        return [found] if found.std > 0 or found.indicator else "one value"
    if column.n_unique() == len(column):
        return "another text in every row"
    return [category(column, columns)]


def number(column: pl.Series, columns: Columns) -> Number:
    values = as_float64(column)
    finite = values[np.isfinite(values)]
    mean, std = mean_and_std(finite)
    offset = mean if abs(mean) > OFFSET_FROM * std else 0.0
    if not offset and (np.abs(finite) <= FLOAT32_MOST).all():  # as they are kept, wherever they were read from
        mean, std = mean_and_std(finite.astype(np.float32).astype(np.float64))
    indicator = columns.missing_indicators and len(finite) < len(values)
    kind = column.dtype if column.dtype in (pl.Boolean, pl.Date, pl.Datetime) else pl.Float64()
    return Number(column.name, mean - offset, std, offset, indicator, str(kind.base_type()), quantiles(finite - offset))


def quantiles(values: np.ndarray) -> tuple[float, ...]:
    """As np.quantile, in a fifth of its time; zeros where there is no value."""
    if not len(values):
        return (0.0,) * (QUANTILES + 1)
    ordered = np.sort(values.clip(-FLOAT32_MOST, FLOAT32_MOST).astype(np.float32)).astype(np.float64)
    place = np.linspace(0, len(ordered) - 1, QUANTILES + 1)
    return tuple(np.interp(place, np.arange(len(ordered)), ordered).tolist())


def mean_and_std(values: np.ndarray) -> tuple[float, float]:
    if not len(values) or values.min() == values.max():
        return (float(values[0]) if len(values) else 0.0), 0.0
    with np.errstate(over="ignore"):  # such values are refused where they are read
        mean = float(values.mean())
        return mean, float((values - mean).std())


def category(column: pl.Series, columns: Columns, part: str | None = None) -> Category:
    text = as_text(column, part)
    values = tuple(value for value in text.unique().sort() if value)
    embedded = len(values) > columns.max_one_hot
    if embedded:
        log.warning("column %s is embedded: its training rows hold %d values", column.name, len(values))
    kind = pl.String() if column.dtype in (pl.Categorical, pl.Enum) else column.dtype
    return Category(column.name, values, (text == "").any(), embedded, str(kind.base_type()), part)
