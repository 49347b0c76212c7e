"""Sweeps: a member of a stack equals its run alone, and what a sweep leaves in its folder."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from conftest import Command, configure
from hydra import version
from hydra.test_utils.launcher_common_tests import BatchedSweeperTestSuite, IntegrationTestSuite, LauncherTestSuite

from classify.run import Run
from classify.sweep.plan import stackable, stacks
from classify.sweep.training import train_population
from classify.train import main, train

RATES = [["optimizer.lr=0.01"], ["optimizer.lr=0.05"], ["optimizer.lr=0.2"]]
DECAYS = [["optimizer.lr=0.01", "optimizer.weight_decay=0.1"], ["optimizer.lr=0.05"]]
KINDS: dict[str, tuple[list[list[str]], list[str]]] = {
    "sgd, momentum": (RATES, []),
    "sgd, nesterov, weight decay": (DECAYS, ["optimizer.nesterov=true"]),
    "adam, weight decay": (DECAYS, ["optimizer=adam"]),
    "adamw, weight decay": (DECAYS, ["optimizer=adamw"]),
    "seeds": ([["seed=0"], ["seed=1"], ["seed=2"]], []),
    "folds": ([["data.fold=0"], ["data.fold=1"], ["data.fold=4"]], ["data.num_folds=5"]),
    "losses": ([["loss.label_smoothing=0.1"], ["loss.class_weights=[1,2,3]"], []], []),
    "cosine": (RATES, ["scheduler=cosine"]),
    "one cycle": (RATES, ["scheduler=one_cycle"]),
    "plateau": (RATES, ["scheduler=reduce_on_plateau", "scheduler.make.patience=1"]),
    "early stopping": (RATES, ["callbacks.early_stopping.patience=2", "trainer.max_epochs=60"]),
    "a maximum": (RATES, ["monitor=val/accuracy", "mode=max", "callbacks.early_stopping.patience=3"]),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_member_equals_its_run_alone(kind: str, tmp_path: Path) -> None:
    jobs, common = KINDS[kind]
    common = ["trainer.precision=64-true", "trainer.max_epochs=20", "data=iris", *common]
    configs = [configure(tmp_path / f"stacked{i}", *common, *job) for i, job in enumerate(jobs)]
    assert stacks(dict(enumerate(configs)), None) == [list(range(len(jobs)))]
    train_population(configs)
    for i, job in enumerate(jobs):
        alone = tmp_path / f"alone{i}"
        metrics = train(configure(alone, *common, *job, "test=false"))
        assert json.loads((tmp_path / f"stacked{i}" / "metrics.json").read_text()) == pytest.approx(metrics, abs=1e-6)
        for name in ("last", "best"):
            one, other = Run.open(alone, name), Run.open(tmp_path / f"stacked{i}", name)
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
        train_population([configure(tmp_path / f"{name}-stacked{i}", *job) for i, job in enumerate(jobs)])
        for i, job in enumerate(jobs):
            train(configure(tmp_path / f"{name}-alone{i}", *job))
            one, other = (Run.open(tmp_path / f"{name}-{kind}{i}", "last").weights for kind in ("stacked", "alone"))
            assert all((one[key] - other[key]).norm() <= 1e-9 * other[key].norm() for key in one), name


def test_folds_of_different_sizes_and_a_member_that_cannot_be_built(tmp_path: Path) -> None:
    words = ["data=iris", "data.num_folds=7", "trainer.max_epochs=2", "trainer.precision=64-true", "test=false"]
    jobs = [[*words, f"data.fold={fold}"] for fold in (0, 6, 7)]  # 120 rows in 7 folds; there is no fold 7
    members = train_population([configure(tmp_path / f"stacked{i}", *job) for i, job in enumerate(jobs)])
    assert "fold from 0 to 6" in str(members[2].error)
    for i, job in enumerate(jobs[:2]):
        metrics = train(configure(tmp_path / f"alone{i}", *job))
        assert members[i].metrics == pytest.approx(metrics, abs=1e-6)


def test_soft_labels_in_batches_as_long_as_the_stack(tmp_path: Path) -> None:
    share = np.random.default_rng(0).random(40)
    pl.DataFrame({"x": share, "no": 1 - share, "yes": share}).write_parquet(tmp_path / "table.parquet")
    words = ["data=parquet", f"data.path={tmp_path / 'table.parquet'}", "data.target=[no,yes]", "data.batch_size=3"]
    words += ["trainer.max_epochs=2", "trainer.precision=64-true", "test=false"]
    members = train_population([configure(tmp_path / f"stacked{i}", *words, *job) for i, job in enumerate(RATES)])
    for i, job in enumerate(RATES):
        assert members[i].metrics == pytest.approx(train(configure(tmp_path / f"alone{i}", *words, *job)), abs=1e-6)


def test_a_member_goes_on_as_its_run_alone_would(tmp_path: Path) -> None:
    common = ["trainer.precision=64-true", "data=iris", "test=false", "callbacks.early_stopping.patience=3"]
    for kind in (
        ["optimizer=adamw", "scheduler=reduce_on_plateau"],
        ["scheduler=cosine", "scheduler.total=null", "+scheduler.make.T_max=50"],
    ):
        folder = tmp_path / str(len(kind))
        train_population(
            [
                configure(folder / f"half{i}", *common, *kind, *job, "trainer.max_epochs=6")
                for i, job in enumerate(RATES)
            ]
        )
        words = [*common, *kind, *RATES[1], "trainer.max_epochs=12"]
        train(configure(folder / "rest", *words, f"resume={folder / 'half1'}"))
        train(configure(folder / "whole", *words))
        one, other = Run.open(folder / "rest", "last"), Run.open(folder / "whole", "last")
        assert one.num_epochs == other.num_epochs
        assert all(
            (one.weights[key] - other.weights[key]).norm() <= 1e-9 * other.weights[key].norm() for key in one.weights
        )


def test_in_float32_the_metrics_agree(tmp_path: Path) -> None:
    configs = [configure(tmp_path / f"stacked{i}", *job) for i, job in enumerate(RATES)]
    members = train_population(configs)
    for i, (member, job) in enumerate(zip(members, RATES, strict=True)):
        metrics = train(configure(tmp_path / f"alone{i}", *job, "test=false"))
        assert member.metrics == pytest.approx(metrics, abs=1e-3)


def test_a_net_of_other_layers_goes_through_vmap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from classify import nets

    def normed(in_features: int, out_features: int) -> torch.nn.Module:
        layers = (
            torch.nn.Linear(in_features, 8),
            torch.nn.LayerNorm(8),
            torch.nn.Tanh(),
            torch.nn.Linear(8, out_features),
        )
        return torch.nn.Sequential(*layers)

    normed.__module__ = nets.__name__
    monkeypatch.setattr(nets, "normed", normed, raising=False)

    def config(folder: Path, job: list[str]) -> dict[str, Any]:
        made = configure(folder, "trainer.precision=64-true", "trainer.max_epochs=5", "data=iris", *job, "test=false")
        return made | {"model": {"_target_": f"{nets.__name__}.normed"}}

    train_population([config(tmp_path / f"stacked{i}", job) for i, job in enumerate(RATES)])
    for i, job in enumerate(RATES):
        train(config(tmp_path / f"alone{i}", job))
        one, other = (Run.open(tmp_path / f"{name}{i}", "last").weights for name in ("stacked", "alone"))
        assert all((one[key] - other[key]).norm() <= 1e-9 * other[key].norm() for key in one)


def test_what_cannot_be_stacked_trains_alone(tmp_path: Path) -> None:
    def key(*words: str) -> str | None:
        return stackable(configure(tmp_path, *words))

    assert key("optimizer.lr=0.1", "seed=3") == key("optimizer.lr=0.2", "data.fold=1", "loss.label_smoothing=0.1")
    assert key() != key("model.hidden=[8]")
    assert key() != key("data=iris")
    for words in ("model.dropout=0.1", "trainer.gradient_clip_val=1.0", "trainer=ddp", "logger=tensorboard"):
        assert key(words) is None
    if not torch.cuda.is_available():
        assert key("model.hidden=[256,256]", "data.batch_size=1024") is None
    assert key("callbacks.gradient_norms.every_n_steps=1") is None
    configs = {i: configure(tmp_path, f"seed={i}") for i in range(5)}
    assert stacks(configs, 2) == [[0, 1], [2, 3], [4]]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("hydra_restore_singletons")
def test_a_sweep_leaves_folders_a_leaderboard_and_its_best(
    tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
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
    losses = table["val/loss"].to_list()
    assert losses[:4] == sorted(losses[:4])
    assert losses[4:] == [None, None]
    assert "the training loss is nan" in (tmp_path / "sweep" / "2" / "error.txt").read_text()
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
    other = command("classify.train", "-m", "optimizer.lr=0.5,0.6", "folder=sweep")
    assert (other.returncode, other.stderr.count("\n")) == (1, 1)
    assert "holds files already" in other.stderr

    # the same command again: what has finished stays, what has failed is tried again
    before = (tmp_path / "sweep" / str(best) / "checkpoints" / "last.ckpt").stat().st_mtime_ns
    failed = (tmp_path / "sweep" / "2" / "error.txt").stat().st_mtime_ns
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train", *words])
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")  # as `main` does, and this undoes it
    with pytest.raises(SystemExit, match="the training loss is nan"):
        main()
    assert (tmp_path / "sweep" / "2" / "error.txt").stat().st_mtime_ns > failed
    assert (tmp_path / "sweep" / str(best) / "checkpoints" / "last.ckpt").stat().st_mtime_ns == before


# Hydra's own tests of a launcher


@pytest.fixture
def hydra_1_1(hydra_restore_singletons: Any) -> None:
    """The version whose defaults Hydra's tests expect."""
    version.setbase("1.1")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("hydra_1_1")
@pytest.mark.parametrize(("launcher_name", "overrides"), [("vectorized", [])])
class TestLauncher(LauncherTestSuite):
    pass


@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("hydra_1_1")
@pytest.mark.parametrize(
    ("launcher_name", "overrides"), [("vectorized", ["hydra/sweeper=basic", "hydra.sweeper.max_batch_size=2"])]
)
class TestBatches(BatchedSweeperTestSuite):
    pass


@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("hydra_1_1")
@pytest.mark.parametrize(
    ("task_launcher_cfg", "extra_flags"), [({}, ["-m", "hydra/launcher=vectorized", "hydra.job.chdir=true"])]
)
class TestIntegration(IntegrationTestSuite):
    pass
