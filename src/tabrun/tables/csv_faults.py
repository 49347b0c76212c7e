"""CSV: the header, and what is wrong with a file, said with its row and column."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Container, Mapping
from typing import Any, BinaryIO

import polars as pl

from tabrun.cli.errors import UserError
from tabrun.tables.values import RowError, check_rows, read_as

NO_CSV = {  # first bytes: what such a file is, and what to do
    b"PK\x03\x04": "a zip archive or an Excel workbook: save the table as CSV",
    b"\xd0\xcf\x11\xe0": "an Excel workbook: save the table as CSV",
    b"\x1f\x8b": "compressed: unpack it first",
    b"\x28\xb5\x2f\xfd": "compressed: unpack it first",
    b"\xfd7zXZ": "compressed: unpack it first",
    b"BZh": "compressed: unpack it first",
}


def header(path: str, separator: str) -> list[str]:
    """The names of a CSV file's columns; UserError when they cannot be told apart."""
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


def first_record(file: BinaryIO, block: bytes = b"") -> bytes:
    """A line, and what follows as long as a quote is open; behind a block, the rest of its last row."""
    lines = [file.readline()]
    is_open = (block.count(b'"') + lines[0].count(b'"')) % 2
    while is_open and (line := file.readline()):
        lines.append(line)
        is_open ^= line.count(b'"') % 2
    return b"".join(lines)


def mended(text: pl.DataFrame, types: Mapping[str, Any], given: Container[str]) -> dict[str, Any]:
    """Float64 for whole numbers that turn out to be fractions; RowError at the first value of another kind."""
    found = {}
    for column in text:
        kind, todo = types[column.name], ": mend it, or leave it empty"
        values = read_as(column, kind)
        if kind.is_integer() and values.null_count() > column.null_count():
            found[column.name] = kind = pl.Float64()
            values = read_as(column, kind)
        what = "a number" if kind.is_numeric() else "a date" if kind.is_temporal() else "true or false"
        if column.name not in given:
            todo = ", as the rows that its kind was told from: mend it, name it in data.read.null_values, or raise "
            todo += "data.read.head"
        check_rows(column, column.is_not_null() & values.is_null(), f" is not {what}{todo}")
    return found


def explain_rows(block: bytes, separator: str, num_columns: int) -> None:
    """Raises RowError at the block's first row that is not UTF-8, or has not as many fields as the header."""
    row = 0
    try:
        text = io.StringIO(block.decode(), newline="")
        for row, fields in enumerate(csv.reader(text, delimiter=separator, strict=True)):
            if len(fields) != num_columns and fields:
                raise RowError("", row, f"{len(fields)} fields, where the header has {num_columns}")
    except UnicodeDecodeError as error:
        row = block.count(b"\n", 0, error.start)
        raise RowError("", row, f"not UTF-8 text ({error.reason}): save the file as UTF-8") from None
    except csv.Error as error:
        raise RowError("", row, f"{error}: a quote here or below is not closed, or stands inside a field") from None


def explain_quotes(block: bytes, error: Exception) -> None:
    """Raises RowError at the line that may leave a quote open, with what polars says of the block."""
    what = str(error).splitlines()[0]
    for row, line in enumerate(block.splitlines()):
        if line.count(b'"') % 2:
            raise RowError("", row, f"its quotes: {what}") from error
    raise UserError(what) from error
