"""Checks on a config before anything is imported, built or written: types, ranges, the folder."""

import math
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hydra import compose
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from classify.earlier import check_beside, check_earlier, resumable, stay_in
from classify.errors import one_line_errors
from classify.folder import claim, lock, read_json, write_json
from classify.keys import CONF, leaves, nearest, shipped

FIRST_PROCESS = int(os.environ.get("LOCAL_RANK", 0)) == 0  # of those that trainer=ddp starts

RANGES = {  # key: (least, most); every number of a list must lie in it
    "seed": (0, 2**32 - 1),
    "data.seed": (0, 2**32 - 1),
    "data.split.seed": (0, 2**32 - 1),
    "data.batch_size": (1, math.inf),
    "data.batches_per_step": (1, math.inf),
    "data.read.head": (0, 10**9),
    "data.split.validation_fraction": (0.001, 0.999),
    "data.split.test_fraction": (0.001, 0.999),
    "model.hidden": (1, math.inf),
    "model.dropout": (0, 0.999),
    "optimizer.lr": (0, sys.float_info.max),
    "optimizer.momentum": (0, 1),
    "optimizer.weight_decay": (0, sys.float_info.max),
    "loss.label_smoothing": (0, 1),
    "trainer.max_epochs": (1, math.inf),
    "trainer.threads": (1, math.inf),
    "trainer.limit_train_batches": (1e-9, math.inf),
    "trainer.limit_val_batches": (1e-9, math.inf),
    "sweep.max_stack": (1, math.inf),
    "callbacks.early_stopping.patience": (1, math.inf),
    "sweep.trials": (1, math.inf),
}

WHOLE = ("data.batches_per_step", "trainer.threads", "data.seed", "data.num_folds", "sweep.max_stack")  # or null

CHOICES: dict[str, tuple[str | None, ...]] = {
    "mode": ("auto", "min", "max"),
    "head": ("auto", "sigmoid", "softmax"),
    "trainer.precision": ("32-true", "64-true", "16-mixed", "bf16-mixed", "16-true", "bf16-true"),
    "trainer.compile": (None, "default", "reduce-overhead", "max-autotune"),
}


