"""What is noticed of a table, and what became of its columns: nothing is said that is not so."""

import json
import logging
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from conftest import configure
from handed import open_run, set_up, train

from tabrun import Columns, Split, TabularData
from tabrun.tables.finding import codes
from tabrun.tables.overview import described

ROWS = 400


def base(**columns: Any) -> pl.DataFrame:
    """Two numbers and a text that say little of the classes, and these columns."""
    random = np.random.default_rng(0)
    x = random.normal(size=ROWS)
    y = np.where(x + 2 * random.normal(size=ROWS) > 0, "yes", "no")
    own = {"x": x, "z": random.normal(size=ROWS).round(2), "t": random.choice(["a", "b", "c"], ROWS), "y": y}
    return pl.DataFrame(own | columns)


def looked_at(frame: pl.DataFrame, **columns: Any) -> TabularData:
    data = TabularData("table", lambda **words: frame, "y", Split(), Columns(**columns))
    data.setup()
    return data


def said(frame: pl.DataFrame, **columns: Any) -> dict[str, str]:
    """The findings by column."""
    report = looked_at(frame, **columns).report
    assert report
    return {finding.column: finding.what for finding in report[1]}


def numbers(seed: int, *values: float, share: float = 0.1) -> np.ndarray:
    random = np.random.default_rng(seed)
    found = random.normal(50, 10, ROWS).round(1)
    found[random.random(ROWS) < share] = values[0]
    return found


def test_nothing_is_said_of_a_plain_table() -> None:
    assert said(base()) == {}


@pytest.mark.parametrize("kind", ["text", "number", "boolean", "shifted"])
def test_a_column_that_gives_the_target_away(kind: str) -> None:
    y = base()["y"]
    alive = {
        "text": y.replace({"yes": "alive", "no": "dead"}),
        "number": (y == "yes").cast(pl.Int64) * 7 + pl.Series(np.random.default_rng(2).random(ROWS)),
        "boolean": y == "yes",
        "shifted": y.replace_strict({"yes": 3, "no": 1}),
    }[kind]
    found = said(base(alive=alive))
    assert list(found) == ["alive"]
    assert found["alive"].startswith("alone it tells the class in 100.0% of 80 validation rows")
    assert "data.columns.ignore=[alive]" in found["alive"]


def test_an_index_is_left_out_and_an_id_is_asked_about(caplog: pytest.LogCaptureFixture) -> None:
    order = np.random.default_rng(1).permutation(ROWS)
    data = looked_at(base(**{"": np.arange(ROWS), "number": np.arange(1, ROWS + 1), "customer": 1000 + 3 * order}))
    assert data.schema
    assert data.schema.feature_names == ["x", "z", "customer", "t"]
    assert "left out, as it numbers the rows: '', number (else say data.columns.numbers=['', 'number'])" in caplog.text
    assert data.report
    assert [str(one) for one in data.report[1]] == [
        "column customer: another whole number in each of 240 training rows: an id? data.id=customer carries it along"
    ]
    kept = looked_at(base(number=np.arange(ROWS)), numbers=["number"])
    assert kept.schema
    assert "number" in kept.schema.feature_names


def test_two_columns_that_are_one() -> None:
    frame = base()
    twins = {"inches": frame["x"] * 2.54, "letter": frame["t"].replace({"a": "A", "b": "B", "c": "C"})}
    found = said(base(**twins, raised=frame["x"].exp()))  # of the same order, and not the same
    assert list(found) == ["inches", "letter"]
    assert (
        found["inches"]
        == "it holds the same as column x in 240 training rows: data.columns.ignore=[inches] leaves it out"
    )
    assert (
        found["letter"]
        == "it holds the same as column t in 240 training rows: data.columns.ignore=[letter] leaves it out"
    )


