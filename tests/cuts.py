"""Runs that are cut at one place after the other and go on each time: a script, as it forks; prints JSON.

{cut: [exit code, what was said]}; it fails where a run is not equal to one that was never cut.
"""

import json
import os
import random
import resource
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))

import kill_test

from classify import classifier as module
from tabrun.training import checkpoints as callbacks
from tabrun.training import outcome

WORDS = ["data=wine", "model.dropout=0.2", "folder=out", "speed.chunk=1"]  # 4 steps an epoch
WORDS += ["callbacks.checkpoints.minutes=0.0001"]  # so that last.ckpt is written after each


def at(owner: Any, name: str, number: int, act: Callable[[], object]) -> Callable[[], None]:
    """Has `act` called just before the function's call of this number."""
    original, calls = getattr(owner, name), [0]

    def counted(*arguments: Any, **named: Any) -> Any:
        calls[0] += 1
        if calls[0] == number:
            act()
        return original(*arguments, **named)

    return lambda: setattr(owner, name, counted)


def send(*numbers: int) -> Callable[[], None]:
    return lambda: [os.kill(os.getpid(), number) for number in numbers] and None


def full_disk() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))


batch_end = (callbacks.Checkpoints, "on_train_batch_end")
Cuts = dict[str, Callable[[], None]]
CHAINS: list[tuple[list[str], Cuts]] = [  # words of a run, and where it is cut each time that it goes on
    (
        ["trainer.max_epochs=7", "scheduler=one_cycle"],
        {
            "Ctrl-C": at(*batch_end, 2, send(signal.SIGINT)),
            "SIGTERM": at(*batch_end, 2, send(signal.SIGTERM)),
            "Ctrl-C in validation": at(module.Classifier, "validation_step", 1, send(signal.SIGINT)),
            "Ctrl-C, twice": at(*batch_end, 2, send(signal.SIGINT, signal.SIGINT)),
            "a full disk": at(callbacks.Checkpoints, "save", 2, full_disk),
        },
    ),
    (
        ["callbacks.early_stopping.patience=1", "optimizer.lr=1e-30"],
        {"after it stopped early": at(outcome, "write_json", 1, send(signal.SIGKILL))},
    ),
]


def main() -> None:
    base = Path(tempfile.mkdtemp(dir=sys.argv[1]))
    kill_test.prepare()
    outcome = {}
    for i, (words, cuts) in enumerate(CHAINS):
        kill_test.whole([*WORDS, *words], base / f"whole{i}")
        (cwd := base / f"cut{i}").mkdir()
        start = [*WORDS, *words]
        for name, first in cuts.items():
            code = kill_test.ended(kill_test.start(start, cwd, first))
            outcome[name] = [code, (cwd / "output").read_text()]
            (cwd / "output").unlink()
            start = ["resume=out"]
        assert kill_test.ended(kill_test.start(start, cwd)) == 0, (cwd / "output").read_text()
        wrong = kill_test.differences(base / f"whole{i}" / "out", cwd / "out")
        assert not wrong, (words, wrong, outcome)
    random.seed(0)
    for name, kinds in (("runs", kill_test.RUNS[2:3]), ("sweeps", kill_test.SWEEPS[1:2])):
        (base / name).mkdir()
        exact, _ = kill_test.trials(kinds, 1, base / name)
        assert exact == 1
    print(json.dumps(outcome))


if __name__ == "__main__":
    main()
