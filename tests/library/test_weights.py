"""data.weight: a row of weight k is k rows, in the batches and in what evaluate measures."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from conftest import configure
from handed import open_run, set_up, train, train_as_one

from classify import build
from tabrun.cli.errors import UserError
from tabrun.runs.run import Run
from tabrun.tables.data import TabularData
from tabrun.verbs import evaluate, predict

REPEATS = np.random.default_rng(0).integers(0, 4, 240)
SHORT = [
    "encode=standard",
    "model=mlp",
    "optimizer=sgd",
    "data.target=y",
    "data.split.column=part",
    "trainer.max_epochs=2",
    "model.hidden=[8]",
]


def weighted() -> pl.DataFrame:
    """240 rows with a number, a category, their part and a weight; in each part two classes of all weights."""
    generator = np.random.default_rng(1)
    x = generator.standard_normal(240)
    return pl.DataFrame(
        {
            "x": x,
            "kind": generator.choice(["a", "b", "c"], 240),
            "part": (["train"] * 4 + ["val", "test"]) * 40,
            "k": REPEATS,
            "y": np.where(x + generator.standard_normal(240) > 0, "yes", "no"),
        }
    )


def repeated(frame: pl.DataFrame) -> pl.DataFrame:
    """Each row as often as its weight says, without the weights."""
    return frame[np.repeat(np.arange(len(frame)), frame["k"])].drop("k")


def words(frame: pl.DataFrame, file: Path, *more: str) -> list[str]:
    frame.write_csv(file)
    return ["data=csv", f"data.path={file}", *SHORT, *more]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Run]:
    """One net as a run that has weights, and as one whose table has each row as often as its weight says."""
    folder, found = tmp_path_factory.mktemp("weights"), []
    train(configure(folder / "trained", *words(weighted(), folder / "trained.csv", "data.columns.ignore=[k]")))
    trained = open_run(folder / "trained")
    for name, frame, more in (("run", weighted(), ["data.weight=k"]), ("other", repeated(weighted()), [])):
        shutil.copytree(trained.folder, folder / name)
        config = configure(folder / name, *words(frame, folder / f"{name}.csv", *more))
        record = trained.record | {"data_sha256": set_up(config, trained.schema).sha256}
        path = folder / name / "checkpoints" / "best.ckpt"
        found.append(dataclasses.replace(trained, path=path, config=config, record=record))
    return found[0], found[1]


def check_equal(run: Run, other: Run, table: str | None, long: str | None) -> None:
    """calibration_error has no weights, and a fit ends somewhere near."""
    one, two = evaluate.evaluate(run, table, 0.4, True), evaluate.evaluate(other, long, 0.4, True)
    assert (one["weight"], "weight" in two) == ("k", False)
    assert one["confusion"] == two["confusion"]
    assert one["per_class"]["no"] == pytest.approx(two["per_class"]["no"], abs=1e-6)
    assert one["temperature"] == pytest.approx(two["temperature"], abs=1e-3)
    exact = {"this run": 1e-6, "majority class": 1e-6, "logistic regression": 1e-3, "calibrated": 1e-3}
    for model, tolerance in exact.items():
        measures = one["measures"][model]
        assert measures.pop("calibration_error") != two["measures"][model].pop("calibration_error")
        assert measures == pytest.approx(two["measures"][model], abs=tolerance)
    assert "rows of" in evaluate.show(one)
    assert ", by the weights in k, but calibration_error" in evaluate.show(one)


def test_a_weight_is_as_many_rows_in_the_batches(tmp_path: Path) -> None:
    data = set_up(configure(tmp_path, *words(weighted(), tmp_path / "a.csv", "data.weight=k")))
    again = set_up(configure(tmp_path, *words(repeated(weighted()), tmp_path / "b.csv")), data.schema)
    assert [feature.name for feature in data.schema.features] == ["x", "kind"]
    assert (data.weights.dtype, data.weights.tolist()) == (torch.float32, REPEATS.tolist())
    for part in ("train", "val", "test"):
        rows, labels, weights = (list(column) for column in zip(*data.batches(part, 7), strict=True))
        assert all(len(w) == len(y) for w, y in zip(weights, labels, strict=True))
        times = torch.cat(weights).long()
        expected, expected_labels = again.part(part)
        for i in (0, 1):
            assert torch.equal(torch.cat([pair[i] for pair in rows]).repeat_interleave(times, 0), expected[i])
        assert torch.equal(torch.cat(labels).repeat_interleave(times), expected_labels)


def test_weights_move_and_are_hashed_and_shuffled_with_their_rows(tmp_path: Path) -> None:
    def data(*more: str, frame: pl.DataFrame = weighted()) -> TabularData:  # noqa: B008
        return set_up(configure(tmp_path, *words(frame, tmp_path / "a.csv", *more)))

    one = data("data.weight=k", "data.columns.numbers=[k]")
    rows, _, weights = next(iter(one.train_dataloader()))
    pairs = {(round(x, 4), k) for x, k in weighted().select("x", "k").iter_rows()}
    assert {(round(x, 4), k) for x, k in zip(rows[0][:, 0].tolist(), weights.tolist(), strict=True)} <= pairs
    assert one.sha256 == data("data.weight=k").sha256
    assert one.sha256 != data("data.weight=k", frame=weighted().with_columns(k=pl.col("k") * 2)).sha256
    assert data("data.columns.ignore=[k]").sha256 == data(frame=weighted().drop("k")).sha256
    one.to(torch.device("meta"))
    assert next(iter(one.val_dataloader()))[2].device.type == "meta"


def test_another_table_is_measured_by_its_weights(runs: tuple[Run, Run], tmp_path: Path) -> None:
    weighted()[:80].write_parquet(tmp_path / "new.parquet")
    repeated(weighted()[:80]).write_csv(tmp_path / "long.csv")
    check_equal(*runs, str(tmp_path / "new.parquet"), str(tmp_path / "long.csv"))


def test_the_own_rows_are_measured_by_their_weights(runs: tuple[Run, Run]) -> None:
    losses = []
    for run in runs:
        metrics = run.measure(run.data(), "val") | run.measure(run.data(), "test")
        (run.folder / "metrics.json").write_text(json.dumps(metrics))
        losses.append({name: value for name, value in metrics.items() if name.endswith("/loss")})
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)
    check_equal(*runs, None, None)


def test_a_table_without_the_weights_counts_each_row_once(
    runs: tuple[Run, Run], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    weighted().drop("k").write_csv(file := tmp_path / "new.csv")
    one, two = (evaluate.evaluate(run, str(file), None, False)["measures"]["this run"] for run in runs)
    assert one == two
    assert [record.message for record in caplog.records] == [
        f"{file} has no column k, which data.weight names: each row counts once"
    ]


def test_predict_ignores_the_weights(runs: tuple[Run, Run], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    expected = None
    for frame in (weighted().drop("k"), weighted().with_columns(k=pl.lit("none"))):
        frame.write_csv(tmp_path / "new.csv")
        found = pl.concat(predict.predict(runs[0], str(tmp_path / "new.csv")))
        assert expected is None or found.equals(expected)
        expected = found
    assert not caplog.records


def test_a_checkpoint_of_before_has_no_weights(runs: tuple[Run, Run], tmp_path: Path) -> None:
    config = runs[1].config
    data = {key: value for key, value in config["data"].items() if key != "weight"}
    older = dataclasses.replace(runs[1], config=config | {"data": data}, trust=True)
    weighted().write_csv(tmp_path / "new.csv")
    assert "weight" not in evaluate.evaluate(older, str(tmp_path / "new.csv"), None, False)
    assert len(pl.concat(predict.predict(older, str(tmp_path / "new.csv")))) == 240


def test_weights_of_zero_need_not_hold_a_class(runs: tuple[Run, Run], tmp_path: Path) -> None:
    """What is measured is what is measured without these rows."""
    frame = weighted().with_columns(k=pl.when(pl.col("y") == "no").then(0).otherwise(1))
    frame.write_csv(tmp_path / "new.csv")
    result = evaluate.evaluate(runs[0], str(tmp_path / "new.csv"), None, False)
    assert result["rows"] == (frame["y"] == "yes").sum()
    assert result["measures"]["this run"]["auroc"] is None


LOSSES = {
    "as shipped": {},
    "smoothed": {"label_smoothing": 0.2},
    "classes weighted": {"class_weights": [1.0, 3.0]},
    "both": {"class_weights": [1.0, 3.0], "label_smoothing": 0.2},
    "another": {"_target_": "torch.nn.MultiMarginLoss", "class_weights": [1.0, 3.0]},
}


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("soft", [False, True])
def test_the_loss_of_weighted_rows_is_that_of_repeated_ones(name: str, soft: bool, tmp_path: Path) -> None:
    if soft and name == "another":
        return  # it takes classes alone
    config = configure(tmp_path, *words(weighted(), tmp_path / "a.csv", "data.weight=k"))
    node = LOSSES[name] if "_target_" in LOSSES[name] else config["loss"] | LOSSES[name]
    schema = set_up(config).schema
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(20, 2, generator=generator, dtype=torch.float64, requires_grad=True)
    labels = torch.rand(20, 2, generator=generator).double().softmax(-1) if soft else torch.arange(20) % 2
    weights = torch.arange(20) % 4
    weighted_loss = build.loss(config | {"loss": node}, schema).double()(scores, labels, weights.double())
    unweighted = config | {"loss": node, "data": config["data"] | {"weight": None}}
    rows = torch.arange(20).repeat_interleave(weights)
    repeated_loss = build.loss(unweighted, schema).double()(scores[rows], labels[rows])
    torch.testing.assert_close(weighted_loss, repeated_loss)
    torch.testing.assert_close(*(torch.autograd.grad(loss, scores)[0] for loss in (weighted_loss, repeated_loss)))
    assert build.loss(config | {"loss": node}, schema).double()(scores, labels, weights.double() * 0) == 0


def test_a_loss_that_can_count_no_weights_is_refused(tmp_path: Path) -> None:
    config = configure(tmp_path, *words(weighted(), tmp_path / "a.csv", "data.weight=k"))
    with pytest.raises(UserError, match=r"data.weight: Tanh has no reduction=mean, and no argument `weights`"):
        build.loss(config | {"loss": {"_target_": "torch.nn.Tanh"}}, set_up(config).schema)


def test_training_with_weights_is_training_on_repeated_rows(tmp_path: Path) -> None:
    """All rows in one batch, and features whose means do not depend on how often a row is there."""
    fours = np.arange(240) // 4
    parts = np.array(["train", "train", "train", "train", "val", "test"])[fours % 6]
    x = 1.0 - np.arange(240) // 2 % 2 * 2  # of mean 0 in each four
    frame = weighted().with_columns(x=x, k=(fours + fours // 6) % 3, part=parts)
    common = ["trainer.precision=64-true", "data.batch_size=1000", "data.columns.ignore=[kind]", "optimizer.lr=1"]
    common += ["encode=standard", "optimizer=sgd"]  # Adam would make much of the last digits
    train(configure(tmp_path / "one", *words(frame, tmp_path / "a.csv", *common, "data.weight=k")))
    train(configure(tmp_path / "two", *words(repeated(frame), tmp_path / "b.csv", *common)))
    one, two = (open_run(tmp_path / name, "last") for name in ("one", "two"))
    assert one.schema.numbers[0].mean == two.schema.numbers[0].mean
    for key, value in one.weights.items():
        torch.testing.assert_close(value, two.weights[key], rtol=1e-9, atol=0)
    logs = [pl.read_csv(tmp_path / name / "log" / "metrics.csv") for name in ("one", "two")]
    for column in ("train/loss", "val/loss"):
        assert logs[0][column].to_list() == pytest.approx(logs[1][column].to_list(), abs=1e-9)


@pytest.mark.parametrize("swept", ["optimizer.lr=0.01,0.2", "data.fold=0,2", "loss.label_smoothing=0,0.1"])
def test_weights_count_in_a_stack_as_in_each_run_alone(swept: str, tmp_path: Path) -> None:
    common = ["trainer.precision=64-true", "data.weight=k", "data.split.column=null", "data.num_folds=4", "test=false"]
    jobs = [f"{swept.split('=')[0]}={value}" for value in swept.split("=")[1].split(",")]
    for i, job in enumerate(jobs):
        train(configure(tmp_path / f"alone{i}", *words(weighted(), tmp_path / "a.csv", *common, job)))
    words_of = [words(weighted(), tmp_path / "a.csv", *common, job) for job in jobs]
    train_as_one([configure(tmp_path / f"stacked{i}", *own) for i, own in enumerate(words_of)])
    for i in range(len(jobs)):
        one, two = (open_run(tmp_path / f"{kind}{i}", "last").weights for kind in ("alone", "stacked"))
        for key, value in one.items():
            torch.testing.assert_close(value, two[key], rtol=1e-9, atol=1e-12)
        logs = [pl.read_csv(tmp_path / f"{kind}{i}" / "log" / "metrics.csv") for kind in ("alone", "stacked")]
        assert logs[0].to_numpy() == pytest.approx(logs[1].to_numpy(), abs=1e-9)
