"""Reading, encoding and predicting a CSV of 28 numbers.

Part of benchmark.py: python scripts/benchmark.py tables
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import numpy as np
from benchmark_memory import measured

COLUMNS = 28


def read_with_polars(path: str) -> Callable[[], object]:
    import polars as pl  # in each function, as this project says first how it gives memory back

    return lambda: pl.read_csv(path)


def read_and_encode(path: str) -> Callable[[], object]:
    from tabrun.reading.sources import read_csv
    from tabrun.tables.columns import Number
    from tabrun.tables.schema import Schema

    schema = Schema("label", ("no", "yes"), (1, 1), tuple(Number(f"x{i}", 0.0, 1.0) for i in range(COLUMNS)))
    return lambda: schema.rows(read_csv(path, "label"))


def set_up(path: str) -> Callable[[], object]:
    import sklearn.model_selection  # noqa: F401  (its import is no part of the work)

    from tabrun.reading.sources import read_csv
    from tabrun.tables.columns import Columns
    from tabrun.tables.data import TabularData
    from tabrun.tables.split import Split

    data = TabularData(path, read_csv, "label", Split(), Columns())
    return data.setup


def look_at(path: str) -> Callable[[], object]:
    import sklearn.tree  # noqa: F401

    from tabrun.reading.sources import read_csv
    from tabrun.tables.columns import Columns
    from tabrun.tables.data import TabularData
    from tabrun.tables.overview import looked_at
    from tabrun.tables.split import Split

    data = TabularData(path, read_csv, "label", Split(), Columns(), look=False)
    data.setup()
    frame, parts = data.labelled()[0], {name: rows.numpy() for name, rows in data.index.items()}
    return lambda: looked_at(frame, data.schema, data.labels.numpy(), parts, data.columns, {"label": "target"})


def predict_all(path: str, run: str) -> Callable[[], object]:
    import torch  # noqa: F401  (imports are no part of the work)
    import tqdm  # noqa: F401

    from classify import build
    from tabrun.reading import sources as tables  # noqa: F401
    from tabrun.runs.run import Run  # noqa: F401
    from tabrun.verbs import predict

    sys.argv[1:] = [run, path, "-o", f"{run}/predictions.csv"]
    return lambda: predict.main(build)


def write(file: str, num_rows: int, times: int = 1) -> None:
    import polars as pl

    random = np.random.default_rng(0)
    rows = random.normal(size=(num_rows, COLUMNS))
    labels = np.where(rows[:, 0] + rows[:, 1] ** 2 > 1, "yes", "no")
    frame = pl.DataFrame(rows, schema=[f"x{i}" for i in range(COLUMNS)]).with_columns(label=pl.Series(labels))
    with open(file, "wb") as sink:
        for i in range(times):
            frame.write_csv(sink, include_header=i == 0)


def table(rows: Sequence[int] = (1_000_000,), repeats: int = 3) -> list[dict[str, Any]]:
    """For each number of rows: seconds over those of polars.read_csv, memory over a float32 table's, rows a second."""
    found = []
    for num_rows in rows:
        with tempfile.TemporaryDirectory() as folder:
            file, long, run, out = (f"{folder}/{name}" for name in ("table.csv", "long.csv", "run", "predictions.csv"))
            write(file, num_rows)
            write(long, num_rows, times=4)
            works = ("read_with_polars", "read_and_encode", "set_up", "look_at")
            runs = [[measured("benchmark_tables", work, file) for work in works] for _ in range(repeats)]
            words = ["data=csv", f"data.path={file}", "data.target=label", "trainer.max_epochs=1", f"folder={run}"]
            train = [sys.executable, "-m", "classify.train", *words, "data.batch_size=4096"]
            subprocess.run(train, check=True, capture_output=True)
            seconds = []
            for _ in range(repeats):
                start = time.perf_counter()
                subprocess.run([sys.executable, "-m", "classify.predict", run, file, "-o", out], check=True)
                seconds.append(time.perf_counter() - start)
            once, longer = (measured("benchmark_tables", "predict_all", path, run) for path in (file, long))
        size = num_rows * COLUMNS * 4 / 2**20
        row: dict[str, Any] = {"rows": num_rows}
        for i, name in enumerate(("polars.read_csv", "read and encoded", "and split, fitted, looked at, hashed")):
            row[f"{name}: time"] = median(run[i][0] / run[0][0] for run in runs)
            row[f"{name}: memory"] = median(run[i][1] for run in runs) / size
        row["look: time, over that of reading"] = median(run[3][0] / run[1][0] for run in runs)
        row |= {"predict, rows a second": num_rows / once[0], "with its imports": num_rows / median(seconds)}
        found.append(row | {"predict, MiB": once[1], "MiB for 4 times the rows": longer[1]})
    return found
