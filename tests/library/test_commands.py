"""The real commands, as processes: what a run leaves, sweeps, evaluate, resume, DDP, and errors in one line."""

import json
import logging
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from conftest import configure, run_command
from handed import open_run, train

from classify import load
from tabrun.training import epochs
from tabrun.training.train import mendable
from tabrun.verbs import evaluate


def weights(folder: Path, checkpoint: str = "last") -> dict[str, torch.Tensor]:
    return open_run(folder, checkpoint).weights


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_a_run_leaves_its_folder(finished: Path) -> None:
    files = {str(path.relative_to(finished)) for path in finished.rglob("*") if path.is_file()}
    assert files == {
        *("metrics.json", "run.json", "train.log", "log/metrics.csv", "columns.csv", "table.json"),
        *(f"checkpoints/{name}.ckpt" for name in ("best", "last", "previous")),
        *(".lock", ".hydra/config.json", ".hydra/config.yaml", ".hydra/hydra.yaml", ".hydra/overrides.yaml"),
    }
    metrics = json.loads((finished / "metrics.json").read_text())
    names = ("loss", "accuracy", "f1", "auroc", "calibration_error")
    assert set(metrics) == {f"{split}/{name}" for split in ("val", "test") for name in names}
    assert metrics["test/accuracy"] >= 0.95
    record = json.loads((finished / "run.json").read_text())
    assert record.keys() >= {"git_commit", "git_clean", "python", "packages", "data_sha256", "epochs"}
    assert record["packages"]["torch"] == torch.__version__


def test_the_checkpoint_alone_is_enough_without_hydra_or_lightning(finished: Path, tmp_path: Path) -> None:
    shutil.copy(finished / "checkpoints" / "best.ckpt", tmp_path / "alone.ckpt")
    script = (
        "import sys, torch; from classify import load; classifier = load('alone.ckpt'); "
        "rows = torch.zeros(5, 30); print(classifier(rows).shape, classifier.predict(rows)[0]); "
        "print('hydra' in sys.modules, 'lightning' in sys.modules)"
    )
    (tmp_path / "use.py").write_text(script)
    done = run_command("use", cwd=tmp_path)
    assert done.stdout.splitlines() == ["torch.Size([5, 2]) benign", "False False"], done.stderr


def test_load_predicts_what_metrics_json_says(finished: Path) -> None:
    run = open_run(finished)
    data, classifier = run.data(), load(finished)
    test = data.index["test"]
    predicted = np.searchsorted(classifier.classes_, classifier.predict(data.rows[test]))
    accuracy = (predicted == data.labels[test].numpy()).mean()
    assert accuracy == pytest.approx(json.loads((finished / "metrics.json").read_text())["test/accuracy"])
    assert classifier.predict_proba(data.rows[test]).sum(-1) == pytest.approx(1)
    assert set(classifier.predict(data.rows[test], threshold=0.0)) == {classifier.classes_[1]}


def test_evaluate_reproduces_the_metrics_and_refuses_a_changed_table(finished: Path, tmp_path: Path) -> None:
    metrics = evaluate.evaluate(open_run(finished), None, None, False)["metrics"]
    assert metrics == pytest.approx(json.loads((finished / "metrics.json").read_text()), abs=1e-6)
    changed = tmp_path / "changed"
    shutil.copytree(finished, changed)
    for file in (changed / "checkpoints").iterdir():
        content = torch.load(file, weights_only=True)
        content["record"]["data_sha256"] = "0" * 64
        torch.save(content, file)
    with pytest.raises(ValueError, match="breast_cancer has changed"):
        open_run(changed).data()


@pytest.mark.filterwarnings("ignore")
def test_a_job_of_a_sweep_equals_the_run_alone_and_spares_the_test_rows(
    tmp_path: Path, inside: Callable[..., Any]
) -> None:
    common = ["trainer.max_epochs=3", "data=iris"]
    words = ["optimizer.lr=0.01,0.1", "seed=0,1", *common, "folder=sweep", "hydra/launcher=basic"]
    assert inside("-m", *words) is None
    jobs = sorted((tmp_path / "sweep").glob("[0-9]"))
    assert [job.name for job in jobs] == ["0", "1", "2", "3"]
    for job, (lr, seed) in zip(jobs, [(0.01, 0), (0.01, 1), (0.1, 0), (0.1, 1)], strict=True):
        alone = tmp_path / f"alone-{job.name}"
        train(configure(alone, *common, f"optimizer.lr={lr}", f"seed={seed}"))
        metrics = json.loads((job / "metrics.json").read_text())
        expected = json.loads((alone / "metrics.json").read_text())
        best = int(job.name) == pl.read_csv(tmp_path / "sweep" / "sweep.csv")["job"][0]  # it alone sees the test rows
        assert metrics == pytest.approx(
            expected if best else {name: value for name, value in expected.items() if name.startswith("val/")}, abs=1e-6
        )
        assert same(weights(job), weights(alone))
    assert not same(weights(jobs[0]), weights(jobs[1]))


