"""Look: what a person would notice of a table before training on it, with the key to act by; nothing is refused."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence

import numpy as np
import polars as pl

from tabrun.reading.values import numbered
from tabrun.tables.columns import Category, Number
from tabrun.tables.finding import Finding, of_column
from tabrun.tables.schema import Schema

log = logging.getLogger(__name__)

SAMPLE, TREE_ROWS = 10_000, 2_000  # training rows that are looked at
MOST_CLASSES = 20  # whole numbers above which a target is taken for a quantity
MOST_ROWS, MOST_COLUMNS = 200_000, 300  # above which equal rows, and equal columns, are not looked for


def is_index(column: pl.Series) -> bool:
    """Whether a column numbers the rows: one whole number after the other, or unnamed, as pandas writes its index."""
    if column.name in ("", "Unnamed: 0"):
        return True
    whole = column.dtype.is_integer() and len(column) > 20 and not column.null_count()
    return bool(whole and column[-1] - column[0] == len(column) - 1 and (column.diff().drop_nulls() == 1).all())


def numbered_rows(frame: pl.DataFrame, asked: Collection[str]) -> dict[str, str]:
    """Columns, of those that nobody has asked for, that only number the rows, and what they are; said."""
    rest = [name for name in frame.columns if name not in asked]
    found = [name for name in rest if is_index(frame[name])]
    if not found or len(found) == len(rest):
        return {}
    names = ", ".join(name or "''" for name in found)
    log.warning("left out, as it numbers the rows: %s (else say data.columns.numbers=%s)", names, found)
    return dict.fromkeys(found, "left out: numbers the rows")


def spread(rows: np.ndarray, most: int) -> np.ndarray:
    """So many of the row numbers, evenly apart."""
    return rows[:: max(1, -(-len(rows) // most))]


def look(
    frame: pl.DataFrame, sample: pl.DataFrame, schema: Schema, labels: np.ndarray, parts: Mapping[str, np.ndarray],
    columns: Sequence[str], cases: Sequence[str],
) -> list[Finding]:  # fmt: skip
    """What the training rows of these columns show. labels: class indices of all rows, (rows,).

    sample: so many of the training rows as `spread` takes. cases: the columns that tell one case from another: these,
    ids and the target.
    """
    rows = spread(parts["train"], SAMPLE)
    features = {feature.name: feature for feature in schema.features}
    found = [*giveaways(frame, features, labels, parts), *repeated_rows(frame.select(cases), parts)]
    found += equal_rows(frame.select([*features]), labels, parts["train"])
    found += same_columns(sample.select([*features]))
    for name in columns:
        found += of_column(sample[name], features.get(name), labels[rows])
    if len(schema.classes) > MOST_CLASSES and "Int" in schema.target_kind:
        what = f"its {len(schema.classes)} classes are whole numbers: is it a quantity? That is regression, and "
        found.append(Finding(str(schema.target), f"{what}data.bins=4 makes four classes of it", len(schema.classes)))
    counts = np.array(schema.class_counts, float)
    if counts.min() > 0 and counts.max() > 20 * counts.min():
        rarest = schema.classes[int(counts.argmin())]
        share = float(counts.min() / counts.sum())
        what = (
            f"class {rarest} has {share:.1%} of the training rows, so accuracy says little: look at average_precision"
        )
        found.append(Finding("", what, share))
    return found


def giveaways(
    frame: pl.DataFrame, features: Mapping[str, Number | Category], labels: np.ndarray, parts: Mapping[str, np.ndarray]
) -> Iterator[Finding]:
    """A column that alone tells nearly all validation rows' classes, ten times as well as most columns do."""
    rows, val = spread(parts["train"], TREE_ROWS), spread(parts["val"], TREE_ROWS)
    majority = np.bincount(labels[rows]).argmax()
    errors = {}
    for name in list(features)[:MOST_COLUMNS]:
        read = []
        for own in (rows, val):
            with numbered(own):
                read.append(features[name].read(frame[name].gather(own)))
        one, other = read
        errors[name] = error_alone(one, labels[rows], other, labels[val], isinstance(features[name], Category))
    usual = np.median([*errors.values(), float((labels[val] != majority).mean())]) if errors else 0.0
    for name, error in errors.items():
        if error <= 0.02 and error <= usual / 10:
            what = f"alone it tells the class in {1 - error:.1%} of {len(val):,} validation rows: is it the target in "
            todo = f"other words, or known only later? data.columns.ignore=[{name}] leaves it out"
            yield Finding(name, what + todo, 1 - error)


