"""CSV: rows block by block, in bounded memory."""

from __future__ import annotations

import io
import logging
import math
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import polars as pl

from tabrun.cli.errors import UserError
from tabrun.reading.csv_faults import Dialect, dialect, explain_quotes, explain_rows, first_record, mended
from tabrun.reading.files import opened, readable
from tabrun.reading.formats import CODE
from tabrun.reading.values import OFFSET_FROM, alike, numbered

log = logging.getLogger(__name__)

BLOCK_BYTES = 2**23


def csv_batches(
    path: str, kinds: Mapping[str, Any], separator: str | None, null_values: Sequence[str], head: int,
    verbatim: Sequence[str], header: bool | None, encoding: str | None,
) -> Iterator[pl.DataFrame]:  # fmt: skip
    """Reads block by block: polars alone keeps half of the file in memory while it reads it.

    The words are those of `Table`.
    """
    found = told_dialect(path, separator, header, encoding, say=head > 0)
    same = alike(found.names, kinds)
    names, separator, start = [same.get(name, name) for name in found.names], found.separator, 0
    given = {name: kinds[name] or pl.String() for name in names if name in kinds}
    unread = [pl.lit(None).alias(name) for name in given if kinds[name] is None]
    types = dict.fromkeys(names, pl.String()) | given
    options: dict[str, Any] = {"separator": separator, "null_values": texts_of(null_values), "has_header": False}
    read = partial(read_block, options, [i for i, name in enumerate(names) if name in verbatim])
    for block in ahead(blocks(path, encoding, found.header)):
        with numbered(range(start, sys.maxsize)):
            try:
                if head and not start:
                    told = {"new_columns": names, "infer_schema_length": head, **options}
                    types = dict(pl.scan_csv(io.BytesIO(block), **told).collect_schema()) | given
                    types = narrowed(types, partial(read, block), head, given)
                frame = read(block, types)
                if wide := [c.name for c in frame.select(pl.col(pl.Float32).abs().max()) if c[0] == math.inf]:
                    types |= dict.fromkeys(wide, pl.Float64())
                    frame = read(block, types)
            except pl.exceptions.PolarsError:
                explain_rows(block, separator, names)
                try:
                    types |= mended(read(block, dict.fromkeys(names, pl.String)), types, given)
                    frame = read(block, types)
                except pl.exceptions.PolarsError as error:
                    explain_quotes(block, error)
            if frame[:, -1].null_count():  # polars fills short rows, and blank lines, with missing values
                explain_rows(block, separator, names)
                frame = frame.filter(~pl.all_horizontal(pl.all().is_null()))
        start += len(frame)
        if len(frame):
            yield frame.with_columns(unread)


def told_dialect(path: str, separator: str | None, header: bool | None, encoding: str | None, say: bool) -> Dialect:
    with opened(path, encoding) as file, readable(path, encoding):
        found = dialect(path, file, separator and one_byte(separator), header)
    if say and not separator and found.separator != ",":
        log.info("%s: its fields are separated by %r (else say data.read.separator)", path, found.separator)
    return found


def narrowed(
    types: dict[str, Any], read: Callable[[Mapping[str, Any]], pl.DataFrame], head: int, given: Collection[str]
) -> dict[str, Any]:
    """The inferred types, but text for codes, and float32 where it is enough; read: gives the block by such types."""
    texts = read(dict.fromkeys(types, pl.String())).head(head)
    types = types | dict.fromkeys(codes(texts, types), pl.String())
    return types | dict.fromkeys(near_zero(read(types), without=given), pl.Float32())


def read_block(options: dict[str, Any], verbatim: list[int], block: bytes, types: Mapping[str, Any]) -> pl.DataFrame:
    """verbatim: numbers of columns in which null_values are texts like any other."""
    frame = pl.read_csv(block, schema=types, **options)
    if verbatim:
        without = {**options, "null_values": []}
        frame = frame.with_columns(pl.read_csv(block, schema=types, columns=verbatim, **without))
    return frame


def texts_of(values: Sequence[Any]) -> list[str]:
    """How these may stand in a file: a number such as -999 also as -999.0."""
    numbers = [value for value in values if not isinstance(value, str)]
    for value in numbers:
        if not (type(value) in (int, float) and math.isfinite(value)):
            raise UserError(f"data.read.null_values: {value} is neither text nor a number")
    whole = [str(int(value)) for value in numbers if value == int(value)]
    return [*dict.fromkeys([*map(str, values), *whole, *(str(float(value)) for value in numbers)])]


def one_byte(separator: str) -> str:
    separator = {"\\t": "\t", "tab": "\t"}.get(separator, separator)
    if len(separator.encode()) != 1:
        raise UserError(f"data.read.separator={separator!r} is not one character, or tab")
    return separator


def ahead(items: Iterator[bytes]) -> Iterator[bytes]:
    """The same items, the next one being made while one is used."""
    with ThreadPoolExecutor(1) as maker:
        coming = maker.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = maker.submit(next, items, None)
            yield item


def codes(texts: pl.DataFrame, types: Mapping[str, Any]) -> list[str]:
    """The columns of whole numbers that are none, as some begin with 0."""
    return [c.name for c in texts if types[c.name].is_integer() and c.str.contains(CODE).any()]


def near_zero(frame: pl.DataFrame, without: Iterable[str]) -> list[str]:
    """The Float64 columns for which float32 is enough: they are not far from zero, for their spread.

    Told from the middle tenth of the rows, so that outliers, in test rows say, have no part in it.
    """
    numbers = {c.name: c.filter(c.is_finite()) for c in frame if c.dtype == pl.Float64 and c.name not in without}
    found = []
    for name, c in numbers.items():
        low, middle, high = (c.quantile(q) or 0.0 for q in (0.45, 0.5, 0.55))
        if abs(middle) <= OFFSET_FROM / 10 * (high - low):
            found.append(name)
    return found


def blocks(path: str, encoding: str | None, header: bool) -> Iterator[bytes]:
    """The bytes below the header, cut where a row ends."""
    with opened(path, encoding) as file, readable(path, encoding):
        if header:
            first_record(file)
        while block := file.read(BLOCK_BYTES):
            if not (block := block + first_record(file, block)).isspace():
                yield block
