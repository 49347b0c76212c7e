"""An ensemble of a sweep's runs: which are taken, what it is, and what cannot be one."""

import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from conftest import configure
from handed import ensemble_of, open_run, train
from sklearn.metrics import log_loss

from classify import build, load
from classify.ensemble import main
from tabrun.cli.errors import UserError
from tabrun.verbs import evaluate, export, predict
from tabrun.verbs.ensemble import make, selected

WORDS = ["data=iris", "trainer.max_epochs=3"]
JOBS = {"0": ["model.hidden=[8]"], "1": ["optimizer.lr=0.3"], "2": ["model.hidden=[16,4]", "optimizer.lr=0.1"]}


def swept(sweep: Path, jobs: dict[str, list[str]]) -> Path:
    """What a sweep leaves that matters here: its note, and the folders of its jobs."""
    for name, words in jobs.items():
        train(configure(sweep / name, *WORDS, "test=false", *words))
    (sweep / "sweep.json").write_text(json.dumps(["a sweep"]))
    return sweep


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return swept(tmp_path_factory.mktemp("selection") / "sweep", JOBS)


@pytest.fixture(scope="module")
def run(sweep: Path) -> Path:
    make(build, sweep, sweep.with_name("run"))
    return sweep.with_name("run")


def test_selection_by_hand() -> None:
    """Two models that are each sure of one row and a third that guesses: the first two, once each."""
    sure = np.array([[[0.9, 0.1], [0.4, 0.6]], [[0.6, 0.4], [0.1, 0.9]], [[0.5, 0.5], [0.5, 0.5]]])
    assert selected(sure, np.array([0, 1])).tolist() == [1, 1, 0]
    assert selected(sure, np.array([0, 1]), np.array([1.0, 0.0])).tolist() == [1, 0, 0]
    assert selected(sure, np.eye(2)).tolist() == [1, 1, 0]


def test_selection_against_a_plain_loop() -> None:
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, 60)
    scores = random.normal(size=(7, 60, 3)) + 1.5 * random.random((7, 1, 1)) * np.eye(3)[labels]
    models = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    taken: list[int] = []
    history = []
    for _ in range(50):
        losses = [log_loss(labels, models[[*taken, i]].mean(0)) for i in range(7)]
        taken.append(int(np.argmin(losses)))
        history.append(min(losses))
    best = int(np.argmin(history)) + 1
    assert selected(models, labels).tolist() == [taken[:best].count(i) for i in range(7)]
    assert len(set(taken[:best])) > 1


def test_it_is_the_weighted_mean_of_the_runs(run: Path, sweep: Path) -> None:
    shares = json.loads((run / "run.json").read_text())["members"]
    assert sum(shares.values()) == pytest.approx(1)
    data = open_run(run).data()
    metrics = json.loads((run / "metrics.json").read_text())
    for part in ("val", "test"):
        rows, labels = data.part(part)
        mean = sum(share * load(sweep / name)(rows).double().softmax(-1) for name, share in shares.items())
        assert load(run)(rows).softmax(-1) == pytest.approx(mean, abs=1e-6)
        assert metrics[f"{part}/loss"] == pytest.approx(log_loss(labels, mean), abs=1e-6)
    alone = [json.loads((sweep / name / "metrics.json").read_text())["val/loss"] for name in JOBS]
    assert metrics["val/loss"] <= min(alone) + 1e-6


@pytest.mark.slow
def test_verbs_take_it_for_a_run(run: Path, tmp_path: Path) -> None:
    found = evaluate.evaluate(open_run(run), None, None, True)
    assert found["metrics"] == pytest.approx(json.loads((run / "metrics.json").read_text()), abs=1e-6)
    for kind in ("onnx", "torch"):
        assert export.export(open_run(run), kind)[1] <= 1e-5
    frame = open_run(run).data().labelled()[0]
    frame.write_csv(tmp_path / "table.csv")
    written = pl.concat(predict.predict(open_run(run), str(tmp_path / "table.csv")))
    assert written.select(pl.col("^probability_.*$")).to_numpy() == pytest.approx(
        load(run).predict_proba(frame), abs=1e-6
    )


@pytest.mark.filterwarnings("ignore")
def test_it_is_not_trained_again(run: Path, inside: Callable[..., Any]) -> None:
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    for words in ([f"rerun={run}", "folder=again"], [f"resume={run}", "trainer.max_epochs=9"]):
        said = inside(*words)
        assert re.fullmatch(r"error: \S+ is an ensemble of other runs: train these, and make one of them again", said)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path in before} == before


WRONG: dict[str, tuple[dict[str, list[str]], str]] = {
    "no job": ({}, "has no finished job"),
    "another split": ({"0": [], "1": ["data.split.seed=1"]}, "other columns, or other statistics of them|other rows"),
    "other columns": ({"0": [], "1": ["data.columns.ignore=['petal length (cm)']"]}, "has other columns"),
    "other classes": ({"0": ["data=wine"], "1": []}, r"has other classes \(setosa, versicolor, virginica\)"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_what_cannot_be_one_is_said(kind: str, tmp_path: Path) -> None:
    jobs, expected = WRONG[kind]
    (tmp_path / "sweep").mkdir()
    with pytest.raises(UserError, match=expected):
        make(build, swept(tmp_path / "sweep", jobs), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_sweep_of_ensembles_of_folds_is_none(tmp_path: Path) -> None:
    ensemble_of(configure(tmp_path / "sweep" / "0", *WORDS, "ensemble.folds=2", "test=false"))
    with pytest.raises(UserError, match="is of ensembles of folds, each of which is a mean already"):
        make(build, swept(tmp_path / "sweep", {}), tmp_path / "run")


def test_the_command(sweep: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    shutil.copytree(sweep, tmp_path / "sweep")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["ensemble", "sweep"])
    main(build)
    said = capsys.readouterr().out.splitlines()
    assert re.match(r"ensemble of \d of 3 jobs: job \d 0\.\d\d.*; the best of them alone has val/loss 0\.\d+", said[0])
    assert said[-1] == "sweep-ensemble"
    for words, expected in ((["sweep"], "holds a finished run already"), (["sweep/0"], "sweep/0 is no sweep")):
        monkeypatch.setattr(sys, "argv", ["ensemble", *words])
        with pytest.raises(SystemExit, match=f"error: .*{expected}"):
            main(build)


@pytest.mark.parametrize("change", [{"weight": -1.0}, {"weight": float("inf")}, {"name": 3}, {"config": {}}, {"x": 1}])
def test_a_checkpoint_with_other_members_is_refused(change: dict[str, Any], run: Path, tmp_path: Path) -> None:
    content = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
    content["members"][0] |= change
    torch.save(content, tmp_path / "odd.ckpt")
    with pytest.raises(UserError):
        load(tmp_path / "odd.ckpt")


def test_a_members_config_needs_trust_too(run: Path, tmp_path: Path) -> None:
    content = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
    content["members"][-1]["config"]["model"]["_target_"] = "os.system"
    torch.save(content, tmp_path / "odd.ckpt")
    with pytest.raises(UserError, match=r"would call .os\.system."):
        open_run(tmp_path / "odd.ckpt").trusted()
    with pytest.raises(UserError):
        load(tmp_path / "odd.ckpt")
