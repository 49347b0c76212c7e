"""Keys: those that the config has, the nearest right one, and what Hydra's errors about them mean."""

import difflib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any

from hydra import compose
from hydra.errors import HydraException, InstantiationException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException
from yaml import YAMLError

from tabrun.cli.errors import UserError
from tabrun.runs.build import Build

DEFAULTS: dict[str, Any] = {  # of the keys that the library reads; Hydra puts them under conf/'s, which may lack some
    **{"name": "${now:%Y-%m-%d}", "folder": "outputs/${name}/${now:%H-%M-%S-%f}"},
    **{"seed": 0, "monitor": "val/loss", "mode": "auto"},
    **{"resume": None, "rerun": None, "init_from": None, "trust": False, "test": True},
    "data": {"batch_size": 32, "seed": "${seed}", "drop_missing_target": False, "columns": {"ignore": []}}
    | dict.fromkeys(("id", "weight"))
    | {"look": True, "rare_below": 10}
    | dict.fromkeys(("positive", "rare_classes", "bins")),
    "speed": {"threads": None, "chunk": None, "stack": True, "compile": None},
    "ensemble": {"folds": None, "seeds": None, "vary": None},
    "sweep": {"max_stack": None, "stack_dropout": False, "trials": 32},
}


FREE = ("data.columns.formats",)  # whose value is keys of a person's own


@contextmanager
def composing(build: Build) -> Iterator[None]:
    """Turns what Hydra says of what was typed, or of the configs of `build`, into a UserError."""
    try:
        yield
    except InstantiationException:  # not of the config
        raise
    except (HydraException, OmegaConfBaseException, YAMLError) as error:
        raise UserError(explain(error, build)) from error


def explain(error: Exception, build: Build) -> str:
    """What is wrong with what was typed; for what is not told from the error's fields, its own words."""
    if isinstance(error, OverrideParseException):
        reason = error.message.splitlines()[0]
        return f"cannot read {error.override!r} ({reason}): say KEY=VALUE, with odd text quoted: \"KEY='VALUE'\""
    if isinstance(error, MissingConfigException) and error.options:
        group, _, name = str(error.missing_cfg_file).rpartition("/")
        return f"there is no {group}={name}{nearest(name, [*error.options])}: there are {', '.join(error.options)}"
    for cause in (error, error.__cause__):
        if isinstance(cause, ConfigKeyError | ConfigAttributeError) and cause.full_key:
            prefix, _, name = cause.full_key.rpartition(".")
            there: Any = OmegaConf.to_container(cause.parent_node) if cause.parent_node else {}
            known = [f"{prefix}.{key}".lstrip(".") for key in (*there, *(key for key, _ in leaves(there)))]
            meant = f" (did you mean {build.MEANT[name]}?)" if name in build.MEANT else nearest(cause.full_key, known)
            return f"there is no key {cause.full_key}{meant}"
    return str(error) or str(error.__cause__)


def plain(cfg: DictConfig) -> Any:
    """The config as plain values, without Hydra's own and with interpolations as they are written."""
    return OmegaConf.to_container(OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"]))


def leaves(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The (dotted key, value) pairs of a config of plain values."""
    for key, value in node.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


@cache  # the jobs of a sweep mostly make the same choices, and to compose takes 0.1 s
def shipped(*chosen: str) -> dict[str, Any]:
    """The values by key of the config as it is shipped, with these groups chosen."""
    return dict(leaves(plain(compose("config", list(chosen)))))


def check_keys(cfg: DictConfig, types: Mapping[str, Any]) -> None:
    """Raises UserError for a shipped key that was taken out or became a group; types: the shipped values by key."""
    for key, value in types.items():
        group, _, name = key.rpartition(".")
        if group and not OmegaConf.is_dict(cfg.get(section := key.partition(".")[0])):
            raise UserError(f"{section} cannot be left out as a whole: set {section}.NAME=null for what is not wanted")
        node = OmegaConf.select(cfg, group) if group else cfg
        if not OmegaConf.is_dict(node):
            continue
        if name not in node.keys() and node.get("_target_") in (None, types.get(f"{group}._target_")):  # noqa: SIM118
            raise UserError(f"{key} cannot be left out: say {key}=...")
        found = OmegaConf.select(node, name)
        if OmegaConf.is_dict(found) and "_target_" not in found and key not in FREE:
            raise UserError(f"{key}={found} is a group of keys, not one value, as in {key}={value}")


def same_type(value: Any, default: Any) -> bool:
    """Whether `value` may stand where `default` stands: an int is a good float, and any scalar is good text."""
    if default in (None, "???") or any(isinstance(side, str) and side.startswith("${") for side in (value, default)):
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
    close = difflib.get_close_matches(word, words, 1, 0.7)
    by_last = difflib.get_close_matches(word.rsplit(".", 1)[-1], list(last), 1, 0.6)
    close += [last[name] for name in by_last]
    return f" (did you mean {close[0]}?)" if close else ""
