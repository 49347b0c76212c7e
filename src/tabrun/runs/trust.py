"""Trust: what a config that comes out of a checkpoint may have called; whoever wrote the file chose the names in it."""

from __future__ import annotations

import functools
import importlib
from contextlib import nullcontext
from inspect import isclass, isfunction
from pathlib import Path
from typing import Any

from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from tabrun import NAMES
from tabrun.cli.errors import UserError
from tabrun.cli.keys import leaves
from tabrun.runs.build import Build, conf


def check_targets(node: Any, path: object, build: Build) -> None:
    """Raises ValueError where `node` holds a `_target_` that is none of ours, or an interpolation that could be one.

    Ours are what conf/ names, the other classes of the libraries' modules that it names, and our tables and nets.
    """
    if isinstance(node, dict):
        if "_target_" in node and not is_ours(node["_target_"], build):
            raise UserError(
                f"{path} would call {str(node['_target_'])[:80]!r}, which conf/ does not name: if you trust whoever "
                "wrote it, say --trust (with train: trust=true)"
            )
        node = list(node.values())
    if isinstance(node, list | tuple):
        for part in node:
            check_targets(part, path, build)
    elif isinstance(node, str) and "${" in node:  # such as ${oc.create:...}, which makes a config of a text
        raise UserError(f"{path} holds {node[:80]!r}, to be interpolated: if you trust whoever wrote it, say --trust")


def check_recorded(config: dict[str, Any], path: object, build: Build) -> None:
    """Raises UserError for what the command line would not take, with the same choices of groups."""
    from tabrun.cli.check import check_values

    choices: dict[str, str | None] = {"data": None}
    for group in ("data", "model", "optimizer", "scheduler"):
        own = dict(leaves(OmegaConf.create(config[group]))) if isinstance(config.get(group), dict) else {}
        for file in (conf(build) / group).glob("*.yaml"):
            targets = {key: value for key, value in leaves(OmegaConf.load(file)) if key.endswith("_target_")}  # type: ignore[arg-type]
            if targets and targets.items() <= own.items():
                choices[group] = file.stem
    ready = GlobalHydra.instance().is_initialized()
    with nullcontext() if ready else initialize_config_dir(str(conf(build)), version_base="1.3"):
        try:
            check_values(OmegaConf.create(config | {"init_from": None, "rerun": None}), choices, build)
        except (UserError, OmegaConfBaseException) as error:
            raise UserError(f"{path}: {error}") from None


def is_ours(target: Any, build: Build) -> bool:
    named = shipped(conf(build))
    if not isinstance(target, str) or target in named:
        return isinstance(target, str)
    module, _, name = target.rpartition(".")
    package = build.__name__.partition(".")[0]
    if module == "tabrun":
        return NAMES.get(name) == "tables.sources"
    if module == f"{package}.nets":
        found = vars(importlib.import_module(module)).get(name)
        return isfunction(found) and found.__module__ == module
    top = module.partition(".")[0]
    if top == package or module not in {known.rpartition(".")[0] for known in named}:
        return False
    found = vars(importlib.import_module(module)).get(name)
    return isclass(found) and found.__module__.partition(".")[0] == top


@functools.cache
def shipped(folder: Path) -> set[str]:
    """Every `_target_` under conf/."""
    found = (pair for file in folder.rglob("*.yaml") for pair in leaves(OmegaConf.load(file)))  # type: ignore[arg-type]
    return {str(value) for key, value in found if key.endswith("_target_")}