def test_rows_that_stand_in_two_parts_and_equal_rows_of_two_classes() -> None:
    random = np.random.default_rng(0)
    few = pl.DataFrame({"a": random.integers(0, 3, ROWS), "b": random.choice(["p", "q"], ROWS)})
    frame = few.with_columns(y=pl.Series(np.where(random.random(ROWS) < 0.3, "yes", "no")))
    data = looked_at(frame)
    assert data.report
    findings = [one for one in data.report[1] if not one.column]
    assert [one.what.split(":")[0] for one in findings] == [
        "100.0% of the val rows stand among the training rows, to the letter",
        "100.0% of the test rows stand among the training rows, to the letter",
        "equal rows have different classes",
    ]
    named = frame.with_columns(k=pl.int_range(ROWS) * 7 % 401)
    persons = TabularData("table", lambda **_: named, "y", Split(), Columns(), id="k")
    persons.setup()
    assert persons.report
    assert [one.what.split(":")[0] for one in persons.report[1]] == ["equal rows have different classes"]
    train = frame[data.index["train"].numpy()]
    groups = train.group_by("a", "b").agg(pl.col("y").value_counts().struct.field("count").max().alias("most"))
    assert findings[2].number == pytest.approx(1 - groups["most"].sum() / len(train))


@pytest.mark.parametrize(("value", "is_one"), [(-999, True), (9999, True), (-1, True), (70, False), (99, False)])
def test_a_sentinel_is_far_off_and_repeated(value: int, is_one: bool) -> None:
    frame = base(age=numbers(3, value))
    ages = frame["age"][looked_at(frame).index["train"].numpy()]
    others = ages.filter(ages != value)
    share, ends = (ages == value).mean(), f"where the others are from {others.min()} to {others.max()}"
    what = said(frame).get("age", "")
    assert what.startswith(f"{value} in {share:.1%} of 240 training rows, {ends}") == is_one
    assert (f"data.read.null_values=[{value}] has it missing" in what) == is_one


def test_the_least_of_a_range_is_no_sentinel() -> None:
    random = np.random.default_rng(0)
    assert said(base(cut=random.normal(0, 0.7, ROWS).clip(-1, 1), level=random.integers(-1, 3, ROWS))) == {}


def test_whole_numbers_that_are_codes() -> None:
    random, frame = np.random.default_rng(5), base()
    yes = (frame["y"] == "yes").to_numpy()
    meant = np.where(yes, random.choice([2, 9], ROWS), random.choice([1, 4, 30], ROWS))
    code = np.where(random.random(ROWS) < 0.6, meant, random.choice([1, 2, 4, 9, 30], ROWS))
    more = {"count": 3 * yes + random.integers(0, 6, ROWS), "any": random.integers(0, 5, ROWS), "code": code}
    data = looked_at(frame.with_columns(**{name: pl.Series(values) for name, values in more.items()}))
    assert data.report
    (found,) = data.report[1]
    assert (found.column, found.what[:50]) == ("code", "5 whole numbers, each of which says more of the cl")
    assert found.what.endswith("if they are codes, data.columns.categories=[code]")
    rows = data.index["train"].numpy()
    table = pd.DataFrame({"code": code[rows], "yes": yes[rows].astype(float)})
    means, total = table.groupby("code")["yes"].transform("mean"), table["yes"].var(ddof=0)
    assert found.number == pytest.approx(means.var(ddof=0) / total)
    assert f"than their order does ({table.corr()['code']['yes'] ** 2:.1%})" in found.what


def test_a_target_of_many_whole_numbers_is_a_quantity() -> None:
    rings = base().with_columns(y=pl.int_range(ROWS) * 7 % 25)
    words = "its 25 classes are whole numbers: is it a quantity? That is regression, and data.bins=4 makes four classes"
    assert said(rings)["y"].startswith(words)
    assert "y" not in said(rings.with_columns(pl.col("y") % 10))


def test_nearly_empty_and_nearly_constant() -> None:
    empty = pl.Series([None if i % 50 else float(i) for i in range(ROWS)])
    same = pl.Series(["k"] * ROWS).scatter(range(0, ROWS, 200), "other")
    found = said(base(empty=empty, same=same))
    assert " of 240 training rows: data.columns.ignore=[empty]" in found["empty"]
    assert re.fullmatch(r"k in 99.\d\d% of 240 training rows", found["same"])


