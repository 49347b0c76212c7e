"""Runs that build on an earlier one: its weights, or the whole of it once more."""

import json
import logging
import re
import shutil
import sys
from functools import reduce
from operator import getitem
from pathlib import Path

import pytest
import torch
from conftest import configure
from handed import compared, open_run, train

from classify import build, load
from classify.train import main
from tabrun.runs.trust import recorded
from tabrun.verbs import evaluate


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("again") / "run"
    train(configure(folder, "data=iris", "trainer.max_epochs=3", "model.dropout=0.2", "scheduler=one_cycle"))
    return folder


def test_init_from_takes_what_fits_and_says_what_does_not(
    run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    common = ["data=iris", "model.dropout=0.2", "trainer.max_epochs=1", "optimizer.lr=0", f"init_from={run}"]
    train(configure(tmp_path / "whole", *common))
    weights = open_run(run).weights
    for name, value in open_run(tmp_path / "whole", "last").weights.items():
        assert torch.equal(value, weights[name])  # a rate of 0 leaves what it began with, the best and not the last
    assert f"{', '.join(weights)}, which are all" in caplog.text
    train(configure(tmp_path / "part", *common, "model.hidden=[64,5]", "seed=1"))
    found = open_run(tmp_path / "part", "last").weights
    assert [name for name in weights if name in found and torch.equal(found[name], weights[name])] == [
        *("body.0.weight", "body.0.bias")
    ]
    said = "weights from .*: body.0.weight, body.0.bias; not taken: body.3.weight .5, 64., there .3, 64.; .*"
    assert re.search(said + "body.6.weight .3, 5., there missing", caplog.text)
    with pytest.raises(ValueError, match=r"has no weights that fit: body.0.weight .2, 30., there .64, 4."):
        train(configure(tmp_path / "none", *common[1:], "model.hidden=[2]"))


@pytest.mark.usefixtures("hydra_restore_singletons")
@pytest.mark.filterwarnings("ignore")
def test_rerun_is_equal_and_says_so(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train", f"rerun={run}", "folder=again"])
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")  # as `main` does, and this undoes it
    main()
    assert capsys.readouterr().out.splitlines()[-1].endswith("run: weights and metrics, to the last bit")
    assert open_run(tmp_path / "again").config["folder"] == str(tmp_path / "again")
    assert load(tmp_path / "again").predict_proba(torch.zeros(1, 4)).shape == (1, 3)


def test_a_run_without_the_keys_that_were_added_is_measured_and_repeated(run: Path, tmp_path: Path) -> None:
    older = tmp_path / "older"
    shutil.copytree(run, older)
    content = torch.load(older / "checkpoints" / "best.ckpt", weights_only=True)
    for key in build.ADDED:
        *groups, last = key.split(".")
        reduce(getitem, groups, content["config"]).pop(last)
    torch.save(content, older / "checkpoints" / "best.ckpt")
    expected = json.loads((run / "metrics.json").read_text())
    assert evaluate.evaluate(open_run(older), None, None, False)["metrics"] == pytest.approx(expected, abs=1e-6)
    train(recorded(open_run(older).trainable(), tmp_path / "again", trust=False))
    assert "to the last bit" in compared(run, tmp_path / "again")


def test_what_differs_is_named(run: Path, tmp_path: Path) -> None:
    assert "to the last bit" in compared(run, run)
    other = tmp_path / "other"
    shutil.copytree(run, other)
    file = other / "checkpoints" / "best.ckpt"
    content = torch.load(file, weights_only=True)
    content["state_dict"]["net.body.0.bias"][0] += 0.5
    content["record"] |= {"data_sha256": "0", "packages": content["record"]["packages"] | {"torch": "1.0"}}
    torch.save(content, file)
    metrics = (run / "metrics.json").read_text()
    (other / "metrics.json").write_text(re.sub(r'"val/accuracy": [\d.]+', '"val/accuracy": 0.125', metrics))
    said, why = compared(run, other).splitlines()
    assert re.search(r"not equal to .*: best.ckpt by up to 0.5; val/accuracy 0.\d+ there, 0.125 here", said)
    assert "torch 2." in why
    assert "data_sha256" in why
    assert "numpy" not in why
