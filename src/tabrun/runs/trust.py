"""Trust: what a config that comes out of a checkpoint may have called; whoever wrote the file chose the names in it."""

from __future__ import annotations

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
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from tabrun import NAMES
from tabrun.cli.errors import UserError, shown
from tabrun.cli.keys import DEFAULTS, leaves
from tabrun.cli.roles import DATA, ROLES, playing
from tabrun.runs.build import Build, Config, conf, package_of, resolved
from tabrun.runs.checkpoint_file import is_plain

MOST_YAML = 2**16  # bytes; conf/ makes 4,000 of them
REFERENCE = re.compile(r"\$\{([\w.]+)\}")  # to another key of the config, by its full name
PLACE = re.compile(r"dir|folder|path|root|uri|url")  # keys that say where something is written
LEADS_OUT = re.compile(r"^~|\.\.|:/|::|\$")


def check_targets(node: Any, path: object, build: Build) -> None:
    """Raises ValueError where `node` holds a `_target_` that is none of ours, or an interpolation that could be one.

    Ours are what conf/ names, the other classes of the libraries' modules that it names, our tables, and what plays a
    role; `check_recorded` says where.
    """
    check_plain(node, path)
    for _, target in called(node):
        if not is_ours(target, build):
            raise UserError(
                f"{path} would call {str(target)[:80]!r}, which conf/ does not name: if you trust whoever "
                "wrote it, say --trust (with train: trust=true)"
            )


def check_plain(node: Any, path: object) -> None:
    """Raises UserError for a text that would be interpolated, such as ${oc.create:...}, which makes a config of it."""
    for part in parts(node):
        if isinstance(part, str) and "${" in part:
            raise UserError(
                f"{path} holds {part[:80]!r}, to be interpolated: if you trust whoever wrote it, say --trust"
            )


def parts(node: Any) -> Iterator[Any]:
    """The node itself and, where it is a list or a group of keys, everything within."""
    yield node
    if isinstance(node, dict | list | tuple):
        for part in node.values() if isinstance(node, dict) else node:
            yield from parts(part)


def called(node: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """The dotted key of each node that names something to call, and the name."""
    if isinstance(node, dict) and "_target_" in node:
        yield key, node["_target_"]
    for name, part in (
        node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list | tuple) else ()
    ):
        yield from called(part, f"{key}.{name}" if key else str(name))


def check_recorded(config: dict[str, Any], path: object, build: Build) -> None:
    """Raises UserError for what the command line would not take, with the same choices of groups."""
    from tabrun.cli.check import check_values

    choices: dict[str, str | None] = {"data": None}
    for file in conf(build).glob("*/*.yaml"):
        group = file.parent.name
        own = dict(leaves(config[group])) if isinstance(config.get(group), dict) else {}
        named = targets(file)
        if named and named.items() <= own.items():
            choices[group] = file.stem
    older = {"ensemble": DEFAULTS["ensemble"]}  # of a run from before there were any
    ready = GlobalHydra.instance().is_initialized()
    with nullcontext() if ready else initialize_config_dir(str(conf(build)), version_base="1.3"):
        try:
            check_values(OmegaConf.create(older | config | {"init_from": None, "rerun": None}), choices, build)
        except (UserError, OmegaConfBaseException, RecursionError) as error:
            raise UserError(f"{path}: {error}") from None
    for key, target in called(config):
        if is_ours(target, build) and not in_place(target, key, build):
            raise UserError(f"{path} would call {target[:80]!r} as {key}, which it is not: take it from a copy")


def is_ours(target: Any, build: Build) -> bool:
    """Whether conf/ names it, or it is another class of a library's module that conf/ names, or it plays a role."""
    named = shipped(conf(build))
    if not isinstance(target, str) or target in named:
        return isinstance(target, str)
    if any(playing(target, role, package_of(build)) for role in ROLES):
        return True
    module, _, name = target.rpartition(".")
    if module == "tabrun":
        return NAMES.get(name) == "tables.sources"
    top, modules = module.partition(".")[0], {known.rpartition(".")[0] for known in named}
    if top == package_of(build) or module not in modules.difference(*(role.modules for role in ROLES)):
        return False
    found = vars(importlib.import_module(module)).get(name)
    return isclass(found) and found.__module__.partition(".")[0] == top


def in_place(target: str, key: str, build: Build) -> bool:
    """Whether what plays a role stands where it is played, at this dotted key of the config, and nothing else there.

    But for what conf/ names of packages that play no role, such as a library's that the template has come to use.
    """
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
    except (YAMLError, OmegaConfBaseException, RecursionError, UnicodeDecodeError):
        cfg = None
    if not isinstance(cfg, DictConfig):
        raise UserError(f"{file} is no config, or more than {MOST_YAML} characters: take it from a copy")
    cfg.folder = str(folder)
    if not trust:
        values: Any = OmegaConf.to_container(cfg)
        fixed = {key for key, value in leaves(values) if not isinstance(value, dict | list) and "${" not in str(value)}
        for text in (part for part in parts(values) if isinstance(part, str)):
            keys = REFERENCE.findall(text)
            if text.count("${") > len(keys) or not fixed.issuperset(keys):
                raise UserError(f"{file} holds {text[:80]!r}, to be interpolated: if you trust it, say trust=true")
        check_targets(OmegaConf.to_container(cfg, resolve=True), file, build)
    check_recorded(OmegaConf.to_container(cfg, resolve=True), file, build)  # type: ignore[arg-type]
    return resolved(build, cfg, folder, cfg.test)


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
    for key, value in leaves({key: node for key, node in made.items() if key not in DEFAULTS}):
        for text in (part for part in parts(value) if isinstance(part, str) and not trust):
            inside = Path(text).is_relative_to(Path(folder).absolute())
            outside = Path(text).is_absolute() or PLACE.search(key.rpartition(".")[2])
            if LEADS_OUT.search(text) or (outside and not inside):
                raise UserError(
                    f"{shown(old)} would write to {key}={text[:80]}, not into its folder: to trust it, say trust=true"
                )
    return made
