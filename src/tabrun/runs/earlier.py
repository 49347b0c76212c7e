"""Earlier: what is said of an earlier run with resume=, rerun= and init_from=, checked before anything is imported."""

import os
import stat
from collections.abc import Iterable
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from tabrun.cli.errors import UserError
from tabrun.runs.folder import STARTED, checkpoint_file

MORE = ("trainer.max_epochs", "callbacks.early_stopping.patience")  # what a finished run may be given more of
BESIDE: dict[str, tuple[str, ...]] = {  # keys that may be said beside one whose config is the run's own
    "rerun": ("folder", "test", "trust"),
    "resume": (*MORE, "speed.threads", "callbacks.checkpoints.minutes", "logger", "test", "trust"),
}


def check_earlier(config: DictConfig) -> None:
    """Raises UserError where `rerun` or `init_from` is not an earlier run."""
    for key in ("rerun", "init_from"):
        if (path := config[key]) is None:
            continue
        if not Path(str(path)).exists():
            raise UserError(f"{key}={path}: there is no checkpoint and no run's folder of this name")
        if key == "rerun" and not (Path(str(path)) / "metrics.json").exists():
            raise UserError(f"rerun={path} is no finished run: it has no metrics.json to compare with")
        checkpoint_file(path)


def absolute(config: DictConfig) -> None:
    """Has the run find its table and the run it starts from, from wherever it goes on."""
    for key, is_there in (("data.path", os.path.isfile), ("init_from", os.path.exists)):
        path = OmegaConf.select(config, key)
        if path is not None and is_there(path := os.path.expanduser(str(path))):
            OmegaConf.update(config, key, os.path.abspath(path))


def stay_in(folder: Path, config: DictConfig) -> None:
    """Has Hydra use the folder of an earlier run, and leave its record in .hydra/ as it is."""
    with read_write(config), open_dict(config):
        config.folder = str(folder)
        config.hydra.output_subdir = None


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


def check_beside(config: DictConfig) -> None:
    """Raises UserError for what is said beside `rerun` or `resume` and would be taken from the run itself."""
    keys = said(config.hydra.overrides.task)
    for verb, allowed in BESIDE.items():
        if config[verb] is not None and (wrong := sorted(keys - {verb, *allowed})):
            raise UserError(
                f"{verb}={config[verb]} takes {wrong[0]} from the run itself: leave it out; beside {verb} there may be "
                f"{', '.join(allowed)}"
            )
    if config.resume is not None and not keys & set(MORE) and (Path(str(config.resume)) / "metrics.json").exists():
        raise UserError(f"resume={config.resume} is finished: raise {' or '.join(MORE)}, or say rerun= to repeat it")


def resumable(name: str) -> Path:
    """The folder of the run to go on with, or for `latest` of the newest under outputs/ that was cut off."""
    folder = Path(name)
    if name == "latest":
        marks = [*Path("outputs").rglob(STARTED)]
        marks = [file for file in marks if was_cut(file.parents[1])]
        if not marks:
            raise UserError("resume=latest: there is no unfinished run under outputs/: name its folder")
        folder = max(marks, key=lambda file: file.stat().st_mtime).parents[1]
    if not folder.is_dir():
        raise UserError(f"resume={name}: there is no run's folder of this name")
    if not any((folder / file).exists() for file in (STARTED, "checkpoints/last.ckpt")):
        raise UserError(f"resume={name} holds nothing to go on from: start the run again with folder={name}")
    return folder


def was_cut(folder: Path) -> bool:
    """Whether a run has neither finished nor failed here; a job of a sweep goes on with its sweep."""
    ended = (folder / "metrics.json", folder / "error.txt", folder.parent / "sweep.json")
    return not any(file.exists() for file in ended)
