"""Runs that copy their folder at every file operation: each copy is what a kill there would leave, and goes on.

python states.py FOLDER KIND: a script, as it forks; prints the number of states, and fails where one does not end as
the whole does.
"""

import csv
import hashlib
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from functools import wraps
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))

import kill_test
from optuna.storages import RDBStorage

from tabrun.runs.folder import LOCK, STARTED

CHANGES = ("os.rename", "os.link", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "shutil.rmtree")
SHORT = ["data=iris", "model=linear", "speed.threads=1"]
SWEEP = ["-m", *SHORT, "trainer.max_epochs=1", "folder=out"]
SEARCH = ["hydra/sweeper=optuna", "optimizer.lr=interval(0.01,0.1)", "sweep.trials=3", "hydra.sweeper.max_batch_size=2"]
KINDS = {  # the commands, one after the other; the last is the one that is watched
    "run": [[*SHORT, "scheduler=one_cycle", "trainer.max_epochs=2", "folder=out"]],
    "more epochs": [
        [*SHORT, "trainer.max_epochs=1", "folder=out"],
        ["resume=out", "trainer.max_epochs=2"],
    ],
    "ensemble": [[*SHORT, "trainer.max_epochs=1", "ensemble.folds=2", "folder=out"]],
    "ensemble, alone": [[*SHORT, "trainer.max_epochs=1", "ensemble.seeds=2", "speed.stack=false", "folder=out"]],
    "stack": [[*SWEEP, "seed=0,1"]],
    "alone": [[*SWEEP, "seed=0,1", "hydra/launcher=basic"]],
    "search": [[*SWEEP, *SEARCH]],
}


def watch(folder: Path, states: Path) -> None:
    """Has this process copy `folder` to a folder in `states` at each file operation that finds it changed."""
    seen: set[str] = set()
    busy = False

    def copy() -> None:
        nonlocal busy
        if not busy and folder.exists():
            busy = True
            for _ in kept(folder, seen, states):
                pass
            busy = False

    def listen(event: str, arguments: tuple[Any, ...]) -> None:
        if event in CHANGES or (event == "open" and written(*arguments)):
            copy()

    def around(function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def call(*arguments: Any, **named: Any) -> Any:
            copy()
            try:
                return function(*arguments, **named)
            finally:
                copy()

        return call

    os.fsync = around(os.fsync)
    for name in ("create_new_study", "create_new_trial", "set_trial_state_values", "set_trial_param"):
        setattr(RDBStorage, name, around(getattr(RDBStorage, name)))
    for name in ("set_trial_user_attr", "set_trial_system_attr", "set_study_user_attr"):
        setattr(RDBStorage, name, around(getattr(RDBStorage, name)))
    sys.addaudithook(listen)


def written(path: Any, mode: str | None, flags: int) -> bool:
    return bool(flags & (os.O_WRONLY | os.O_RDWR)) and isinstance(path, str | Path)


def kept(folder: Path, seen: set[str], states: Path) -> Iterator[Path]:
    """The copy that is made, where there is none like it; and with half of what a log gained last."""
    digest = hashlib.sha256()
    for file in sorted(folder.rglob("*")):
        part = file.name.endswith(".part")
        digest.update(str(file.parent if part else file).encode())
        if file.is_file() and not part and file.name not in (LOCK, "train.log"):
            digest.update(file.read_bytes())
    if digest.hexdigest() not in seen:
        seen.add(digest.hexdigest())
        before = states / f"{len(seen) - 1:03}"
        yield (copied := shutil.copytree(folder, states / f"{len(seen):03}"))
        for file in copied.rglob("metrics.csv"):
            if (old := before / file.relative_to(copied)).exists() and file.stat().st_size > old.stat().st_size:
                torn = shutil.copytree(copied, states / f"{len(seen):03}-torn") / file.relative_to(copied)
                os.truncate(torn, (file.stat().st_size + old.stat().st_size) // 2)


def go_on(command: list[str], first: list[str], cwd: Path) -> None:
    """Gives the command again until it has ended, as a person would; fails where it does not."""
    out = cwd / "out"
    again = command
    if "-m" not in command and (out / STARTED).exists():
        again = ["resume=out"]
        if (out / "metrics.json").exists() and "resume=out" in command:
            again = command  # the epochs that it was to have more of
        elif (out / "metrics.json").exists():
            return  # killed when all was written
    elif "-m" not in command:
        again = first
    if code := kill_test.ended(kill_test.start(again, cwd)):
        sys.exit(f"error: {' '.join(again)} ended with {code}\n{(cwd / 'output').read_text()}")


def searched(one: Path, other: Path) -> list[str]:
    """What two searches have not in common: all trials have ended well. Their values may differ, and their numbers.

    Where one of a batch had finished before the kill, what is asked for next is told by it. Read without polars, whose
    threads would not be there in the processes that are forked later.
    """
    found = []
    for folder in (one, other):
        with (folder / "sweep.csv").open(newline="") as file:
            found.append([row["status"] for row in csv.DictReader(file)])
    return [] if found[0] == found[1] == ["finished"] * 3 else [str(found)]


def main() -> None:
    base, commands = Path(sys.argv[1]), KINDS[sys.argv[2]]
    kill_test.prepare()
    cwd, states, whole = base / "cwd", base / "states", base / "whole"
    cwd.mkdir()
    states.mkdir()
    for command in commands[:-1]:
        assert kill_test.ended(kill_test.start(command, cwd)) == 0, (cwd / "output").read_text()
    process = kill_test.start(commands[-1], cwd, lambda: watch(cwd / "out", states))
    assert kill_test.ended(process) == 0, (cwd / "output").read_text()
    shutil.copytree(cwd / "out", whole / "out")
    for state in sorted(states.iterdir()):
        shutil.rmtree(cwd)
        shutil.copytree(state, cwd / "out")
        go_on(commands[-1], commands[0], cwd)
        compared = searched if sys.argv[2] == "search" else kill_test.differences
        if wrong := compared(whole / "out", cwd / "out"):
            sys.exit(f"error: {state.name}: {', '.join(wrong)}\n{(cwd / 'output').read_text()}")
    print(len(list(states.iterdir())))


if __name__ == "__main__":
    main()
