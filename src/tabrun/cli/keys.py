"""Keys: those that the config has, the nearest right one, and what Hydra's errors about them mean."""

import difflib
import re
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import InstantiationException, OverrideParseException
from omegaconf import DictConfig, OmegaConf

MEANT = {"learning_rate": "optimizer.lr", "epochs": "trainer.max_epochs", "layers": "model.hidden"}  # too far to guess
CONF = Path(__file__).parents[2] / "conf"


def explain(error: Exception) -> str:
    """The error's own words, except where Hydra's can be made to say what to do."""
    text = str(error) or str(error.__cause__)
    if isinstance(error, InstantiationException) and error.__cause__:
        if "gpu backend found" in text:
            return "trainer.accelerator=gpu: there is no GPU here: say trainer=auto, or trainer=cpu"
        key = re.search(r"full_key: (\S+)", text)
        return f"{key[1] + ': ' if key else ''}{error.__cause__}"
    if wrong := re.search(r"Could not override '([^']+)'", text):
        word = wrong[1].lstrip("+~").split("@")[0]
        if meant := MEANT.get(word.rsplit(".", 1)[-1]):
            return f"there is no key {word} (did you mean {meant}?)"
        return f"there is no key {word}{'' if word.startswith('hydra.') else nearest(word, known_keys())}"
    if absent := re.search(r"Could not find '([^']+)/([^']*)'", text):
        options = sorted(path.stem for path in (CONF / absent[1]).glob("*.yaml"))
        if options:
            return f"there is no {absent[1]}={absent[2]}{nearest(absent[2], options)}: there are {', '.join(options)}"
    if isinstance(error, OverrideParseException):
        reason = error.message.splitlines()[0]
        return f"cannot read {error.override!r} ({reason}): say KEY=VALUE, with odd text quoted: \"KEY='VALUE'\""
    return text


def known_keys() -> list[str]:
    """Every key that can be overridden, with the groups that the command line chooses."""
    overrides = [word for word in sys.argv[1:] if "=" in word and not word.startswith("-")]
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        parsed = OverridesParser.create().parse_overrides(overrides)
        chosen = [o.input_line for o in parsed if (CONF / o.key_or_group).is_dir() and not o.is_sweep_override()]
        cfg = compose("config", [line for line in chosen if line])
    groups = [path.name for path in CONF.iterdir() if path.is_dir()]
    return groups + [key for key, _ in leaves(cfg)]


def leaves(cfg: DictConfig) -> Iterator[tuple[str, Any]]:
    """The (dotted key, value) pairs of a config, without Hydra's own and with interpolations as they are written."""

    def walk(node: dict[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
        for key, value in node.items():
            if isinstance(value, dict) and value:
                yield from walk(value, f"{prefix}{key}.")
            else:
                yield f"{prefix}{key}", value

    plain = OmegaConf.to_container(OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"]))
    yield from walk(plain, "")  # type: ignore[arg-type]


@cache  # the jobs of a sweep mostly make the same choices, and to compose takes 0.1 s
def shipped(*chosen: str) -> tuple[dict[str, Any], list[str]]:
    """Of the config as it is shipped, with these groups chosen: its values by key, and its sections."""
    config = compose("config", list(chosen))
    return dict(leaves(config)), [str(key) for key in config if OmegaConf.is_dict(config[key])]


def check_keys(cfg: DictConfig, types: Mapping[str, Any]) -> None:
    """Raises ValueError for a shipped key that was taken out, unless something else is called, or became a group.

    types: the shipped values by key.
    """
    for key, value in types.items():
        group, _, name = key.rpartition(".")
        node = OmegaConf.select(cfg, group) if group else cfg
        if not OmegaConf.is_dict(node):
            continue
        if name not in node.keys() and node.get("_target_") in (None, types.get(f"{group}._target_")):  # noqa: SIM118
            raise ValueError(f"{key} cannot be left out: say {key}=...")
        if OmegaConf.is_dict(found := OmegaConf.select(node, name)) and "_target_" not in found:
            raise ValueError(f"{key}={found} is a group of keys, not one value, as in {key}={value}")


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
