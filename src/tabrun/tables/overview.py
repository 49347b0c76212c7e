"""Overview: what became of a table's columns, as one table for the terminal and for columns.csv."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from tabrun.reading.values import aligned
from tabrun.tables.columns import Category, Columns, Number, features
from tabrun.tables.look import SAMPLE, Finding, look, spread
from tabrun.tables.schema import Schema

log = logging.getLogger(__name__)

MOST_SHOWN = 20  # columns on the terminal


def overview(
    sample: pl.DataFrame, schema: Schema, columns: Columns, unused: Mapping[str, str], findings: Sequence[Finding],
) -> pl.DataFrame:  # fmt: skip
    """A row for each column: kind, distinct values, missing, values, noticed; of these training rows.

    unused: columns that are no features, and what they are.
    """
    made = {feature.name: feature for feature in reversed(schema.features)}
    formats, found = dict(schema.formats), []
    for column in sample:
        feature, notes = made.get(column.name), [one.what for one in findings if one.column == column.name]
        notes += [f"read as {formats[column.name]}"] if column.name in formats else []
        kind, nested = unused.get(column.name) or kind_of(feature, column, columns), column.dtype.is_nested()
        distinct, values = (None, "") if nested else (column.drop_nulls().n_unique(), values_of(column))
        found.append([column.name, kind, distinct, column.null_count(), values, "; ".join(notes)])
    names = ["column", "kind", "distinct", "missing", "values", "noticed"]
    return pl.DataFrame(found, schema=names, orient="row", infer_schema_length=None)


def kind_of(feature: Number | Category | None, column: pl.Series, columns: Columns) -> str:
    if isinstance(feature, Number):
        return {"Date": "date", "Datetime": "date", "Boolean": "true or false"}.get(feature.kind, "number")
    if isinstance(feature, Category):
        return "category, embedded" if feature.embedded else "category, one-hot"
    why = features(column, columns)
    return f"left out: {why}" if isinstance(why, str) else "left out"


def values_of(column: pl.Series) -> str:
    """The range of numbers and dates, the most frequent of other values."""
    values = column.drop_nulls()
    if not len(values):
        return ""
    least, most = values.min(), values.max()
    if column.dtype.is_temporal():
        return f"{least!s} to {most!s}"
    if column.dtype.is_numeric():
        return f"{float(least):g} to {float(most):g}"  # type: ignore[arg-type]
    counts = values.alias("value").value_counts(sort=True).head(3).iter_rows()
    return ", ".join(f"{str(value)[:20]} {percent(count / len(column))}" for value, count in counts)


def percent(share: float) -> str:
    return "<1%" if share < 0.01 else ">99%" if 0.99 < share < 1 else f"{share:.0%}"


def shown(table: pl.DataFrame) -> str:
    """For a terminal: how many columns there are of each kind, and of a wide table those that were noticed alone."""
    kinds = Counter(kind.split(":")[0] for kind in table["kind"])
    counts = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
    plain = pl.col("noticed").str.contains("^(read as [^;]*)?$")
    few = table if len(table) <= MOST_SHOWN else table.filter(~plain).head(MOST_SHOWN)
    text = aligned([few.columns[:-1], *few.drop("noticed").rows()]) if len(few) else ""
    return f"{len(table)} columns: {counts}" + (f"\n{text}" if text else "")


def looked_at(
    frame: pl.DataFrame, schema: Schema, labels: np.ndarray, parts: Mapping[str, np.ndarray], columns: Columns,
    unused: Mapping[str, str],
) -> tuple[pl.DataFrame, list[Finding]]:  # fmt: skip
    """What became of the columns, and what is noticed of them; said. unused: as in `overview`."""
    columns_of_features = [name for name in frame.columns if name not in unused]
    cases = [name for name in frame.columns if unused.get(name, "id") in ("id", "target")]
    sample = frame.select(pl.all().gather(spread(parts["train"], SAMPLE)))
    findings = look(frame, sample, schema, labels, parts, columns_of_features, cases)
    for finding in findings:
        log.warning("%s", finding)
    return overview(sample, schema, columns, unused, findings), findings


def described(data: Any) -> str:
    """The columns for a terminal, and how many rows of which class are in which part."""
    parts, classes = [], data.schema.classes
    for name, index in data.index.items():
        if "fold0" in data.index and name not in ("train", "test"):  # whose rows are those that train
            continue
        labels = data.labels[index]
        counts = (labels.bincount(minlength=len(classes)) if labels.dim() == 1 else labels.sum(0)).tolist()
        each = ", ".join(f"{label} {count:g}" for label, count in zip(classes, counts, strict=True))
        parts.append(f"{name} {len(index)}" + (f" ({each})" if len(classes) <= 10 else ""))
    folds = [len(index) for name, index in data.index.items() if name.startswith("fold")]
    parts += [f"{len(folds)} folds of {min(folds)} to {max(folds)} validate"] if folds else []
    rows = f"rows: {'; '.join(parts)}"
    return f"{shown(data.report[0])}\n{rows}" if data.report else rows
