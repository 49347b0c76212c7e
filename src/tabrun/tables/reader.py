"""Reader: the rows of a file, CSV or Parquet, as one frame or batch by batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from tabrun.cli.errors import UserError, check_file
from tabrun.tables.csv_file import csv_batches

BATCH_ROWS = 65_536


@dataclass(frozen=True)
class Table:
    """A CSV file with a header, in UTF-8, or a Parquet file, which has types and needs none of the other words.

    kinds: polars types of columns; None: the column is not needed, and comes empty. Other columns are text, or with
    `head` of the kinds that are inferred from so many rows.
    verbatim: columns of text in which null_values are texts like any other.
    """

    path: str
    kinds: Mapping[str, Any] = field(default_factory=dict)
    separator: str = ","
    null_values: Sequence[str] = ()
    head: int = 0
    verbatim: Sequence[str] = ()

    @property
    def is_parquet(self) -> bool:
        """Whether its first bytes, or its name, are those of a Parquet file; UserError when there is no file."""
        check_file(self.path)
        with open(self.path, "rb") as file:
            return file.read(4) == b"PAR1" or self.path.endswith((".parquet", ".pq"))

    def batches(self) -> Iterator[pl.DataFrame]:
        """The rows, some at a time, in bounded memory; UserError: what is wrong in which row (from 1) and column."""
        with in_file(self.path):
            yield from parquet_batches(self.path) if self.is_parquet else csv_batches(**vars(self))

    def frame(self) -> pl.DataFrame:
        """All rows; UserError also when there are none."""
        frames = [batch for batch in self.batches() if len(batch)]
        if not frames:
            raise UserError(f"{self.path} has a header and no rows")
        return pl.concat(frames, how="vertical_relaxed")  # relaxed: a column's kind may widen on the way


@contextmanager
def in_file(path: str) -> Iterator[None]:
    """Puts the file's name in front of what is said of its content."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{path}: {error}" if path not in str(error) else str(error)) from error


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