def test_a_rare_class_says_that_accuracy_says_little() -> None:
    frame = base().with_columns(y=pl.Series(["rare" if i % 40 == 0 else "usual" for i in range(ROWS)]))
    assert said(frame)[""].startswith("class rare has 2.5% of the training rows, so accuracy says little")


def test_what_became_of_the_columns(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    frame = base(
        price=pl.Series([f"{i % 90},{i % 10}" for i in range(ROWS)]),
        when=pl.Series([f"2020-01-{i % 28 + 1:02}" for i in range(ROWS)]),
        country=pl.Series(["CH"] * ROWS),
        key=pl.Series([f"k{i}" for i in range(ROWS)]),
        gone=pl.Series([None if i % 4 == 0 else i % 5 for i in range(ROWS)]),
    )
    frame.write_csv(file := tmp_path / "table.csv")
    words = ["data=csv", f"data.path={file}", "data.target=y", "data.id=key", "trainer.max_epochs=2"]
    with caplog.at_level(logging.INFO):
        train(configure(tmp_path / "run", *words))
    table = pl.read_csv(tmp_path / "run" / "columns.csv")
    kinds = dict(table.select("column", "kind").iter_rows())
    assert kinds == {
        **{"x": "number", "z": "number", "t": "category, one-hot", "y": "target", "price": "number", "when": "date"},
        **{"country": "left out: one value", "key": "id", "gone": "number"},
    }
    data = set_up(configure(tmp_path / "again", *words))
    train_rows = frame[data.index["train"].numpy()]
    for name in ("t", "gone", "y"):
        row = table.filter(pl.col("column") == name)
        assert (row["distinct"][0], row["missing"][0]) == (
            train_rows[name].drop_nulls().n_unique(),
            train_rows[name].null_count(),
        )
    assert table.filter(pl.col("column") == "when")["values"][0] == "2020-01-01 to 2020-01-28"
    assert "read as 1.234,5" in table.filter(pl.col("column") == "price")["noticed"][0]
    counts = {part: data.labels[data.index[part]].bincount().tolist() for part in ("train", "val", "test")}
    rows = "; ".join(f"{part} {no + yes} (no {no}, yes {yes})" for part, (no, yes) in counts.items())
    assert f"rows: {rows}" in caplog.text
    assert "9 columns: 4 number" in caplog.text
    assert "last epoch 1, which was the last that was asked for" in caplog.text
    assert json.loads((tmp_path / "run" / "table.json").read_text()) == {"findings": []}
    assert open_run(tmp_path / "run").data().report is None  # a finished run's table is not looked at again


def test_it_may_be_left_out(tmp_path: Path) -> None:
    config = configure(tmp_path, "data.look=false", "data=iris")
    assert set_up(config).report is None
    del config["data"]["look"]
    assert set_up(config).report


def test_the_folds_of_an_ensemble_are_no_rows_in_two_parts(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        data = set_up(configure(tmp_path, "data=iris", "ensemble.folds=3"))
    assert data.report
    assert not [one for one in data.report[1] if "stand among the training rows" in one.what]
    rows = described(data).splitlines()[-1]
    assert rows.startswith("rows: train 120 (setosa 40, versicolor 40, virginica 40); test 30")
    assert rows.endswith("; 3 folds of 40 to 40 validate")


def test_columns_may_be_called_as_polars_calls_its_own() -> None:
    frame = base().rename({"t": "count", "y": "len", "z": "literal"})
    for target in ("len", "count"):
        data = TabularData("table", lambda **_: frame, target, Split(), Columns(), rare_classes="merge")
        data.setup()
        assert data.report
        assert data.report[0]["column"].to_list() == ["x", "literal", "count", "len"]


def test_codes_that_tell_the_class_and_values_of_one_class() -> None:
    values = pl.Series("code", np.arange(400) % 4)
    (told,) = codes(values, np.arange(400) % 2)
    assert "each of which says more of the classes (100.0% of their variance)" in told.what
    assert not [*codes(values, np.zeros(400, int))]
