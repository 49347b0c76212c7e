"""An older conf/ runs with a newer library, and a fork takes one."""

import re
from inspect import signature
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from omegaconf import OmegaConf
from trees import commit, forked, git, run, tree

from classify import build
from tabrun.cli.keys import DEFAULTS
from tabrun.runs.build import conf
from tabrun.tables.data import TabularData

OWN = [  # keys of conf/config.yaml that are the library's; those of a line are taken out together
    ["name", "folder", "seed", "monitor", "mode", "resume", "rerun", "init_from", "trust", "test"],
    [f"data.{key}" for key in ("batch_size", "seed", "id", "drop_missing_target", "num_folds", "fold")],
    [f"data.split.{key}" for key in ("validation_fraction", "test_fraction", "seed", "column", "group", "time")],
    [f"data.columns.{key}" for key in ("ignore", "numbers", "categories", "small_integers", "date_parts")],
    ["data.columns.missing_indicators", "data.columns.max_one_hot", "callbacks.checkpoints.minutes"],
    [*(f"speed.{key}" for key in ("threads", "chunk", "compile")), "sweep", "ensemble"],
    [
        "speed",
        *(f"sweep.{key}" for key in ("max_stack", "stack_dropout", "trials")),
        "ensemble.folds",
        "ensemble.seeds",
    ],
]
TEMPLATE = Path(build.__file__).parent.name  # these tests hold after a rename too
NEW = "leads" if TEMPLATE == "churn" else "churn"


def train_without(lines: list[list[str]], cwd: Path) -> None:
    cases = {",".join(line): ["without", ",".join(line), "debug=fast"] for line in lines}
    cases["-m"] = [*cases[",".join(lines[0])], "-m", "seed=1,2"]
    done = forked(list(cases.values()), cwd, ROOT / "src", Path(__file__).parent)
    assert {case: words[::2] for case, words in zip(cases, done, strict=True) if words[::2] != (0, "")} == {}
    assert len(list(cwd.glob("debug=fast+*/outputs/*/*/metrics.json"))) == len(lines)
    assert len(list(cwd.glob("debug=fast+-m+*/outputs/*/*/[01]/metrics.json"))) == 2


@pytest.mark.slow
def test_a_conf_from_before_some_keys_were_there_still_trains(tmp_path: Path) -> None:
    train_without(OWN, tmp_path)


@pytest.mark.slow
def test_a_conf_from_before_one_key_was_there_still_trains(tmp_path: Path) -> None:
    train_without([[key] for line in OWN for key in line], tmp_path)


def test_defaults_are_those_of_the_signatures_and_of_conf() -> None:
    """They stand in three places, as conf/ is to show every knob and a constructor is called without it too."""
    shown = OmegaConf.to_container(OmegaConf.load(conf(build) / "config.yaml"))
    assert within(DEFAULTS, shown)
    taken = signature(TabularData).parameters
    assert all(DEFAULTS["data"][key] == taken[key].default for key in ("batch_size", "id", "drop_missing_target"))


def within(part: Any, whole: Any) -> bool:
    if isinstance(part, dict):
        return all(key in whole and within(value, whole[key]) for key, value in part.items())
    return bool(part == whole)


def replace(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text, f"{file}: {old}"
    file.write_text(text.replace(old, new))


def newer(library: Path) -> None:
    """Another version of the library: what it says of itself is another, and each docstring."""
    for file in library.rglob("*.py"):
        file.write_text(re.sub(r'^( *)"""(?=\w)', r'\1"""Newer: ', file.read_text(), flags=re.M))
    file = library / "__init__.py"
    file.write_text(re.sub(r"^__version__ = .*", '__version__ = "99.0"', file.read_text(), flags=re.M))


@pytest.mark.slow
def test_a_fork_takes_a_newer_library(tmp_path: Path) -> None:
    copy = tree(tmp_path / "fork")
    done = run(copy, "scripts/rename.py", NEW)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in (copy / "src").iterdir()} == {NEW, "tabrun", "hydra_plugins"}
    assert git(copy, "status", "--porcelain", "src/tabrun", "src/hydra_plugins") == ""
    assert git(copy, "grep", "-nwE", f"{TEMPLATE}\\.(train|evaluate|load|nets|build)|src/{TEMPLATE}", "--", ".") == ""
    commit(copy)
    replace(copy / "conf" / "model" / "mlp.yaml", "hidden: [64]", "hidden: [48]")
    replace(copy / "conf" / "model" / "mlp.yaml", "activation: ReLU", "activation: Tanh")
    replace(copy / "src" / NEW / "nets.py", 'activation: str = "ReLU"', 'activation: str = "Tanh"')
    commit(copy)
    newer(copy / "src" / "tabrun")
    assert git(copy, "diff", "--stat", "src/tabrun") != ""
    rows = [f"{i},{i % 7},{'yes' if i % 3 else 'no'}" for i in range(60)]
    (copy / "table.csv").write_text("\n".join(["x,y,bought", *rows]))
    data = ["data=csv", "data.path=table.csv", "data.target=bought", "model=mlp", "trainer.max_epochs=2"]
    commands = {
        "train": [*data, "folder=run"],
        "evaluate": ["run"],
        "predict": ["run", "table.csv", "-o", "predicted.csv"],
        "train -m": [*data, "seed=0,1", "folder=sweep"],
    }
    outcomes = {}
    for verb, words in commands.items():
        outcomes[verb] = run(copy, "-m", *f"{NEW}.{verb}".split(), *words)
        assert outcomes[verb].returncode == 0, outcomes[verb].stderr
    assert "2 as one" in outcomes["train -m"].stdout
    assert len((copy / "predicted.csv").read_text().splitlines()) == 61
    said = run(
        copy, "-c", f"import {NEW}, tabrun; print({NEW}.load('run').net, tabrun.__version__, tabrun.__doc__)"
    ).stdout
    assert said.count("Tanh()") == 1
    assert "out_features=48" in said
    assert "99.0 Newer: " in said
    if (copy / "tests" / "template").is_dir():
        own = ("readme", "rename")  # the page shows the metrics that were there; a rename has been made
        ignored = [f"--ignore=tests/template/test_{name}.py" for name in own]
        tested = run(copy, "-m", "pytest", "tests/template", "-q", "-n", "2", "-m", "not slow", *ignored)
        assert tested.returncode == 0, tested.stdout[-5000:]
