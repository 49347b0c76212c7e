"""Classes as they are wanted, columns that are kept, and runs that are found again."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from conftest import configure
from handed import open_run, set_up, train
from scipy.stats import binomtest

from classify import build, load
from tabrun.cli.errors import UserError, checkpoint_file
from tabrun.reading.values import RowError
from tabrun.verbs import measures, predict, runs

ROWS = 120


def written(folder: Path, **columns: Any) -> list[str]:
    random = np.random.default_rng(0)
    x = random.normal(size=ROWS)
    own = {"x": x, "t": random.choice(["a", "b"], ROWS), "y": np.where(x + random.normal(size=ROWS) > 0, "yes", "no")}
    pl.DataFrame(own | columns).write_csv(folder / "table.csv")
    return ["data=csv", f"data.path={folder / 'table.csv'}", "data.target=y", "trainer.max_epochs=2"]


def rare() -> list[str]:
    return [*["p", "q"] * 57, *["r"] * 4, *["s"] * 2]


def test_rare_classes_are_merged_or_dropped(tmp_path: Path) -> None:
    words = written(tmp_path, y=rare())
    with pytest.raises(UserError, match=r"class s has 2 rows: .*data.rare_classes=drop or merge"):
        set_up(configure(tmp_path, *words))
    for todo, classes, rows in (("merge", ["p", "q", "rare"], 120), ("drop", ["p", "q"], 114)):
        train(configure(tmp_path / todo, *words, f"data.rare_classes={todo}"))
        run = open_run(tmp_path / todo)
        assert list(run.schema.classes) == classes
        assert sum(map(len, run.data().index.values())) == rows
        labels = run.labelled(str(tmp_path / "table.csv"))[1]
        assert len(labels) == rows
        assert (labels == 2).sum() == (6 if todo == "merge" else 0)


def test_a_quantity_in_bins(tmp_path: Path) -> None:
    values = np.random.default_rng(3).gamma(2, 10, ROWS).round(3)
    words = written(tmp_path, y=values)
    with pytest.raises(UserError, match=r"a target is a class, not a quantity: data.bins=4"):
        set_up(configure(tmp_path, *words))
    train(configure(tmp_path / "run", *words, "data.bins=4"))
    run = open_run(tmp_path / "run")
    edges = [float(f"{edge:.6g}") for edge in np.quantile(values, [0.25, 0.5, 0.75])]
    expected = np.searchsorted(edges, values)
    names = [f"up to {edges[0]}", f"{edges[0]} to {edges[1]}", f"{edges[1]} to {edges[2]}", f"above {edges[2]}"]
    found = [run.schema.classes[label] for label in run.labelled(str(tmp_path / "table.csv"))[1]]
    assert found == [names[i] for i in expected]
    assert [run.schema.classes[label] for label in run.data().labels] == found
    with pytest.raises(UserError, match=r"column y, row 1: 'low' is not a number"):
        set_up(configure(tmp_path, *written(tmp_path, y=["low", "high"] * 60), "data.bins=4"))
    with pytest.raises(UserError, match=r"column y holds 2 values: data.bins=4 are too many"):
        set_up(configure(tmp_path, *written(tmp_path, y=[0, 1] * 60), "data.bins=4"))


def test_the_positive_class_is_the_second(tmp_path: Path) -> None:
    words = written(tmp_path)
    train(configure(tmp_path / "run", *words, "data.positive=no"))
    run, usual = open_run(tmp_path / "run"), set_up(configure(tmp_path, *words))
    assert run.schema.classes == ("yes", "no")
    assert (run.data().labels == 1 - usual.labels).all()
    classifier = load(tmp_path / "run")
    frame = pl.read_csv(tmp_path / "table.csv")
    assert (classifier.predict(frame, threshold=0.0) == "no").all()
    with pytest.raises(UserError, match=r"data.positive=maybe is not one of two classes: there are no, yes"):
        set_up(configure(tmp_path, *words, "data.positive=maybe"))


@pytest.mark.parametrize("target", [[0, 1] * 60, [True, False] * 60])
def test_the_target_comes_back_as_it_was(target: list[Any], tmp_path: Path) -> None:
    train(configure(tmp_path / "run", *written(tmp_path, y=target)))
    found = load(tmp_path / "run").predict(pl.read_csv(tmp_path / "table.csv"))
    assert set(found.tolist()) <= set(target)
    assert type(found.tolist()[0]) is type(target[0])


def test_columns_are_kept_and_unseen_values_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    train(configure(tmp_path / "run", *written(tmp_path, key=[f"k{i}" for i in range(ROWS)]), "data.id=key"))
    frame = pl.DataFrame({"key": ["1", "2", "3"], "x": [0.5, 1, 2], "t": ["a", "zzz", None], "note": ["u", "v", "w"]})
    frame.write_csv(tmp_path / "new.csv")
    run = open_run(tmp_path / "run")
    found = pl.concat(predict.predict(run, str(tmp_path / "new.csv"), keep=["note", "key", "note"]))
    assert found.columns[:2] == ["key", "note"]
    assert found["note"].to_list() == ["u", "v", "w"]
    assert "values that training never saw: 1 in t" in caplog.text
    with pytest.raises(UserError, match=r"there is no column nope: --keep names it"):
        list(predict.predict(run, str(tmp_path / "new.csv"), keep=["nope"]))


@pytest.mark.parametrize(("right", "rows"), [(95, 100), (1, 30), (30, 30), (0, 7)])
def test_the_interval_is_wilsons(right: int, rows: int) -> None:
    expected = binomtest(right, rows).proportion_ci(method="wilson")
    assert measures.wilson(right / rows, rows) == pytest.approx((expected.low, expected.high), abs=1e-6)


@pytest.mark.filterwarnings("ignore")
def test_runs_are_found_again(
    tmp_path: Path, inside: Callable[..., Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="latest: there is no finished run under outputs/"):
        checkpoint_file("latest")
    common = ["data=iris", "trainer.max_epochs=1"]
    assert inside(*common, "folder=outputs/one") is None
    assert inside("-m", *common, "optimizer.lr=0.001,0.1", "folder=outputs/sweep") is None
    assert inside(*common, "optimizer.lr=0.2", "folder=outputs/two") is None
    assert checkpoint_file("latest") == Path("outputs/two/checkpoints/best.ckpt")
    assert checkpoint_file("outputs/sweep") == Path("outputs/sweep/1/checkpoints/best.ckpt")
    rows = {row[0]: row for row in runs.listed(Path("outputs"), [])}
    assert list(rows) == ["outputs/one", "outputs/sweep", "outputs/two"]
    losses = {
        name: json.loads(Path(f"outputs/{name}/metrics.json").read_text())["val/loss"] for name in ("one", "sweep/1")
    }
    assert [rows[f"outputs/{name}"][3] for name in ("one", "sweep")] == pytest.approx([*losses.values()])
    assert [rows[name][4] for name in rows] == ["finished", "2 jobs", "finished"]
    assert [row[0] for row in runs.listed(Path("outputs"), ["lr=0.2"])] == ["outputs/two"]
    Path("outputs/two/metrics.json").unlink()
    assert runs.listed(Path("outputs"), ["two"])[0][4] == "unfinished"
    differing = {row[0]: row[1:] for row in runs.compared(Path("outputs/one"), Path("outputs/two"), build)}
    assert differing["optimizer.lr"] == [0.05, 0.2]
    assert "val/loss" in differing
    assert "data.path" not in differing
    capsys.readouterr()
    for words, shown in ((["one"], "outputs/one"), (["outputs/one", "outputs/two"], "optimizer.lr")):
        monkeypatch.setattr("sys.argv", ["runs", *words])
        runs.main(build)
        assert shown in capsys.readouterr().out
    monkeypatch.setattr("sys.argv", ["runs", "nope"])
    with pytest.raises(SystemExit, match="outputs holds no runs of these words"):
        runs.main(build)


def test_a_frame_of_texts_is_read_as_the_file_was(tmp_path: Path) -> None:
    """Such as pandas gives it, which makes neither numbers of prices nor truth values of yes and no."""
    random = np.random.default_rng(1)
    price = [f"${value:,.2f}" for value in random.gamma(2, 900, ROWS)]
    words = written(tmp_path, price=price, member=random.choice(["Y", "N"], ROWS), t=random.choice([" a", "b "], ROWS))
    train(configure(tmp_path / "run", *words))
    expected = pl.concat(predict.predict(open_run(tmp_path / "run"), str(tmp_path / "table.csv")))
    found = load(tmp_path / "run").predict_proba(pd.read_csv(tmp_path / "table.csv"))
    assert found == pytest.approx(expected.select(pl.col("^probability_.*$")).to_numpy(), abs=1e-6)
    odd = pd.read_csv(tmp_path / "table.csv").assign(price="cheap")
    with pytest.raises(UserError, match=r"column price, row 1: 'cheap' is not a number written as 1,234.5"):
        load(tmp_path / "run").predict(odd)


def test_a_row_that_is_wrong_is_told_between_processes() -> None:
    error = pickle.loads(pickle.dumps(RowError("x", 4, "is none")))
    assert str(error) == "column x, row 5: is none"


@pytest.mark.filterwarnings("ignore")
def test_what_is_better_and_slower_is_said_of_an_own_table(
    tmp_path: Path, inside: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    words = written(tmp_path)
    for more, said in ((words, True), ([*words, "ensemble.seeds=2"], False), (["data=iris", *words[3:]], False)):
        assert inside(*more, f"folder=run{len(more)}") is None
        assert (build.BETTER in capsys.readouterr().out) is said
