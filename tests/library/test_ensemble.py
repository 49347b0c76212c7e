"""Ensembles: one run of several nets: what it is made of, how it is judged, and what cannot be one."""

import json
import operator
import re
import shutil
from collections.abc import Callable
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from conftest import configure
from handed import ensemble_of, open_run, set_up, train
from sklearn.metrics import log_loss
from sklearn.model_selection import StratifiedKFold

from classify import build, load
from tabrun.cli.errors import UserError
from tabrun.runs.trust import recorded
from tabrun.stack.ensemble import members
from tabrun.verbs import evaluate, export, measures, predict

WORDS = ["data=iris", "trainer.max_epochs=12", "trainer.precision=64-true", "callbacks.early_stopping.patience=3"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ensemble of seven folds, which are not equally long."""
    folder = tmp_path_factory.mktemp("ensemble") / "run"
    ensemble_of(configure(folder, *WORDS, "ensemble.folds=7"))
    return folder


def metrics_of(folder: Path) -> dict[str, float]:
    return json.loads((folder / "metrics.json").read_text())


def nets_of(folder: Path) -> list[Any]:
    """The members' nets, from the template and the checkpoint alone."""
    run, nets = open_run(folder), []
    while weights := {k: v for k, v in run.weights.items() if k.startswith(f"nets.{len(nets)}.")}:
        net = build.net(run.config, run.schema).double().eval()
        net.load_state_dict({name.split(".", 2)[2]: value for name, value in weights.items()})
        nets.append(net)
    return nets


def test_one_folder_with_one_checkpoint(run: Path) -> None:
    assert {str(path.relative_to(run)) for path in run.rglob("*.*") if path.is_file()} == {
        *("checkpoints/best.ckpt", "checkpoints/last.ckpt", "metrics.json", "run.json", "out_of_fold.parquet"),
        *("columns.csv", "table.json"),
        *(f"members/{i}/{name}" for i in range(7) for name in ("metrics.json", "run.json", "log/metrics.csv")),
    }
    stopped = {json.loads((run / "members" / str(i) / "run.json").read_text())["epochs"] for i in range(7)}
    assert len(stopped) > 1 or stopped == {12}


def test_scores_are_the_log_of_the_mean_of_the_members_probabilities(run: Path) -> None:
    nets, rows = nets_of(run), torch.randn(50, 4, dtype=torch.float64) * 3 + 4
    assert len(nets) == 7
    with torch.no_grad():
        mean = sum(net(rows).softmax(-1) for net in nets) / len(nets)
    assert load(run)(rows) == pytest.approx(mean.log(), abs=1e-5)
    assert load(run).predict_proba(rows.numpy()) == pytest.approx(mean.numpy(), abs=1e-6)


def test_validation_is_out_of_fold(run: Path) -> None:
    """Against scikit-learn's folds of the rows that do not test, and a loop over the rows."""
    data, nets, config = open_run(run).data(), nets_of(run), configure(run, *WORDS)
    plain = set_up(config)
    rest = np.sort(np.concatenate([plain.index["train"], plain.index["val"]]))
    labels = data.labels.numpy()
    expected = np.zeros((len(rest), 3))
    folds = StratifiedKFold(7, shuffle=True, random_state=0).split(rest, labels[rest])
    with torch.no_grad():
        for net, (_, judged) in zip(nets, folds, strict=True):
            for place in judged:
                expected[place] = net(data.rows[rest[place]][None].double()).softmax(-1)[0]
    found = metrics_of(run)
    assert found["val/loss"] == pytest.approx(log_loss(labels[rest], expected), abs=1e-6)
    assert found["val/accuracy"] == pytest.approx((expected.argmax(1) == labels[rest]).mean(), abs=1e-6)
    kept = pl.read_parquet(run / "out_of_fold.parquet")
    assert kept.columns == ["row", *(f"probability_{name}" for name in data.schema.classes), "label"]
    assert kept["row"].to_list() == rest.tolist()
    assert kept.select(pl.col("^probability_.*$")).to_numpy() == pytest.approx(expected, abs=1e-6)
    assert kept["label"].to_list() == [data.schema.classes[label] for label in labels[rest]]
    test = plain.index["test"]
    tested = load(run)(data.rows[test]).softmax(-1).numpy()
    assert found["test/loss"] == pytest.approx(log_loss(labels[test], tested), abs=1e-6)


def test_a_member_equals_the_run_alone_with_the_same_schema(run: Path, tmp_path: Path) -> None:
    pooled = open_run(run).schema
    for number in (0, 3, 6):
        config = configure(tmp_path / str(number), *WORDS, "data.num_folds=7", f"data.fold={number}", "test=false")
        metrics = train(config, data=set_up(config, pooled))
        assert metrics == pytest.approx(metrics_of(run / "members" / str(number)), abs=1e-6)
        for name, value in open_run(tmp_path / str(number)).weights.items():
            own = open_run(run).weights[f"nets.{number}.{name}"]
            assert (own - value).norm() <= 1e-9 * value.norm(), name


def test_a_member_of_seeds_equals_the_run_alone(tmp_path: Path) -> None:
    ensemble_of(configure(tmp_path / "run", *WORDS, "ensemble.seeds=3", "seed=5"))
    for number in range(3):
        train(configure(tmp_path / str(number), *WORDS, f"seed={5 + number}", "test=false"))
        for name, value in open_run(tmp_path / str(number)).weights.items():
            own = open_run(tmp_path / "run").weights[f"nets.{number}.{name}"]
            assert (own - value).norm() <= 1e-9 * value.norm(), name
    found = evaluate.evaluate(open_run(tmp_path / "run"), None, None, False)["metrics"]
    assert found == pytest.approx(metrics_of(tmp_path / "run"), abs=1e-6)
    assert not (tmp_path / "run" / "out_of_fold.parquet").exists()


def test_verbs_take_it_for_a_run(run: Path, tmp_path: Path) -> None:
    result = evaluate.evaluate(open_run(run), None, None, True)
    assert result["metrics"] == pytest.approx(metrics_of(run), abs=1e-6)
    kept = pl.read_parquet(run / "out_of_fold.parquet")
    scores = torch.from_numpy(kept.select(pl.col("^probability_.*$").log()).to_numpy())
    labels = torch.tensor([result["classes"].index(label) for label in kept["label"]])
    assert result["temperature"] == pytest.approx(measures.fit_temperature(scores, labels), rel=1e-3)
    for kind in ("onnx", "torch"):
        assert export.export(open_run(run), kind)[1] <= 1e-5
    data = open_run(run).data()
    frame = data.labelled()[0]
    frame.write_csv(tmp_path / "table.csv")
    found = pl.concat(predict.predict(open_run(run), str(tmp_path / "table.csv")))
    expected = load(run)(data.rows).softmax(-1).numpy()
    assert found.select(pl.col("^probability_.*$")).to_numpy() == pytest.approx(expected, abs=1e-6)


KINDS = {  # of data, where folds are made of what does not test
    "categories": [],
    "embedded": ["data.columns.max_one_hot=2"],
    "a column": ["data.split.column=part"],
    "groups": ["data.split.group=group"],
    "weights": ["data.weight=w"],
    "soft labels": ["data.target=[no,yes]", "data.columns.ignore=[y]"],
    "dropout": ["model.dropout=0.3"],
}


@pytest.mark.parametrize("kind", KINDS)
def test_of_any_table(kind: str, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    x, plan = random.normal(size=(2, 200)), random.choice(["a", "b", "c"], 200)
    yes = 1 / (1 + np.exp(-2 * x[0] - (plan == "a")))
    columns = {"x0": x[0], "x1": x[1], "plan": plan, "y": np.where(yes > 0.5, "yes", "no"), "w": random.random(200)}
    columns |= {"part": random.choice(["train", "val", "test"], 200), "group": random.integers(0, 40, 200)}
    columns |= {"no": 1 - yes, "yes": yes} if kind == "soft labels" else {}
    pl.DataFrame(columns).write_parquet(tmp_path / "table.parquet")
    words = ["data=parquet", f"data.path={tmp_path / 'table.parquet'}", "data.target=y", "trainer.max_epochs=3"]
    config = configure(tmp_path / "run", *words, *KINDS[kind], "ensemble.folds=3")
    data = set_up(config)
    jobs = members(config, data)
    judged = torch.cat([table.index["val"] for _, table in jobs.values()])
    assert sorted(judged.tolist()) == data.index["train"].tolist() == data.index["val"].tolist()
    if kind == "groups":
        for _, table in jobs.values():
            groups = [set(columns["group"][table.index[part]]) for part in ("train", "val", "test")]
            assert len(set.union(*groups)) == sum(map(len, groups))
    if kind == "a column":
        assert data.index["test"].tolist() == np.flatnonzero(columns["part"] == "test").tolist()
    metrics = ensemble_of(config)
    assert evaluate.evaluate(open_run(tmp_path / "run"), None, None, True)["metrics"] == pytest.approx(metrics)


@pytest.mark.slow
def test_members_that_vary_equal_the_runs_alone(tmp_path: Path) -> None:
    """In what a stack takes (a deviation, a rate) and in their very nets, which are then two stacks."""
    vary = [{"encode.std": 0.1}, {"encode.std": 1.0, "optimizer.lr": 0.1}, {"model.hidden": [6, 4]}]
    words = [*WORDS, "encode=periodic"]
    config = configure(tmp_path / "run", *words, "ensemble.seeds=4", "seed=5")
    ensemble_of(config | {"ensemble": {"folds": None, "seeds": 4, "vary": vary}})
    weights = open_run(tmp_path / "run").weights
    for number in range(4):
        own = [f"{key}={value}" for key, value in vary[number % 3].items()]
        train(configure(tmp_path / str(number), *words, f"seed={5 + number}", "test=false", *own))
        alone = open_run(tmp_path / str(number)).weights
        prefix = f"nets.{number}."
        assert {name for name in weights if name.startswith(prefix)} == {f"{prefix}{name}" for name in alone}
        for name, value in alone.items():
            assert (weights[f"{prefix}{name}"] - value).norm() <= 1e-9 * value.norm(), name
    found = evaluate.evaluate(open_run(tmp_path / "run"), None, None, False)["metrics"]
    assert found == pytest.approx(metrics_of(tmp_path / "run"), abs=1e-6)
    assert export.export(open_run(tmp_path / "run"), "onnx")[1] <= 1e-5


@pytest.mark.filterwarnings("ignore")
def test_in_a_sweep_it_trains_alone_and_what_cannot_be_stacked_one_after_the_other(
    tmp_path: Path, inside: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["data=iris", "trainer.max_epochs=2", "ensemble.folds=2", "optimizer.lr=0.01,0.1", "folder=sweep"]
    assert inside("-m", *words) is None
    assert "2 alone (jobs 0, 1: ensemble.folds=2)" in (said := capsys.readouterr().out)
    assert said.count("2 members: 2 as one") == 2
    assert "best: job" in said
    assert inside(*words[:3], "speed.stack=false", "folder=alone") is None
    assert "2 members: 2 alone (members 0, 1: speed.stack=false)" in capsys.readouterr().out
    one, other = (metrics_of(tmp_path / name) for name in ("alone", "sweep/1"))
    assert one.keys() >= other.keys()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.slow
def test_rerun_resume_and_weights(
    tmp_path: Path, inside: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["data=iris", "trainer.max_epochs=3", "model.dropout=0.3", "ensemble.folds=3"]
    assert inside(*words, "folder=run") is None
    assert inside("rerun=run", "folder=again") is None
    assert capsys.readouterr().out.splitlines()[-1] == "equal to run: weights and metrics, to the last bit"
    for left, gone in (("cut", ["members", "checkpoints"]), ("collected", [])):  # killed in training, or at the end
        shutil.copytree(tmp_path / "run", tmp_path / left)
        for name in ("metrics.json", "run.json", "out_of_fold.parquet", *gone):
            path = tmp_path / left / name
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        assert inside(f"resume={left}") is None
        assert metrics_of(tmp_path / left) == metrics_of(tmp_path / "run")
        weights = open_run(tmp_path / "run").weights
        assert all(torch.equal(value, weights[name]) for name, value in open_run(tmp_path / left).weights.items())
    before = (tmp_path / "run" / "metrics.json").read_bytes()
    said = inside("resume=run", "trainer.max_epochs=9")
    assert said == "error: resume=run: an ensemble that has finished has no more epochs: train a new one"
    assert (tmp_path / "run" / "metrics.json").read_bytes() == before
    assert "has no weights that fit" in inside(*words[:3], "init_from=run", "folder=one")
    assert inside(*words[:3], "folder=one") is None
    assert inside(*words, "init_from=one", "optimizer.lr=0", "folder=from") is None
    assert "3 alone (members 0, 1, 2: init_from=" in capsys.readouterr().out
    start = open_run(tmp_path / "one").weights
    for name, value in open_run(tmp_path / "from").weights.items():
        assert torch.equal(value, start[name.split(".", 2)[2]])


@pytest.mark.parametrize("gone", [["ensemble"], ["ensemble", "vary"]])
def test_a_run_from_before_there_were_ensembles_is_read_back(gone: list[str], tmp_path: Path) -> None:
    metrics = train(configure(tmp_path / "run", "data=iris", "trainer.max_epochs=1"))
    file = tmp_path / "run" / "checkpoints" / "best.ckpt"
    content = torch.load(file, weights_only=True)
    content["config"].pop("name")  # as `resolved` leaves it out
    del reduce(operator.getitem, gone[:-1], content["config"])[gone[-1]]
    torch.save(content, file)
    assert evaluate.evaluate(open_run(tmp_path / "run"), None, None, False)["metrics"] == pytest.approx(metrics)


@pytest.mark.parametrize("folds", [6, 8, 1, -7, 700, 10**9, 2.5, "many", [7]])
def test_a_checkpoint_that_says_another_number_is_refused(folds: Any, run: Path, tmp_path: Path) -> None:
    content = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
    content["config"]["ensemble"]["folds"] = folds
    torch.save(content, tmp_path / "odd.ckpt")
    with pytest.raises(UserError):
        load(tmp_path / "odd.ckpt")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("model._target_", "os.system"), ("optimizer._target_", "os.system"), ("encode.std", "x")),
        *(("model.hidden.x.y", 1), ("nothing.there", 1), ("model.hidden", [9])),
        ("callbacks.checkpoints.folder", "/etc"),
    ],
)
def test_a_checkpoint_that_varies_otherwise_is_refused(key: str, value: Any, run: Path, tmp_path: Path) -> None:
    content = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
    content["config"]["ensemble"]["vary"] = [{key: value}]
    torch.save(content, tmp_path / "odd.ckpt")
    with pytest.raises(UserError):
        recorded(open_run(tmp_path / "odd.ckpt").trusted(), tmp_path / "again", trust=False)
    if not key.startswith(("callbacks", "optimizer", "encode")):  # of which a net has nothing
        with pytest.raises(UserError):
            load(tmp_path / "odd.ckpt")


WRONG = {
    "ensemble.folds=1": "ensemble.folds=1 is out of range: it must be from 2 to 1000",
    "ensemble.seeds=2.5": "ensemble.seeds=2.5 is not a whole number",
    "ensemble.folds=2 ensemble.seeds=2": "ensemble.folds and ensemble.seeds: say one of the two",
    "ensemble.folds=2 data.num_folds=2": "leave out data.num_folds, or say ensemble.seeds",
    "ensemble.folds=2 data.split.time=x": "ensemble.folds .* data.split.time .* say ensemble.seeds",
    "ensemble.seeds=2 seed=4294967295": "seeds end at 4294967295",
    "ensemble.vary=[{encode.std:1.0}]": "ensemble.vary is of the members of an ensemble: say ensemble.folds or",
    "ensemble.seeds=2 ensemble.vary=[{encode.stt:1.0}]": r"encode.stt is no key .* \(did you mean encode.std\?\)",
    "ensemble.seeds=2 ensemble.vary=[{data.path:a}]": "data.path is no key that members may differ in",
    "ensemble.seeds=2 ensemble.vary=[{seed:1}]": "seed is no key that members may differ in",
    "ensemble.seeds=2 ensemble.vary={encode.std:1}": "is a group of keys, not one value, as in ensemble.vary=None",
    "ensemble.seeds=2 ensemble.vary=[1]": r"ensemble.vary=\[1\] is no list of keys and values, as in",
    "ensemble.seeds=2 ensemble.vary=[{encode.std:a}]": "encode.std=a is not a number, as in 1.0",
    "ensemble.seeds=2 ensemble.vary=[{encode.bins:1}]": "encode.bins=1 is out of range: it must be from 2 to 32",
    "ensemble.seeds=2 ensemble.vary=[{encode.embed:sine}]": "encode.embed=sine is not one of null, periodic, piecewise",
    "ensemble.seeds=2 ensemble.vary=[{optimizer._target_:a}]": "optimizer._target_ is no key that members may differ",
    "ensemble.seeds=2 ensemble.vary=[{model.activation:Relu}]": "model.activation=Relu is no activation",
    "ensemble.seeds=2 ensemble.vary=[{optimizer.lr:0.1},{optimizer.lr:0.2},{optimizer.lr:0.3}]": "lists 3 members, and",
    "ensemble.seeds=2 ensemble.vary=[{3:1}]": "3 is no key that members may differ in",
    "ensemble.seeds=2 ensemble.vary=[{loss.class_weights:{a:1}}]": "loss.class_weights=.* is not",
    "ensemble.folds=41": "iris: class .* has 40 rows beside those that test, fewer than ensemble.folds=41",
    "ensemble.seeds=2 trainer=ddp": "an ensemble trains in one process",
    "ensemble.seeds=2 optimizer.lr=1e200": "member 0 of the ensemble: the training loss is nan",
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("words", WRONG)
def test_what_cannot_be_an_ensemble_is_said(words: str, tmp_path: Path, inside: Callable[..., Any]) -> None:
    said = inside("data=iris", "trainer.max_epochs=2", *words.split(), "folder=run")
    assert isinstance(said, str)
    assert said.startswith("error: ")
    assert "\n" not in said
    assert re.search(WRONG[words], said), said
    assert not (tmp_path / "run" / "metrics.json").exists()
    assert not (tmp_path / "run" / "checkpoints").exists()
