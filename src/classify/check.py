"""Checks on a config before anything is imported, built or written: keys, types, ranges, the folder."""

import difflib
import math
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, InstantiationException, OverrideParseException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

CONF = Path(__file__).parents[2] / "conf"

FIRST_PROCESS = int(os.environ.get("LOCAL_RANK", 0)) == 0  # of those that trainer=ddp starts

FULL_ERRORS = "HYDRA_FULL_ERROR" in os.environ  # asked for: tracebacks as they come

RANGES = {  # key: (least, most); every number of a list must lie in it
    "seed": (0, 2**32 - 1),
    "data.seed": (0, 2**32 - 1),
    "data.split.seed": (0, 2**32 - 1),
    "data.batch_size": (1, math.inf),
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
    "callbacks.early_stopping.patience": (1, math.inf),
}


class Guard(Callback):
    """Hydra calls it before it writes anything; SystemExit, as Hydra would turn any Exception into a warning."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        with one_line_errors():
            check_values(config, config.hydra.runtime.choices)
            if FIRST_PROCESS:  # the others share its folder
                claim(Path(config.hydra.run.dir), lambda folder: (folder / ".hydra").mkdir())

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        with one_line_errors():
            claim(Path(config.hydra.sweep.dir), lambda folder: (folder / "multirun.yaml").touch(exist_ok=False))


made: list[Path] = []  # the folders that `claim` made, the innermost first


def release(folder: Path) -> None:
    """Takes back what was claimed, when nothing has been trained."""
    if not (folder / "checkpoints").exists():
        shutil.rmtree(folder / ".hydra", ignore_errors=True)
        (folder / "train.log").unlink(missing_ok=True)
        for path in made:
            if path.exists() and not any(path.iterdir()):
                path.rmdir()


def claim(folder: Path, mark: Callable[[Path], None]) -> None:
    """Makes `folder`, or raises ValueError when anything is in it; `mark` can succeed for one process only."""
    made.extend(path for path in (folder, *folder.parents) if not path.exists())
    folder.mkdir(parents=True, exist_ok=True)
    finished = "a finished run" if (folder / "metrics.json").exists() else "files"
    if any(folder.iterdir()):
        raise ValueError(f"folder={folder} holds {finished} already: name a new folder, or remove this one first")
    try:
        mark(folder)
    except FileExistsError:
        raise ValueError(f"folder={folder} has just been taken by another run: name a new folder") from None


def check_values(cfg: DictConfig, choices: Mapping[str, Any]) -> None:
    """`choices` are those that were made of each config group.

    Raises ValueError for a value whose type differs from the one it overrides, or that is out of its range."""
    groups = [
        group for group in choices if choices[group] and group not in ("experiment", "debug") and "/" not in group
    ]
    shipped = compose("config", [f"{group}={choices[group]}" for group in groups])
    types = dict(leaves(shipped))
    for key in map(str, shipped):
        if OmegaConf.is_dict(shipped[key]) and not OmegaConf.is_dict(cfg.get(key)):
            raise ValueError(f"{key} cannot be left out as a whole: set {key}.NAME=null for what is not wanted")
    for key, value in leaves(cfg):
        if value == "???" or (value == "" and types.get(key)):
            raise ValueError(f"{key} has no value: add {key}=...")
        if key in types and not same_type(value, types[key]):
            raise ValueError(f"{key}={value} is not {describe(types[key])}, as in {key}={types[key]}")
        if key not in RANGES:
            continue
        low, high = RANGES[key]
        for number in value if isinstance(value, list) else [value]:
            if isinstance(number, str) and not number.startswith("${"):
                raise ValueError(f"{key}={value} is not a number")
            if isinstance(number, int | float) and not low <= number <= high:
                bounds = f"at least {low}" if high in (math.inf, sys.float_info.max) else f"from {low} to {high}"
                raise ValueError(f"{key}={value} is out of range: it must be {bounds}")
    names: list[str] = [f"val/{name}" for name in ("loss", *(name for name, metric in cfg.metrics.items() if metric))]
    if cfg.monitor not in names:
        raise ValueError(f"monitor={cfg.monitor} is not measured{nearest(cfg.monitor, names)}: there are {names}")
    if "loss" in cfg.metrics:
        raise ValueError("metrics.loss: this name is taken by the cross-entropy: call the metric something else")
    if not cfg.callbacks.get("checkpoints"):
        raise ValueError("callbacks.checkpoints cannot be left out: a run is read back from them")
    if cfg.mode not in ("auto", "min", "max"):
        raise ValueError(f"mode={cfg.mode} is not one of auto, min, max")


def leaves(cfg: DictConfig) -> Iterator[tuple[str, Any]]:
    """The (dotted key, value) pairs of a config, without Hydra's own and with interpolations as they are written."""

    def walk(node: dict[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
        for key, value in node.items():
            if isinstance(value, dict) and value:
                yield from walk(value, f"{prefix}{key}.")
            else:
                yield f"{prefix}{key}", value

    plain = OmegaConf.to_container(OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"]))
    yield from walk(plain, "")  # type: ignore[arg-type]


def same_type(value: Any, default: Any) -> bool:
    """Whether `value` may stand where `default` stands: an int is a good float, and any scalar is good text."""
    if default is None or any(isinstance(side, str) and side.startswith("${") for side in (value, default)):
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


def nearest(word: str, words: list[str]) -> str:
    """ ", did you mean ...?" with the closest of `words`, or nothing."""
    last = {key.rsplit(".", 1)[-1]: key for key in words}
    close = difflib.get_close_matches(word, words, 1, 0.7) or [
        last[name] for name in difflib.get_close_matches(word.rsplit(".", 1)[-1], list(last), 1, 0.6)
    ]
    return f" (did you mean {close[0]}?)" if close else ""


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Turns errors that a person can mend into one line on stderr and exit code 1; bugs keep their traceback."""
    if FULL_ERRORS:
        yield
        return
    try:
        yield
    except KeyboardInterrupt as stop:
        print(f"interrupted{': ' if str(stop) else ''}{stop}", file=sys.stderr)
        sys.exit(130)
    except (HydraException, OmegaConfBaseException, YAMLError, ValueError, OSError) as error:
        sys.exit("error: " + " ".join(explain(error).split()))
    except Exception as error:
        if type(error).__name__ != "MisconfigurationException":  # named so that Lightning need not be imported
            raise
        sys.exit("error: " + " ".join(str(error).split()))


def explain(error: Exception) -> str:
    """The error's own words, except where Hydra's can be made to say what to do."""
    text = str(error) or str(error.__cause__)
    if isinstance(error, InstantiationException) and error.__cause__:
        key = re.search(r"full_key: (\S+)", text)
        return f"{key[1] + ': ' if key else ''}{error.__cause__}"
    if wrong := re.search(r"Could not override '([^']+)'", text):
        word = wrong[1].lstrip("+~").split("@")[0]
        return f"there is no key {word}{nearest(word, known_keys())}"
    if absent := re.search(r"Could not find '([^']+)/([^']*)'", text):
        options = sorted(path.stem for path in (CONF / absent[1]).glob("*.yaml"))
        if options:
            return f"there is no {absent[1]}={absent[2]}{nearest(absent[2], options)}: there are {', '.join(options)}"
    if isinstance(error, OverrideParseException):
        reason = error.message.splitlines()[0]
        return f"cannot read {error.override!r} ({reason}): say KEY=VALUE, with odd text quoted: \"KEY='VALUE'\""
    return text


def known_keys() -> list[str]:
    """Every key that can be overridden, with the groups that the command line chooses."""
    overrides = [word for word in sys.argv[1:] if "=" in word and not word.startswith("-")]
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        parsed = OverridesParser.create().parse_overrides(overrides)
        chosen = [o.input_line for o in parsed if (CONF / o.key_or_group).is_dir() and not o.is_sweep_override()]
        cfg = compose("config", [line for line in chosen if line])
    groups = [path.name for path in CONF.iterdir() if path.is_dir()]
    return groups + [key for key, _ in leaves(cfg)]


def in_sweep() -> bool:
    return HydraConfig.get().mode is RunMode.MULTIRUN
