"""Measure; each figure is a ratio taken in this one run, the median of several.

python scripts/benchmark.py tables    # reading, encoding and predicting 1,000,000 rows of 28 numbers
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import threading
import time
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
    from classify.data import TabularData
    from classify.schema import Columns
    from classify.split import Split
    from classify.tables import read_csv

    def work() -> TabularData:
        data = TabularData(path, read_csv, "label", Split(), Columns())
        data.setup()
        return data

    import sklearn.model_selection  # noqa: F401  (an import, which the goal leaves out)

    measure(work)


def tables() -> None:
    random = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        file, run, out = f"{folder}/table.csv", f"{folder}/run", f"{folder}/predictions.csv"
        rows = random.normal(size=(ROWS, COLUMNS))
        labels = np.where(rows[:, 0] + rows[:, 1] ** 2 > 1, "yes", "no")
        frame = pl.DataFrame(rows, schema=[f"x{i}" for i in range(COLUMNS)]).with_columns(label=pl.Series(labels))
        frame.write_csv(file)
        del rows, labels, frame
        pairs = [
            (measured_in_a_process("read_with_polars", file), measured_in_a_process("read_and_encode", file))
            for _ in range(REPEATS)
        ]
        table = ROWS * COLUMNS * 4 / 2**20
        time_ratio = statistics.median(ours[0] / polars[0] for polars, ours in pairs)
        memory = [statistics.median(pair[i][1] for pair in pairs) / table for i in (0, 1)]
        words = ["data=csv", f"data.path={file}", "data.target=label", "trainer.max_epochs=1", f"folder={run}"]
        subprocess.run([sys.executable, "-m", "classify.train", *words, "data.batch_size=4096"], check=True)
        seconds = []
        for _ in range(REPEATS):
            start = time.perf_counter()
            subprocess.run([sys.executable, "-m", "classify.predict", run, file, "-o", out], check=True)
            seconds.append(time.perf_counter() - start)
    print(f"\n{ROWS:,} rows of {COLUMNS} numbers as CSV, medians of {REPEATS}:")
    print(f"  read, split and encoded in {time_ratio:.2f} times the time of polars.read_csv")
    print(f"  most memory {memory[1]:.2f} times the float32 table (polars.read_csv alone: {memory[0]:.2f})")
    print(f"  predicted and written, imports and all: {ROWS / statistics.median(seconds):,.0f} rows/s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["tables"], nargs="?")
    parser.add_argument("--work", nargs=2, help=argparse.SUPPRESS)
    words = parser.parse_args()
    if words.work:
        globals()[words.work[0]](words.work[1])
    else:
        globals()[words.what or "tables"]()


if __name__ == "__main__":
    main()
