"""Checks on a config before anything is imported, built or written: types, ranges, the folder."""

import math
import os
import sys
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from hydra import compose
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from classify.earlier import check_beside, check_earlier, resumable, said, stay_in
from classify.errors import one_line_errors
from classify.folder import claim, lock, read_json, write_json
from classify.keys import CONF, check_keys, describe, leaves, nearest, same_type, shipped

FIRST_PROCESS = int(os.environ.get("LOCAL_RANK", 0)) == 0  # of those that trainer=ddp starts

RANGES = {  # every number at the key, of a list too: from the least to the most
    key: bounds
    for bounds, keys in {
        (0, 2**32 - 1): ("seed", "data.seed", "data.split.seed"),
        (0, 0.999): ("model.dropout",),
        (0, 1): ("optimizer.momentum", "loss.label_smoothing"),
        (0, sys.float_info.max): ("optimizer.lr", "optimizer.weight_decay"),
        (0.001, 0.999): ("data.split.validation_fraction", "data.split.test_fraction"),
        (1e-9, math.inf): ("trainer.limit_train_batches", "trainer.limit_val_batches"),
        (1, math.inf): (
            *("data.batch_size", "data.batches_per_step", "model.hidden", "callbacks.early_stopping.patience"),
            *("trainer.max_epochs", "trainer.threads", "trainer.accumulate_grad_batches"),
            *("sweep.max_stack", "sweep.trials"),
        ),
    }.items()
    for key in keys
}
WHOLE = ("data.batches_per_step", "trainer.threads", "data.seed", "data.num_folds", "sweep.max_stack")  # or null
CHOICES: dict[str, tuple[str | None, ...]] = {
    "mode": ("auto", "min", "max"),
    "head": ("auto", "sigmoid", "softmax"),
    "trainer.precision": ("32-true", "64-true", "16-mixed", "bf16-mixed", "16-true", "bf16-true"),
    "trainer.compile": (None, "default", "reduce-overhead", "max-autotune"),
    "scheduler.interval": (None, "step", "epoch"),
    "trainer.profiler": (None, "simple", "advanced", "pytorch", "xla"),
}
MOST_JOBS = 100_000  # of a sweep


class Guard(Callback):
    """Hydra calls it before it writes anything; SystemExit, as Hydra would turn any Exception into a warning."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        with one_line_errors():
            if FIRST_PROCESS:  # the others have its words and more, and share its folder
                check_beside(config)
            if config.hydra.runtime.choices["hydra/sweeper"] == "optuna":
                raise ValueError("hydra/sweeper=optuna searches with many runs: add -m")
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
            check_multirun(config)
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


def check_multirun(config: DictConfig) -> None:
    """Raises ValueError for what belongs to one run, or would have all jobs write in one folder."""
    keys = said(config.hydra.overrides.task) | {*(config.hydra.sweeper.get("params") or {})}
    if again := [key for key in ("resume", "rerun") if config[key] is not None or key in keys]:
        raise ValueError(f"{again[0]}= is for one run: leave out -m (a sweep goes on when it is started again)")
    if "hydra.sweep.subdir" in said(config.hydra.overrides.hydra):
        raise ValueError("hydra.sweep.subdir: the folder of each job is its number: leave it out")


def check_sweep(config: DictConfig) -> None:
    """Composes with the first value of each swept key, and with every choice of a swept group: their names exist.

    Both ends of an interval are in range, and the jobs can be counted.
    """
    parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
    parsed = parser.parse_overrides(list(config.hydra.overrides.task))
    fixed = [str(o.input_line) for o in parsed if not o.is_sweep_override()]
    discrete = {o.get_key_element(): o.sweep_string_iterator() for o in parsed if o.is_discrete_sweep()}
    listed = {key: list(islice(values, MOST_JOBS + 1)) for key, values in discrete.items()}
    searched, sizes = config.hydra.runtime.choices["hydra/sweeper"] == "optuna", [*map(len, listed.values())]
    if 0 in sizes:
        raise ValueError(f"{next(key for key, values in listed.items() if not values)}: it holds no value")
    if (max(sizes, default=1) if searched else math.prod(sizes)) > MOST_JOBS:
        raise ValueError(f"{', '.join(listed)}: a sweep may list {MOST_JOBS:,} values or jobs at the most")
    firsts = [f"{key}={values[0]}" for key, values in listed.items() if values]
    for override in parsed:
        if isinstance(interval := override.value(), IntervalSweep):
            if not searched:
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
    check_keys(cfg, types)
    for key, value in leaves(cfg):
        if value == "???" or (value == "" and types.get(key)):
            raise ValueError(f"{key} has no value: add {key}=...")
        if key in types and not same_type(value, types[key]):
            raise ValueError(f"{key}={value} is not {describe(types[key])}, as in {key}={types[key]}")
        if key in WHOLE and isinstance(value, float | bool | list):
            raise ValueError(f"{key}={value} is not a whole number")
        check_range(key, value)
    check_monitors(cfg)
    check_earlier(cfg)
    if "loss" in cfg.metrics:
        raise ValueError("metrics.loss: this name is taken by the cross-entropy: call the metric something else")
    if not cfg.callbacks.get("checkpoints"):
        raise ValueError("callbacks.checkpoints cannot be left out: a run is read back from them")
    for key, words in CHOICES.items():
        if not OmegaConf.is_dict(value := OmegaConf.select(cfg, key)) and value not in words:
            raise ValueError(f"{key}={value} is not one of {', '.join(word or 'null' for word in words)}")
    if cfg.trainer.compile not in (None, "default") and cfg.trainer.accumulate_grad_batches != 1:
        raise ValueError(
            f"trainer.compile={cfg.trainer.compile} replays CUDA graphs, which write over gradients that "
            "trainer.accumulate_grad_batches keeps: say trainer.compile=default"
        )
    if choices["data"] in ("csv", "parquet") and not Path(str(cfg.data.path)).is_file():
        raise ValueError(f"data.path={cfg.data.path}: there is no such file")


def check_range(key: str, value: Any) -> None:
    """Raises ValueError for a number, or one of a list, that the key may not have."""
    if key not in RANGES:
        return
    low, high = RANGES[key]
    for number in value if isinstance(value, list) else [value]:
        if isinstance(number, str) and not number.startswith("${"):
            raise ValueError(f"{key}={value} is not a number")
        if isinstance(number, int | float) and not low <= number <= high:
            bounds = f"at least {low}" if high in (math.inf, sys.float_info.max) else f"from {low} to {high}"
            raise ValueError(f"{key}={value} is out of range: it must be {bounds}")


def check_monitors(cfg: DictConfig) -> None:
    """Raises ValueError for a metric that is watched and that nothing measures."""
    names: list[str] = [f"val/{name}" for name in ("loss", *(name for name, metric in cfg.metrics.items() if metric))]
    if cfg.monitor not in names:
        raise ValueError(
            f"monitor={cfg.monitor} is not measured{nearest(cfg.monitor, names)}: there are {', '.join(names)}"
        )
    nodes = {f"callbacks.{name}": node for name, node in cfg.callbacks.items()} | {"scheduler": cfg.scheduler}
    for key, node in nodes.items():
        if node is not None and not (OmegaConf.is_dict(node) and "_target_" in node):
            raise ValueError(f"{key}={node} does not say what to call, with {key}._target_: say null for none")
        if node and node.get("monitor", "train/loss") not in ("train/loss", *names):
            raise ValueError(f"{key}.monitor={node.monitor} is not measured: there are {', '.join(names)}")


def in_sweep() -> bool:
    return HydraConfig.get().mode is RunMode.MULTIRUN
