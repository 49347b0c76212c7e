"""Runs `python -m` commands as processes that are forked from one which has done the imports: a fraction of the time.

forked.py IMPORTS [SECONDS], the most for each process, reads and writes JSON: [[module, word, ...], ...]
on stdin; on stdout [[code, stdout, stderr, imported torch], ...].
"""

import contextlib
import gc
import importlib
import json
import os
import runpy
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir

from classify import build
from tabrun.cli.check import check_values
from tabrun.runs.build import conf

LIGHT = ("hydra._internal.utils", "tabrun.cli.check", "tabrun.runs.folder")
HEAVY = (
    *LIGHT,
    *("lightning", "torchmetrics.classification", "sklearn.datasets", "sklearn.model_selection"),
    *("classify.classifier", "tabrun.training.train", "tabrun.training.checkpoints", "tabrun.verbs.baselines"),
)
AT_ONCE = 2


def exit_code(run: Callable[[], object]) -> int:
    """What python would exit with after this; what it would print about it is printed."""
    code: Any = 0
    try:
        run()
    except SystemExit as stop:
        code = stop.code
    except BaseException:
        traceback.print_exc()
        code = 1
    if isinstance(code, str):
        print(code, file=sys.stderr)
        code = 1
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(ValueError):  # closed, as what writes to a pipe may do
            stream.flush()
    return int(code or 0)


def child(words: list[str], folder: Path) -> None:
    (folder / "torch").write_text("null")  # unless it comes to its end
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(folder / name, os.O_WRONLY | os.O_CREAT), number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    signal.alarm(int(sys.argv[2]) if len(sys.argv) > 2 else 0)  # seconds; then it is killed
    sys.argv = words
    code = exit_code(lambda: runpy.run_module(words[0], run_name="__main__", alter_sys=True))
    (folder / "torch").write_text(json.dumps("torch" in sys.modules))
    os._exit(code)


def imports(which: str) -> None:
    for name in LIGHT if which == "light" else HEAVY:
        importlib.import_module(name)
    with initialize_config_dir(str(conf(build)), version_base="1.3"):  # plugins, grammars, the config as it is shipped
        config = compose("config", ["seed=1"], return_hydra_config=True)
        check_values(config, config.hydra.runtime.choices, build)


def main() -> None:
    cases = json.load(sys.stdin)
    imports(sys.argv[1])
    gc.freeze()  # or each child's first collection walks, and so copies, all that was imported
    running: dict[int, int] = {}
    codes = [0] * len(cases)
    with tempfile.TemporaryDirectory() as base:
        for i, words in enumerate([*cases, *[None] * AT_ONCE]):
            if len(running) == AT_ONCE or words is None:
                process, status = os.wait()
                codes[running.pop(process)] = os.waitstatus_to_exitcode(status)
            if words is not None:
                (folder := Path(base) / str(i)).mkdir()
                if (process := os.fork()) == 0:
                    child(words, folder)
                running[process] = i
        outcomes = []
        for i, code in enumerate(codes):
            texts = [(Path(base) / str(i) / name).read_text(errors="replace") for name in ("stdout", "stderr", "torch")]
            outcomes.append([code, texts[0], texts[1], json.loads(texts[2])])
    print(json.dumps(outcomes))


if __name__ == "__main__":
    main()
