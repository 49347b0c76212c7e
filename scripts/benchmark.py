"""Measure; each figure is a ratio taken in this one run, the median of several.

python scripts/benchmark.py tables    # reading, encoding and predicting 1,000,000 rows of 28 numbers
python scripts/benchmark.py sweep     # learning rates trained as one network, beside one run and scikit-learn
python scripts/benchmark.py sweep --rows 6000 --epochs 1   # a look at whether it still runs
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl

ROWS, COLUMNS = 1_000_000, 28
REPEATS = 3


def measured_in_a_process(work: str, *words: str) -> tuple[float, float]:
    """Seconds, and the most memory above what was there before, in MiB, that a function here takes on its own."""
    command = [sys.executable, __file__, "--work", work, *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    seconds, memory = done.stdout.split()[-2:]
    return float(seconds), float(memory)


def resident() -> float:
    """MiB of this process that the kernel cannot drop: pages of a mapped file do not count, as it can drop those."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("RssAnon:")[1].split()[0]) / 1024


def measure(function: Callable[[], object]) -> None:
    before, most, done = resident(), [0.0], threading.Event()

    def watch() -> None:
        while not done.wait(0.002):
            most[0] = max(most[0], resident())

    watcher = threading.Thread(target=watch)
    watcher.start()
    start = time.perf_counter()
    kept = function()
    seconds = time.perf_counter() - start
    done.set()
    watcher.join()
    print(seconds, max(most[0], resident()) - before)
    del kept


def read_with_polars(path: str) -> None:
    measure(lambda: pl.read_csv(path))


def read_and_encode(path: str) -> None:
    from classify.columns import Number
    from classify.schema import Schema
    from classify.tables import read_csv

    schema = Schema("label", ("no", "yes"), (1, 1), tuple(Number(f"x{i}", 0.0, 1.0) for i in range(COLUMNS)))
    measure(lambda: schema.rows(read_csv(path, "label")))


def set_up(path: str) -> None:
    import sklearn.model_selection  # noqa: F401  (its import is no part of the work)

    from classify.columns import Columns
    from classify.data import TabularData
    from classify.split import Split
    from classify.tables import read_csv

    def work() -> TabularData:
        data = TabularData(path, read_csv, "label", Split(), Columns())
        data.setup()
        return data

    measure(work)


def predict_all(path: str, run: str) -> None:
    import torch  # noqa: F401  (imports are no part of the work)
    import tqdm  # noqa: F401

    from classify import heads, predict, tables  # noqa: F401
    from classify.run import Run  # noqa: F401

    sys.argv[1:] = [run, path, "-o", f"{run}/predictions.csv"]
    measure(predict.main)


def tables() -> None:
    random = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        file, run, out = f"{folder}/table.csv", f"{folder}/run", f"{folder}/predictions.csv"
        long = f"{folder}/long.csv"
        rows = random.normal(size=(ROWS, COLUMNS))
        labels = np.where(rows[:, 0] + rows[:, 1] ** 2 > 1, "yes", "no")
        frame = pl.DataFrame(rows, schema=[f"x{i}" for i in range(COLUMNS)]).with_columns(label=pl.Series(labels))
        frame.write_csv(file)
        with open(long, "wb") as four_times:
            for i in range(4):
                frame.write_csv(four_times, include_header=i == 0)
        del rows, labels, frame
        works = ("read_with_polars", "read_and_encode", "set_up")
        runs = [[measured_in_a_process(work, file) for work in works] for _ in range(REPEATS)]
        table = ROWS * COLUMNS * 4 / 2**20
        times = [statistics.median(run[i][0] / run[0][0] for run in runs) for i in range(3)]
        memory = [statistics.median(run[i][1] for run in runs) / table for i in range(3)]
        words = ["data=csv", f"data.path={file}", "data.target=label", "trainer.max_epochs=1", f"folder={run}"]
        subprocess.run([sys.executable, "-m", "classify.train", *words, "data.batch_size=4096"], check=True)
        seconds = []
        for _ in range(REPEATS):
            start = time.perf_counter()
            subprocess.run([sys.executable, "-m", "classify.predict", run, file, "-o", out], check=True)
            seconds.append(time.perf_counter() - start)
        most_memory = [measured_in_a_process("predict_all", table, run)[1] for table in (file, long)]
    print(f"\n{ROWS:,} rows of {COLUMNS} numbers as CSV, medians of {REPEATS}:")
    print("                                        time of polars.read_csv   float32 tables of memory")
    for name, seconds_ratio, most in zip(
        ("polars.read_csv", "read and encoded", "and split, fitted, hashed"), times, memory, strict=False
    ):
        print(f"  {name:36}  {seconds_ratio:21.2f}x  {most:24.2f}x")
    print(f"  predicted and written, imports and all: {ROWS / statistics.median(seconds):,.0f} rows/s")
    print(
        f"  memory of predict beyond imports: {most_memory[0]:.0f} MiB, for {4 * ROWS:,} rows {most_memory[1]:.0f} MiB"
    )


