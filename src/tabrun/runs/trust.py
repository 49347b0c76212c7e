"""Trust: what a config that comes out of a checkpoint may have called; whoever wrote the file chose the names in it."""

from __future__ import annotations

import functools
import importlib
from contextlib import nullcontext
from inspect import isclass, isfunction
from typing import Any

from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from classify import nets
from tabrun.tables import sources as tables
from tabrun.cli.keys import CONF, leaves


def check_targets(node: Any, path: object) -> None:
    """Raises ValueError where `node` holds a `_target_` that is none of ours, or an interpolation that could be one.

    Ours are what conf/ names, the other classes of the libraries' modules that it names, and our tables and nets.
    """
    if isinstance(node, dict):
        if "_target_" in node and not is_ours(node["_target_"]):
            raise ValueError(
                f"{path} would call {str(node['_target_'])[:80]!r}, which conf/ does not name: if you trust whoever "
                "wrote it, say --trust (with train: trust=true)"
            )
        node = list(node.values())
    if isinstance(node, list | tuple):
        for part in node:
            check_targets(part, path)
    elif isinstance(node, str) and "${" in node:  # such as ${oc.create:...}, which makes a config of a text
        raise ValueError(f"{path} holds {node[:80]!r}, to be interpolated: if you trust whoever wrote it, say --trust")


def check_recorded(config: dict[str, Any], path: object) -> None:
    """Raises ValueError for what the command line would not take, with the same choices of groups."""
    from tabrun.cli.check import check_values

    choices: dict[str, str | None] = {"data": None}
    for group in ("data", "model", "optimizer", "scheduler"):
        own = dict(leaves(OmegaConf.create(config[group]))) if isinstance(config.get(group), dict) else {}
        for file in (CONF / group).glob("*.yaml"):
            targets = {key: value for key, value in leaves(OmegaConf.load(file)) if key.endswith("_target_")}  # type: ignore[arg-type]
            if targets and targets.items() <= own.items():
                choices[group] = file.stem
    if absent := OmegaConf.load(CONF / "config.yaml").keys() - {"defaults", "hydra"} - config.keys():
        raise ValueError(f"{path}: its config lacks {absent.pop()!s}")
    ready = GlobalHydra.instance().is_initialized()
    with nullcontext() if ready else initialize_config_dir(str(CONF), version_base="1.3"):
        try:
            check_values(OmegaConf.create(config | {"init_from": None, "rerun": None}), choices)
        except (ValueError, OmegaConfBaseException) as error:
            raise ValueError(f"{path}: {error}") from None


def is_ours(target: Any) -> bool:
    if not isinstance(target, str) or target in shipped():
        return isinstance(target, str)
    module, _, name = target.rpartition(".")
    if module in (nets.__name__, tables.__name__):
        found = vars(importlib.import_module(module)).get(name)
        return isfunction(found) and found.__module__ == module
    top = module.split(".")[0]
    if top == __package__ or module not in {known.rpartition(".")[0] for known in shipped()}:
        return False
    found = vars(importlib.import_module(module)).get(name)
    return isclass(found) and found.__module__.split(".")[0] == top


@functools.cache
def shipped() -> set[str]:
    """Every `_target_` under conf/."""
    found = (pair for file in CONF.rglob("*.yaml") for pair in leaves(OmegaConf.load(file)))  # type: ignore[arg-type]
    return {str(value) for key, value in found if key.endswith("_target_")}
