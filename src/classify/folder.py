"""Folder: where a run or a sweep is written: who may write there, and what is read back; imports nothing heavy."""

import fcntl
import json
import os
import shutil
import time
from dataclasses import is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

MOST_JSON = 2**24  # bytes of a file of ours
LOCK, STARTED = ".lock", ".hydra/overrides.yaml"  # the last that Hydra writes before a run

made: list[Path] = []  # the folders that `claim` made, the innermost first
held: dict[Path, int] = {}  # files that stay open as long as this process lives: its locks end with it, however it ends


def claim(folder: Path) -> None:
    """Makes `folder` and locks it; ValueError when anything is in it, or another process has it."""
    made.extend(path for path in (folder, *folder.parents) if not path.exists())
    if folder.is_file():
        raise ValueError(f"folder={folder} is a file: name a new folder")
    folder.mkdir(parents=True, exist_ok=True)
    check_empty(folder)
    lock(folder)
    check_empty(folder)  # as another process may have come and gone


def check_empty(folder: Path) -> None:
    finished = "a finished run" if (folder / "metrics.json").exists() else "files"
    names = {path.name for path in folder.iterdir()}
    if LOCK in names and not (folder / STARTED).exists():  # what one leaves that was killed before it began
        names -= {LOCK, "train.log", ".hydra"}
    if names:
        raise ValueError(f"folder={folder} holds {finished} already: name a new folder, or remove this one first")


def lock(folder: Path) -> None:
    """Keeps every other process from writing in `folder` while this one lives; ValueError when one does already."""
    if folder.resolve() in held:
        return
    file = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        while not (process := os.pread(file, 20, 0).decode().strip()):  # it has the lock and is about to say so
            time.sleep(0.001)
        os.close(file)
        raise ValueError(
            f"folder={folder} is being written by process {process}: wait for it, or name another folder"
        ) from None
    os.truncate(file, 0)
    os.write(file, f"{os.getpid()}\n".encode())
    held[folder.resolve()] = file


def release(folder: Path) -> None:
    """Takes back what was claimed, when nothing has been trained."""
    if not (folder / "checkpoints").exists() and not any(folder.glob("[0-9]*")):
        for name in (".hydra", "log", "tensorboard"):
            shutil.rmtree(folder / name, ignore_errors=True)
        for name in ("train.log", "multirun.yaml", "sweep.json", "optuna.db", LOCK):
            (folder / name).unlink(missing_ok=True)
        if (file := held.pop(folder.resolve(), None)) is not None:
            os.close(file)
        for path in made:
            if path.exists() and not any(path.iterdir()):
                path.rmdir()


def clear(folder: Path) -> None:
    """Takes away what an attempt has left that is not gone on from."""
    for name in ("checkpoints", "log", "tensorboard"):
        shutil.rmtree(folder / name, ignore_errors=True)
    (folder / "error.txt").unlink(missing_ok=True)


def checkpoint_file(path: str | Path, name: str = "best") -> Path:
    """Of a run's folder its best.ckpt or last.ckpt, or the file that `path` is; ValueError when there is none."""
    file = Path(str(path))
    if file.is_dir():
        file = file / "checkpoints" / f"{name}.ckpt"
    if not file.is_file():
        raise ValueError(f"there is no checkpoint {file}: name a run's folder or a .ckpt file")
    return file


def check_file(path: str) -> None:
    if Path(path).is_dir():
        raise ValueError(f"{path} is a folder: name a file")
    if not Path(path).is_file():
        raise ValueError(f"there is no file {path}")


def shown(folder: str | Path) -> str:
    """The folder as one would type it here."""
    here = os.path.relpath(folder)
    return str(folder) if here.startswith("..") else here


def read_json(path: Path, kind: Any) -> Any:
    """The content of one of our files, all numbers as float; ValueError unless it is of this type."""
    if path.exists() and not (path.is_file() and path.stat().st_size <= MOST_JSON):
        raise ValueError(f"{path} is not a file of at most {MOST_JSON >> 20} MB: take it from a copy")
    try:
        content = json.loads(path.read_text(), parse_int=float)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not whole JSON ({error}): train again, or take it from a copy") from None
    if not fits(content, kind):
        raise ValueError(f"{path} does not hold a {kind}: train again, or take it from a copy")
    return content


def read_metrics(folder: Path, *names: str) -> dict[str, float]:
    """What metrics.json says; ValueError where it says nothing of these."""
    metrics = read_json(folder / "metrics.json", dict[str, float])
    if absent := [name for name in names if name not in metrics]:
        raise ValueError(f"{folder / 'metrics.json'} lacks {absent[0]}: train again, or take it from a copy")
    return metrics


def fits(value: Any, kind: Any) -> bool:
    """Whether a value is of this type, such as dict[str, float], in this range, or the fields of this dataclass.

    A list is a good tuple, and an int a good float.
    """
    inner = get_args(kind)
    if isinstance(kind, UnionType):
        return any(fits(value, one) for one in inner)
    if isinstance(kind, range):
        return type(value) is int and value in kind
    if is_dataclass(kind):
        kinds = get_type_hints(kind)
        return isinstance(value, dict) and value.keys() == kinds.keys() and all(fits(value[k], kinds[k]) for k in kinds)
    if get_origin(kind) is dict:
        return isinstance(value, dict) and all(fits(k, inner[0]) and fits(v, inner[1]) for k, v in value.items())
    if inner:
        return isinstance(value, list | tuple) and all(fits(item, inner[0]) for item in value)
    return kind is Any or type(value) is kind or (kind is float and fits(value, range(-(2**63), 2**63)))


def write_json(path: Path, values: Any) -> None:
    write_whole(path, (json.dumps(values, indent=2) + "\n").encode())


def write_whole(path: Path, content: bytes) -> None:
    """Writes beside and renames, so that nobody ever finds half a file."""
    part = path.with_name(path.name + ".part")
    part.write_bytes(content)
    put(part, path)


def put(part: Path, path: Path) -> None:
    """Gives a written file its name once it is on the disk; until then, what had the name is whole."""
    for place, flags in ((part, os.O_RDWR), (path.parent, os.O_RDONLY)):
        file = os.open(place, flags)
        os.fsync(file)
        os.close(file)
        if place == part:
            os.replace(part, path)
