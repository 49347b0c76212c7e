"""CSV: the header, and what is wrong with a file, said with its row and column."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Container, Mapping
from typing import Any, BinaryIO

import polars as pl

from tabrun.cli.errors import UserError, check_file
from tabrun.tables.values import reads_as

KINDS: dict[Any, str] = {
    pl.Float32: "a number",
    pl.Int64: "a number",
    pl.Float64: "a number",
    pl.Boolean: "true or false",
    pl.Date: "a date",
}
NO_CSV = {  # first bytes: what such a file is, and what to do
    b"PAR1": "a Parquet file: say data=parquet",
    b"PK\x03\x04": "a zip archive or an Excel workbook: save the table as CSV",
    b"\xd0\xcf\x11\xe0": "an Excel workbook: save the table as CSV",
    b"\x1f\x8b": "compressed: unpack it first",
    b"\x28\xb5\x2f\xfd": "compressed: unpack it first",
    b"\xfd7zXZ": "compressed: unpack it first",
    b"BZh": "compressed: unpack it first",
}


def header(path: str, separator: str) -> list[str]:
    """The names of a CSV file's columns; UserError when they cannot be told apart."""
    check_file(path)
    csv.field_size_limit(sys.maxsize)
    with open(path, "rb") as file:
        line = first_record(file)
    for first, what in NO_CSV.items():
        if line.startswith(first):
            raise UserError(f"{path} is {what}")
    if b"\0" in line:
        raise UserError(f"{path} is UTF-16 text, or no text: save it as UTF-8")
    if b"\r" in line.rstrip() and b'"' not in line:
        raise UserError(f"{path} ends its lines with \\r alone: save it with \\n")
    try:
        names = next(csv.reader(io.StringIO(line.decode("utf-8-sig"), newline=""), delimiter=separator), [])
    except UnicodeDecodeError as error:
        raise UserError(f"{path}, header: not UTF-8 text ({error.reason}): save the file as UTF-8") from None
    if not any(names):
        raise UserError(f"{path} is empty: its first line must name the columns")
    if twice := [name for i, name in enumerate(names) if name in names[:i]]:
        raise UserError(f"{path} has two columns called {twice[0]!r}: give each its own name")
    return names


def first_record(file: BinaryIO) -> bytes:
    """A line, and what follows as long as a quote is open."""
    line = file.readline()
    while line.count(b'"') % 2 and (more := file.readline()):
        line += more
    return line


def mended(
    text: pl.DataFrame, types: Mapping[str, Any], given: Container[str], path: str, first_row: int
) -> dict[str, Any]:
    """Float64 for whole numbers that turn out to be fractions; UserError at the first value of another kind."""
    found = {}
    for column, kind in zip(text, types.values(), strict=True):
        if (wrong := column.is_not_null() & ~reads_as(column, kind)).any():
            if kind.is_integer() and (column.is_null() | reads_as(column, pl.Float64)).all():
                found[column.name] = pl.Float64()
                continue
            row = int(wrong.arg_max() or 0)
            what = f"{column[row]!r} is not {KINDS.get(kind, kind)}"
            if column.name not in given:
                what += ", as the rows that its kind was told from"
            todo = "mend it, name it in data.read.null_values, or raise data.read.head"
            todo = "mend it, or leave it empty" if column.name in given else todo
            raise UserError(f"{path}: column {column.name}, row {first_row + row}: {what}: {todo}")
    return found


def open_quote(block: bytes, first_row: int) -> str:
    """Where a quote may be left open: ", row N (its quotes)", or nothing."""
    odd = (i for i, line in enumerate(block.splitlines()) if line.count(b'"') % 2)
    return next((f", row {first_row + i} (its quotes)" for i in odd), "")


def explain_rows(path: str, block: bytes, separator: str, num_columns: int, first_row: int) -> None:
    """Raises UserError at the block's first row that is not UTF-8, or has not as many fields as the header."""
    try:
        text = io.StringIO(block.decode(), newline="")
        for row, fields in enumerate(csv.reader(text, delimiter=separator, strict=True)):
            if len(fields) != num_columns and fields:
                raise UserError(
                    f"{path}, row {first_row + row}: {len(fields)} fields, where the header has {num_columns}"
                )
    except UnicodeDecodeError as error:
        row = first_row + block.count(b"\n", 0, error.start)
        raise UserError(f"{path}, row {row}: not UTF-8 text ({error.reason}): save the file as UTF-8") from None
    except csv.Error as error:
        raise UserError(
            f"{path}, from row {first_row}: {error}: a quote is not closed, or stands inside a field"
        ) from None