def error_alone(one: np.ndarray, own: np.ndarray, other: np.ndarray, truth: np.ndarray, category: bool) -> float:
    """The share of rows whose class a column alone does not tell: by its most frequent class, or a shallow tree."""
    if category:
        counts = np.zeros((int(max(one.max(), other.max())) + 1, own.max() + 1))
        np.add.at(counts, (one, own), 1)
        counts[counts.sum(1) == 0] = np.bincount(own, minlength=counts.shape[1])  # values that training lacks
        return float((counts.argmax(1)[other] != truth).mean())
    from sklearn.tree import DecisionTreeClassifier

    tree = DecisionTreeClassifier(max_depth=3, random_state=0).fit(one[:, None], own)
    return float((tree.predict(other[:, None]) != truth).mean())


def repeated_rows(cases: pl.DataFrame, parts: Mapping[str, np.ndarray]) -> Iterator[Finding]:
    """Rows that stand in more than one part."""
    if len(cases) > MOST_ROWS:
        return
    hashes = cases.hash_rows()
    train = hashes.gather(parts["train"])
    for part in ("val", "test"):
        share = float(hashes.gather(parts[part]).is_in(train.implode()).mean() or 0.0)  # type: ignore[arg-type]
        if share > 0.01:
            what = (
                f"{share:.1%} of the {part} rows stand among the training rows, to the letter: where they are the same"
            )
            yield Finding("", f"{what} cases, keep these together with data.split.group=COLUMN", share)


def equal_rows(rows: pl.DataFrame, labels: np.ndarray, train: np.ndarray) -> Iterator[Finding]:
    """Rows of the same features and different classes."""
    if not rows.width or len(rows) > MOST_ROWS:
        return
    found = pl.DataFrame({"row": rows.hash_rows().gather(train), "class": labels[train]})
    most = found.group_by("row", "class").len().group_by("row").agg(pl.col("len").max())["len"].sum()
    if (least := 1 - most / len(train)) > 0.01:
        what = f"equal rows have different classes: no model is wrong on less than {least:.1%} of the training rows"
        yield Finding("", what, float(least))


def same_columns(train: pl.DataFrame) -> Iterator[Finding]:
    """Pairs of columns that hold the same, whatever it is called in each, and in whatever unit."""
    seen: dict[bytes, str] = {}
    for name in train.columns[:MOST_COLUMNS]:
        column = train[name]
        if column.dtype.is_numeric():  # equal up to an offset and a factor
            std = column.std() or 1.0
            code = ((column - column.mean()) / std).round(6).fill_null(np.inf).to_numpy() + 0.0  # and -0.0 is 0.0
        else:
            code = first_seen(column)
        key = code.tobytes()
        if key in seen and len(np.unique(code)) > 1:
            what = f"it holds the same as column {seen[key]} in {len(train):,} training rows: "
            yield Finding(name, f"{what}data.columns.ignore=[{name}] leaves it out", 1.0)
        seen.setdefault(key, name)


def first_seen(column: pl.Series) -> np.ndarray:
    """Each value's number, in the order in which they come."""
    text = column.cast(pl.String).fill_null("")
    order = {value: i for i, value in enumerate(text.unique(maintain_order=True))}
    return text.replace_strict(order, return_dtype=pl.Int64).to_numpy()
