"""Errors: one line on stderr that says what was wrong, where, and what to do."""

import argparse
import csv
import errno
import logging
import os
import re
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

FULL_ERRORS = "HYDRA_FULL_ERROR" in os.environ and "LOCAL_RANK" not in os.environ  # tracebacks as they come
FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class UserError(ValueError):
    """What is said to a person, who can mend it: one line and exit code 1. Every other error is a bug's."""


class Parser(argparse.ArgumentParser):
    """Says what is wrong with a verb's words in one line, without the usage."""

    def parse_args(self) -> argparse.Namespace:  # type: ignore[override]
        return super().parse_args([at_home(word) for word in sys.argv[1:]])

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message}: see {self.prog} --help\n")


def at_home(word: str) -> str:
    """A word of a command line with the home folder for ~, at its start or behind =."""
    return re.sub("(^|=)~/", rf"\1{os.path.expanduser('~')}/", word)


def checkpoint_file(path: str | Path, name: str = "best") -> Path:
    """Of a run's folder its best.ckpt or last.ckpt, or the file that `path` is; UserError when there is none."""
    file = Path(str(path)).expanduser()
    if str(path) == "latest" and not file.exists():
        finished = sorted(Path("outputs").glob("**/metrics.json"), key=os.path.getmtime)
        if not finished:
            raise UserError("latest: there is no finished run under outputs/: name its folder")
        file = finished[-1].parent
    if (file / "sweep.csv").is_file():  # whose first row is the winner's, or the first repetition's
        with (file / "sweep.csv").open(newline="") as table:
            file = file / next(csv.DictReader(table), {}).get("job", "")  # a range test has none
    if str(file) != os.path.expanduser(str(path)):
        print(f"{path} is {file}", file=sys.stderr)
    if file.is_dir():
        file = file / "checkpoints" / f"{name}.ckpt"
    if not file.is_file():
        raise UserError(f"there is no checkpoint {file}: name a run's folder or a .ckpt file")
    return file


def check_file(path: str) -> None:
    if Path(path).is_dir():
        raise UserError(f"{path} is a folder: name a file")
    if not Path(path).is_file():
        raise UserError(f"there is no file {path}")


def shown(folder: str | Path) -> str:
    """The folder as one would type it here."""
    here = os.path.relpath(folder)
    return str(folder) if here.startswith("..") else here


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Turns errors that a person can mend into one line on stderr and exit code 1; bugs keep their traceback."""
    try:
        yield
        if not sys.stdout.closed:
            sys.stdout.flush()
    except BrokenPipeError:  # of | head, say
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or python would write there once more
        sys.exit(128 + signal.SIGPIPE)
    except KeyboardInterrupt as stop:
        said, code = (*stop.args, 130)[:2] if stop.args else ("", 130)
        print(f"interrupted{': ' if said else ''}{said}", file=sys.stderr)
        sys.exit(code)
    except Exception as error:
        words = explained(error)
        if words is None or FULL_ERRORS:
            raise
        sys.exit(f"error: {in_one_line(words)}")


@contextmanager
def errors_that_end() -> Iterator[None]:
    """Ends the process on any error, as Hydra goes on after one in a callback, and takes a task's for its own."""
    try:
        with one_line_errors():
            yield
    except Exception:
        traceback.print_exc()
        sys.exit(1)


def explained(error: BaseException) -> str | None:
    """What is wrong and what to do, if a person can mend it."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError) and error.errno in FULL_DISK:
        hint = "the disk, or that of $TMPDIR, is full; what was written before is whole: free some space and go on"
        return f"{error}: {hint}"
    return None


@contextmanager
def value_of(key: str, package: str) -> Iterator[None]:
    """Names the key in what a library says of a person's value; errors of the template's `package` stay as they are."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        reason = error.__cause__ or error  # Hydra's says where it was called
        frames = [frame for frame, _ in traceback.walk_tb(reason.__traceback__)]
        called = frames[2:] if reason is error else frames  # beyond this function and the one that uses it
        names = {frame.f_globals["__name__"].partition(".")[0] for frame in called}
        if names & {package, "tabrun"} or isinstance(reason, UserError | SyntaxError):
            raise reason from reason.__cause__
        raise UserError(f"{key}: {str(reason) or type(reason).__name__}") from error


def visible(text: str) -> str:
    """The text with what a terminal would obey escaped, such as \\x1b, but for the ends of lines."""
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


class Visible(logging.Formatter):
    """Shows names of columns and classes as they are, whatever they are."""

    def format(self, record: logging.LogRecord) -> str:
        return visible(super().format(record))


def in_one_line(text: str) -> str:
    """The words of a message, the middle left out where a file has put a book into it."""
    line = visible(" ".join(text.split()))
    return line if len(line) <= 2000 else f"{line[:1000]} ... {line[-500:]}"
