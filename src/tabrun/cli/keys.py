"""Keys: those that the config has, the nearest right one, and what Hydra's errors about them mean."""

import difflib
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.errors import HydraException, InstantiationException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from tabrun.cli.errors import UserError
from tabrun.runs.build import Build, conf

DEFAULTS: dict[str, Any] = {  # of the keys that the library reads; Hydra puts them under conf/'s, which may lack some
    **{"folder": "outputs/${now:%Y-%m-%d}/${now:%H-%M-%S-%f}", "seed": 0, "monitor": "val/loss", "mode": "auto"},
    **{"resume": None, "rerun": None, "init_from": None, "trust": False, "test": True},
    "data": {"batch_size": 32, "seed": "${seed}", "drop_missing_target": False, "columns": {"ignore": []}}
    | dict.fromkeys(("id", "weight")),
    "speed": {"threads": None, "chunk": None, "stack": True, "compile": None},
    "ensemble": {"folds": None, "seeds": None},
    "sweep": {"max_stack": None, "stack_dropout": False, "trials": 32},
}


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
    """What is wrong with what was typed; for what is not told from that, the error's own words."""
    if isinstance(error, OverrideParseException):
        reason = error.message.splitlines()[0]
        return f"cannot read {error.override!r} ({reason}): say KEY=VALUE, with odd text quoted: \"KEY='VALUE'\""
    if isinstance(error, HydraException):
        GlobalHydra.instance().clear()  # to compose once more
        groups = {path.name: sorted(file.stem for file in path.glob("*.yaml")) for path in conf(build).iterdir()}
        words = [word for word in sys.argv[1:] if "=" in word and not word.startswith("-")]
        overrides = OverridesParser.create().parse_overrides(words)
        if found := wrong_choice(overrides, groups) or wrong_key(overrides, groups, build):
            return found
    return str(error) or str(error.__cause__)


def wrong_choice(overrides: list[Override], groups: Mapping[str, list[str]]) -> str | None:
    """What is wrong with an override that chooses what is not there."""
    for override in overrides:
        key, options = override.key_or_group, groups.get(override.key_or_group, [])
        values = override.sweep_string_iterator() if override.is_discrete_sweep() else [override.value()]
        for value in values if options else ():
            for name in value if isinstance(value, list) else [value]:
                if name is not None and str(name) not in options:
                    return f"there is no {key}={name}{nearest(str(name), options)}: there are {', '.join(options)}"
    return None


def wrong_key(overrides: list[Override], groups: Mapping[str, list[str]], build: Build) -> str | None:
    """What is wrong with an override of a key that is not there, with the groups that the others choose."""
    chosen = [str(one.input_line) for one in overrides if one.key_or_group in groups and not one.is_sweep_override()]
    try:
        with initialize_config_dir(str(conf(build)), version_base="1.3"):
            composed = OmegaConf.to_container(compose("config", chosen, return_hydra_config=True))
    except HydraException:  # something else is wrong, which the first error says
        return None
    known = [*groups, *(key for key, _ in leaves(composed))]
    for key in (one.key_or_group for one in overrides if one.type in (OverrideType.CHANGE, OverrideType.DEL)):
        if "/" not in key and key not in known and not any(name.startswith(f"{key}.") for name in known):
            meant = build.MEANT.get(key.rsplit(".", 1)[-1])
            return f"there is no key {key}{f' (did you mean {meant}?)' if meant else nearest(key, known)}"
    return None


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
def shipped(*chosen: str) -> tuple[dict[str, Any], list[str]]:
    """Of the config as it is shipped, with these groups chosen: its values by key, and its sections."""
    config = compose("config", list(chosen))
    return dict(leaves(plain(config))), [str(key) for key in config if OmegaConf.is_dict(config[key])]


def check_keys(cfg: DictConfig, types: Mapping[str, Any]) -> None:
    """Raises UserError for a shipped key that was taken out, unless something else is called, or became a group.

    types: the shipped values by key.
    """
    for key, value in types.items():
        group, _, name = key.rpartition(".")
        node = OmegaConf.select(cfg, group) if group else cfg
        if not OmegaConf.is_dict(node):
            continue
        if name not in node.keys() and node.get("_target_") in (None, types.get(f"{group}._target_")):  # noqa: SIM118
            raise UserError(f"{key} cannot be left out: say {key}=...")
        if OmegaConf.is_dict(found := OmegaConf.select(node, name)) and "_target_" not in found:
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
    close = difflib.get_close_matches(word, words, 1, 0.7) or [
        last[name] for name in difflib.get_close_matches(word.rsplit(".", 1)[-1], list(last), 1, 0.6)
    ]
    return f" (did you mean {close[0]}?)" if close else ""
