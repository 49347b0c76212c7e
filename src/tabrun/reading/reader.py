"""Reader: the rows of a file, whatever it is, as one frame or batch by batch."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from tabrun.cli.errors import UserError
from tabrun.reading.csv_file import csv_batches, texts_of
from tabrun.reading.files import PACKED, files_of, kind_of
from tabrun.reading.formats import as_told
from tabrun.reading.values import RowError, alike, numbered

BATCH_ROWS = 65_536


@dataclass(frozen=True)
class Table:
    """One file, or several of one kind and the same columns: CSV, also packed, Parquet, Arrow, Excel, JSON lines.

    path: a file, a folder, a pattern, or a list of these. kinds: polars types of columns; None: the column is not
    needed, and comes empty. Other columns of a CSV file are text, or with `head` of the kinds that are inferred from so
    many rows. verbatim: columns of text in which null_values are texts like any other. formats: of columns of text, as
    `guess.told` gives them. separator, header, encoding: of a CSV file; None: as it tells itself. sheet: of
    Excel, its name or number; None: the first.
    """

    path: str | Sequence[str]
    kinds: Mapping[str, Any] = field(default_factory=dict)
    separator: str | None = None
    null_values: Sequence[str] = ()
    head: int = 0
    verbatim: Sequence[str] = ()
    header: bool | None = None
    encoding: str | None = None
    formats: Mapping[str, str] = field(default_factory=dict)
    sheet: str | int | None = None

    def batches(self) -> Iterator[pl.DataFrame]:
        """The rows, some at a time, in bounded memory; UserError: what is wrong in which row (from 1) and column."""
        first: Mapping[str, Any] = {}
        marks = texts_of(self.null_values)
        for path in files_of(self.path):
            with in_file(path):
                start, same, typed = 0, None, kind_of(path) not in ("CSV", *PACKED)
                for batch in self.read(path):
                    same = alike(batch.columns, self.kinds) if same is None else same
                    batch = batch.rename(same)
                    first = first or batch.schema
                    check_columns(batch.schema, first, typed)
                    with numbered(range(start, start + len(batch))):
                        yield as_told(batch.select([*first]), self.formats, self.verbatim, marks, not typed)
                    start += len(batch)

    def read(self, path: str) -> Iterator[pl.DataFrame]:
        kind = kind_of(path)
        if kind == "Parquet":
            yield from parquet_batches(path)
        elif kind in WHOLE:
            yield whole(path, kind, self.sheet)
        else:
            words = {name: value for name, value in vars(self).items() if name not in ("formats", "sheet")}
            kinds = {**self.kinds, **dict.fromkeys(self.formats, pl.String())}
            yield from csv_batches(**words | {"path": path, "kinds": kinds})

    def frame(self) -> pl.DataFrame:
        """All rows; UserError also when there are none."""
        frames = [batch for batch in self.batches() if len(batch)]
        if not frames:
            how = f" in data.read.encoding={self.encoding}" if self.encoding else ""
            raise UserError(f"{self.path} has a header and no rows{how}")
        try:
            return pl.concat(frames, how="vertical_relaxed")  # relaxed: a column's kind may widen on the way
        except pl.exceptions.PolarsError as error:
            raise UserError(
                f"{self.path}: its files hold columns of other kinds: {str(error).splitlines()[0]}"
            ) from None


def check_columns(schema: Mapping[str, Any], first: Mapping[str, Any], typed: bool) -> None:
    """Raises UserError for other columns than the first file's, or where files have types, of other types."""
    if odd := sorted(schema.keys() ^ first.keys()):
        raise UserError(f"its columns are not those of the files before it: {', '.join(odd[:5])}")
    for name, kind in schema.items() if typed else ():
        if pl.Null not in (kind, first[name]) and kind != first[name] and kind.is_numeric() != first[name].is_numeric():
            raise UserError(f"column {name} holds {kind}, where the files before it have {first[name]}")


@contextmanager
def in_file(path: str | Sequence[str]) -> Iterator[None]:
    """Puts the file's name in front of what is said of its content."""
    paths = [path] if isinstance(path, str) else path
    try:
        yield
    except UserError as error:
        text = str(error)
        if not any(text.startswith(one) or f"file {one}" in text for one in paths):
            several = len(paths) > 1 or Path(paths[0]).is_dir() or "*" in paths[0]
            note = " (rows are counted through all files)" if several and isinstance(error, RowError) else ""
            text = f"{', '.join(paths)}: {text}{note}"
        raise UserError(text) from error


def parquet_batches(path: str) -> Iterator[pl.DataFrame]:
    try:
        for batch in pl.scan_parquet(path, glob=False).collect_batches(chunk_size=BATCH_ROWS, maintain_order=True):
            for column in batch.select(pl.col(pl.Date, pl.Datetime)):
                year = column.dt.year()  # null beyond what polars can show
                if (column.is_not_null() & ~year.is_between(1, 9999).fill_null(False)).any():
                    raise UserError(f"column {column.name} holds dates outside of the years 1 to 9999")
            yield batch
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        raise UserError(f"{path} is not a Parquet file that can be read: {str(error).splitlines()[0]}") from error


def whole(path: str, kind: str, sheet: str | int | None) -> pl.DataFrame:
    """A file that polars reads in one piece."""
    by_name = isinstance(sheet, str)
    options = {} if kind != "Excel" else {"sheet_name": sheet} if by_name else {"sheet_id": sheet or 1}
    try:
        return WHOLE[kind](path, **options)
    except ImportError as error:
        raise UserError(
            f"{path} is a file of {kind}: {str(error).splitlines()[0]}: pip install -e '.[excel]'"
        ) from None
    except Exception as error:  # of several libraries, each with errors of its own
        if kind == "JSON lines":
            explain_lines(path)
        which = f" (data.read.sheet={sheet})" if sheet is not None else ""
        raise UserError(f"{path} is no {kind} that can be read: {str(error).splitlines()[0]}{which}") from error


def explain_lines(path: str) -> None:
    """Raises RowError at the first line that is no JSON."""
    with in_file(path), open(path, "rb") as file:
        for row, line in enumerate(file):
            try:
                json.loads(line if line.strip() else "null")
            except ValueError as error:
                raise RowError("", row, f"this line is not JSON: {str(error).partition(': line ')[0]}") from None


WHOLE: dict[str, Any] = {
    **{"Arrow": pl.read_ipc, "JSON lines": pl.read_ndjson, "JSON": pl.read_json, "Excel": pl.read_excel}
}
