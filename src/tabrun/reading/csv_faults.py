"""CSV: what a file is like, and what is wrong with it, said with its row and column."""

from __future__ import annotations

import csv
import io
import math
import sys
from collections.abc import Container, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

import polars as pl

from tabrun.cli.errors import UserError
from tabrun.reading.values import RowError, check_rows, read_as

SEPARATORS = (",", ";", "\t", "|")
LOOKED_AT = 100  # rows by which a separator and a header are told


@dataclass(frozen=True)
class Dialect:
    """What a CSV file is like: its columns' names, what stands between fields, whether its first row holds names."""

    names: list[str]
    separator: str
    header: bool


def dialect(path: str, file: BinaryIO, separator: str | None, header: bool | None) -> Dialect:
    """As said, or else as its first rows tell; UserError when the columns cannot be told apart."""
    csv.field_size_limit(sys.maxsize)
    if header not in (None, True, False):
        raise UserError(f"data.read.header={header} is not true or false")
    lines = [first_record(file) for _ in range(LOOKED_AT)]
    if b"\r" in lines[0].rstrip() and b'"' not in lines[0]:
        raise UserError(f"{path} ends its lines with \\r alone: save it with \\n")
    try:
        first = lines[0].decode("utf-8-sig")
    except UnicodeDecodeError as error:
        what = f"not UTF-8 text ({error.reason}): say data.read.encoding=cp1252, or save the file as UTF-8"
        raise UserError(f"{path}, header: {what}") from None
    rest = [line.decode(errors="replace") for line in lines[1:] if line.strip()]
    if not first.strip():
        raise UserError(f"{path} is empty: its first line must name the columns")
    separator = separator or sniffed([first, *rest])
    names, *rows = csv.reader(io.StringIO("".join([first, *rest]), newline=""), delimiter=separator)
    names = [name.strip() for name in names]
    if header is None and unnamed(names, rows):
        again = f", and stands again in row {rows.index(names) + 1}" if names in rows else ""
        what = f"its first row, {', '.join(names[:3])}, looks like the rows below it{again}, not like names of columns"
        raise UserError(f"{path}: {what}: say data.read.header=false, or true")
    if header is False:
        return Dialect([f"c{i}" for i in range(len(names))], separator, False)
    if twice := [name for i, name in enumerate(names) if name in names[:i]]:
        raise UserError(f"{path} has two columns called {twice[0]!r}: give each its own name")
    return Dialect(names, separator, True)


def sniffed(lines: list[str]) -> str:
    """The separator that gives most of the rows the same number of fields, more than one."""

    def score(separator: str) -> tuple[float, int]:
        try:
            counts = [len(row) for row in csv.reader(io.StringIO("".join(lines), newline=""), delimiter=separator)]
        except csv.Error:
            return 0.0, 0
        return (counts.count(counts[0]) / len(counts), counts[0]) if counts and counts[0] > 1 else (0.0, 0)

    return max(SEPARATORS, key=score) if score(",") < (1.0, 2) else ","


def unnamed(names: list[str], rows: list[list[str]]) -> bool:
    """Whether the first row is like those below it: numbers over numbers, or values that its columns hold too."""
    numeric, held = [], []
    for i, name in enumerate(names):
        below = [row[i].strip() for row in rows if len(row) == len(names)]
        others = [value for value in below if value not in ("", name)]
        if others and all(map(is_number, others)):
            numeric.append(is_number(name))
        else:
            held.append(name in below)
    return len(rows) > 1 and all(numeric) and (any(held) if numeric and held else all(held))


def is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text.replace(",", ".")))
    except ValueError:
        return False


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


def explain_rows(block: bytes, separator: str, names: list[str]) -> None:
    """Raises RowError at the block's first row that is not UTF-8, or has not as many fields as the header's names."""
    row = 0
    try:
        text = io.StringIO(block.decode(), newline="")
        for row, fields in enumerate(csv.reader(text, delimiter=separator, strict=True)):
            if len(fields) != len(names) and fields:
                header = f"{len(names)} ({', '.join(names[:5])}{', ...' if len(names) > 5 else ''})"
                hint = f": {separator!r} within a text needs quotes around it" if len(fields) > len(names) else ""
                hint = ": its first line must name the columns" if len(names) == 1 else hint
                raise RowError("", row, f"{len(fields)} fields, where the header has {header}{hint}")
    except UnicodeDecodeError as error:
        row = block.count(b"\n", 0, error.start)
        raise RowError(
            "", row, f"not UTF-8 text ({error.reason}): say data.read.encoding=cp1252, or save it as UTF-8"
        ) from None
    except csv.Error as error:
        raise RowError("", row, f"{error}: a quote here or below is not closed, or stands inside a field") from None


def explain_quotes(block: bytes, error: Exception) -> None:
    """Raises RowError at the line that may leave a quote open, with what polars says of the block."""
    what = str(error).splitlines()[0]
    for row, line in enumerate(block.splitlines()):
        if line.count(b'"') % 2:
            raise RowError("", row, f"its quotes: {what}") from error
    raise UserError(what) from error
