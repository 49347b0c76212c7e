"""Trust: what a config that comes out of a checkpoint may have called; whoever wrote the file chose the names in it."""

import functools
import importlib
import re
from collections.abc import Iterator
from contextlib import nullcontext
from inspect import isclass
from pathlib import Path
from typing import Any

import yaml
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from tabrun import NAMES
from tabrun.cli.errors import UserError, shown
from tabrun.cli.keys import DEFAULTS, leaves
from tabrun.cli.roles import DATA, ROLES, playing
from tabrun.runs.build import Build, Config, conf, ensemble, package_of

PLACE = re.compile(r"dir|folder|path|root|uri|url")  # keys that say where something is written
LEADS_OUT = re.compile(r"^~|\.\.|:/|::|\$")


def check_config(config: Config, path: object, build: Build) -> None:
    """Raises UserError for what the command line would not take, or would have something called that is not ours."""
    try:
        check_targets(config, path, build)
        check_recorded(config, path, build)
    except RecursionError:
        raise UserError(f"{path} holds lists of lists without an end: take it from a copy") from None


def check_targets(node: Any, path: object, build: Build) -> None:
    """Raises UserError where `node` holds a `_target_` that is none of ours, or an interpolation that could be one.

    Ours are what conf/ names, the other classes of the libraries' modules that it names, our tables, and what plays a
    role; `check_recorded` says where.
    """
    trust = "if you trust whoever wrote it, say --trust (with train: trust=true)"
    for _, part in parts(node):
        if isinstance(part, str) and "${" in part:  # such as ${oc.create:...}, which makes a config of it
            raise UserError(f"{path} holds {part[:80]!r}, to be interpolated: {trust}")
        if isinstance(part, dict) and "_target_" in part and not is_ours(part["_target_"], build):
            raise UserError(f"{path} would call {str(part['_target_'])[:80]!r}, which conf/ does not name: {trust}")


def parts(node: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """The node itself and, where it is a list or a group of keys, everything within, each with its dotted key."""
    yield key, node
    inner: Any = enumerate(node) if isinstance(node, list | tuple) else ()
    for name, part in node.items() if isinstance(node, dict) else inner:
        yield from parts(part, f"{key}.{name}" if key else str(name))


def check_recorded(config: dict[str, Any], path: object, build: Build) -> None:
    """Raises UserError for what the command line would not take, with the same choices of groups."""
    from tabrun.cli.check import check_values

    choices: dict[str, str | None] = {"data": None}
    most: dict[str, int] = {}  # keys of the choice
    for file in sorted(conf(build).glob("*/*.yaml")):
        group, keys = file.parent.name, dict(leaves(yaml.safe_load(file.read_text()))).keys() - {"defaults"}
        own = dict(leaves(config[group])) if isinstance(config.get(group), dict) else {}
        named = targets(file)
        if named and named.items() <= own.items() and keys <= own.keys() and len(keys) > most.get(group, 0):
            choices[group], most[group] = file.stem, len(keys)
    older = {"name": "run", "ensemble": ensemble(config)}  # which a run from before them lacks
    ready = GlobalHydra.instance().is_initialized()
    with nullcontext() if ready else initialize_config_dir(str(conf(build)), version_base="1.3"):
        try:
            check_values(OmegaConf.create(config | older | {"init_from": None, "rerun": None}), choices, build)
        except (UserError, OmegaConfBaseException) as error:
            raise UserError(f"{path}: {error}") from None
    for key, node in parts(config):
        if isinstance(node, dict) and "_target_" in node and not in_place(node["_target_"], key, build):
            raise UserError(f"{path} would call {node['_target_'][:80]!r} as {key}, which it is not")


def is_ours(target: Any, build: Build) -> bool:
    """Whether conf/ names it, or it is another class of a library's module that conf/ names, or it plays a role."""
    named = shipped(conf(build))
    if not isinstance(target, str) or target in named:
        return isinstance(target, str)
    if any(playing(target, role, package_of(build)) for role in ROLES):
        return True
    module, _, name = target.rpartition(".")
    if module == "tabrun":
        return NAMES.get(name) == "reading.sources"
    top, modules = module.partition(".")[0], {known.rpartition(".")[0] for known in named}
    if top == package_of(build) or module not in modules.difference(*(role.modules for role in ROLES)):
        return False
    found = vars(importlib.import_module(module)).get(name)
    return isclass(found) and found.__module__.partition(".")[0] == top


def in_place(target: str, key: str, build: Build) -> bool:
    """Whether what plays a role stands where it is played; what conf/ names of packages without roles plays none."""
    places = {"data": DATA} | dict(build.ROLES)
    role = places.get(key) or places.get(f"{key.rpartition('.')[0]}.*")
    fitting = [one for one in ROLES if playing(target, one, package_of(build))]
    tops = {package_of(build), *(module.partition(".")[0] for one in ROLES for module in one.modules)}
    named = target in shipped(conf(build)) and (role is None or target.partition(".")[0] not in tops)
    return named or (role in fitting if role else not fitting)


@functools.cache
def shipped(folder: Path) -> set[str]:
    """Every `_target_` under conf/."""
    return {name for file in folder.rglob("*.yaml") for name in targets(file).values()}


def targets(file: Path) -> dict[str, str]:
    return {key: value for key, value in leaves(yaml.safe_load(file.read_text())) if key.endswith("_target_")}


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
    theirs = {key: node for key, node in made.items() if key not in DEFAULTS}
    for key, text in parts(theirs | {"ensemble.vary": ensemble(made)["vary"]}):
        if trust or not isinstance(text, str):
            continue
        inside = Path(text).is_relative_to(Path(folder).absolute())
        outside = Path(text).is_absolute() or PLACE.search(key.rstrip(".0123456789").rpartition(".")[2])
        if LEADS_OUT.search(text) or (outside and not inside):
            where = f"{key}={text[:80]}, not into its folder"
            raise UserError(f"{shown(old)} would write to {where}: to trust it, say trust=true")
    return made
