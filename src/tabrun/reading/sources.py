"""Tables: functions (path, target, options, kinds) -> polars frame, one for each place that rows can come from.

kinds: of files without types, the polars types of columns; None: the column is not needed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from tabrun.cli.errors import UserError, check_file
from tabrun.reading.files import files_of, kind_of
from tabrun.reading.reader import Table

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
    separator: str | None = None,
    null_values: Sequence[str] = (),
    head: int = 10_000,
    header: bool | None = None,
    encoding: str | None = None,
    kinds: Mapping[str, Any] | None = None,
) -> pl.DataFrame:
    """A CSV file; kinds that are not given are inferred from its first `head` rows, the rest of None from the file."""
    options: dict[str, Any] = {"separator": separator, "header": header, "encoding": encoding}
    return Table(path, kinds or {}, null_values=null_values, head=head, **options).frame()


def read_parquet(path: str, target: object = None, kinds: object = None) -> pl.DataFrame:
    """A Parquet file, or one of Arrow or of JSON, which have kinds of their own."""
    for file in files_of(path):
        if (kind := kind_of(file)) not in ("Parquet", "Arrow", "JSON lines", "JSON"):
            raise UserError(
                f"{file} is not a Parquet file but {kind}: say data={'excel' if kind == 'Excel' else 'csv'}"
            )
    return Table(path).frame()


def read_excel(path: str, target: object = None, sheet: str | int | None = None, kinds: object = None) -> pl.DataFrame:
    """A sheet of an Excel workbook, by its name or number from 1; the first, if nothing is said."""
    if (kind := kind_of(path)) != "Excel":
        raise UserError(f"{path} is a file of {kind}, no Excel workbook: say data=csv or data=parquet")
    if not (sheet is None or isinstance(sheet, str) or (type(sheet) is int and sheet > 0)):
        raise UserError(f"data.read.sheet={sheet} is not a sheet's number from 1, or its name")
    return Table(path, sheet=sheet).frame()


def read_sql(path: str, query: str, target: object = None, kinds: object = None) -> pl.DataFrame:
    """What a query gives of a database; path: its URI, such as sqlite:///shop.db."""
    try:
        from sqlalchemy import create_engine, make_url
        from sqlalchemy.exc import SQLAlchemyError
    except ImportError as error:
        raise UserError(f"data=sql: {error}: pip install -e '.[sql]'") from None
    if "://" not in path:
        raise UserError(f"data.path={path} is not a database's URI, such as sqlite:///shop.db")
    try:
        url = make_url(path)
        if url.get_backend_name() == "sqlite" and url.database:
            check_file(url.database)  # or SQLite would make one
        with create_engine(url).connect() as connection:
            frame = pl.read_database(query, connection)
    except (SQLAlchemyError, ImportError, pl.exceptions.PolarsError) as error:
        raise UserError(f"{path}: data.read.query={query}: {str(error).splitlines()[0]}") from error
    except AttributeError:  # of polars, where there is no table
        raise UserError(f"{path}: data.read.query={query} is no query for rows") from None
    if not len(frame):
        raise UserError(f"{path}: data.read.query={query} gives no rows")
    return frame
