"""Again: a run that goes on from where it was cut off, repeats an earlier one, or starts from its weights."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import nn
from yaml import YAMLError

from tabrun.cli.errors import UserError
from tabrun.cli.keys import leaves
from tabrun.runs.build import Build, Config, resolved
from tabrun.runs.checkpoint_file import is_plain, read_checkpoint
from tabrun.runs.folder import alias, read_metrics, shown
from tabrun.runs.run import Run
from tabrun.runs.trust import check_recorded, check_targets

MOST_YAML = 2**16  # bytes; conf/ makes 4,000 of them
REFERENCE = re.compile(r"\$\{([\w.]+)\}")  # to another key of the config, by its full name
PLACE = re.compile(r"dir|folder|path|root|uri|url")  # keys that say where something is written
LEADS_OUT = re.compile(r"^~|\.\.|:/|::|\$")

log = logging.getLogger(__name__)


def take_weights(net: nn.Module, run: Run) -> str:
    """Loads the run's weights whose names and shapes are the net's own; says which these were, and which not.

    UserError: none are.
    """
    own = {name: tuple(value.shape) for name, value in net.state_dict().items()}
    theirs = {name: tuple(value.shape) for name, value in run.weights.items()}
    fitting = {name: value for name, value in run.weights.items() if own.get(name) == theirs[name]}
    left = [f"{name} {own[name]}, there {theirs.get(name, 'missing')}" for name in own if name not in fitting]
    left += [f"{name} {theirs[name]}, here missing" for name in theirs if name not in own]
    if not fitting:
        raise UserError(f"init_from={shown(run.path)} has no weights that fit: {'; '.join(left)}")
    net.load_state_dict(fitting, strict=False)
    rest = f"; not taken: {'; '.join(left)}" if left else ", which are all"
    return f"weights from {shown(run.path)}: {', '.join(fitting)}{rest}"


def continued(build: Build, config: Config, keys: Iterable[str], trust: bool) -> tuple[Config, dict[str, Any] | None]:
    """The config of the run in this config's folder, but for these keys, and what its last.ckpt holds, if there is one.

    Without one the config is that of its start.
    """
    folder = Path(config["folder"])
    start = last_content(folder)
    if start:
        run = Run.of(start, folder / "checkpoints" / "last.ckpt", build, trust)
        own = recorded(run.trusted(*run.config), folder, trust)
    else:
        own = recorded(started(build, folder, trust), folder, trust)
    for key in keys:
        if key == "trainer.max_epochs" and start and own["scheduler"] and own["scheduler"].get("total"):
            raise UserError(
                f"{key}: the schedule of {shown(folder)} was made for {own['trainer']['max_epochs']} epochs"
            )
        path = key.split(".")
        there, here = own, config
        for part in path[:-1]:
            there, here = there[part], here[part]
            if there is None or here is None:
                raise UserError(f"{key}: {shown(folder)} was trained without it")
        there[path[-1]] = here[path[-1]]
    if start and own["trainer"]["max_epochs"] < run.num_epochs:
        raise UserError(f"trainer.max_epochs: {shown(folder)} is in epoch {run.num_epochs} already: say that or more")
    return own | {"resume": None}, start


def last_content(folder: Path) -> dict[str, Any] | None:
    """What last.ckpt holds; where it is damaged, the one before takes its place, and a line says so.

    None: there is none yet.
    """
    last, previous = (folder / "checkpoints" / f"{name}.ckpt" for name in ("last", "previous"))
    if not last.exists():
        return None
    try:
        return read_checkpoint(last)
    except UserError as error:
        if not previous.exists():
            raise
        content = read_checkpoint(previous)
        log.warning("%s: going on from previous.ckpt, an epoch or less before", error)
        alias(previous, last)
        return content


def started(build: Build, folder: Path, trust: bool) -> Config:
    """The config that a run was started with, as plain values; UserError, unless `trust`, for what could run code.

    It may refer to plain values of its own alone, so that it is no larger than it looks, and calls no resolver.
    """
    file = folder / ".hydra" / "config.yaml"
    try:
        with file.open() as opened:
            text = opened.read(MOST_YAML)
        fine = len(text) < MOST_YAML and is_plain(yaml.safe_load(text), 10 * len(text))  # aliases may have no end
        cfg = OmegaConf.create(text) if fine else None
    except (YAMLError, OmegaConfBaseException, RecursionError):
        cfg = None
    if not isinstance(cfg, DictConfig):
        raise UserError(f"{file} is no config, or more than {MOST_YAML} characters: take it from a copy")
    cfg.folder = str(folder)
    if not trust:
        values = dict(leaves(cfg))
        fixed = {key for key, value in values.items() if not isinstance(value, dict | list) and "${" not in str(value)}
        for text in texts(list(values.values())):
            keys = REFERENCE.findall(text)
            if text.count("${") > len(keys) or not fixed.issuperset(keys):
                raise UserError(f"{file} holds {text[:80]!r}, to be interpolated: if you trust it, say trust=true")
        check_targets(OmegaConf.to_container(cfg, resolve=True), file, build)
    check_recorded(OmegaConf.to_container(cfg, resolve=True), file, build)  # type: ignore[arg-type]
    own = resolved(build, cfg, folder, cfg.test)
    if not trust:
        check_targets(own, file, build)
    return own


def goes_on(config: Config) -> dict[str, Any] | None:
    """What last.ckpt holds of a job of a sweep that was cut off; None where it failed, or is of another config."""
    folder = Path(config["folder"])
    start = None if (folder / "error.txt").exists() else last_content(folder)
    return start if start and start["config"] == config else None


def recorded(config: Config, folder: Path | str, trust: bool) -> Config:
    """The config of a run, for the same run in this folder; UserError where it would write elsewhere, untrusted."""
    old = config["folder"]

    def moved(node: Any) -> Any:
        if isinstance(node, dict):
            return {key: moved(value) for key, value in node.items()}
        if isinstance(node, list):
            return [moved(value) for value in node]
        inside = isinstance(node, str) and (node == old or node.startswith(f"{old}/"))
        return f"{folder}{node[len(old) :]}" if inside else node

    made = moved(config)
    for key, value in leaves(OmegaConf.create({key: made[key] for key in ("callbacks", "logger", "trainer")})):
        for text in () if trust else texts([value]):
            inside = Path(text).is_relative_to(Path(folder).absolute())
            outside = Path(text).is_absolute() or PLACE.search(key.rpartition(".")[2])
            if LEADS_OUT.search(text) or (outside and not inside):
                raise UserError(
                    f"{shown(old)} would write to {key}={text[:80]}, not into its folder: to trust it, say trust=true"
                )
    return made


def texts(node: Any) -> list[str]:
    """Every text within lists and groups of keys."""
    if isinstance(node, dict | list):
        parts = node.values() if isinstance(node, dict) else node
        return [text for part in parts for text in texts(part)]
    return [node] if isinstance(node, str) else []


def compared(old: Path, new: Path, build: Build) -> str:
    """Whether two finished runs are equal bit for bit; if not, in what, and what else differs that may be why."""
    runs = [(Run.open(old, build, name), Run.open(new, build, name)) for name in ("best", "last")]
    found = [f"{one.path.name} by up to {gap:g}" for one, other in runs if (gap := distance(one, other))]
    before, now = read_metrics(old), read_metrics(new)
    found += [f"{name} {before.get(name)} there, {now[name]} here" for name in now if before.get(name) != now[name]]
    if not found:
        return f"equal to {shown(old)}: weights and metrics, to the last bit"
    there, here = ({**run.record, **run.record["packages"]} for run in runs[0])
    causes = [f"{key} {there.get(key)} there, {here[key]} here" for key in here if there.get(key) != here[key]]
    causes += ["uncommitted changes"] if here["git_clean"] is False else []
    causes = [cause for cause in causes if not cause.startswith("packages")]
    return f"not equal to {shown(old)}: {'; '.join(found)}\nmay be due to: {'; '.join(causes) or 'another device'}"


def distance(one: Run, other: Run) -> float:
    """The largest difference of a weight; infinite where they have others."""
    shapes = [{name: value.shape for name, value in run.weights.items()} for run in (one, other)]
    if shapes[0] != shapes[1]:
        return float("inf")
    pairs = ((value.double(), other.weights[name].double()) for name, value in one.weights.items())
    return max((a - b).abs().max().item() for a, b in pairs if a.numel())
