"""An older conf/ runs with a newer library, and a fork takes one."""

from inspect import signature
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from omegaconf import OmegaConf
from trees import forked

from classify import build
from tabrun.cli.keys import DEFAULTS
from tabrun.runs.build import conf
from tabrun.tables.data import TabularData

OWN = [  # keys of conf/config.yaml that are the library's; those of a line are taken out together
    ["folder", "seed", "monitor", "mode", "resume", "rerun", "init_from", "trust", "test"],
    [f"data.{key}" for key in ("batch_size", "seed", "id", "drop_missing_target", "num_folds", "fold")],
    [f"data.split.{key}" for key in ("validation_fraction", "test_fraction", "seed", "column", "group", "time")],
    [f"data.columns.{key}" for key in ("ignore", "numbers", "categories", "small_integers", "date_parts")],
    ["data.columns.missing_indicators", "data.columns.max_one_hot", "callbacks.checkpoints.minutes"],
    [*(f"speed.{key}" for key in ("threads", "chunk", "compile")), "sweep"],
    ["speed", *(f"sweep.{key}" for key in ("max_stack", "stack_dropout", "trials"))],
]


def train_without(lines: list[list[str]], cwd: Path) -> None:
    cases = [["without", ",".join(line), "debug=fast"] for line in lines]
    done = forked(cases, cwd, ROOT / "src", Path(__file__).parent)
    assert {",".join(line): words[::2] for line, words in zip(lines, done, strict=True) if words[::2] != (0, "")} == {}
    assert len(list(cwd.glob("*/outputs/*/*/metrics.json"))) == len(lines)


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
