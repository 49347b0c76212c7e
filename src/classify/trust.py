"""Trust: what a config that comes out of a checkpoint may have called; whoever wrote the file chose the names in it."""

from __future__ import annotations

import functools
import importlib
from inspect import isclass, isfunction
from typing import Any

from omegaconf import OmegaConf

from classify import nets, tables
from classify.keys import CONF, leaves


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
