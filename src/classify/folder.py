"""Folder: where a run or a sweep is written: who may write there, and what is read back; imports nothing heavy."""

import fcntl
import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

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
    file = Path(str(path)).expanduser()
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


def read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} is not whole JSON ({error}): train again, or take it from a copy") from None


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
