"""Errors: one line on stderr that says what was wrong, where, and what to do."""

import argparse
import difflib
import errno
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, InstantiationException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

MEANT = {"learning_rate": "optimizer.lr", "epochs": "trainer.max_epochs", "layers": "model.hidden"}  # too far to guess
CONF = Path(__file__).parents[2] / "conf"
FULL_ERRORS = "HYDRA_FULL_ERROR" in os.environ  # asked for: tracebacks as they come
FOREIGN = {  # errors of Lightning and torch that a person can mend, by name, as to import them takes seconds
    "MisconfigurationException": "",
    "InductorError": "trainer.compile: ",
    "BackendCompilerFailed": "trainer.compile: ",
}


class Parser(argparse.ArgumentParser):
    """Says what is wrong with a verb's words in one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message}: see {self.prog} --help\n")


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Turns errors that a person can mend into one line on stderr and exit code 1; bugs keep their traceback."""
    if FULL_ERRORS:
        yield
        return
    try:
        yield
    except KeyboardInterrupt as stop:
        said, code = (*stop.args, 130)[:2] if stop.args else ("", 130)
        print(f"interrupted{': ' if said else ''}{said}", file=sys.stderr)
        sys.exit(code)
    except (HydraException, OmegaConfBaseException, YAMLError, ValueError) as error:
        sys.exit(f"error: {in_one_line(explain(error))}")
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        hint = ": the disk is full; what was written before is whole: free some space and go on" if full else ""
        sys.exit(f"error: {in_one_line(str(error))}{hint}")
    except Exception as error:
        if type(error).__name__ not in FOREIGN:
            raise
        sys.exit(f"error: {FOREIGN[type(error).__name__]}{in_one_line(str(error).partition(chr(10) * 2)[0])}")


def in_one_line(text: str) -> str:
    """The words of a message, the middle left out where a file has put a book into it."""
    line = " ".join(text.split())
    return line if len(line) <= 2000 else f"{line[:1000]} ... {line[-500:]}"


def explain(error: Exception) -> str:
    """The error's own words, except where Hydra's can be made to say what to do."""
    text = str(error) or str(error.__cause__)
    if isinstance(error, InstantiationException) and error.__cause__:
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


def nearest(word: str, words: list[str]) -> str:
    """ ", did you mean ...?" with the closest of `words`, or nothing."""
    last = {key.rsplit(".", 1)[-1]: key for key in words}
    close = difflib.get_close_matches(word, words, 1, 0.7) or [
        last[name] for name in difflib.get_close_matches(word.rsplit(".", 1)[-1], list(last), 1, 0.6)
    ]
    return f" (did you mean {close[0]}?)" if close else ""
