"""Learning rates trained as one network, beside one run, runs in turn, Hydra's joblib launcher and scikit-learn.

Part of benchmark.py: python scripts/benchmark.py sweep
"""

import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import torch
from benchmark_steps import Work, configured, named, words

MANY, MOST = 16, 64


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def table(
    rows: Sequence[int] = (64_000,),
    repeats: int = 3,
    epochs: int = 8,
    nets: Sequence[str] = ("SEED", "MID"),
    without: Sequence[str] = (),
) -> list[dict[str, Any]]:
    """For each net: the time of each way to train many rates, with as many rows for validation as a quarter of those
    that train, over that of one run."""
    return [row(name, num_rows, repeats, epochs, without) for name in named(nets) for num_rows in rows]


def row(name: str, num_rows: int, repeats: int, epochs: int, without: Sequence[str]) -> dict[str, Any]:
    from classify import build
    from tabrun.stack.plan import planned
    from tabrun.stack.training import train_stack
    from tabrun.stack.ways import Mapped
    from tabrun.training.train import train

    torch.set_num_threads(1)
    rates = [0.001 * 1.05**i for i in range(MOST)]
    with tempfile.TemporaryDirectory() as folder:
        common = words(name, num_rows, epochs, 0.25)

        def config(rate: float) -> dict[str, Any]:
            return configured(common, folder, rate)

        def with_joblib() -> None:
            jobs = [f"optimizer.lr={','.join(map(str, rates[:MANY]))}", f"folder={folder}/joblib"]
            command = [sys.executable, "-m", "classify.train", "-m", "hydra/launcher=joblib", *common, *jobs]
            subprocess.run(command, capture_output=True, check=True)

        work = Work(name, folder, num_rows, epochs)

        def fit_mlps() -> None:
            for _ in range(MANY):
                work.sklearn()

        train(build, config(rates[0]))  # to warm up
        one = median(seconds(lambda: train(build, config(rates[0]))) for _ in range(repeats))
        found: dict[str, Any] = {"net": name, "one run, s": one}

        def stacked(number: int, by: Any = None) -> float:
            configs = [config(rate) for rate in rates[:number]]

            def work() -> None:
                plan = planned(build, dict(enumerate(configs)))
                ((numbers, way),) = plan.parts
                train_stack(build, [plan.built[number] for number in numbers], by or way)
                assert all(member.error is None for member in plan.built.values())

            return median(seconds(work) for _ in range(repeats))

        found[f"{MANY} rates as one"] = stacked(MANY) / one
        found[f"{MOST} as one"] = stacked(MOST) / one
        found[f"{MANY} by torch.func"] = stacked(MANY, Mapped) / one
        found[f"{MOST} in a bare stacked loop, without validation"] = work.bare_stack(MOST) / one
        turns = [config(rate) for rate in rates[:MANY]]
        found[f"{MANY} in turn"] = seconds(lambda: [train(build, each) for each in turns]) / one
        if "joblib" not in without:
            found[f"{MANY} by joblib, {os.cpu_count()} cores, a whole command"] = seconds(with_joblib) / one
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # scikit-learn would train longer
            found[f"{MANY} MLPClassifiers"] = seconds(fit_mlps) / one
    return found