class Guard(Callback):
    """Hydra calls it before it writes anything; SystemExit, as Hydra would turn any Exception into a warning."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        with one_line_errors():
            if FIRST_PROCESS:  # the others have its words and more, and share its folder
                check_beside(config)
            check_values(config, config.hydra.runtime.choices)
            if config.resume is not None:
                stay_in(resumable(str(config.resume)), config)
            folder = Path(config.hydra.run.dir)
            if FIRST_PROCESS and config.resume is None:
                claim(folder)
            elif FIRST_PROCESS:
                lock(folder)
                if (folder.parent / "sweep.json").exists():  # which may be training this very job
                    lock(folder.parent)

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        with one_line_errors():
            if again := [key for key in ("resume", "rerun") if config[key] is not None]:
                raise ValueError(f"{again[0]}= is for one run: leave out -m (a sweep goes on when it is started again)")
            task = config.hydra.overrides.task
            words = [word for word in task if not word.startswith(("folder=", "sweep.trials="))]
            words += [word for word in config.hydra.overrides.hydra if word.startswith("hydra/sweeper=")]
            words += [f"{key}={value}" for key, value in (config.hydra.sweeper.get("params") or {}).items()]
            file = Path(config.hydra.sweep.dir) / "sweep.json"
            if file.exists() and read_json(file) == words:
                return lock(file.parent)  # the same sweep goes on: its finished jobs are skipped
            check_sweep(config)
            claim(file.parent)
            write_json(file, words)


def check_sweep(config: DictConfig) -> None:
    """Composes with the first value of each swept key, and with every choice of a swept group: their names exist.

    Both ends of an interval are in range.
    """
    parsed = OverridesParser.create().parse_overrides(list(config.hydra.overrides.task))
    fixed = [str(o.input_line) for o in parsed if not o.is_sweep_override()]
    listed = {o.get_key_element(): list(o.sweep_string_iterator()) for o in parsed if o.is_discrete_sweep()}
    firsts = [f"{key}={values[0]}" for key, values in listed.items() if values]
    for override in parsed:
        if isinstance(interval := override.value(), IntervalSweep):
            if config.hydra.runtime.choices["hydra/sweeper"] != "optuna":
                raise ValueError(f"{override.input_line} is to be searched: add hydra/sweeper=optuna, or list values")
            for end in (interval.start, interval.end):
                found = compose("config", [*fixed, *firsts, f"{override.get_key_element()}={end}"])
                check_values(found, config.hydra.runtime.choices)
        elif override.is_sweep_override():
            values = listed[override.get_key_element()]
            for value in values if (CONF / override.key_or_group).is_dir() else values[:1]:
                compose("config", [*fixed, f"{override.get_key_element()}={value}"])


def check_values(cfg: DictConfig, choices: Mapping[str, Any]) -> None:
    """Raises ValueError for a value whose type differs from the one it overrides, or that is out of its range.

    choices: those that were made of each config group.
    """
    chosen = [
        f"{group}={choices[group]}"
        for group in choices
        if choices[group] and group not in ("experiment", "debug") and "/" not in group
    ]
    types, sections = shipped(*chosen)
    for key in sections:
        if not OmegaConf.is_dict(cfg.get(key)):
            raise ValueError(f"{key} cannot be left out as a whole: set {key}.NAME=null for what is not wanted")
    found = dict(leaves(cfg))
    for key in [key for key in types if key not in found]:
        section, name, *_ = f"{key}.".split(".")
        group = types[key] is None and key not in WHOLE and OmegaConf.select(cfg, key)
        if not group and (section not in ("metrics", "callbacks", "logger") or cfg[section].get(name)):
            raise ValueError(f"{key} has no value: add {key}=...")
    for key, value in found.items():
        if isinstance(value, str) and "${" in value:
            value = OmegaConf.select(cfg, key)
        if value == "???" or (value == "" and types.get(key)):
            raise ValueError(f"{key} has no value: add {key}=...")
        if key in types and not same_type(value, types[key]):
            raise ValueError(f"{key}={value} is not {describe(types[key])}, as in {key}={types[key]}")
        if key in WHOLE and value is not None and type(value) is not int:
            raise ValueError(f"{key}={value} is not a whole number")
        check_range(key, value)
    check_monitors(cfg)
    check_earlier(cfg)
    if "loss" in cfg.metrics:
        raise ValueError("metrics.loss: this name is taken by the cross-entropy: call the metric something else")
    if not cfg.callbacks.get("checkpoints"):
        raise ValueError("callbacks.checkpoints cannot be left out: a run is read back from them")
    for key, words in CHOICES.items():
        if (value := OmegaConf.select(cfg, key)) not in words:
            raise ValueError(f"{key}={value} is not one of {', '.join(word or 'null' for word in words)}")
    if cfg.trainer.compile not in (None, "default") and cfg.trainer.accumulate_grad_batches != 1:
        raise ValueError(
            f"trainer.compile={cfg.trainer.compile} replays CUDA graphs, which write over gradients that "
            "trainer.accumulate_grad_batches keeps: say trainer.compile=default"
        )
    if "::" in os.path.abspath(str(cfg.folder)):
        raise ValueError(f"folder={cfg.folder}: a run's path must not hold ::, which stands for two: name another")
    if choices["data"] in ("csv", "parquet") and not Path(str(cfg.data.path)).expanduser().is_file():
        raise ValueError(f"data.path={cfg.data.path}: there is no such file")


def check_range(key: str, value: Any) -> None:
    """Raises ValueError for a number, or one of a list, that the key may not have."""
    low, high = RANGES.get(key, (-math.inf, math.inf))
    for number in value if isinstance(value, list) else [value]:
        if isinstance(number, int) and abs(number) >= 2**63:
            raise ValueError(f"{key}={value} is out of range: it has more than 64 bits")
        if isinstance(number, str) and key in RANGES:
            raise ValueError(f"{key}={value} is not a number")
        if isinstance(number, int | float) and not low <= number <= high:
            bounds = f"at least {low}" if high in (math.inf, sys.float_info.max) else f"from {low} to {high}"
            raise ValueError(f"{key}={value} is out of range: it must be {bounds}")


def check_monitors(cfg: DictConfig) -> None:
    """Raises ValueError for a metric that is watched and that nothing measures."""
    names: list[str] = [f"val/{name}" for name in ("loss", *(name for name, metric in cfg.metrics.items() if metric))]
    if cfg.monitor not in names:
        raise ValueError(
            f"monitor={cfg.monitor} is not measured{nearest(str(cfg.monitor), names)}: there are {', '.join(names)}"
        )
    for name, node in cfg.callbacks.items():
        if node and node.get("monitor") not in (None, "train/loss", *names):
            raise ValueError(f"callbacks.{name}.monitor={node.monitor} is not measured: there are {', '.join(names)}")


def same_type(value: Any, default: Any) -> bool:
    """Whether `value` may stand where `default` stands: an int is a good float, and any scalar is good text."""
    if default in (None, "???") or any(isinstance(side, str) and side.startswith("${") for side in (value, default)):
        return True
    if isinstance(default, str):
        return isinstance(value, str | int | float)
    if isinstance(default, list):
        return isinstance(value, list) and all(same_type(item, default[0]) for item in value if default)
    if isinstance(default, bool) or isinstance(value, bool):
        return type(value) is type(default)
    return isinstance(value, int | float if isinstance(default, float) else type(default))


def describe(default: Any) -> str:
    names = {bool: "true or false", int: "a whole number", float: "a number", list: "a list", str: "text"}
    kind = names.get(type(default), "a group of keys")
    return f"{kind} of {describe(default[0]).removeprefix('a ')}s" if kind == "a list" and default else kind


def in_sweep() -> bool:
    return HydraConfig.get().mode is RunMode.MULTIRUN
