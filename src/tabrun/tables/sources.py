"""Tables: functions (path, target, options, kinds) -> polars frame, one for each place that rows can come from.

kinds: of files without types, the polars types of columns; None: the column is not needed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from tabrun.cli.errors import UserError, check_file
from tabrun.tables.csv_file import csv_batches

BATCH_ROWS = 65_536
SHIPPED = ("breast_cancer", "iris", "wine", "digits")


def from_sklearn(path: str, target: str, kinds: object = None) -> pl.DataFrame:
    """One of the tables inside scikit-learn: breast_cancer, iris, wine or digits; the target column holds names."""
    from sklearn import datasets

    if path not in SHIPPED:
        raise UserError(f"data.path={path} is no table inside scikit-learn: there are {', '.join(SHIPPED)}")
    bunch = getattr(datasets, f"load_{path}")()
    frame = pl.DataFrame(bunch.data, schema=[str(name) for name in bunch.feature_names])
    return frame.with_columns(pl.Series(target, [str(bunch.target_names[label]) for label in bunch.target]))


def moons(path: str, target: str, num_rows: int, noise: float, seed: int, kinds: object = None) -> pl.DataFrame:
    """Two interleaving half circles in the plane: no straight line separates them."""
    from sklearn.datasets import make_moons

    rows, labels = make_moons(num_rows, noise=noise, random_state=seed)
    return pl.DataFrame(rows, schema=["x", "y"]).with_columns(pl.Series(target, np.array(["upper", "lower"])[labels]))


def clusters(
    path: str, target: str, num_rows: int, num_features: int, num_classes: int, seed: int, kinds: object = None
) -> pl.DataFrame:
    """Gaussian clusters at the corners of a cube: any number of features and classes."""
    from sklearn.datasets import make_classification

    rows, labels = make_classification(
        num_rows, num_features, n_informative=num_features // 2, n_classes=num_classes, random_state=seed
    )
    frame = pl.DataFrame(rows, schema=[f"x{i}" for i in range(num_features)])
    return frame.with_columns(pl.Series(target, labels))


def read_csv(
    path: str,
    target: object = None,
    separator: str = ",",
    null_values: Sequence[str] = (),
    head: int = 10_000,
    kinds: Mapping[str, Any] | None = None,
) -> pl.DataFrame:
    """A CSV file with a header, in UTF-8; kinds that are not given are inferred from its first `head` rows.

    UserError: what is wrong, in which row (1 is the first below the header) and column.
    """
    frames = list(csv_batches(path, kinds or {}, separator, null_values, head))
    if not frames:
        raise UserError(f"{path} has a header and no rows")
    return pl.concat(frames, how="vertical_relaxed")  # relaxed: a column's kind may widen on the way


def read_parquet(path: str, target: object = None, kinds: object = None) -> pl.DataFrame:
    """A Parquet file."""
    return pl.concat(parquet_batches(path))


def read_batches(
    path: str,
    kinds: Mapping[str, Any],
    separator: str = ",",
    null_values: Sequence[str] = (),
    verbatim: Sequence[str] = (),
) -> Iterator[pl.DataFrame]:
    """The rows of a CSV or Parquet file, a batch at a time, whatever its length.

    kinds: the polars types of the columns that a CSV file, which has none, is searched for; others are text.
    verbatim: those of text in which null_values are texts like any other.
    """
    check_file(path)
    with open(path, "rb") as file:
        if file.read(4) == b"PAR1" or path.endswith((".parquet", ".pq")):
            return parquet_batches(path)
    return csv_batches(path, kinds, separator, null_values, verbatim=verbatim)


def parquet_batches(path: str) -> Iterator[pl.DataFrame]:
    check_file(path)
    try:
        for batch in pl.scan_parquet(path, glob=False).collect_batches(chunk_size=BATCH_ROWS, maintain_order=True):
            for column in batch.select(pl.col(pl.Date, pl.Datetime)):
                year = column.dt.year()  # null beyond what polars can show
                if (column.is_not_null() & ~year.is_between(1, 9999).fill_null(False)).any():
                    raise UserError(f"{path}: column {column.name} holds dates outside of the years 1 to 9999")
            yield batch
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        raise UserError(f"{path} is not a Parquet file: {str(error).splitlines()[0]}") from error
