"""Checks on a config before anything is imported, built or written: types, ranges, the folder."""

import math
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from tabrun.cli.errors import UserError, errors_that_end
from tabrun.cli.keys import DEFAULTS, check_keys, composing, describe, leaves, nearest, plain, same_type, shipped
from tabrun.reading.files import files_of
from tabrun.runs.build import Build, check_ensemble, ensemble, varied
from tabrun.runs.folder import LOCK, check_around, claim, lock, read_json, write_json
from tabrun.runs.resume import check_beside, check_earlier, check_links, resumable, said

FIRST_PROCESS = int(os.environ.get("LOCAL_RANK", 0)) == 0  # of those that trainer=ddp starts

RANGES: dict[str, tuple[float, float]] = {  # the least and the most of a number, or of each in a list
    **dict.fromkeys(("seed", "data.seed", "data.split.seed"), (0, 2**32 - 1)),
    **dict.fromkeys(("data.split.validation_fraction", "data.split.test_fraction"), (0.001, 0.999)),
    **dict.fromkeys(("data.batch_size", "speed.chunk", "speed.threads", "sweep.max_stack"), (1, math.inf)),
    **dict.fromkeys(("ensemble.folds", "ensemble.seeds"), (2, 1000)),
    **{"sweep.trials": (1, math.inf), "data.num_folds": (2, math.inf), "data.read.head": (0, 10**9)},
    "data.bins": (2, 1000),
}
WHOLE = (  # or null
    *("data.bins", "data.batch_size", "data.seed", "data.num_folds", "ensemble.folds", "ensemble.seeds"),
    *("speed.chunk", "speed.threads", "sweep.max_stack"),
)
CHOICES: dict[str, tuple[str | None, ...]] = {
    "data.rare_classes": (None, "merge", "drop"),
    "mode": ("auto", "min", "max"),
    "speed.compile": (None, "default", "reduce-overhead", "max-autotune"),
}


class Guard(Callback):
    """Hydra makes it by its name, and calls it before it writes anything."""

    build: Build  # the template's, as `application` says

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        with errors_that_end(), composing(self.build):
            if FIRST_PROCESS:  # the others go on with what it has begun
                check_beside(config, self.build)
                check_values(config, config.hydra.runtime.choices, self.build)
            if config.hydra.runtime.choices["hydra/sweeper"] == "optuna":
                raise UserError("hydra/sweeper=optuna searches with many runs: add -m")
            with read_write(config), open_dict(config):
                if config.resume is not None:
                    config.folder = str(resumable(str(config.resume)))
                    config.hydra.output_subdir = None  # the run's own record in .hydra/ stays as it is
            folder = Path(config.hydra.run.dir)
            if config.resume is not None or os.path.lexists(folder / LOCK):  # what a killed run leaves is written over
                check_links(folder, config.trust)
            if FIRST_PROCESS:
                check_around(folder)
                (claim if config.resume is None else lock)(folder)

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        with errors_that_end(), composing(self.build):
            task, params = list(config.hydra.overrides.task), config.hydra.sweeper.get("params") or {}
            for key in ("resume", "rerun"):
                if config[key] is not None or key in said(task) | {*params}:
                    raise UserError(f"{key}= is for one run: leave out -m (a sweep goes on when it is started again)")
            if "hydra.sweep.subdir" in said(config.hydra.overrides.hydra):
                raise UserError("hydra.sweep.subdir: the folder of each job is its number: leave it out")
            words = [word for word in task if not word.startswith(("folder=", "sweep.trials="))]
            words += [word for word in config.hydra.overrides.hydra if word.startswith("hydra/sweeper=")]
            words += [f"{key}={value}" for key, value in params.items()]
            file = Path(config.hydra.sweep.dir) / "sweep.json"
            check_around(file.parent)
            if os.path.lexists(file) or os.path.lexists(file.with_name(LOCK)):
                check_links(file.parent, config.trust)
            if file.exists() and read_json(file, list[str]) == words:
                return lock(file.parent)  # the same sweep goes on: its finished jobs are skipped
            claim(file.parent)
            write_json(file, words)


