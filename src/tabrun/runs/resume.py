"""Resume: earlier runs: one to go on with, one to repeat, or one whose weights to start from."""

from __future__ import annotations

import glob
import logging
import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from tabrun.cli.errors import UserError, checkpoint_file, shown
from tabrun.runs.build import Build, Config
from tabrun.runs.folder import STARTED, read_json, read_metrics

if TYPE_CHECKING:
    from tabrun.runs.run import Run

log = logging.getLogger(__name__)


def check_earlier(config: DictConfig) -> None:
    """Raises UserError where `rerun` or `init_from` is not an earlier run."""
    for key in ("rerun", "init_from"):
        if (path := config[key]) is not None:
            try:
                checkpoint_file(path)
            except UserError as error:
                raise UserError(f"{key}={path}: {error}") from None
            if key == "rerun" and not Path(str(path), "metrics.json").exists():
                raise UserError(f"rerun={path} is no finished run: it has no metrics.json to compare with")


def is_table(path: str) -> bool:
    return os.path.exists(path) or bool(glob.glob(path))


def absolute(config: DictConfig) -> None:
    """Has the run find its table and the run it starts from, from wherever it goes on."""
    for key, is_there in (("data.path", is_table), ("init_from", os.path.exists)):
        found = OmegaConf.select(config, key)
        paths = [os.path.expanduser(str(path)) for path in (found if OmegaConf.is_list(found) else [found])]
        if found is not None and all(is_there(path) for path in paths):
            paths = [os.path.abspath(path) for path in paths]
            OmegaConf.update(config, key, paths if OmegaConf.is_list(found) else paths[0])


def check_links(folder: Path, trust: bool) -> None:
    """Raises UserError, unless `trust`, for a folder in which anything leads out of it: it would be written there."""
    for place, folders, files in os.walk(folder):
        for name in () if trust else (*folders, *files):
            mode = os.lstat(path := Path(place, name)).st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                raise UserError(f"{path} is a link, or no file: take it away, or if it is yours say trust=true")


def said(words: Iterable[str]) -> set[str]:
    """The keys of a command's words."""
    return {str(o.key_or_group) for o in OverridesParser.create().parse_overrides(list(words))}


def check_beside(config: DictConfig, build: Build) -> None:
    """Raises UserError for what is said beside `rerun` or `resume` and would be taken from the run itself."""
    keys = said(config.hydra.overrides.task)
    more = (*build.MORE, "speed.threads", *build.BESIDE, "test", "trust")
    for verb, allowed in (("rerun", ("folder", "test", "trust")), ("resume", more)):
        if config[verb] is not None and (wrong := sorted(keys - {verb, *allowed})):
            beside = f"leave it out; beside {verb} there may be {', '.join(allowed)}"
            raise UserError(f"{verb}={config[verb]} takes {wrong[0]} from the run itself: {beside}")
    if config.resume is not None and not keys & {*build.MORE} and Path(str(config.resume), "metrics.json").exists():
        more_of = " or ".join(build.MORE)
        raise UserError(f"resume={config.resume} is finished: raise {more_of}, or say rerun= to repeat it")


def resumable(name: str) -> Path:
    """The folder to go on in: of this name, or the newest under outputs/ that has neither finished nor failed."""
    folder = Path(name)
    if name == "latest":
        ends = ("metrics.json", "error.txt", "../sweep.json")
        folders = {file.parents[1] for file in Path("outputs").rglob(STARTED)}
        cut = [one for one in folders if not any((one / end).exists() for end in ends)]
        if not cut:
            raise UserError("resume=latest: there is no unfinished run under outputs/: name its folder")
        folder = max(cut, key=lambda one: (one / STARTED).stat().st_mtime)
    if not folder.is_dir():
        raise UserError(f"resume={name}: there is no run's folder of this name")
    if not any((folder / file).exists() for file in (STARTED, "checkpoints/last.ckpt")):
        raise UserError(f"resume={name} holds nothing to go on from: start the run again with folder={name}")
    return folder


def continued(build: Build, config: Config, keys: Iterable[str], trust: bool) -> tuple[Config, dict[str, Any] | None]:
    """The config of the run in this config's folder but for these keys, and what its last.ckpt holds, or None."""
    from tabrun.runs.run import Run
    from tabrun.runs.trust import check_config, recorded

    folder = Path(config["folder"])
    start = last_content(folder)
    run = Run.open(folder, build, "last", trust) if start else None
    own = run.trainable() if run else read_json(folder / STARTED, dict[str, Any])
    if not (run or trust):
        check_config(own, folder / STARTED, build)
    own = recorded(own, folder, trust)
    for key in keys:
        path = key.split(".")
        there, here = own, config
        for part in path[:-1]:
            there, here = there[part], here[part]
            if there is None or here is None:
                raise UserError(f"{key}: {shown(folder)} was trained without it")
        there[path[-1]] = here[path[-1]]
    if run:
        build.check_more(run.config, own, run.num_epochs)
    return own | {"resume": None}, start


def last_content(folder: Path) -> dict[str, Any] | None:
    """What last.ckpt holds, or None; where it is damaged, the one before takes its place, and a line says so."""
    from tabrun.runs.checkpoint_file import alias, read_checkpoint

    last, previous = (folder / "checkpoints" / f"{name}.ckpt" for name in ("last", "previous"))
    if not (last.exists() or previous.exists()):
        return None
    try:
        return read_checkpoint(last)
    except UserError as error:
        if not previous.exists():
            raise
        log.warning("%s: going on from previous.ckpt, an epoch or less before", error)
        alias(previous, last)
        return read_checkpoint(last)


def goes_on(config: Config) -> dict[str, Any] | None:
    """What last.ckpt holds of a job of a sweep that was cut off; None where it failed, or is of another config."""
    folder = Path(config["folder"])
    start = None if (folder / "error.txt").exists() else last_content(folder)
    return start if start and start["config"] == config else None


def compared(old: Path, new: Path, build: Build) -> str:
    """Whether two finished runs are equal bit for bit; if not, in what, and what else differs that may be why."""
    from tabrun.runs.run import Run

    runs = [(Run.open(old, build, name), Run.open(new, build, name)) for name in ("best", "last")]
    found = [f"{one.path.name} by up to {gap:g}" for one, other in runs if (gap := distance(one, other))]
    before, now = read_metrics(old), read_metrics(new)
    found += [f"{name} {before.get(name)} there, {now[name]} here" for name in now if before.get(name) != now[name]]
    if not found:
        return f"equal to {shown(old)}: weights and metrics, to the last bit"
    there, here = ({**run.record, **run.record["packages"]} for run in runs[0])
    changed = [key for key in here if there.get(key) != here[key] and key != "packages"]
    causes = [f"{key} {there.get(key)} there, {here[key]} here" for key in changed]
    causes += ["uncommitted changes"] if here["git_clean"] is False else []
    return f"not equal to {shown(old)}: {'; '.join(found)}\nmay be due to: {'; '.join(causes) or 'another device'}"


def distance(one: Run, other: Run) -> float:
    """The largest difference of a weight; infinite where they have others."""
    shapes = [{name: value.shape for name, value in run.weights.items()} for run in (one, other)]
    if shapes[0] != shapes[1]:
        return float("inf")
    pairs = ((value.double(), other.weights[name].double()) for name, value in one.weights.items())
    return max((a - b).abs().max().item() for a, b in pairs if a.numel())