NETS = {  # columns, hidden widths, batch size
    "SEED 16-8-4-2, batch 32": (16, [8, 4], 32),
    "MID 28-64-64-2, batch 256": (28, [64, 64], 256),
}


def sweep(num_rows: int, epochs: int) -> None:
    import torch
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf
    from sklearn.neural_network import MLPClassifier

    from classify import build
    from classify.data import take
    from classify.errors import CONF
    from classify.sweep.training import train_population
    from classify.train import train

    torch.set_num_threads(1)
    print(f"{num_rows:,} training rows, {epochs} epochs, SGD, one thread; time over that of one run")
    for name, (columns, hidden, batch_size) in NETS.items():
        with tempfile.TemporaryDirectory() as folder, initialize_config_dir(str(CONF), version_base="1.3"):
            common = [f"data.read.num_features={columns}", f"model.hidden={hidden}", "data=clusters", "head=softmax"]
            common += [f"data.read.num_rows={num_rows * 5 // 3}", f"data.batch_size={batch_size}", "mode=min"]
            common += [f"trainer.max_epochs={epochs}", "callbacks.early_stopping=null"]
            rates = [0.001 * 1.05**i for i in range(64)]

            def config(i: int, common: list[str] = common, rates: list = rates, folder: str = folder) -> dict:
                words = [*common, f"optimizer.lr={rates[i]}", f"folder={folder}/{time.monotonic_ns()}", "test=false"]
                return OmegaConf.to_container(compose("config", words), resolve=True)  # type: ignore[return-value]

            def with_joblib(common: list[str] = common, rates: list = rates, folder: str = folder) -> None:
                words = [*common, f"optimizer.lr={','.join(map(str, rates[:16]))}", f"folder={folder}/joblib"]
                command = [sys.executable, "-m", "classify.train", "-m", "hydra/launcher=joblib", *words]
                subprocess.run(command, capture_output=True, check=True)

            def seconds(work: Callable[[], object]) -> float:
                start = time.perf_counter()
                work()
                return time.perf_counter() - start

            def fit_mlps(settings: dict) -> None:
                data = build.data(settings)
                rows, labels = take(data.rows, data.index["train"]), data.labels[data.index["train"]]
                for _ in range(16):
                    options = {"solver": "sgd", "learning_rate_init": 0.01, "momentum": 0.9, "tol": 0, "alpha": 0}
                    hidden, batch = settings["model"]["hidden"], settings["data"]["batch_size"]
                    mlp = MLPClassifier(hidden, batch_size=batch, max_iter=epochs, n_iter_no_change=epochs, **options)
                    mlp.fit(rows.numpy(), labels.numpy())

            one = statistics.median(seconds(lambda: train(config(0))) for _ in range(REPEATS))
            stacked = {n: seconds(lambda n=n: train_population([config(i) for i in range(n)])) / one for n in (16, 64)}
            alone = seconds(lambda: [train(config(i)) for i in range(16)]) / one
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # scikit-learn would train longer
                mlps = seconds(lambda: fit_mlps(config(0))) / one
            joblib = seconds(with_joblib) / one
            print(
                f"{name}: one run {one:.1f} s; 16 rates as one {stacked[16]:.2f}; 64 as one {stacked[64]:.2f}; "
                f"16 one after another {alone:.1f}; 16 MLPClassifiers {mlps:.1f}; "
                f"16 by hydra/launcher=joblib on {os.cpu_count()} cores, as a whole command {joblib:.1f}",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["tables", "sweep"], nargs="?")
    parser.add_argument("--rows", type=int, default=64_000, help="rows that train in a sweep")
    parser.add_argument("--epochs", type=int, default=8, help="of each run of a sweep")
    parser.add_argument("--work", nargs="+", help=argparse.SUPPRESS)
    words = parser.parse_args()
    if words.work:
        globals()[words.work[0]](*words.work[1:])
    elif words.what == "sweep":
        sweep(words.rows, words.epochs)
    else:
        tables()


if __name__ == "__main__":
    main()
