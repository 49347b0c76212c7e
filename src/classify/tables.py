"""Tables: functions (path, options) -> polars frame, one for each place that rows can come from."""

from __future__ import annotations

import codecs
import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl


def from_sklearn(path: str, target: str) -> pl.DataFrame:
    """One of the tables inside scikit-learn: breast_cancer, iris, wine or digits; the target column holds names."""
    from sklearn import datasets

    bunch = getattr(datasets, f"load_{path}")()
    frame = pl.DataFrame(bunch.data, schema=[str(name) for name in bunch.feature_names])
    return frame.with_columns(pl.Series(target, [str(bunch.target_names[label]) for label in bunch.target]))


def moons(path: str, target: str, num_rows: int, noise: float, seed: int) -> pl.DataFrame:
    """Two interleaving half circles in the plane: no straight line separates them."""
    from sklearn.datasets import make_moons

    rows, labels = make_moons(num_rows, noise=noise, random_state=seed)
    return pl.DataFrame(rows, schema=["x", "y"]).with_columns(pl.Series(target, np.array(["upper", "lower"])[labels]))


def clusters(path: str, target: str, num_rows: int, num_features: int, num_classes: int, seed: int) -> pl.DataFrame:
    """Gaussian clusters at the corners of a cube: any number of features and classes."""
    from sklearn.datasets import make_classification

    rows, labels = make_classification(
        num_rows, num_features, n_informative=num_features // 2, n_classes=num_classes, random_state=seed
    )
    frame = pl.DataFrame(rows, schema=[f"x{i}" for i in range(num_features)])
    return frame.with_columns(pl.Series(target, labels))


def read_csv(
    path: str, target: object = None, separator: str = ",", null_values: Sequence[str] = (), head: int = 10_000
) -> pl.DataFrame:
    """A CSV file with a header, in UTF-8; kinds are inferred from its first `head` rows.

    ValueError: what is wrong, in which row (1 is the first below the header) and column.
    """
    names = header(path, separator)

    def scan(rows_to_infer: int | None) -> pl.LazyFrame:
        return pl.scan_csv(
            path,
            separator=separator,
            null_values=list(null_values),
            try_parse_dates=True,
            infer_schema_length=rows_to_infer,
            glob=False,
        )

    try:
        frame = scan(head).collect(engine="streaming")
    except pl.exceptions.PolarsError as error:
        explain_encoding(path)
        explain_ragged(path, separator, len(names))
        if not isinstance(error, pl.exceptions.ComputeError):
            raise ValueError(f"{path}: {str(error).splitlines()[0]}") from error
        first = scan(head).collect_schema()
        frame = scan(None).collect(engine="streaming")  # some column is of another kind further down
        for name in names:
            if first[name].is_numeric() and frame[name].dtype == pl.String:
                row = int(
                    (frame[name].cast(pl.Float64, strict=False).is_null() & frame[name].is_not_null()).arg_max() or 0
                )
                raise ValueError(
                    f"{path}: column {name}, row {row + 1}: {frame[name][row]!r} is text, the first rows hold numbers; "
                    f"mend it, or name it in data.read.null_values, or read it as text with data.read.head={row + 1}"
                ) from error
    if not len(frame):
        raise ValueError(f"{path} has a header and no rows")
    if frame[names[-1]].null_count():  # polars fills short rows with missing values
        explain_ragged(path, separator, len(names))
    return frame


def read_parquet(path: str, target: object = None) -> pl.DataFrame:
    """A Parquet file."""
    if not Path(path).is_file():
        raise ValueError(f"there is no file {path}")
    try:
        return pl.read_parquet(path, glob=False)
    except pl.exceptions.PolarsError as error:
        raise ValueError(f"{path} is not a Parquet file: {str(error).splitlines()[0]}") from error


def reads_as(column: pl.Series, kind: Any) -> pl.Series:
    """Whether each text is a value of this polars type."""
    if kind == pl.Boolean:
        return column.is_in(["true", "false"])
    if kind in (pl.Date, pl.Datetime):
        return column.str.to_datetime(strict=False).is_not_null()
    return column.cast(kind, strict=False).is_not_null()


def header(path: str, separator: str) -> list[str]:
    """The names of a CSV file's columns; ValueError when they cannot be told apart."""
    if not Path(path).is_file():
        raise ValueError(f"there is no file {path}")
    with open(path, encoding="utf-8-sig", errors="replace", newline="") as file:
        names = next(csv.reader(file, delimiter=separator), [])
    if not any(names):
        raise ValueError(f"{path} is empty: its first line must name the columns")
    if twice := [name for i, name in enumerate(names) if name in names[:i]]:
        raise ValueError(f"{path} has two columns called {twice[0]!r}: give each its own name")
    return names


def explain_encoding(path: str) -> None:
    """Raises ValueError where the file is not UTF-8."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    with open(path, "rb") as file:
        for row, line in enumerate(file):
            try:
                decoder.decode(line)
            except UnicodeDecodeError as error:
                raise ValueError(
                    f"{path}, row {row}: not UTF-8 text ({error.reason}): save the file as UTF-8"
                ) from None


def explain_ragged(path: str, separator: str, num_columns: int) -> None:
    """Raises ValueError at the first row that has not as many fields as the header."""
    with open(path, encoding="utf-8-sig", newline="") as file:
        for row, fields in enumerate(csv.reader(file, delimiter=separator)):
            if len(fields) != num_columns and fields:
                raise ValueError(f"{path}, row {row}: {len(fields)} fields, where the header has {num_columns}")


def read_batches(
    path: str, kinds: Mapping[str, Any], separator: str = ",", null_values: Sequence[str] = (), batch_size: int = 65_536
) -> Iterator[pl.DataFrame]:
    """The rows of a CSV or Parquet file, a batch at a time, whatever its length.

    kinds: the polars type of each column that a CSV file is searched for; a value of another kind is left as text.
    """
    if path.endswith((".parquet", ".pq")):
        if not Path(path).is_file():
            raise ValueError(f"there is no file {path}")
        table = pl.scan_parquet(path, glob=False)
    else:
        names = header(path, separator)
        types = {name: kinds[name] for name in names if name in kinds}
        options: dict[str, Any] = {"separator": separator, "null_values": list(null_values), "glob": False}
        table = pl.scan_csv(path, schema_overrides=types, infer_schema=False, **options)
    try:
        yield from table.collect_batches(chunk_size=batch_size, maintain_order=True)
    except pl.exceptions.PolarsError as error:
        if path.endswith((".parquet", ".pq")):
            raise ValueError(f"{path} is not a Parquet file: {str(error).splitlines()[0]}") from error
        explain_encoding(path)
        explain_ragged(path, separator, len(names))
        for name, kind in types.items():
            column = pl.scan_csv(path, infer_schema=False, **options).select(name).collect(engine="streaming")[name]
            if (wrong := column.is_not_null() & ~reads_as(column, kind)).any():
                row = int(wrong.arg_max() or 0)
                raise ValueError(f"{path}: column {name}, row {row + 1}: {column[row]!r} is not {kind}") from error
        raise ValueError(f"{path}: {str(error).splitlines()[0]}") from error
