"""CSV: rows block by block, in bounded memory; what is wrong with a file is said with its row and column."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, BinaryIO

import numpy as np
import polars as pl

from classify.columns import OFFSET_FROM
from classify.folder import check_file
from classify.values import reads_as

BLOCK_BYTES = 2**23
KINDS: dict[Any, str] = {
    pl.Float32: "a number",
    pl.Int64: "a number",
    pl.Float64: "a number",
    pl.Boolean: "true or false",
    pl.Date: "a date",
}


def csv_batches(
    path: str, kinds: dict[str, Any], separator: str, null_values: Sequence[str], head: int = 0, verbatim: Any = ()
) -> Iterator[pl.DataFrame]:
    """Reads block by block: polars alone keeps half of the file in memory while it reads it.

    head: infer from so many rows the kinds that `kinds` does not say.
    verbatim: columns of text in which null_values are texts like any other.
    """
    names, first_row = header(path, separator := one_byte(separator)), 1
    types = {name: kinds.get(name, pl.String) for name in names}
    own = [i for i, name in enumerate(names) if name in verbatim]
    options: dict[str, Any] = {"separator": separator, "null_values": list(null_values), "has_header": False}

    def read(block: bytes, types: Mapping[str, Any]) -> pl.DataFrame:
        frame = pl.read_csv(block, schema=types, **options)
        if own:
            frame = frame.with_columns(pl.read_csv(block, schema=types, columns=own, **{**options, "null_values": []}))
        return frame

    for block in ahead(blocks(path)):
        try:
            if first_row == 1 and head:
                infer: dict[str, Any] = {"new_columns": names, "try_parse_dates": True, "infer_schema_length": head}
                types = dict(pl.scan_csv(io.BytesIO(block), **infer, **options).collect_schema()) | kinds
                small = near_zero(read(block, types), without=kinds)
                types |= dict.fromkeys(small, pl.Float32())
            frame = read(block, types)
            if wide := [c.name for c in frame if c.dtype == pl.Float32 and c.is_infinite().any()]:
                types |= dict.fromkeys(wide, pl.Float64())
                frame = read(block, types)
        except pl.exceptions.PolarsError as error:
            explain_encoding(path)
            explain_rows(path, block, separator, len(names), first_row)
            try:
                types |= mended(read(block, dict.fromkeys(names, pl.String)), types, path, first_row)
                frame = read(block, types)
            except pl.exceptions.PolarsError:
                where = f"{path}{open_quote(block, first_row)}"
                raise ValueError(f"{where}: {str(error).splitlines()[0]}") from error
        if frame[:, -1].null_count():  # polars fills short rows with missing values
            explain_rows(path, block, separator, len(names), first_row)
            frame = frame.filter(~pl.all_horizontal(pl.all().is_null()))  # blank lines
        first_row += len(frame)
        if len(frame):
            yield frame


def one_byte(separator: str) -> str:
    separator = {"\\t": "\t", "tab": "\t"}.get(separator, separator)
    if len(separator.encode()) != 1:
        raise ValueError(f"data.read.separator={separator!r} is not one character, or tab")
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


def mended(text: pl.DataFrame, types: Mapping[str, Any], path: str, first_row: int) -> dict[str, Any]:
    """Float64 for whole numbers that turn out to be fractions; ValueError at the first value of another kind."""
    found = {}
    for column, kind in zip(text, types.values(), strict=True):
        if (wrong := column.is_not_null() & ~reads_as(column, kind)).any():
            if kind.is_integer() and (column.is_null() | reads_as(column, pl.Float64)).all():
                found[column.name] = pl.Float64()
                continue
            row = int(wrong.arg_max() or 0)
            raise ValueError(
                f"{path}: column {column.name}, row {first_row + row}: {column[row]!r} is not {KINDS.get(kind, kind)}, "
                "as the rows that its kind was told from: mend it, name it in data.read.null_values, or raise "
                "data.read.head"
            )
    return found


def header(path: str, separator: str) -> list[str]:
    """The names of a CSV file's columns; ValueError when they cannot be told apart."""
    check_file(path)
    with open(path, "rb") as file:
        line = first_record(file)
    try:
        names = next(csv.reader(io.StringIO(line.decode("utf-8-sig"), newline=""), delimiter=separator), [])
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}, header: not UTF-8 text ({error.reason}): save the file as UTF-8") from None
    if not any(names):
        raise ValueError(f"{path} is empty: its first line must name the columns")
    if twice := [name for i, name in enumerate(names) if name in names[:i]]:
        raise ValueError(f"{path} has two columns called {twice[0]!r}: give each its own name")
    return names


def first_record(file: BinaryIO) -> bytes:
    """A line, and what follows as long as a quote is open."""
    line = file.readline()
    while line.count(b'"') % 2 and (more := file.readline()):
        line += more
    return line


def blocks(path: str) -> Iterator[bytes]:
    """The bytes below the header, cut where a row ends: at a line's end outside of quotes."""
    with open(path, "rb") as file:
        first_record(file)
        rest = b""
        while new := file.read(BLOCK_BYTES):
            block = rest + new
            end = block.rfind(b"\n") + 1
            if block.count(b'"', 0, end) % 2:  # the last line's end is inside a field
                signs = np.frombuffer(block, np.uint8)
                outside = (signs == ord("\n")) & (np.cumsum(signs == ord('"')) % 2 == 0)
                end = int(np.flatnonzero(outside)[-1]) + 1 if outside.any() else 0
            rest = block[end:]
            if end:
                yield block[:end]
        if rest.strip():
            yield rest


def open_quote(block: bytes, first_row: int) -> str:
    """Where a quote may be left open: ", row N (its quotes)", or nothing."""
    odd = (i for i, line in enumerate(block.splitlines()) if line.count(b'"') % 2)
    return next((f", row {first_row + i} (its quotes)" for i in odd), "")


def explain_encoding(path: str) -> None:
    """Raises ValueError where the file is not UTF-8."""
    with open(path, "rb") as file:
        for row, line in enumerate(file):
            try:
                line.decode()
            except UnicodeDecodeError as error:
                raise ValueError(
                    f"{path}, row {row}: not UTF-8 text ({error.reason}): save the file as UTF-8"
                ) from None


def explain_rows(path: str, block: bytes, separator: str, num_columns: int, first_row: int) -> None:
    """Raises ValueError at the block's first row that has not as many fields as the header."""
    csv.field_size_limit(sys.maxsize)
    try:
        for row, fields in enumerate(
            csv.reader(io.StringIO(block.decode(), newline=""), delimiter=separator, strict=True)
        ):
            if len(fields) != num_columns and fields:
                raise ValueError(
                    f"{path}, row {first_row + row}: {len(fields)} fields, where the header has {num_columns}"
                )
    except csv.Error as error:
        raise ValueError(
            f"{path}, from row {first_row}: {error}: a quote is not closed, or stands inside a field"
        ) from None
