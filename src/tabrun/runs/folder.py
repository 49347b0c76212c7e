"""Folder: where a run or a sweep is written: who may write there, and what is read back; imports nothing heavy."""

import json
import os
import secrets
import shutil
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from tabrun.cli.errors import UserError, explained
from tabrun.tables.plain import fits

MOST_JSON = 2**24  # bytes of a file of ours
LOCK, STARTED = ".lock", ".hydra/config.json"  # the config that a run starts with, resolved
UNTRAINED = (
    *(".hydra", "log", "tensorboard", "train.log", "columns.csv", "table.json"),
    *("multirun.yaml", "sweep.json", "optuna.db"),
)

held: dict[Path, Any] = {}  # by folder that this process writes in: its lock, which ends with it, however it ends


def claim(folder: Path) -> None:
    """Makes `folder` and locks it; UserError when anything is in it, or another process has it.

    What a command of ours has left that was killed, or was a mistake, before anything was trained is taken away.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"folder={folder} cannot be made: {error.strerror}: name a new folder") from None
    check_empty(folder)
    lock(folder)
    check_empty(folder)  # as another process may have come and gone
    clear(folder, UNTRAINED)


def check_empty(folder: Path) -> None:
    names = {path.name for path in folder.iterdir() if path.suffix != ".part"}
    if names.difference(UNTRAINED, [LOCK]) or (names and LOCK not in names):
        finished = "a finished run" if "metrics.json" in names else "files"
        raise UserError(f"folder={folder} holds {finished} already: name a new folder, or remove this one first")


def lock(folder: Path) -> None:
    """Keeps every other process from writing in `folder` until `unlock`; UserError: one does, or there are no locks."""
    from filelock import FileLock, Timeout

    place = folder.resolve()
    if place in held:
        return
    folder.mkdir(parents=True, exist_ok=True)
    own = FileLock(place / LOCK, thread_local=False)
    try:
        own.acquire(blocking=False)
    except Timeout:
        hint = "wait for it, or name another folder"
        raise UserError(f"folder={folder} is being written by another process: {hint}") from None
    except (OSError, NotImplementedError) as error:
        raise UserError(f"folder={folder} cannot be locked ({error}): name a folder on another disk") from None
    held[place] = own, os.stat(place / LOCK).st_ino
    for part in [*folder.glob("checkpoints/.*.part"), *folder.glob("log/.*.part")]:
        part.unlink(missing_ok=True)  # of one that was killed while it wrote


def unlock(folder: Path) -> None:
    if own := held.pop(folder.resolve(), None):
        own[0].release()


def check_around(folder: Path) -> None:
    """Raises UserError when another process writes in a folder that this one lies in, or in one that it holds."""
    above = [path for path in folder.absolute().parents if (path / "sweep.json").exists() or (path / STARTED).exists()]
    for path in (*above, *(lock.parent for lock in folder.glob(f"*/{LOCK}"))):
        if (path / LOCK).exists() and path.resolve() not in held:
            lock(path)
            unlock(path)


def clear(folder: Path, names: Iterable[str] = ("checkpoints", "log", "tensorboard", "error.txt")) -> None:
    """Takes away what an attempt has left that is not gone on from."""
    for path in (folder / name for name in names):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def note_error(folder: Path, error: Exception) -> None:
    """Writes the error in one line, and its traceback, into the folder of a sweep's job."""
    try:
        lock(folder)
    except UserError:  # another process goes on there
        return
    text = [" ".join((explained(error) or str(error)).split()), "\n\n", *traceback.format_exception(error)]
    write_whole(folder / "error.txt", "".join(text).encode())
    unlock(folder)


def read_json(path: Path, kind: Any) -> Any:
    """The content of one of our files; UserError unless it is of this type."""
    try:
        if path.exists() and not (path.is_file() and path.stat().st_size <= MOST_JSON):
            raise UserError(f"no file of at most {MOST_JSON >> 20} MB")
        content = json.loads(path.read_text())
        if fits(content, kind):
            return content
        raise UserError(f"it holds no {kind}")
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} is not whole JSON ({error}): train again, or take it from a copy") from None


def read_metrics(folder: Path, *names: str) -> dict[str, float]:
    """What metrics.json says; UserError where it says nothing of these."""
    metrics = read_json(folder / "metrics.json", dict[str, float])
    if absent := [name for name in names if name not in metrics]:
        raise UserError(f"{folder / 'metrics.json'} lacks {absent[0]}: train again, or take it from a copy")
    return metrics


def write_json(path: Path, values: Any) -> None:
    write_whole(path, (json.dumps(values, indent=2) + "\n").encode())


def write_whole(path: Path, content: bytes | memoryview) -> None:
    """Writes beside and renames, so that nobody ever finds half a file."""
    with whole(path) as file:
        file.write(content)


@contextmanager
def whole(path: Path) -> Iterator[BinaryIO]:
    """A file to write that gets its name once it is on the disk; until then, what had the name is whole."""
    part = part_of(path)
    try:
        with open(part, "xb") as file:
            yield file
        put(part, path)
    finally:
        part.unlink(missing_ok=True)


def part_of(path: Path) -> Path:
    """The name of a file that is not whole yet, which no other process and no link has."""
    return path.with_name(f".{path.name}.{secrets.token_hex(8)}.part")


def put(part: Path, path: Path) -> None:
    """Gives a written file its name, once it is on the disk; UserError when the folder is no longer this process's."""
    sync(part)
    check_owner(path)
    os.replace(part, path)
    sync(path.parent)


def check_owner(path: Path) -> None:
    """Raises UserError where a folder that this process had locked, and that the file lies in, is no longer its own."""
    place = path.parent.resolve()
    for folder in (place, *place.parents):
        if folder in held and not ((folder / LOCK).exists() and os.stat(folder / LOCK).st_ino == held[folder][1]):
            raise UserError(f"folder={folder} was taken away while it was written")


def sync(path: Path) -> None:
    if path.is_dir() and os.name == "nt":  # which syncs no folders
        return
    file = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(file)
    finally:
        os.close(file)
