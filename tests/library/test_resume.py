"""A run that is cut, wherever, and goes on is the run that was never cut, to the last bit; see cuts.py."""

import errno
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ROOT, configure
from states import KINDS

from tabrun.runs import resume

sys.path.insert(0, str(ROOT / "scripts"))
import kill_test
from handed import continued, goes_on, open_run, train


@pytest.fixture(scope="module")
def cuts(tmp_path_factory: pytest.TempPathFactory, forking: Path) -> dict[str, tuple[int, str]]:
    """Of each cut the exit code and what was said; all runs have ended as if there had been none."""
    folder = tmp_path_factory.mktemp("cuts")
    command = [forking, str(ROOT / "tests" / "cuts.py"), str(folder)]
    done = subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_what_is_said_when_a_run_is_cut(cuts: dict[str, tuple[int, str]]) -> None:
    said = {
        "Ctrl-C": (130, "interrupted: go on with resume=out\n"),
        "Ctrl-C in validation": (130, "interrupted: go on with resume=out\n"),
        "SIGTERM": (143, "interrupted: go on with resume=out\n"),
        "Ctrl-C, twice": (-2, ""),
        "a full disk": (
            1,
            "error: [Errno 27] File too large: the disk, or that of $TMPDIR, is full; what was written before is ",
        ),
    }
    for name, (code, text) in cuts.items():
        expected = said.get(name, (-9, ""))
        assert code == expected[0], name
        _, _, end = text.rpartition(")\n")  # of the line that tells the rows of each class
        assert end.startswith(expected[1]), (name, text)
        assert end.count("\n") <= 2, (name, text)  # with the exit code, which the script prints


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_every_state_that_a_kill_can_leave(kind: str, tmp_path: Path, forking: Path) -> None:
    command = [forking, str(ROOT / "tests" / "states.py"), str(tmp_path), kind]
    done = subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(done.stdout) >= 20


def test_a_damaged_last_checkpoint_is_replaced_by_the_one_before(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    words = ["data=iris", "model.dropout=0.2", "trainer.max_epochs=4"]
    train(configure(tmp_path / "whole", *words))
    train(config := configure(tmp_path / "cut", *words))
    for name in ("metrics.json", "run.json"):
        (tmp_path / "cut" / name).unlink()
    last = tmp_path / "cut" / "checkpoints" / "last.ckpt"
    content = bytearray(last.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 64] = bytes(64)
    last.write_bytes(content)  # best.ckpt too, where it is the same file
    train(*continued(config, [], False))
    assert "last.ckpt is not a whole checkpoint" in caplog.text
    assert "going on from previous.ckpt" in caplog.text
    assert not kill_test.differences(tmp_path / "whole", tmp_path / "cut")


def test_checkpoints_need_no_folder_for_temporary_files_and_no_hard_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(tempfile, "mkstemp", refused)
    monkeypatch.setattr(os, "link", refused)
    train(configure(tmp_path, "data=iris", "trainer.max_epochs=2"))
    files = {name: (tmp_path / "checkpoints" / f"{name}.ckpt").read_bytes() for name in ("best", "last", "previous")}
    assert files["best"] == files["last"] != files["previous"]


def test_more_epochs_continue_a_finished_run(tmp_path: Path) -> None:
    words = ["data=iris", "scheduler=reduce_on_plateau", "callbacks.early_stopping.patience=2", "optimizer.lr=0.2"]
    whole, cut = ([*words, f"trainer.max_epochs={epochs}"] for epochs in (40, 3))
    train(configure(tmp_path / "whole", *whole))
    train(configure(tmp_path / "cut", *cut))
    train(*continued(configure(tmp_path / "cut", *whole), ["trainer.max_epochs"], False))
    assert open_run(tmp_path / "cut").config == {
        **open_run(tmp_path / "whole").config,
        **{key: open_run(tmp_path / "cut").config[key] for key in ("folder", "callbacks", "logger")},
    }
    for name in ("metrics.json", "run.json", "log/metrics.csv"):
        assert (tmp_path / "cut" / name).read_text() == (tmp_path / "whole" / name).read_text()


def test_a_schedule_made_for_some_epochs_cannot_have_more(tmp_path: Path) -> None:
    config: dict[str, Any] = configure(tmp_path, "data=iris", "scheduler=cosine", "trainer.max_epochs=2")
    train(config)
    with pytest.raises(ValueError, match=r"trainer.max_epochs: the schedule of .* was made for 2 epochs"):
        continued(config | {"trainer": config["trainer"] | {"max_epochs": 3}}, ["trainer.max_epochs"], False)


def test_a_job_of_a_sweep_goes_on_unless_it_failed_or_is_another(tmp_path: Path) -> None:
    config = configure(tmp_path, "data=iris", "trainer.max_epochs=1", "test=false")
    assert not goes_on(config)
    train(config)
    assert goes_on(config)
    assert not goes_on(config | {"seed": 1})
    (tmp_path / "error.txt").touch()
    assert not goes_on(config)


def test_a_loss_that_is_not_finite_is_not_kept(tmp_path: Path) -> None:
    words = ["data=iris", "speed.chunk=1", "callbacks.checkpoints.minutes=0", "optimizer.lr=1e30"]
    with pytest.raises(ValueError, match=r"the training loss is nan in epoch 0, by step 3: lower optimizer.lr"):
        train(configure(tmp_path, *words))
    content = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert content["callbacks"]["Epochs"]["loss"].isfinite()


def test_latest_is_the_newest_that_is_unfinished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="no unfinished run under outputs/"):
        resume.resumable("latest")
    for i, name in enumerate(("a/1", "a/2", "b/3", "b/4")):
        mark = tmp_path / "outputs" / name / ".hydra" / "config.json"
        mark.parent.mkdir(parents=True)
        mark.touch()
        os.utime(mark, (i, i))
    (tmp_path / "outputs" / "b" / "4" / "metrics.json").touch()
    assert resume.resumable("latest") == Path("outputs/b/3")
    (tmp_path / "outputs" / "b" / "sweep.json").write_text("[]")  # a job goes on with its sweep
    assert resume.resumable("latest") == Path("outputs/a/2")