def test_two_equal_runs_give_equal_weights_in_two_processes(tmp_path: Path, finished: Path) -> None:
    train(configure(tmp_path))
    assert same(weights(tmp_path), weights(finished))
    assert same(weights(tmp_path, "best"), weights(finished, "best"))


def ranks(folder: Path) -> list[str]:
    """The processes of trainer=ddp, beside the first, that train in this folder."""
    commands = [file.read_bytes().decode() for file in Path("/proc").glob("[0-9]*/cmdline") if file.exists()]
    return [words for words in commands if "train_ddp_process" in words and str(folder) in words]


@pytest.mark.slow
def test_ddp_goes_on_after_a_job_that_diverges_writes_one_folder_and_ends_with_its_first_process(
    tmp_path: Path,
) -> None:
    words = ["trainer=ddp", "trainer.accelerator=cpu", "data=iris", "folder=ddp"]
    more = ["trainer.max_epochs=10000", "callbacks.early_stopping=null"]
    with subprocess.Popen([sys.executable, "-m", "classify.train", *words, *more], cwd=tmp_path) as first:
        while not (tmp_path / "ddp" / "checkpoints" / "last.ckpt").exists():
            assert first.poll() is None
            time.sleep(0.05)
        assert len(ranks(tmp_path)) == 1
        first.kill()
    time.sleep(0.5)
    assert ranks(tmp_path) == []
    assert os.listdir(tmp_path) == ["ddp"]
    shutil.rmtree(tmp_path / "ddp")
    more = ["trainer.max_epochs=2", "optimizer.lr=1e30,0.01"]
    done = run_command("classify.train", "-m", *words, *more, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("error: the training loss is nan")
    assert done.stderr.count("\n") == 1  # so no traceback of the second process
    assert pl.read_csv(tmp_path / "ddp" / "sweep.csv")["job"].to_list() == [1, 0]
    assert (tmp_path / "ddp" / "0" / "error.txt").read_text().startswith("the training loss is nan")
    assert (tmp_path / "ddp" / "1" / "metrics.json").exists()
    assert ranks(tmp_path) == []
    assert os.listdir(tmp_path) == ["ddp"]


def test_memory_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError) as refused:
        torch.empty(2**60)
    words = mendable(refused.value, configure(tmp_path))
    assert words is not None
    assert words.startswith("out of memory: lower data.batch_size or model.hidden")
    assert mendable(RuntimeError("shapes do not fit"), configure(tmp_path)) is None


@pytest.mark.parametrize(("monitor", "best"), [("val/loss", min), ("val/accuracy", max)])
def test_while_it_trains_the_monitored_metric_and_the_best_are_shown(
    monitor: str, best: Callable[..., float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, caplog: Any
) -> None:
    monkeypatch.setattr(epochs, "SECONDS", -1)
    words = ["data=iris", "trainer.max_epochs=8", "optimizer.lr=2", f"monitor={monitor}"]
    words += [f"callbacks.{name}.monitor={monitor}" for name in ("checkpoints", "early_stopping")]
    mode = "min" if best is min else "max"
    words += [f"mode={mode}", *(f"callbacks.{name}.mode={mode}" for name in ("checkpoints", "early_stopping"))]
    with caplog.at_level(logging.INFO):
        train(configure(tmp_path / "off", *words))
    scores = pl.read_csv(tmp_path / "off" / "log" / "metrics.csv")[monitor].drop_nulls().to_list()[:8]
    lines = [record.getMessage() for record in caplog.records if record.getMessage().startswith("epoch ")]
    assert [line.split("  ")[-1] for line in lines] == [f"best {best(scores[: i + 1]):.4f}" for i in range(8)]
    assert lines[7].startswith("epoch 7  train/loss ")
    assert f"  {monitor} {scores[7]:.4f}  best" in lines[7]
    assert "best=" not in capsys.readouterr().out
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    train(configure(tmp_path / "on", *words))
    shown = re.findall(rf"{monitor}=([\d.]+), best=([\d.]+)", capsys.readouterr().out)
    assert shown[-1] == (f"{scores[7]:.4f}", f"{best(scores):.4f}")


@pytest.mark.parametrize("name", ["../../x", "a/b", "null", ".."])
@pytest.mark.filterwarnings("ignore")
def test_a_name_is_one_word(name: str, tmp_path: Path, inside: Callable[..., Any]) -> None:
    assert re.fullmatch(r"error: name=\S+ is no word: it stands in the folder's name", inside(f"name={name}"))
    assert not [*tmp_path.rglob("checkpoints")]


def test_a_run_may_have_a_name(tmp_path: Path, inside: Callable[..., Any]) -> None:
    assert inside("data=iris", "trainer.max_epochs=1", "name=first") is None
    assert inside("data=iris", "trainer.max_epochs=1", "name=second", "folder='runs/${name}-${seed}'") is None
    assert len(list(tmp_path.glob("outputs/first/*/metrics.json"))) == 1
    assert (tmp_path / "runs" / "second-0" / "metrics.json").exists()
