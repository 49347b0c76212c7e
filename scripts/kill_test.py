"""Kill training with SIGKILL at random moments, go on, and compare with what was never killed, bit for bit.

python scripts/kill_test.py                              # 100 runs and 20 sweeps
python scripts/kill_test.py --runs 3 --sweeps 1 --seed 7
"""

import argparse
import gc
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning  # noqa: F401  # imported here, once: each process is forked from this one
import sklearn.datasets
import sklearn.model_selection  # noqa: F401
import torch
from hydra import compose, initialize_config_dir

from classify import build, classifier  # noqa: F401
from classify.train import main as train_main
from tabrun.cli.check import check_values
from tabrun.runs import folder
from tabrun.runs.build import conf
from tabrun.stack import ensemble, training  # noqa: F401
from tabrun.sweeps import summary  # noqa: F401
from tabrun.training import checkpoints, train  # noqa: F401

COMMON = ["data=wine", "trainer.max_epochs=12", "speed.threads=1"]
RUNS = [  # what has a state of its own that could be lost
    ["scheduler=one_cycle", "optimizer=adamw"],
    ["scheduler=reduce_on_plateau", "scheduler.make.patience=0", "speed.chunk=1"],
    ["model.dropout=0.3", "callbacks.checkpoints.minutes=0", "speed.chunk=1"],  # a checkpoint after each step
    ["callbacks.early_stopping.patience=1", "monitor=val/accuracy", "callbacks.checkpoints.minutes=0"],
    ["speed.chunk=2", "data.batch_size=8", "callbacks.checkpoints.minutes=0", "model.dropout=0.3"],
    ["callbacks.gradient_norms.every_n_steps=3", "trainer.gradient_clip_val=1.0", "callbacks.checkpoints.minutes=0"],
    ["trainer.accumulate_grad_batches=2", "scheduler=cosine", "callbacks.checkpoints.minutes=0"],
    ["ensemble.folds=3", "model.dropout=0.3"],
    ["ensemble.seeds=2", "model.dropout=0.3", "speed.stack=false", "callbacks.checkpoints.minutes=0"],
]
SWEEPS = [
    ["-m", "optimizer.lr=0.01,0.1", "seed=0,1", "hydra/launcher=basic", "callbacks.checkpoints.minutes=0"],
    ["-m", "optimizer.lr=0.01,0.1", "seed=0,1"],  # as one network
    ["-m", "model.hidden=[8],[4]", "seed=0,1", "model.dropout=0,0.2"],
]
COMPARED = ("state_dict", "optimizer_states", "lr_schedulers", "callbacks", "loops", "epoch", "global_step", "rng")


def prepare() -> None:
    """What every process would do first is done once."""
    with initialize_config_dir(str(conf(build)), version_base="1.3"):
        config = compose("config", COMMON, return_hydra_config=True)
        check_values(config, config.hydra.runtime.choices, build)
    gc.freeze()  # or each process copies, at its first collection, all that was imported


def start(words: list[str], cwd: Path, first: Callable[[], object] = bool) -> int:
    """The id of a process that trains in `cwd`, after it has called `first`."""
    if process := os.fork():
        return process
    os.chdir(cwd)
    first()
    output = os.open("output", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    sys.argv = ["train", *words]
    code: Any = 0
    try:
        train_main()
    except SystemExit as stop:
        code = stop.code
        print(code)
    except BaseException:
        import traceback

        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    os._exit(code if isinstance(code, int) else 1)


def ended(process: int) -> int:
    """Its exit code; negative, a signal's."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def whole(words: list[str], cwd: Path) -> float:
    """Runs without an interruption; the seconds that it took."""
    cwd.mkdir()
    began = time.monotonic()
    if code := ended(start(words, cwd)):
        sys.exit(f"error: {' '.join(words)} ended with {code}\n{(cwd / 'output').read_text()}")
    return time.monotonic() - began


def interrupted(words: list[str], cwd: Path, seconds: float) -> int:
    """Runs, is killed up to three times on the way and goes on, to the end; how often it was killed."""
    cwd.mkdir()
    out, kills = cwd / "out", 0
    while True:
        command = words
        if "-m" not in words and (out / folder.STARTED).exists():
            command = [f"resume={out}"]
        process = start(command, cwd)
        if kills < 3:
            time.sleep(random.uniform(0, seconds))
            os.kill(process, signal.SIGKILL)
        code = ended(process)
        if code != -signal.SIGKILL:
            if code:
                sys.exit(f"error: {' '.join(command)} ended with {code} in {cwd}\n{(cwd / 'output').read_text()}")
            return kills
        kills += 1
        if "-m" not in words and (out / "metrics.json").exists():  # killed when all was written
            return kills


def differences(one: Path, other: Path) -> list[str]:
    """What differs between two folders of runs or sweeps."""
    names = ["metrics.json", "run.json", "metrics.csv", "sweep.csv", "best.yaml", "best.ckpt", "last.ckpt"]
    files = [{f.relative_to(base) for f in base.rglob("*") if f.name in names} for base in (one, other)]
    found = [f"{file} is not in both" for file in files[0] ^ files[1]]
    for file in sorted(files[0] & files[1]):
        if file.suffix == ".ckpt":
            contents = [torch.load(base / file, weights_only=True) for base in (one, other)]
            found += [f"{file}: {key}" for key in COMPARED if not same(*(c.get(key) for c in contents))]
        elif (one / file).read_bytes() != (other / file).read_bytes():
            found.append(str(file))
    return found


def same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


def trials(kinds: list[list[str]], number: int, base: Path) -> tuple[int, int]:
    """How many of so many are exact, and how many kills there were."""
    exact = kills = 0
    seconds: dict[int, float] = {}
    for i in range(number):
        kind = i % len(kinds)
        words = [*kinds[kind], *COMMON, "folder=out"]
        if kind not in seconds:
            seconds[kind] = whole(words, base / f"whole{kind}")
        kills += interrupted(words, cwd := base / f"killed{i}", seconds[kind])
        wrong = differences(base / f"whole{kind}" / "out", cwd / "out")
        exact += not wrong
        if wrong:
            print(f"{' '.join(words)}: {', '.join(wrong)}", flush=True)
        else:
            shutil.rmtree(cwd)
    return exact, kills


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--sweeps", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0, help="of the moments of the kills")
    parser.add_argument("--keep", action="store_true", help="leave the folders where they are")
    words = parser.parse_args()
    random.seed(words.seed)
    prepare()
    base = Path(tempfile.mkdtemp(prefix="kill-test-"))
    failed = False
    for name, kinds, number in (("runs", RUNS, words.runs), ("sweeps", SWEEPS, words.sweeps)):
        (base / name).mkdir()
        exact, kills = trials(kinds, number, base / name)
        print(f"{name}: {exact} of {number} exact, killed {kills} times, seed {words.seed}", flush=True)
        failed |= exact < number
    if words.keep or failed:
        sys.exit(f"the folders are in {base}" if failed else 0)
    shutil.rmtree(base)


if __name__ == "__main__":
    main()