def check_values(cfg: DictConfig, choices: Mapping[str, Any], build: Build) -> None:
    """Raises UserError for a value of another type, or out of its range; choices: those made of each config group."""
    chosen = {group: name for group, name in choices.items() if name and "/" not in group}
    own = [f"{group}={name}" for group, name in chosen.items() if group not in ("experiment", "debug")]
    types, added, words = shipped(*own), getattr(build, "ADDED", ()), {**CHOICES, **build.CHOICES}
    check_keys(cfg, {key: value for key, value in types.items() if not {key, key.partition(".")[0]} & {*added}})
    groups = {key.rpartition(".")[0] for key in types}
    for key, value in leaves(plain(cfg)):
        if isinstance(value, str) and "${" in value:
            value = OmegaConf.select(cfg, key)
        null = value is None and (key in WHOLE or None in words.get(key, ()))
        default = None if null else 1 if key in WHOLE else types.get(key)
        if key in groups and value:
            raise UserError(f"{key}={value} is not a group of keys")
        if value == "???" or (value == "" and default):
            raise UserError(f"{key} has no value: add {key}=...")
        if key in types and not same_type(value, default):
            raise UserError(f"{key}={value} is not {describe(default)}, as in {key}={default}")
        check_range(key, value, {**RANGES, **build.RANGES})
    for key, choice in words.items():
        if not OmegaConf.is_dict(value := OmegaConf.select(cfg, key)) and value not in choice:
            raise UserError(f"{key}={value} is not one of {', '.join(word or 'null' for word in choice)}")
    check_varied(plain(cfg).get("ensemble") or {}, types, {**RANGES, **build.RANGES}, words)
    build.check(cfg)
    check_ensemble(cfg)
    for number in range(len(ensemble(cfg)["vary"] or [])):
        build.check(OmegaConf.create(varied(plain(cfg), number)))
    check_earlier(cfg)
    if not re.fullmatch(r"[^/\\]+", name := str(cfg.get("name", "run"))) or name in (".", "..", "None"):
        raise UserError(f"name={cfg.name} is no word: it stands in the folder's name")
    if "::" in os.path.abspath(str(cfg.folder)):
        raise UserError(f"folder={cfg.folder}: a run's path must not hold ::, which stands for two: name another")
    if choices["data"] in ("csv", "parquet", "excel"):
        path = cfg.data.path
        for file in files_of(list(path) if OmegaConf.is_list(path) else str(path)):
            if not Path(file).is_file():
                raise UserError(f"data.path={file}: there is no such file")


def check_varied(own: Mapping[str, Any], types: Mapping[str, Any], ranges: Any, words: Mapping[str, Any]) -> None:
    """Raises UserError for keys that members of an ensemble cannot differ in, or values that they cannot have."""
    vary = own.get("vary") or []
    if not isinstance(vary, list) or not all(isinstance(one, dict) for one in vary):
        raise UserError(f"ensemble.vary={vary} is no list of keys and values, as in [{{optimizer.lr: 0.1}}, ...]")
    for key, value in (pair for one in vary for pair in one.items()):
        key = str(key)
        if key not in types or key.partition(".")[0] in DEFAULTS or "._" in key:
            theirs = [name for name in types if name.partition(".")[0] not in DEFAULTS]
            raise UserError(f"ensemble.vary: {key} is no key that members may differ in{nearest(key, theirs)}")
        if value not in words.get(key, (value,)):
            choice = ", ".join(word or "null" for word in words[key])
            raise UserError(f"ensemble.vary: {key}={value} is not one of {choice}")
        if isinstance(value, dict) or not (key in words or same_type(value, types[key])):
            raise UserError(f"ensemble.vary: {key}={value} is not {describe(types[key])}, as in {types[key]}")
        check_range(key, value, ranges)


def check_range(key: str, value: Any, ranges: Mapping[str, tuple[float, float]]) -> None:
    """Raises UserError for a number, or one of a list, that the key may not have."""
    low, high = ranges.get(key, (-math.inf, math.inf))
    for number in value if isinstance(value, list) else [value]:
        if isinstance(number, int) and abs(number) >= 2**63:
            raise UserError(f"{key}={value} is out of range: it has more than 64 bits")
        if isinstance(number, str) and key in ranges:
            raise UserError(f"{key}={value} is not a number")
        if isinstance(number, int | float) and not low <= number <= high:
            bounds = f"at least {low}" if high in (math.inf, sys.float_info.max) else f"from {low} to {high}"
            raise UserError(f"{key}={value} is out of range: it must be {bounds}")


def in_sweep() -> bool:
    return HydraConfig.get().mode is RunMode.MULTIRUN
