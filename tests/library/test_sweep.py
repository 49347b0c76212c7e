"""Sweeps: a member of a stack equals its run alone, and what a sweep leaves in its folder."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from conftest import Command, configure
from handed import CONF, continued, open_run, planned, train, train_as_one
from hydra import initialize_config_dir
from hydra._internal.callbacks import Callbacks
from hydra.core.global_hydra import GlobalHydra
from hydra.types import HydraContext, RunMode
from omegaconf import open_dict

from classify import build
from classify.nets import mlp
from tabrun.stack import plan
from tabrun.stack.layers import dropped
from tabrun.stack.plan import most_members
from tabrun.sweeps.launcher import Launcher
from tabrun.sweeps.rates import log_spaced, suggested

RATES = [["optimizer.lr=0.01"], ["optimizer.lr=0.05"], ["optimizer.lr=0.2"]]
DECAYS = [["optimizer.lr=0.01", "optimizer.weight_decay=0.1"], ["optimizer.lr=0.05"]]
KINDS: dict[str, tuple[list[list[str]], list[str]]] = {
    "sgd, momentum": (RATES, []),
    "sgd, nesterov, weight decay": (DECAYS, ["optimizer.nesterov=true"]),
    "adam, weight decay": (DECAYS, ["optimizer=adam"]),
    "adamw, weight decay": (DECAYS, ["optimizer=adamw"]),
    "seeds": ([["seed=0"], ["seed=1"], ["seed=2"]], []),
    "folds": ([["data.fold=0"], ["data.fold=1"], ["data.fold=4"]], ["data.num_folds=5"]),
    "folds, the first a row shorter": ([["data.fold=0"], ["data.fold=1"], ["data.fold=6"]], ["data.num_folds=7"]),
    "the same in chunks": ([["data.fold=0"], ["data.fold=6"]], ["data.num_folds=7", "speed.chunk=3", "optimizer=adam"]),
    "losses": ([["loss.label_smoothing=0.1"], ["loss.class_weights=[1,2,3]"], []], []),
    "cosine": (RATES, ["scheduler=cosine"]),
    "one cycle": (RATES, ["scheduler=one_cycle"]),
    "plateau": (RATES, ["scheduler=reduce_on_plateau", "scheduler.make.patience=1"]),
    "early stopping": (RATES, ["callbacks.early_stopping.patience=2", "trainer.max_epochs=60"]),
    "another monitor": (RATES, ["callbacks.early_stopping.monitor=train/loss", "callbacks.early_stopping.patience=2"]),
    "a maximum": (RATES, ["monitor=val/accuracy", "mode=max", "callbacks.early_stopping.patience=3"]),
}


LATER = ("sgd, nesterov, weight decay", "adam, weight decay", "folds", "cosine", "a maximum")  # much like others


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=pytest.mark.slow if kind in LATER else []) for kind in KINDS]
)
def test_a_member_equals_its_run_alone(kind: str, tmp_path: Path) -> None:
    jobs, common = KINDS[kind]
    common = ["trainer.precision=64-true", "trainer.max_epochs=8", "data=iris", *common]
    configs = [configure(tmp_path / f"stacked{i}", *common, *job) for i, job in enumerate(jobs)]
    train_as_one(configs)
    for i, job in enumerate(jobs):
        alone = tmp_path / f"alone{i}"
        metrics = train(configure(alone, *common, *job, "test=false"))
        assert json.loads((tmp_path / f"stacked{i}" / "metrics.json").read_text()) == pytest.approx(metrics, abs=1e-6)
        for name in ("last", "best"):
            one, other = open_run(alone, name), open_run(tmp_path / f"stacked{i}", name)
            assert one.num_epochs == other.num_epochs
            for key, value in one.weights.items():
                assert (value - other.weights[key]).norm() <= 1e-9 * value.norm(), key
        expected, found = (pl.read_csv(folder / "log" / "metrics.csv") for folder in (alone, tmp_path / f"stacked{i}"))
        assert found.columns == expected.columns
        assert found.to_numpy() == pytest.approx(expected.to_numpy(), abs=1e-6)


def test_members_with_categories_and_batches_of_their_own(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    plan, x = random.choice(["a", "b", "c"], 300), random.normal(size=300)
    table = pl.DataFrame({"plan": plan, "x": x, "y": np.where(x + (plan == "a") > 0, "yes", "no")})
    table.write_parquet(tmp_path / "table.parquet")
    words = ["data=parquet", f"data.path={tmp_path / 'table.parquet'}", "data.target=y", "trainer.precision=64-true"]
    words += ["trainer.max_epochs=5", "test=false"]
    for name, embedded in (("one-hot", []), ("embedded", ["data.columns.max_one_hot=2"])):
        jobs = [[*words, *embedded, f"seed={seed}"] for seed in range(3)]
        train_as_one([configure(tmp_path / f"{name}-stacked{i}", *job) for i, job in enumerate(jobs)])
        for i, job in enumerate(jobs):
            train(configure(tmp_path / f"{name}-alone{i}", *job))
            one, other = (open_run(tmp_path / f"{name}-{kind}{i}", "last").weights for kind in ("stacked", "alone"))
            assert all((one[key] - other[key]).norm() <= 1e-9 * other[key].norm() for key in one), name


def test_folds_of_different_sizes_and_a_member_that_cannot_be_built(tmp_path: Path) -> None:
    words = ["data=iris", "data.num_folds=7", "trainer.max_epochs=2", "trainer.precision=64-true", "test=false"]
    folds = (0, 1, 6, 7)  # 120 rows in 7 folds, of which the first has one row more; there is no fold 7
    for batch_size, parts in ((32, [[0, 1, 2]]), (102, [[1, 2]]), (103, [[0, 1, 2]])):  # as many batches, or not
        jobs = [[*words, f"data.batch_size={batch_size}", f"data.fold={fold}"] for fold in folds]
        found = planned([configure(tmp_path / f"{i}", *job) for i, job in enumerate(jobs)])
        assert [numbers for numbers, _ in found.parts] == parts
        assert set(found.alone.values()) == {""}  # the last says what is wrong when it trains


def test_a_member_that_stopped_early_has_stopped_and_one_that_diverged_keeps_its_best(tmp_path: Path) -> None:
    words = ["data=iris", "callbacks.early_stopping.patience=2", "test=false", "trainer.precision=64-true"]
    rates = ["optimizer.lr=1e-30", "optimizer.lr=0.05", "optimizer.lr=1e200"]
    members = train_as_one([configure(tmp_path / f"{i}", *words, rate) for i, rate in enumerate(rates)])
    assert members[0].epochs == 3
    more = configure(tmp_path / "0", *words, rates[0], "trainer.max_epochs=120")
    assert train(*continued(more, ["trainer.max_epochs"], False)) == pytest.approx(members[0].metrics)
    assert open_run(tmp_path / "0", "last").num_epochs == 3
    assert "lower optimizer.lr" in str(members[2].error)
    assert (tmp_path / "2" / "log" / "metrics.csv").exists()
    assert not (tmp_path / "2" / "metrics.json").exists()


def test_soft_labels_in_batches_as_long_as_the_stack(tmp_path: Path) -> None:
    share = np.random.default_rng(0).random(40)
    pl.DataFrame({"x": share, "no": 1 - share, "yes": share}).write_parquet(tmp_path / "table.parquet")
    words = ["data=parquet", f"data.path={tmp_path / 'table.parquet'}", "data.target=[no,yes]", "data.batch_size=3"]
    words += ["trainer.max_epochs=2", "trainer.precision=64-true", "test=false"]
    members = train_as_one([configure(tmp_path / f"stacked{i}", *words, *job) for i, job in enumerate(RATES)])
    for i, job in enumerate(RATES):
        assert members[i].metrics == pytest.approx(train(configure(tmp_path / f"alone{i}", *words, *job)), abs=1e-6)


def test_a_member_goes_on_as_its_run_alone_would(tmp_path: Path) -> None:
    common = ["trainer.precision=64-true", "data=iris", "test=false", "callbacks.early_stopping.patience=3"]
    for kind in (
        ["optimizer=adamw", "scheduler=reduce_on_plateau"],
        ["scheduler=cosine", "scheduler.total=null", "+scheduler.make.T_max=50"],
    ):
        folder = tmp_path / str(len(kind))
        train_as_one(
            [
                configure(folder / f"half{i}", *common, *kind, *job, "trainer.max_epochs=6")
                for i, job in enumerate(RATES)
            ]
        )
        words = [*common, *kind, *RATES[1], "trainer.max_epochs=12"]
        train(*continued(configure(folder / "half1", *words), ["trainer.max_epochs"], True))
        train(configure(folder / "whole", *words))
        one, other = open_run(folder / "half1", "last"), open_run(folder / "whole", "last")
        logs = [(folder / name / "log" / "metrics.csv").read_text().splitlines() for name in ("half1", "whole")]
        assert [row.split(",")[:2] for row in logs[0]] == [row.split(",")[:2] for row in logs[1]]
        assert one.num_epochs == other.num_epochs
        assert all(
            (one.weights[key] - other.weights[key]).norm() <= 1e-9 * other.weights[key].norm() for key in one.weights
        )


@pytest.mark.slow
def test_in_float32_the_metrics_agree(tmp_path: Path) -> None:
    configs = [configure(tmp_path / f"stacked{i}", *job) for i, job in enumerate(RATES)]
    members = train_as_one(configs)
    for i, (member, job) in enumerate(zip(members, RATES, strict=True)):
        metrics = train(configure(tmp_path / f"alone{i}", *job, "test=false"))
        assert member.metrics == pytest.approx(metrics, abs=1e-3)


def test_what_cannot_be_stacked_trains_alone(tmp_path: Path) -> None:
    def reasons(*words: str) -> set[str]:
        return set(planned([configure(tmp_path / str(i), *words) for i in range(2)]).alone.values())

    assert not reasons("logger=tensorboard", "+trainer.min_epochs=5")
    norms = "GradientNorms.on_before_optimizer_step is not played in a stack"
    for words, reason in (
        (["trainer.limit_val_batches=1"], "trainer.limit_val_batches=1"),
        (["data.batch_size=9000"], "a step of 9000 rows would gain nothing"),
        (["model.dropout=0.1"], "its training_step draws random numbers: see sweep.stack_dropout"),
        (["trainer.gradient_clip_val=1.0"], "trainer.gradient_clip_val=1.0 is of single ones"),
        (["speed.compile=default"], "speed.compile=default"),
        (["speed.stack=false"], "speed.stack=false"),
        (["callbacks.gradient_norms.every_n_steps=1"], norms),
    ):
        assert reasons(*words) == {reason}
    if not torch.cuda.is_available():
        wide = reasons("model.hidden=[512,512]", "data.batch_size=1024")
        assert wide == {"a step of a net so wide would gain nothing"}
    apart = planned([configure(tmp_path / str(i), *words) for i, words in enumerate((["model.hidden=[8]"], []))])
    assert apart.alone == {0: "", 1: ""}
    found = planned([configure(tmp_path / str(i), f"seed={i}", "sweep.max_stack=2") for i in range(5)])
    assert [numbers for numbers, _ in found.order()] == [[0, 1], [2, 3], [4]]


def test_dropout_is_stacked_when_asked_and_drops_for_each_member_in_training_alone(tmp_path: Path) -> None:
    words = ["data=iris", "model.dropout=0.5", "trainer.max_epochs=3", "test=false"]
    words += ["sweep.stack_dropout=true", "trainer.precision=64-true"]
    configs = [configure(tmp_path / str(i), *words) for i in range(2)]  # equal but for their folders
    members = train_as_one(configs)
    assert members[0].metrics["val/loss"] != members[1].metrics["val/loss"]
    for i, member in enumerate(members):
        run = open_run(tmp_path / str(i))
        assert run.measure(run.data(), "val") == pytest.approx(member.metrics, abs=1e-6)
        losses = [row["train/loss"] for row in member.log]
        assert losses == sorted(losses, reverse=True)


def test_dropout_of_a_stack_drops_as_many_and_scales_the_rest_as_torch_does() -> None:
    rows = torch.ones(3, 50, 999, dtype=torch.float64)
    for share in (0.0, 0.1, 0.5, 0.999):
        layer = torch.nn.Dropout(share)
        found = dropped(layer, rows)
        assert sorted({*found.unique().tolist()} - {0.0}) == pytest.approx([1 / (1 - share)])
        deviation = (share * (1 - share) / rows.numel()) ** 0.5
        assert (found == 0).double().mean().item() == pytest.approx(share, abs=4 * deviation + 1e-5)
        assert torch.equal(dropped(layer.eval(), rows), rows)
    halves = dropped(torch.nn.Dropout(0.5), rows) == 0
    assert (halves[0] == halves[1]).double().mean().item() == pytest.approx(0.5, abs=0.02)  # each member its own
    assert (halves[:, :, 1:] == halves[:, :, :-1]).double().mean().item() == pytest.approx(0.5, abs=0.02)


def test_as_many_members_as_half_of_the_memory_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net = mlp(3, 2, hidden=[5])  # 15 + 5 + 10 + 2 numbers, and 3 + 5 + 5 + 5 + 2 + 2 a row
    member = 4 * (10 * 32 + 100 * (8 + 5 + 7 + 2))
    for members, free in ((1, 0), (1, 2 * member), (2, 5 * member), (3, 6 * member)):
        assert most_members(net, rows=100, bytes_each=4, free=free) == members
    monkeypatch.setattr(plan, "free_memory", lambda _: 300_000)
    found = planned([configure(tmp_path / f"split{i}", "data=iris", *job) for i, job in enumerate([*RATES, *RATES])])
    assert 1 < len(found.parts) <= 3
    assert sorted(number for numbers, _ in found.parts for number in numbers) == list(range(6))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_jobs_are_composed_as_hydra_would(tmp_path: Path, hydra_restore_singletons: Any) -> None:
    words = [f"folder={tmp_path}", "+trainer.min_epochs=1"]
    jobs = [["optimizer.lr=0.1", "model.hidden=[3,4]"], ["optimizer.lr=0.2", "model.hidden=[5]"]]
    jobs += [["optimizer=adam", "optimizer.lr=0.2"], ["optimizer=sgd", "optimizer.lr=0.2"], ["+optimizer.a={b: 1}"]]
    jobs += [["data.id='a b'"], ["data.id=null"], ["+optimizer.a={c: 1}"], ["loss={label_smoothing: 0.1}"], ["loss={}"]]
    jobs += [["callbacks.early_stopping.patience=5", "callbacks.early_stopping=null"], ["++optimizer.lr=1", "seed=2"]]
    jobs += [["optimizer._target_=torch.optim.Rprop", "~optimizer.nesterov"], ["data.seed=${data.split.seed}"]]
    jobs += [["loss.label_smoothing=0.2", "loss={label_smoothing: 0.1}"], ["seed=1", "seed=2"]]
    jobs += [["debug=fast", "trainer.max_epochs=2"], ["model=linear", "optimizer=adam"]]
    jobs += [["experiment=net_6_4_1", "optimizer.lr=0.5"]]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        loader: Any = GlobalHydra.instance().config_loader()
        master = loader.load_configuration("config", [*words, "hydra.verbose=true"], RunMode.MULTIRUN)
        launcher = Launcher()

        def task(_: Any) -> None: ...

        task.build = build  # type: ignore[attr-defined]
        launcher.setup(hydra_context=HydraContext(loader, Callbacks()), task_function=task, config=master)
        for number, job in enumerate(jobs):
            expected = loader.load_sweep_config(master, [*words, *job])
            with open_dict(expected):
                expected.hydra.job.id = expected.hydra.job.num = number
            assert launcher.compose(number, [*words, *job]) == expected
    assert len(launcher.composed) == 13  # the others differ in values of keys alone


def test_a_sweep_leaves_folders_a_leaderboard_and_its_best(
    tmp_path: Path, command: Command, inside: Callable[..., Any]
) -> None:
    words = [
        "-m",
        "optimizer.lr=0.01,1e30,0.1",
        "seed=0,1",
        "data=iris",
        "trainer.max_epochs=5",
        "folder=sweep",
    ]
    done = command("classify.train", *words)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: the training loss is nan")
    assert "6 jobs: 6 as one" in done.stdout
    assert done.stdout.count(" failed: the training loss is nan") == 2
    table = pl.read_csv(tmp_path / "sweep" / "sweep.csv")
    assert table.columns[:5] == ["job", "optimizer.lr", "seed", "status", "best_epoch"]
    assert table["status"].to_list() == ["finished"] * 4 + ["failed"] * 2
    settings = table.group_by("optimizer.lr", maintain_order=True).agg("seed", pl.col("val/loss").mean())
    assert settings["val/loss"].to_list() == [*sorted(settings["val/loss"][:2]), None]  # ranked by their means
    assert settings["seed"].to_list() == [[0, 1]] * 3
    assert (tmp_path / "sweep" / "2" / "error.txt").read_text().startswith("the training loss is nan")
    best = table["job"][0]
    for job in table["job"][:4]:
        metrics = json.loads((tmp_path / "sweep" / str(job) / "metrics.json").read_text())
        assert ("test/loss" in metrics) == (job == best)
        assert (tmp_path / "sweep" / str(job) / ".hydra" / "overrides.yaml").exists()
    rates = {override for override in (tmp_path / "sweep" / "best.yaml").read_text().split("\n") if "lr:" in override}
    assert rates == {f"  lr: {table['optimizer.lr'][0]:g}"}

    shown = done.stdout.split("deviation over seed:\n")[1].splitlines()
    names = shown[0].replace(" mean", ":mean").replace(" std", ":std").split()
    found = dict(zip(names, map(float, shown[1].split()), strict=True))
    of_rate = table.filter(pl.col("optimizer.lr") == found["optimizer.lr"])["val/loss"]
    assert found["val/loss:mean"] == pytest.approx(of_rate.mean(), abs=1e-4)
    assert found["val/loss:std"] == pytest.approx(of_rate.std(), abs=1e-4)

    # another sweep may not have this folder
    assert "folder=sweep holds files already" in inside("-m", "optimizer.lr=0.5,0.6", "folder=sweep")

    # the same command again: what has finished stays, what has failed is tried again
    before = (tmp_path / "sweep" / str(best) / "checkpoints" / "last.ckpt").stat().st_mtime_ns
    failed = (tmp_path / "sweep" / "2" / "error.txt").stat().st_mtime_ns
    assert "the training loss is nan" in inside(*words)
    assert (tmp_path / "sweep" / "2" / "error.txt").stat().st_mtime_ns > failed
    assert (tmp_path / "sweep" / str(best) / "checkpoints" / "last.ckpt").stat().st_mtime_ns == before


@pytest.mark.filterwarnings("ignore")
def test_a_sweep_whose_table_changed_is_not_ranked(tmp_path: Path, inside: Callable[..., Any]) -> None:
    rows = "".join(f"{i},{'ab'[i % 2]}\n" for i in range(30))
    (file := tmp_path / "table.csv").write_text("x,y\n" + rows)
    words = ["data=csv", f"data.path={file}", "data.target=y", "trainer.max_epochs=1", "optimizer.lr=0.1,0.2,0.3"]
    assert inside("-m", *words, "folder=sweep") is None
    shutil.rmtree(tmp_path / "sweep" / "1")
    file.write_text("x,y\n" + rows.replace("a", "c"))
    message = inside("-m", *words, "folder=sweep")
    assert message == "error: the data has changed between job 0 and job 1: name a new folder"


@pytest.mark.filterwarnings("ignore")
def test_what_diverged_is_named(tmp_path: Path, inside: Callable[..., Any], capsys: pytest.CaptureFixture[str]) -> None:
    words = ["data=iris", "trainer.max_epochs=2"]
    assert inside(*words, "optimizer.lr=100", "folder=alone") is None
    assert "above 1.099 of the class shares: train longer, or lower optimizer.lr" in capsys.readouterr().out
    assert inside("-m", *words, "optimizer.lr=0.1,100", "model=glob(mlp)", "folder=sweep") is None
    assert "the training loss ends" not in capsys.readouterr().out
    assert pl.read_csv(tmp_path / "sweep" / "sweep.csv")["status"].to_list() == ["finished", "worse than chance"]


@pytest.mark.filterwarnings("ignore")
def test_repetitions_of_one_setting_have_a_mean_and_no_winner(
    tmp_path: Path, inside: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["data.num_folds=3", "data.fold=range(3)", "data=iris", "trainer.max_epochs=2", "folder=cv"]
    assert inside("-m", *words) is None
    assert "mean and standard deviation over data.fold" in (shown := capsys.readouterr().out)
    assert "best" not in shown.replace("best_epoch", "")
    assert not (tmp_path / "cv" / "best.yaml").exists()
    assert pl.read_csv(tmp_path / "cv" / "sweep.csv")["job"].to_list() == [0, 1, 2]
    for file in tmp_path.glob("cv/*/metrics.json"):
        assert "test/loss" not in json.loads(file.read_text())


def test_the_suggested_rate_is_the_near_end_of_the_valleys_floor() -> None:
    rates = np.array([float(rate) for rate in log_spaced(1e-5, 10, 64).split(",")])
    assert rates == pytest.approx(np.logspace(-5, 1, 64), rel=1e-3)
    noise = np.random.default_rng(0).normal(0, 0.002, 64)
    valley = np.clip(np.abs(np.log10(rates) + 1.5) - 0.5, 0, None)  # flat from 0.01 to 0.1
    assert 0.007 < rates[suggested(valley + noise)] < 0.02
    assert 0.007 < rates[suggested(np.where(rates > 0.3, np.nan, valley + noise))] < 0.02
    assert suggested([1.0]) == 0
    assert suggested([np.nan, 1.0, np.nan]) == 1


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_range_test_finds_a_rate_that_trains_well(
    tmp_path: Path, inside: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["sweep.rates.number=20", "sweep.rates.most=1e3", "data=wine", "folder=lr"]
    assert inside("debug=lr_range", *words) is None  # though some diverge
    shown = capsys.readouterr().out
    assert "20 as one" in shown
    assert "diverged" in shown
    table = pl.read_csv(tmp_path / "lr" / "sweep.csv")
    assert table["optimizer.lr"].to_list() == sorted(table["optimizer.lr"])
    assert len(table) == 20
    assert not (tmp_path / "lr" / "best.yaml").exists()
    rate = float(shown.split("suggested: optimizer.lr=")[1].split()[0])
    rates = [rate * factor for factor in (1, 0.01, 0.1, 10, 100)]
    words = ["data=wine", "trainer.max_epochs=12"]
    jobs = [configure(tmp_path / f"{rate}", *words, f"optimizer.lr={rate}") for rate in rates]
    losses = [member.metrics.get("val/loss", np.inf) for member in train_as_one(jobs)]
    assert losses[0] < 1.1 * min(losses)
