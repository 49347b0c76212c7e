"""A table of one's own: how its columns are read, split, predicted and exported, and what is said of a broken one."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import subprocess
import sys
import termios
from collections.abc import Callable
from datetime import date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from conftest import configure
from handed import open_run, set_up, train
from sklearn import metrics as sklearn_metrics
from sklearn.linear_model import LogisticRegression

import classify as template
from classify import build, load
from tabrun.reading import csv_file, reader
from tabrun.reading import sources as tables
from tabrun.reading.sources import read_csv
from tabrun.runs.run import Run
from tabrun.tables.columns import FIRST_CODE, MISSING, UNSEEN, Category, Columns, Number
from tabrun.tables.schema import Schema, take
from tabrun.verbs import evaluate, export, measures, onnx_file, predict

ROWS = 400


def churn(rows: int = ROWS, seed: int = 0) -> pl.DataFrame:
    """Numbers, a text with a comma in it, a date, booleans and missing values, and a target that depends on them."""
    random = np.random.default_rng(seed)
    age, plan = random.integers(18, 80, rows).astype(float), random.choice(["basic", "plus, yearly", "pro"], rows)
    yes = random.random(rows) < 1 / (1 + np.exp(-(age - 45) / 10 - 2.0 * (plan == "pro")))
    age[random.random(rows) < 0.1] = np.nan
    plan = np.where(random.random(rows) < 0.05, None, plan)
    return pl.DataFrame(
        {
            "customer": [f"c{i:04}" for i in range(rows)],
            "age": pl.Series(age, nan_to_null=True),
            "plan": pl.Series(plan, dtype=pl.String),
            "joined": pl.Series(random.integers(15_000, 19_000, rows)).cast(pl.Date),
            "spend": random.gamma(2.0, 30.0, rows),
            "active": random.random(rows) < 0.5,
            "country": ["NO"] * rows,
            "churned": np.where(yes, "yes", "no"),
        }
    )


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("table") / "churn.csv"
    churn().write_csv(file)
    return file


@pytest.fixture(scope="module")
def run(table: Path) -> Run:
    """Trained on the table with every kind of feature."""
    folder = table.parent / "run"
    options = ["data.columns.missing_indicators=true", "data.columns.date_parts=[month]", "data.id=customer"]
    train(configure(folder, "data=csv", f"data.path={table}", "data.target=churned", "trainer.max_epochs=5", *options))
    return open_run(folder)


@pytest.fixture
def run_of(tmp_path: Path) -> Callable[..., Run]:
    """Trains one epoch on a CSV file whose target is y."""

    def run(file: Path, *overrides: str) -> Run:
        folder = tmp_path / f"run{len(list(tmp_path.iterdir()))}"
        words = ["data=csv", f"data.path={file}", "data.target=y", "trainer.max_epochs=1", "test=false", *overrides]
        train(configure(folder, *words))
        return open_run(folder)

    return run


def fit(frame: pl.DataFrame, **columns: Any) -> Schema:
    return Schema.fit(frame, "churned", np.arange(len(frame)), Columns(**columns), [])


def data_of(frame: pl.DataFrame, tmp_path: Path, *overrides: str, target: str = "churned") -> Any:
    frame.write_parquet(tmp_path / "table.parquet")
    words = ["data=parquet", f"data.path={tmp_path / 'table.parquet'}", f"data.target={target}", *overrides]
    return set_up(configure(tmp_path, *words))


# What a column is


def test_kinds_are_inferred() -> None:
    schema = fit(churn(), date_parts=["month", "weekday"])
    assert [(n.name, n.kind) for n in schema.numbers] == [
        *(("age", "Float64"), ("joined", "Date"), ("spend", "Float64"), ("active", "Boolean"))
    ]
    assert [(c.name, c.part) for c in schema.categories] == [("plan", None), ("joined", "month"), ("joined", "weekday")]
    assert schema.categories[0].values == ("basic", "plus, yearly", "pro")


def test_what_is_left_out_is_said(caplog: pytest.LogCaptureFixture) -> None:
    fit(churn())
    assert "one value there: country" in caplog.text
    assert "another text in every row there: customer" in caplog.text


def test_columns_can_be_forced() -> None:
    frame = churn().with_columns(code=pl.lit(7) + pl.int_range(ROWS) % 3, text=(pl.int_range(ROWS) % 5).cast(pl.String))
    assert "code" in [n.name for n in fit(frame).numbers]
    schema = fit(frame, categories=["code"], numbers=["text"], ignore=["spend", "customer"])
    assert [c.name for c in schema.categories] == ["plan", "code"]
    assert {"text"} == {n.name for n in schema.numbers} - {"age", "joined", "active"}
    assert [c.name for c in fit(frame, small_integers=3).categories] == ["plan", "code", "text"]
    with pytest.raises(ValueError, match=r"no column cod: data.columns.categories names it .did you mean 'code'\?"):
        fit(frame, categories=["cod"])


def test_missing_and_infinite_numbers_become_the_training_mean() -> None:
    frame = pl.DataFrame({"x": [1.0, 3.0, None, float("inf"), float("nan")], "churned": list("abaab")})
    schema = fit(frame, missing_indicators=True)
    quantiles = tuple(np.linspace(1, 3, 33).tolist())
    assert schema.numbers[0] == Number("x", mean=2.0, std=1.0, indicator=True, quantiles=quantiles)
    net = build.net(configure("unused", "model=linear"), schema)
    assert net.encode(schema.rows(frame)).tolist() == [[-1, 0], [1, 0], [0, 1], [0, 1], [0, 1]]


def test_missing_and_unseen_categories_have_codes_of_their_own() -> None:
    frame = pl.DataFrame({"plan": ["a", "b", None, "a"], "churned": list("xyxy")})
    schema = fit(frame)
    new = pl.DataFrame({"plan": ["b", None, "never seen", ""]})
    numbers, codes = schema.rows(new)
    assert codes.tolist() == [[FIRST_CODE + 1], [MISSING], [UNSEEN], [MISSING]]
    assert (codes.dtype, numbers.shape) == (torch.uint8, (4, 0))
    encoded = build.net(configure("unused", "model=linear"), schema).encode((numbers, codes))
    assert encoded.tolist() == [[0, 0, 1], [1, 0, 0], [0, 0, 0], [1, 0, 0]]


@pytest.mark.parametrize("far", [1e9, 1.7e15, -3e12])
def test_small_differences_far_from_zero_keep_their_digits(far: float) -> None:
    """Unix time stamps, say: standardised as in float64, where float32 alone would leave nothing."""
    values = far + np.random.default_rng(0).integers(0, 1000, 200).astype(float)
    frame = pl.DataFrame({"x": values, "churned": list("ab") * 100})
    schema = fit(frame)
    encoded = build.net(configure("unused", "model=linear"), schema).encode(schema.rows(frame))
    expected = (values - values.mean()) / values.std()
    np.testing.assert_allclose(encoded[:, 0].numpy(), expected, atol=1e-5)


def test_a_large_category_is_embedded(caplog: pytest.LogCaptureFixture) -> None:
    values = [f"v{i % 10_000}" for i in range(20_000)]
    frame = pl.DataFrame({"city": values, "churned": list("ab") * 10_000})
    schema = fit(frame)
    assert "city is embedded: its training rows hold 10000 values" in caplog.text
    net = build.net(configure("unused", "model=linear"), schema)
    numbers, codes = schema.rows(frame)
    assert codes.dtype == torch.int16
    assert net((numbers, codes)).shape == (20_000, 2)
    unseen = net.encode((torch.empty(1, 0), torch.zeros(1, 1, dtype=torch.int16)))
    assert unseen.abs().sum() == 0


def test_a_schema_survives_plain_values(run: Run) -> None:
    assert Schema.from_plain(json.loads(json.dumps(run.schema.plain()))) == run.schema
    assert run.schema.target == "churned"


def test_embeddings_begin_too_small_to_drown_the_numbers() -> None:
    frame = pl.DataFrame({"x": range(2000), "city": [f"v{i % 200}" for i in range(2000)], "churned": ["a", "b"] * 1000})
    encode = build.net(configure("unused", "model=linear"), fit(frame)).encode
    weights = encode.embeddings["0"].weight
    assert weights[1:].std().item() == pytest.approx(0.01, rel=0.1)
    assert weights[0].abs().sum() == 0


def test_categories_that_say_nothing_leave_the_numbers_to_be_learned(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    x = random.normal(size=(1200, 2))
    frame = pl.DataFrame(x, schema=["u", "v"]).with_columns(
        *(pl.Series(name, random.integers(0, 150, 1200)).cast(pl.String).alias(name) for name in ("from", "to")),
        churned=pl.Series(x.sum(1) + random.normal(scale=0.3, size=1200) > 0),
    )
    data_of(frame, tmp_path)
    words = ["data=parquet", f"data.path={tmp_path / 'table.parquet'}", "data.target=churned", "trainer.max_epochs=40"]
    found = train(configure(tmp_path / "run", *words))["test/accuracy"]
    index = open_run(tmp_path / "run").data().index
    train_rows, test_rows = index["train"].numpy(), index["test"].numpy()
    labels = frame["churned"].to_numpy()
    expected = LogisticRegression().fit(x[train_rows], labels[train_rows]).score(x[test_rows], labels[test_rows])
    assert found >= expected - 0.03


# The target


@pytest.mark.parametrize(
    "values",
    [
        [0, 1],
        [-3, 7, 10],
        [True, False],
        [2.0, 1.0],
        [2**64 - 1, 2**64 - 2],
        ["b", "a"],
        [date(2024, 1, 2), date(1, 1, 1)],
        [datetime(2024, 1, 2, 3, 4, 5, 6), datetime(2024, 1, 2)],
        ["1", "02"],
    ],
)
@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_what_the_column_held_is_predicted(values: list, kind: str, tmp_path: Path) -> None:
    column = pl.Series("y", values * (60 // len(values)), dtype=pl.UInt64 if values[0] == 2**64 - 1 else None)
    frame = pl.DataFrame({"x": pl.int_range(len(column), eager=True) % len(values), "y": column})
    if kind == "csv" and values == ["1", "02"]:
        pytest.skip("a CSV file does not say that these are texts")
    getattr(frame, f"write_{kind}")(file := tmp_path / f"table.{kind}")
    train(configure(tmp_path / "run", f"data={kind}", f"data.path={file}", "data.target=y", "trainer.max_epochs=1"))
    classifier = load(tmp_path / "run")
    assert classifier.classes_.tolist() == sorted(values)
    assert [type(value) for value in classifier.classes_.tolist()] == [type(value) for value in sorted(values)]
    found = classifier.predict(frame)
    assert set(found.tolist()) <= set(values)
    numeric = column.dtype.is_numeric() or column.dtype == pl.Boolean
    assert found.dtype == (column.to_numpy().dtype if numeric else object) or column.dtype == pl.UInt64
    out = pl.concat(predict.predict(open_run(tmp_path / "run"), str(file)))  # a file has their names
    assert set(out["prediction"]) <= set(classifier.schema.classes)


@pytest.mark.parametrize(
    ("values", "classes"),
    [([True, False], ("false", "true")), ([10, 9], ("9", "10")), ([1.0, 0.0], ("0", "1")), (["b", "a"], ("a", "b"))],
)
def test_a_target_may_be_text_integers_or_booleans(values: list, classes: tuple[str, ...], tmp_path: Path) -> None:
    frame = pl.DataFrame({"x": np.arange(40.0), "churned": values * 20})
    data = data_of(frame, tmp_path)
    assert data.schema.classes == classes
    assert data.labels.tolist() == [1, 0] * 20


def test_soft_targets(tmp_path: Path) -> None:
    share = np.random.default_rng(0).random(60)
    frame = pl.DataFrame({"x": share, "no": 1 - share, "yes": share})
    data = data_of(frame, tmp_path, target="[no,yes]")
    np.testing.assert_allclose(data.labels.numpy(), np.stack([1 - share, share], 1), atol=1e-7)
    assert data.schema.classes == ("no", "yes")
    assert data.schema.feature_names == ["x"]
    metrics = train(
        configure(tmp_path / "run", "data=parquet", f"data.path={tmp_path / 'table.parquet'}", "data.target=[no,yes]")
    )
    assert metrics["test/accuracy"] > 0.8
    assert evaluate.evaluate(open_run(tmp_path / "run"), None, None, True)["rows"] == 12


def test_rows_without_a_target_are_refused_or_left_out(tmp_path: Path) -> None:
    frame = churn().with_columns(churned=pl.when(pl.int_range(ROWS) == 6).then(None).otherwise(pl.col("churned")))
    with pytest.raises(ValueError, match="column churned, row 7: the target is missing in 1 rows"):
        data_of(frame, tmp_path)
    assert len(data_of(frame, tmp_path, "data.drop_missing_target=true").labels) == ROWS - 1


# Splits


def test_split_by_column_group_and_time(tmp_path: Path) -> None:
    parts = pl.Series(["train", "val", "test", "train"] * (ROWS // 4))
    frame = churn().with_columns(part=parts, household=pl.int_range(ROWS) % 50)
    index = data_of(frame, tmp_path, "data.split.column=part").index
    assert {name: set(parts[rows.numpy()].to_list()) for name, rows in index.items()} == {n: {n} for n in index}
    index = data_of(frame, tmp_path, "data.split.group=household").index
    homes = [set(frame["household"][rows.numpy()].to_list()) for rows in index.values()]
    assert sum(map(len, homes)) == len(set.union(*homes)) == 50
    assert 0.1 < len(index["test"]) / ROWS < 0.3
    data = data_of(frame, tmp_path, "data.split.time=joined")
    days = [frame["joined"][rows.numpy()] for rows in data.index.values()]
    assert days[0].max() <= days[1].min() <= days[1].max() <= days[2].min()
    assert "joined" not in data.schema.feature_names


@pytest.mark.parametrize("group", [None, "household"])
def test_folds_validate_every_row_once_and_leave_the_test_rows(tmp_path: Path, group: str | None) -> None:
    frame = churn().with_columns(household=pl.int_range(ROWS) % 50)
    words = [f"data.split.group={group}"] if group else []
    folds = [data_of(frame, tmp_path, "data.num_folds=5", f"data.fold={k}", *words) for k in range(5)]
    tests = {tuple(fold.index["test"].tolist()) for fold in folds}
    assert len(tests) == 1
    validated = sorted(row for fold in folds for row in fold.index["val"].tolist())
    assert validated == sorted(set(range(ROWS)) - set(tests.pop()))
    shares = [(frame["churned"][fold.index["val"].numpy()] == "yes").mean() for fold in folds]
    if group:
        for fold in folds:
            assert not set(frame["household"][fold.index["val"].numpy()]) & set(
                frame["household"][fold.index["train"].numpy()]
            )
    else:
        assert max(shares) - min(shares) < 0.03  # type: ignore[type-var, operator]


def test_changing_test_rows_changes_nothing_in_the_schema(tmp_path: Path) -> None:
    data = data_of(churn(), tmp_path)
    tested = pl.int_range(ROWS).is_in(data.index["test"].tolist())
    changed = churn().with_columns(
        pl.when(tested).then(1e5).otherwise(pl.col("age")).alias("age"),
        pl.when(tested).then(pl.lit("new")).otherwise(pl.col("plan")).alias("plan"),
        pl.when(tested).then(pl.lit("SE")).otherwise(pl.col("country")).alias("country"),
    )
    assert data_of(changed, tmp_path).schema == data.schema


def test_an_outlying_test_row_of_a_csv_changes_nothing_in_the_schema(tmp_path: Path) -> None:
    def data(frame: pl.DataFrame) -> Any:
        frame.write_csv(tmp_path / "table.csv")
        words = [f"data.path={tmp_path / 'table.csv'}", "data.target=churned", "data.split.column=part"]
        return set_up(configure(tmp_path, "data=csv", *words))

    parts = pl.Series(["train", "train", "val", "test"] * 100)
    far = pl.Series(1e9 + np.arange(400) * 0.01)
    frame = pl.DataFrame({"x": far, "near": far - 1e9, "churned": ["a", "b"] * 200, "part": parts})
    test_rows = pl.col("part") == "test"
    changed = frame.with_columns(pl.when(test_rows).then(1e15).otherwise(pl.col("x", "near")).name.keep())
    assert data(changed).schema == data(frame).schema
    assert [n.name for n in data(frame).schema.numbers] == ["x", "near"]


WHEN = pl.datetime(2024, 1, 1) + pl.duration(hours=pl.int_range(ROWS) * 7919 % 5003)  # not in the table's order


@pytest.mark.parametrize(
    ("words", "folds"),
    [
        ([], 1),
        (["data.split.column=part"], 1),
        (["data.split.group=household"], 1),
        (["data.split.time=when"], 1),
        (["data.num_folds=3"], 3),
        (["data.num_folds=3", "data.split.group=household"], 3),
    ],
)
def test_every_kind_of_split_trains(words: list[str], folds: int, tmp_path: Path) -> None:
    parts = pl.Series(["train", "val", "test", "train"] * (ROWS // 4))
    frame = churn().with_columns(part=parts, household=pl.int_range(ROWS) % 50, when=WHEN)
    frame.write_csv(file := tmp_path / "table.csv")
    ignored = "data.columns.ignore=[part,household,when]"
    words = ["data=csv", f"data.path={file}", "data.target=churned", ignored, "trainer.max_epochs=1", *words]
    for fold in range(folds):
        metrics = train(configure(tmp_path / f"run{fold}", *words, f"data.fold={fold}"))
        assert {"val/loss", "test/loss"} <= metrics.keys()
        data = open_run(tmp_path / f"run{fold}").data()
        assert sorted(row for index in data.index.values() for row in index.tolist()) == list(range(ROWS))
    if "data.split.time=when" in words:
        times = pd.read_csv(file, parse_dates=["when"])["when"].sort_values()
        sizes = {name: len(index) for name, index in data.index.items()}
        assert sizes == {"train": ROWS * 6 // 10, "val": ROWS * 2 // 10, "test": ROWS * 2 // 10}
        expected = np.split(times.index.to_numpy(), [sizes["train"], sizes["train"] + sizes["val"]])
        for index, rows in zip(data.index.values(), expected, strict=True):
            assert index.tolist() == sorted(rows)


def test_rows_of_one_time_keep_the_order_of_the_table(tmp_path: Path) -> None:
    frame = pl.DataFrame({"x": range(100), "when": ["2024"] * 100, "churned": ["a", "b"] * 50})
    index = data_of(frame, tmp_path, "data.split.time=when").index
    assert [row for part in index.values() for row in part.tolist()] == list(range(100))


# Verbs


def test_csv_and_parquet_give_the_same_tensors(table: Path, tmp_path: Path) -> None:
    from_csv = set_up(configure(tmp_path, "data=csv", f"data.path={table}", "data.target=churned"))
    assert from_csv.sha256 == data_of(churn(), tmp_path).sha256


def test_the_kind_of_a_file_is_told_from_its_content(table: Path, tmp_path: Path) -> None:
    churn().write_parquet(file := tmp_path / "table.csv")
    assert read_csv(str(file)).equals(pl.read_parquet(file))
    with pytest.raises(ValueError, match=r"churn.csv is not a Parquet file but CSV: say data=csv"):
        tables.read_parquet(str(table))


def predict_file(*words: str, cwd: Path) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "classify.predict", *words]
    return subprocess.run(command, cwd=cwd, capture_output=True, stdin=subprocess.DEVNULL, check=False)


def test_predict_streams_what_load_gives(run: Run, table: Path, tmp_path: Path) -> None:
    expected = load(run.folder).predict_proba(churn())
    shuffled = churn().select(reversed(churn().columns)).with_columns(extra=1)
    shuffled.write_parquet(tmp_path / "shuffled.parquet")
    done = predict_file(str(run.folder), "shuffled.parquet", "-o", "out.csv", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == b"columns that training left out are ignored: country, extra\n"  # and no progress bar
    out = pl.read_csv(tmp_path / "out.csv")
    assert out.columns == ["customer", "probability_no", "probability_yes", "prediction"]
    np.testing.assert_allclose(out[:, 1:3].to_numpy(), expected, atol=1e-6)
    assert out["customer"].to_list() == churn()["customer"].to_list()
    assert out["prediction"].to_list() == np.array(["no", "yes"])[(expected[:, 1] >= 0.5).astype(int)].tolist()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.csv", "shuffled.parquet"]


def test_rows_are_computed_by_pieces_and_come_out_in_order(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    classifier, rows = load(run.folder), run.schema.rows(churn())
    assert isinstance(rows, tuple)  # numbers and codes, which are cut alike
    expected = classifier(rows).softmax(-1)
    for size in (1, 7, len(expected), 10_000):
        monkeypatch.setattr("tabrun.runs.predictor.PIECE", size)
        torch.testing.assert_close(classifier.probabilities(rows), expected)
        assert classifier.probabilities(tuple(part[:0] for part in rows)).shape == (0, 2)


def test_the_table_of_a_run_is_not_written_over(
    run: Run, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, before = Path(run.config["data"]["path"]), table.read_bytes()
    churn().write_csv(tmp_path / "new.csv")
    monkeypatch.setattr(sys, "argv", ["predict", str(run.folder), str(tmp_path / "new.csv"), "-o", str(own)])
    with pytest.raises(SystemExit, match=r"error: --out .* is the table itself, or the one of the run"):
        predict.main(build)
    assert (own, own.read_bytes()) == (table, before)


def test_predict_without_id_columns(tmp_path: Path) -> None:
    tables.from_sklearn("iris", "species").write_csv(tmp_path / "iris.csv")
    train(configure(tmp_path / "run", "data=iris", "trainer.max_epochs=1"))
    (out,) = batches(open_run(tmp_path / "run"), (tmp_path / "iris.csv").read_bytes(), tmp_path)
    assert out.columns == [*(f"probability_{name}" for name in ("setosa", "versicolor", "virginica")), "prediction"]
    assert len(out) == 150


def test_predict_reads_pipes_and_shows_rows_per_second_on_a_terminal(run: Run, table: Path) -> None:
    """A named pipe in, a pipe out, and a pseudo-terminal for messages."""
    words = f"{sys.executable} -m classify.predict {run.folder} <(cat {table}) --threshold 0.9"
    terminal, its_end = pty.openpty()
    termios.tcsetwinsize(its_end, (24, 80))
    process = subprocess.Popen(["bash", "-c", words], stdout=subprocess.PIPE, stderr=its_end)
    os.close(its_end)
    lines = process.communicate()[0].decode().splitlines()
    assert process.returncode == 0
    assert len(lines) == ROWS + 1
    probabilities = load(run.folder).predict_proba(churn())
    assert sum(line.endswith(",yes") for line in lines) == (probabilities[:, 1] >= 0.9).sum()
    assert re.search(rb"400 rows \[[0-9:]+, [0-9.]+k? rows/s\]", os.read(terminal, 2**16))
    os.close(terminal)


def test_predict_says_standard_input(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["predict", str(run.folder), "-"])
    for text, said in ((b"a,b\n1,2\n", "standard input: there is no column age"), (b"", "standard input is empty")):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))
        with pytest.raises(SystemExit, match=f"error: {said}"):
            predict.main(build)


def batches(run: Run, frame: pl.DataFrame | bytes, tmp_path: Path, ending: str = "csv") -> list[pl.DataFrame]:
    file = tmp_path / f"new.{ending}"
    if isinstance(frame, bytes):
        file.write_bytes(frame)
    else:
        getattr(frame, f"write_{ending}")(file)
    return list(predict.predict(run, str(file)))


def test_predict_refuses(run: Run, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"new.parquet has no rows to predict"):
        batches(run, churn().head(0), tmp_path, "parquet")
    text = churn().with_columns(
        spend=pl.when(pl.int_range(ROWS) == 250).then(pl.lit("much")).otherwise(pl.col("spend").cast(pl.String))
    )
    with pytest.raises(ValueError, match=r"new.parquet: column spend, row 251: 'much' is not a number"):
        batches(run, text, tmp_path, "parquet")


ID = {  # kinds of ids that CSV, or a detour through it, would not keep
    "duration": pl.Series([60_000_000, None, 3] * 20, dtype=pl.Duration("us")),
    "bytes": pl.Series([b"\xff\x00", b"", None] * 20),
    "list": pl.Series([[1, 2], [], None] * 20),
    "struct": pl.Series([{"a": 1, "b": "x"}, {"a": None, "b": "y"}, {"a": 3, "b": None}] * 20),
    "day": pl.Series([date(2024, 1, 2), date(1, 1, 1), None] * 20),
    "text": pl.Series(["007", "", None] * 20),
}


def test_predictions_in_parquet_keep_every_kind_of_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quoted = pl.Series(['say "so"', "a,b", "it's"] * 20)
    frame = pl.DataFrame(ID).with_columns(x=pl.int_range(60), y=quoted)
    frame.write_parquet(file := tmp_path / "table.parquet")
    words = ["data=parquet", f"data.path={file}", "data.target=y", f"data.id=[{','.join(ID)}]", "trainer.max_epochs=1"]
    train(configure(tmp_path / "run", *words))
    monkeypatch.setattr(reader, "BATCH_ROWS", 7)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["predict", "run", "table.parquet", "-o", "out.Parquet"])
    predict.main(build)
    out = pl.read_parquet(tmp_path / "out.Parquet")
    assert out.select(ID.keys()).equals(frame.select(ID.keys()))
    assert out.schema["probability_a,b"] == pl.Float32
    np.testing.assert_allclose(out.select(out.columns[-4:-1]).to_numpy(), load("run").predict_proba(frame), atol=1e-6)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.Parquet", "run", "table.parquet"]
    assert out["prediction"].to_list() == load("run").predict(frame).tolist()
    monkeypatch.setattr(sys, "argv", ["predict", "run", "table.parquet", "-o", "out.csv"])
    with pytest.raises(SystemExit, match=r"error: CSV .*: name a .parquet file with --out"):
        predict.main(build)
    assert not (tmp_path / "out.csv").exists()


@pytest.mark.slow
def test_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inside: Callable[..., Any]) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    churn().write_csv(tmp_path / "churn.csv")
    words = ["data=csv", "data.path=~/churn.csv", "data.target=churned", "trainer.max_epochs=1"]
    assert inside(*words, "folder=~/run") is None
    assert inside("-m", *words, "folder=~/sweep", "seed=0,1") is None
    assert inside(*words, "folder=~/next", "init_from=~/run") is None
    assert inside("rerun=~/run", "folder=~/again") is None
    assert inside("resume=~/run", "trainer.max_epochs=2") is None
    monkeypatch.setattr(sys, "argv", ["predict", "~/run", "~/churn.csv", "-o", "~/out.csv"])
    predict.main(build)
    monkeypatch.setattr(sys, "argv", ["evaluate", "~/run", "~/churn.csv"])
    evaluate.main(build)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"churn.csv", "run", "sweep", "next", "again", "out.csv"}
    assert len(load("~/run").predict(churn())) == ROWS


def test_a_failed_prediction_leaves_the_old_file(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "out.csv").write_text("before")
    late = churn().with_columns(pl.col("spend").cast(pl.String)).vstack(churn(1).with_columns(spend=pl.lit("much")))
    late.write_csv(tmp_path / "new.csv")
    monkeypatch.setattr(csv_file, "BLOCK_BYTES", 4096)  # so that many rows have been written by then
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["predict", str(run.folder), "new.csv", "-o", "out.csv"])
    with pytest.raises(SystemExit, match=r"^error: new.csv: column spend, row 401: 'much' is not a number") as stop:
        predict.main(build)
    assert "\n" not in str(stop.value)
    assert (tmp_path / "out.csv").read_text() == "before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new.csv", "out.csv"]


def test_frames_of_pandas_and_polars(run: Run) -> None:
    classifier, columns = load(run.folder), {name: churn()[name].to_list() for name in churn().columns}
    frame = pd.DataFrame(columns).assign(joined=pd.to_datetime(columns["joined"]))
    np.testing.assert_allclose(classifier.predict_proba(frame), classifier.predict_proba(churn()), atol=1e-6)
    assert classifier.predict(frame).tolist() == classifier.predict(churn()).tolist()
    assert classifier.classes_.tolist() == ["no", "yes"]
    assert set(classifier.predict(churn(), threshold=0.0)) == {"yes"}
    assert classifier.predict(churn().lazy()).tolist() == classifier.predict(churn()).tolist()
    for nothing, said in (
        ({"age": [1]}, "rows are a dict"),
        (["a", "b"], "rows are a list"),
        ("churn.csv", "rows are a str"),
        (None, "rows are a NoneType"),
        (churn()["plan"], "rows are a Series"),
        (pd.Series(["a"]), "rows are a Series"),
        (np.array([["a"]]), "rows are a ndarray <U1, not a frame"),
        (np.array([["a"]], object), "rows are a ndarray object, not a frame"),
        ((np.zeros((1, 4)), np.array([["a"]])), "rows are a ndarray"),
    ):
        with pytest.raises(TypeError, match=said):
            classifier.predict_proba(nothing)
    with pytest.raises(ValueError, match=r"no column plan: the classifier was trained with it .did you mean 'plans'"):
        classifier.predict(churn().rename({"plan": "plans"}))
    with pytest.raises(ValueError, match=r"row 1: its scores, divided by the temperature 1e-320, are beyond float32"):
        classifier.predict_proba(churn(), temperature=1e-320)
    assert "load" in dir(template)
    with pytest.raises(ValueError, match=r"rows are \(2, 4\).* and codes"):
        classifier.predict_proba(np.zeros((2, 4)))


def test_evaluate_is_scikit_learns(run: Run) -> None:
    result = evaluate.evaluate(run, None, 0.4, calibrate=True)
    data, classifier = run.data(), run.classifier()
    test, training = data.index["test"], data.index["train"]
    labels = data.labels[test].numpy()
    yes = classifier(take(data.rows, test)).double().softmax(-1).numpy()[:, 1]
    found, predictions = result["measures"]["this run"], yes >= 0.4
    expected = {
        "accuracy": sklearn_metrics.accuracy_score(labels, predictions),
        "f1": sklearn_metrics.f1_score(labels, predictions, average="macro"),
        "auroc": sklearn_metrics.roc_auc_score(labels, yes),
        "average_precision": sklearn_metrics.average_precision_score(labels, yes),
        "log_loss": sklearn_metrics.log_loss(labels, yes),
        "brier_score": np.mean((yes - labels) ** 2),
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-6)
    assert result["confusion"] == sklearn_metrics.confusion_matrix(labels, predictions).tolist()
    report = sklearn_metrics.classification_report(labels, predictions, target_names=["no", "yes"], output_dict=True)
    for name in ("no", "yes"):
        assert list(result["per_class"][name].values()) == pytest.approx(list(report[name].values()), abs=1e-6)
    majority = np.bincount(data.labels[training]).argmax()
    assert result["measures"]["majority class"]["accuracy"] == pytest.approx((labels == majority).mean())
    before, after = found["log_loss"], result["measures"]["calibrated"]["log_loss"]
    assert result["temperature"] > 0
    assert before != after
    assert {"val/loss", "test/loss"} <= set(result["metrics"])


def test_the_temperature_is_where_the_loss_is_least() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(2, (4000,), generator=generator)
    honest = torch.stack(
        [torch.zeros(4000), torch.where(labels == 1, 1.0, -1.0) + torch.randn(4000, generator=generator) * 1.414], 1
    )
    found = measures.fit_temperature(honest * 3, labels)
    losses = {
        t: torch.nn.functional.cross_entropy(honest * 3 / t, labels).item() for t in (found, found * 0.98, found * 1.02)
    }
    assert min(losses, key=losses.get) == found  # type: ignore[arg-type]
    assert found == pytest.approx(3, rel=0.1)


def test_evaluate_on_another_table(run: Run, tmp_path: Path) -> None:
    churn(seed=1).write_csv(tmp_path / "other.csv")
    result = evaluate.evaluate(run, str(tmp_path / "other.csv"), None, False)
    expected = (load(run.folder).predict(churn(seed=1)) == churn(seed=1)["churned"].to_numpy()).mean()
    assert result["measures"]["this run"]["accuracy"] == pytest.approx(expected)
    churn(seed=1).drop("churned").write_csv(tmp_path / "other.csv")
    with pytest.raises(ValueError, match="no column churned"):
        evaluate.evaluate(run, str(tmp_path / "other.csv"), None, False)


@pytest.mark.parametrize("kind", ["onnx", "torch"])
def test_export_is_the_checkpoint(run: Run, kind: str) -> None:
    file, difference = export.export(run, kind)
    assert difference <= 1e-5
    about = json.loads(file.with_name(f"{file.name}.json").read_text())
    assert about["classes"] == ["no", "yes"]
    assert [i["name"] for i in about["inputs"]] == ["age", "joined", "spend", "active", "plan", "joined.month"]
    if kind == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(file)
        for rows in (1, 7, 400):  # a dynamic batch
            new = churn(rows, seed=2).with_columns(plan=pl.lit("never seen"))
            found = session.run(None, onnx_file.raw_inputs(run.schema, new))[0]
            np.testing.assert_allclose(found, load(run.folder).predict_proba(new), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("frame", [churn().select("age", "churned"), churn().select("plan", "churned")])
def test_export_of_numbers_or_categories_alone(frame: pl.DataFrame, tmp_path: Path) -> None:
    frame.write_parquet(tmp_path / "table.parquet")
    words = ["data=parquet", f"data.path={tmp_path / 'table.parquet'}", "data.target=churned", "trainer.max_epochs=1"]
    train(configure(tmp_path / "run", *words))
    assert export.export(open_run(tmp_path / "run"), "onnx")[1] <= 1e-5


# CSV files


def csv(text: str) -> Callable[[Path], list[str]]:
    def write(file: Path) -> list[str]:
        file.write_text(text)
        return csv_words(file)

    return write


def csv_words(file: Path) -> list[str]:
    return ["data=csv", f"data.path={file}", "data.target=y"]


GOOD = "".join(f"{i},{'ab'[i % 2]}\n" for i in range(30))


def test_integers_that_turn_to_fractions_are_numbers_all_the_same(tmp_path: Path) -> None:
    csv("x,y\n" + "".join(f"{i},a\n" for i in range(20_000)) + "0.5,b\n")(tmp_path / "table.csv")
    assert read_csv(str(tmp_path / "table.csv"), "y")["x"].dtype.is_float()


def test_quoted_lines_blank_lines_and_a_mark_at_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_file, "BLOCK_BYTES", 64)  # cuts within rows, and within quotes
    texts = ["two\nlines", 'a "quote"', "plain, with a comma", "end\r\nhere"] * 20
    frame = pl.DataFrame({"text": texts, "x": range(80), "y": ["a", "b"] * 40})
    (tmp_path / "table.csv").write_bytes(b"\xef\xbb\xbf" + frame.write_csv().encode() + b"\n\n")
    assert read_csv(str(tmp_path / "table.csv"), "y").equals(frame)


def test_tabs_numbers_as_names_and_texts_for_dates(tmp_path: Path) -> None:
    frame = pl.DataFrame({"1": range(40), "day": ["2024-01-02", "2024-02-03"] * 20, "2": [True, False] * 20})
    (tmp_path / "table.tsv").write_text(frame.write_csv(separator="\t"))
    words = ["data=csv", f"data.path={tmp_path / 'table.tsv'}", "data.target=2", r"data.read.separator='\t'"]
    train(configure(tmp_path / "run", *words, "trainer.max_epochs=1"))
    run = open_run(tmp_path / "run")
    assert run.schema.classes == ("false", "true")
    typed = frame.with_columns(pl.col("day").str.to_date())
    np.testing.assert_array_equal(load(run.folder).predict_proba(frame), load(run.folder).predict_proba(typed))
    assert len(run.labelled(str(tmp_path / "table.tsv"))[1]) == 40


def test_whole_numbers_as_floats_are_the_same_categories() -> None:
    schema = fit(pl.DataFrame({"k": [1, 2, 3] * 10, "churned": list("ab") * 15}), categories=["k"])
    as_floats = pl.DataFrame({"k": [1.0, 3.0, None]})
    assert schema.rows(as_floats)[1].flatten().tolist() == [FIRST_CODE, FIRST_CODE + 2, UNSEEN]


@pytest.mark.parametrize(("trained", "same"), [(pl.Int64, 7), (pl.Float64, 7), (pl.String, 7), (pl.Boolean, True)])
def test_a_category_is_the_same_in_every_type(trained: Any, same: Any) -> None:
    values = [True, False] if trained == pl.Boolean else [7, 8]
    frame = pl.DataFrame({"k": pl.Series(values * 10).cast(trained), "churned": list("ab") * 10})
    schema = fit(frame, categories=["k"])
    codes = [schema.rows(pl.DataFrame({"k": [value]}))[1].item() for value in (same, str(same), float(same), "other")]
    known = FIRST_CODE + (trained == pl.Boolean)  # false comes before true
    assert codes == [known, known, UNSEEN if trained == pl.Boolean else known, UNSEEN]


def test_what_is_said_of_columns_reaches_the_file(tmp_path: Path, run_of: Callable[..., Run]) -> None:
    """Codes with zeros, numbers that begin late, texts in what is ignored, in ids and in groups."""
    lines = ["id,code,late,note,home,x,y", *(f"{i},{i % 3:03},,{i},{i % 50},{i / 7},{'ab'[i % 2]}" for i in range(200))]
    lines += [f"C{i},{i % 3:03},{i},none,H{i % 50},{i / 7},{'ab'[i % 2]}" for i in range(200)]
    (tmp_path / "table.csv").write_text("\n".join(lines))
    words = [
        "data.columns.ignore=[note]",
        "data.columns.categories=[code]",
        "data.columns.numbers=[late]",
        "data.id=id",
    ]
    run = run_of(tmp_path / "table.csv", *words, "data.split.group=home", "data.read.head=100")
    assert [(c.name, c.values) for c in run.schema.categories] == [("code", ("000", "001", "002"))]
    assert [n.name for n in run.schema.numbers] == ["late", "x"]
    new = b"code,x,late,id\n001,1,,007\n1,1,,C8\n2.0,1,,9\nnew,1,,9\n,1,,9"
    out = pl.concat(batches(run, new, tmp_path))
    assert out["id"].to_list() == ["007", "C8", "9", "9", "9"]
    expected = pl.DataFrame({"code": ["001", "001", "002", "?", "?"], "x": [1.0] * 5, "late": [None] * 5})
    np.testing.assert_array_equal(out[:, 1:3].to_numpy(), run.classifier().predict_proba(expected))
    with pytest.raises(
        ValueError, match=r"table.csv: there is no column nota: data.columns.ignore names it \(did you mean 'note'\?\)"
    ):
        run_of(tmp_path / "table.csv", *words, "data.columns.ignore=[nota]", "data.read.head=1000")
    with pytest.raises(ValueError, match=r"table.csv: column note, row 201: 'none' is not a number, as the rows"):
        run_of(tmp_path / "table.csv", "data.columns.ignore=[id,home]", "data.read.head=100")


def test_an_unseen_text_among_small_integers(tmp_path: Path, run_of: Callable[..., Run]) -> None:
    text = "k,x,y\n" + "".join(f"{i % 5},{i},{'ab'[i % 2]}\n" for i in range(60))
    (tmp_path / "table.csv").write_text(text)
    run = run_of(tmp_path / "table.csv", "data.columns.small_integers=5")
    assert run.schema.categories[0].kind == "Int64"
    (out,) = batches(run, b"k,x\n3,1\n3.0,1\nother,1\n9,1\n", tmp_path)
    found = out["probability_a"].to_list()
    assert found[0] == found[1] != found[2] == found[3]
    (tmp_path / "other.csv").write_text(text + "other,1,a\n")
    assert run.labelled(str(tmp_path / "other.csv"))[0][1][-1].item() == UNSEEN  # type: ignore[index]


def test_rows_are_counted_as_the_file_has_them(tmp_path: Path) -> None:
    """Rows without a target among them, and rows that do not train."""
    frame = churn().with_columns(
        churned=pl.when(pl.int_range(ROWS) < 50).then(None).otherwise(pl.col("churned")),
        age=pl.when(pl.int_range(ROWS) == 99).then(1e300).otherwise(pl.col("age")),
        part=pl.Series(["train"] * 100 + ["val", "test"] * 148 + ["train"] * 3 + ["later"]),
        text=pl.when(pl.int_range(ROWS) == 398).then(pl.lit("much")).otherwise(pl.lit("1")),
    )
    words = ["data.drop_missing_target=true"]
    with pytest.raises(ValueError, match=r"table.parquet: column age, row 100: 1e\+300 is beyond float32"):
        data_of(frame, tmp_path, *words)
    with pytest.raises(ValueError, match=r"table.parquet: column part, row 400: 'later' is not train, val or test"):
        data_of(frame, tmp_path, *words, "data.split.column=part")
    frame = frame.with_columns(age=1.0, part=pl.col("part").replace("later", "train"))
    with pytest.raises(ValueError, match=r"table.parquet: column text, row 399: 'much' is not a number"):
        data_of(frame, tmp_path, *words, "data.split.column=part", "data.columns.numbers=[text]")


def test_arrays_are_read_as_frames_are(tmp_path: Path) -> None:
    frame = pl.DataFrame({"x": 1e9 + np.random.default_rng(0).random(60), "churned": list("ab") * 30})
    frame.write_parquet(tmp_path / "table.parquet")
    words = ["data=parquet", f"data.path={tmp_path / 'table.parquet'}", "data.target=churned", "trainer.max_epochs=1"]
    train(configure(tmp_path / "run", *words))
    classifier = load(tmp_path / "run")
    np.testing.assert_array_equal(
        classifier.predict_proba(frame), classifier.predict_proba(frame.select("x").to_numpy())
    )


def test_other_separators_and_missing_values(tmp_path: Path) -> None:
    text = "x;y\n" + GOOD.replace(",", ";") + "-;a\n"
    words = csv(text)(tmp_path / "table.csv")
    data = set_up(configure(tmp_path, *words, "data.read.separator=';'", "data.read.null_values=['-']"))
    assert data.rows.isnan().sum() == 1


def test_a_category_reads_what_its_column_says() -> None:
    category = Category("x", ("a", "b"), has_missing=False, embedded=False)
    assert category.read(pl.Series(["b", None, "c", "a"])).tolist() == [FIRST_CODE + 1, UNSEEN, UNSEEN, FIRST_CODE]
