"""CSV: rows block by block, in bounded memory."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import polars as pl

from tabrun.cli.errors import UserError
from tabrun.tables.columns import OFFSET_FROM
from tabrun.tables.csv_faults import explain_rows, first_record, header, mended, open_quote

BLOCK_BYTES = 2**23


def csv_batches(
    path: str, kinds: Mapping[str, Any], separator: str, null_values: Sequence[str], head: int = 0, verbatim: Any = ()
) -> Iterator[pl.DataFrame]:
    """Reads block by block: polars alone keeps half of the file in memory while it reads it.

    kinds: polars types of columns; None: the column is not needed, and comes empty.
    head: infer from so many rows the kinds that `kinds` does not say; without it they are text.
    verbatim: columns of text in which null_values are texts like any other.
    """
    names, first_row = header(path, separator := one_byte(separator)), 1
    given = {name: kinds[name] or pl.String() for name in names if name in kinds}
    unread = [pl.lit(None).alias(name) for name in given if kinds[name] is None]
    types = {name: given.get(name, pl.String()) for name in names}
    own = [i for i, name in enumerate(names) if name in verbatim]
    options: dict[str, Any] = {"separator": separator, "null_values": list(null_values), "has_header": False}
    read = partial(read_block, options, own)
    for block in ahead(blocks(path)):
        try:
            if first_row == 1 and head:
                told = {"new_columns": names, "infer_schema_length": head, "try_parse_dates": True, **options}
                types = dict(pl.scan_csv(io.BytesIO(block), **told).collect_schema()) | given
                types |= dict.fromkeys(near_zero(read(block, types), without=given), pl.Float32())
            frame = read(block, types)
            if wide := [c.name for c in frame.select(pl.col(pl.Float32).is_infinite().any()) if c[0]]:
                types |= dict.fromkeys(wide, pl.Float64())
                frame = read(block, types)
        except pl.exceptions.PolarsError as error:
            explain_rows(path, block, separator, len(names), first_row)
            try:
                types |= mended(read(block, dict.fromkeys(names, pl.String)), types, given, path, first_row)
                frame = read(block, types)
            except pl.exceptions.PolarsError:
                raise UserError(f"{path}{open_quote(block, first_row)}: {str(error).splitlines()[0]}") from error
        if frame[:, -1].null_count():  # polars fills short rows with missing values
            explain_rows(path, block, separator, len(names), first_row)
            frame = frame.filter(~pl.all_horizontal(pl.all().is_null()))  # blank lines
        first_row += len(frame)
        if len(frame):
            yield frame.with_columns(unread)


def read_block(options: dict[str, Any], verbatim: list[int], block: bytes, types: Mapping[str, Any]) -> pl.DataFrame:
    """verbatim: numbers of columns in which null_values are texts like any other."""
    frame = pl.read_csv(block, schema=types, **options)
    if verbatim:
        without = {**options, "null_values": []}
        frame = frame.with_columns(pl.read_csv(block, schema=types, columns=verbatim, **without))
    return frame


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


def blocks(path: str) -> Iterator[bytes]:
    """The bytes below the header, cut where a row ends."""
    with open(path, "rb") as file:
        first_record(file)
        size = BLOCK_BYTES
        while block := file.read(size):
            if len(block) < size:  # the last one
                if block.strip():
                    yield block
                return
            if end := rows_end(block):
                yield block[:end]
            file.seek(end - size, os.SEEK_CUR)  # what is left is read again, as to join it would copy the whole block
            size = BLOCK_BYTES if end else 2 * size


def rows_end(block: bytes) -> int:
    """Where the last whole row ends: behind a line's end outside of quotes."""
    end = block.rfind(b"\n") + 1
    if block.count(b'"', 0, end) % 2:  # that line's end is inside a field
        signs = np.frombuffer(block, np.uint8)
        outside = (signs == ord("\n")) & (np.cumsum(signs == ord('"')) % 2 == 0)
        end = int(np.flatnonzero(outside)[-1]) + 1 if outside.any() else 0
    return end
