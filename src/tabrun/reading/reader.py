"""Reader: the rows of a file, whatever it is, as one frame or batch by batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from tabrun.cli.errors import UserError
from tabrun.reading.csv_file import csv_batches
from tabrun.reading.files import files_of, kind_of
from tabrun.reading.formats import as_told
from tabrun.reading.values import alike, numbered

BATCH_ROWS = 65_536


@dataclass(frozen=True)
class Table:
    """One file, or several of one kind and the same columns: CSV, also packed, Parquet, Arrow, Excel, JSON lines.

    path: a file, a folder, a pattern, or a list of these. kinds: polars types of columns; None: the column is not
    needed, and comes empty. Other columns of a CSV file are text, or with `head` of the kinds that are inferred from so
    many rows. verbatim: columns of text in which null_values are texts like any other. formats: of columns of text, as
    `formats.told` gives them. separator, header, encoding: of a CSV file; None: as it tells itself.
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

    def batches(self) -> Iterator[pl.DataFrame]:
        """The rows, some at a time, in bounded memory; UserError: what is wrong in which row (from 1) and column."""
        names: list[str] = []
        for path in files_of(self.path):
            with in_file(path):
                start, same = 0, None
                for batch in self.read(path):
                    same = alike(batch.columns, self.kinds) if same is None else same
                    batch = batch.rename(same)
                    names = names or batch.columns
                    if set(batch.columns) != set(names):
                        odd = sorted(set(batch.columns) ^ set(names))
                        raise UserError(f"its columns are not those of the files before it: {', '.join(odd[:5])}")
                    with numbered(range(start, start + len(batch))):
                        batch = batch.select(names)
                        yield as_told(batch, self.formats, self.verbatim) if self.formats else batch
                    start += len(batch)

    def read(self, path: str) -> Iterator[pl.DataFrame]:
        kind = kind_of(path)
        if kind == "Parquet":
            yield from parquet_batches(path)
        elif kind in WHOLE:
            yield whole(path, kind)
        else:
            words = {name: value for name, value in vars(self).items() if name != "formats"}
            kinds = {**self.kinds, **dict.fromkeys(self.formats, pl.String())}
            yield from csv_batches(**words | {"path": path, "kinds": kinds})

    def frame(self) -> pl.DataFrame:
        """All rows; UserError also when there are none."""
        frames = [batch for batch in self.batches() if len(batch)]
        if not frames:
            raise UserError(f"{self.path} has a header and no rows")
        try:
            return pl.concat(frames, how="vertical_relaxed")  # relaxed: a column's kind may widen on the way
        except pl.exceptions.PolarsError as error:
            raise UserError(
                f"{self.path}: its files hold columns of other kinds: {str(error).splitlines()[0]}"
            ) from None


@contextmanager
def in_file(path: object) -> Iterator[None]:
    """Puts the file's name in front of what is said of its content."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{path}: {error}" if str(path) not in str(error) else str(error)) from error


def parquet_batches(path: str) -> Iterator[pl.DataFrame]:
    try:
        for batch in pl.scan_parquet(path, glob=False).collect_batches(chunk_size=BATCH_ROWS, maintain_order=True):
            for column in batch.select(pl.col(pl.Date, pl.Datetime)):
                year = column.dt.year()  # null beyond what polars can show
                if (column.is_not_null() & ~year.is_between(1, 9999).fill_null(False)).any():
                    raise UserError(f"column {column.name} holds dates outside of the years 1 to 9999")
            yield batch
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        raise UserError(f"{path} is not a Parquet file: {str(error).splitlines()[0]}") from error


def whole(path: str, kind: str, **options: Any) -> pl.DataFrame:
    """A file that polars reads in one piece."""
    try:
        return WHOLE[kind](path, **options)
    except ImportError as error:
        raise UserError(
            f"{path} is a file of {kind}: {str(error).splitlines()[0]}: pip install -e '.[excel]'"
        ) from None
    except Exception as error:  # of several libraries, each with errors of its own
        raise UserError(f"{path} is no {kind} that can be read: {str(error).splitlines()[0]}") from error


WHOLE: dict[str, Any] = {"Arrow": pl.read_ipc, "JSON lines": pl.read_ndjson, "Excel": pl.read_excel}
