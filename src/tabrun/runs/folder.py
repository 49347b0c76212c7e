"""Folder: where a run or a sweep is written: who may write there, and what is read back; imports nothing heavy."""

import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from tabrun.cli.errors import UserError
from tabrun.tables.plain import fits

MOST_JSON = 2**24  # bytes of a file of ours
LOCK, STARTED = ".lock", ".hydra/overrides.yaml"  # the last that Hydra writes before a run

made: dict[Path, list[Path]] = {}  # by folder that this process has claimed: it and those above that it made
held: dict[Path, Any] = {}  # by folder that this process writes in: its lock, which ends with it, however it ends


def claim(folder: Path) -> None:
    """Makes `folder` and locks it; UserError when anything is in it, or another process has it."""
    if folder.is_file():
        raise UserError(f"folder={folder} is a file: name a new folder")
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"folder={folder} cannot be made: {error.strerror}") from None
    check_empty(folder)
    lock(folder)
    check_empty(folder)  # as another process may have come and gone
    made[folder.resolve()] = new


def check_empty(folder: Path) -> None:
    finished = "a finished run" if (folder / "metrics.json").exists() else "files"
    names = {path.name for path in folder.iterdir()}
    if LOCK in names and not (folder / STARTED).exists():  # what one leaves that was killed before it began
        names = {name for name in names - {LOCK, "train.log", ".hydra"} if not name.endswith(".part")}
    if names:
        raise UserError(f"folder={folder} holds {finished} already: name a new folder, or remove this one first")


def lock(folder: Path) -> None:
    """Keeps every other process from writing in `folder` until `unlock`, or the end of this one.

    UserError: another process writes there, or the disk has no locks.
    """
    from filelock import FileLock, Timeout

    place = folder.resolve()
    if place in held:
        return
    folder.mkdir(parents=True, exist_ok=True)
    own = FileLock(place / LOCK, thread_local=False)
    try:
        own.acquire(blocking=False)
    except Timeout:
        raise UserError(
            f"folder={folder} is being written by another process: wait for it, or name another folder"
        ) from None
    except (OSError, NotImplementedError) as error:
        raise UserError(f"folder={folder} cannot be locked ({error}): name a folder on another disk") from None
    held[place] = own, os.stat(place / LOCK).st_ino
    for part in [*folder.glob("checkpoints/.*.part"), *folder.glob("log/.*.part")]:
        part.unlink(missing_ok=True)  # of one that was killed while it wrote


def unlock(folder: Path) -> None:
    if own := held.pop(folder.resolve(), None):
        own[0].release()


def check_around(folder: Path, below: bool = False) -> None:
    """Raises UserError when another process writes in a folder that this one lies in, or, with `below`, in its own."""
    above = [path for path in folder.absolute().parents if (path / "sweep.json").exists() or (path / STARTED).exists()]
    for path in above + ([lock.parent for lock in folder.glob(f"*/{LOCK}")] if below else []):
        if (path / LOCK).exists() and path.resolve() not in held:
            lock(path)
            unlock(path)


def release(folder: Path) -> None:
    """Takes back what this process has claimed, when nothing has been trained."""
    claimed = made.pop(folder.resolve(), None)
    if claimed is None or any(next(folder.glob(name), None) for name in ("checkpoints", "members", "[0-9]*")):
        return
    remove(folder, ".hydra", "log", "tensorboard", "train.log", "multirun.yaml", "sweep.json", "optuna.db")
    unlock(folder)
    remove(folder, LOCK)
    for path in claimed:
        if path.exists() and not any(path.iterdir()):
            path.rmdir()


def clear(folder: Path) -> None:
    """Takes away what an attempt has left that is not gone on from."""
    remove(folder, "checkpoints", "log", "tensorboard", "error.txt")


def remove(folder: Path, *names: str) -> None:
    for path in (folder / name for name in names):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def read_json(path: Path, kind: Any) -> Any:
    """The content of one of our files, all numbers as float; UserError unless it is of this type."""
    try:
        if path.exists() and not (path.is_file() and path.stat().st_size <= MOST_JSON):
            raise UserError(f"no file of at most {MOST_JSON >> 20} MB")
        content = json.loads(path.read_text(), parse_int=float)
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
