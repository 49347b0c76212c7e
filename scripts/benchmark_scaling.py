"""Time and memory of training on a table of 28 numbers, by its number of rows.

Part of benchmark.py: python scripts/benchmark.py scaling
"""

import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from benchmark_memory import measured

COLUMNS, BATCH = 28, 1024


def written(path: str, num_rows: int) -> None:
    import polars as pl  # not above, as this project says first how it gives memory back

    random = np.random.default_rng(0)
    rows = random.normal(size=(num_rows, COLUMNS)).astype(np.float32)
    frame = pl.DataFrame(rows, schema=[f"x{i}" for i in range(COLUMNS)])
    frame.with_columns(label=pl.Series(rows[:, 0] + rows[:, 1] ** 2 > 1)).write_parquet(path)


def parts(path: str, epochs: int) -> tuple[Any, Any, Any]:
    """The run's data, not yet set up, its config, and a folder."""
    import sklearn.model_selection  # noqa: F401  (imports are no part of the work)
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    from classify import build
    from tabrun.runs.build import conf, set_up
    from tabrun.training import train  # noqa: F401

    words = ["data=parquet", f"data.path={path}", "data.target=label", f"data.batch_size={BATCH}", "mode=min"]
    words += [f"trainer.max_epochs={epochs}", f"folder={path}.{time.monotonic_ns()}", "speed.threads=1"]
    with initialize_config_dir(str(conf(build)), version_base="1.3"):
        config: Any = OmegaConf.to_container(compose("config", words), resolve=True)
    return build, config, lambda: set_up(build, config)


def fitted(build: Any, config: Any, data: Any) -> object:
    from tabrun.training.trainer import trainer_of

    trainer = trainer_of(build, config, {"config": config, "schema": data.schema.plain(), "record": {}})
    trainer.fit(build.classifier(config, data.schema), data)
    return data


def set_up_and_train(path: str) -> Callable[[], object]:
    build, config, data = parts(path, 1)
    return lambda: fitted(build, config, data())


def train_only(path: str, epochs: str) -> Callable[[], object]:
    build, config, data = parts(path, int(epochs))
    ready = data()
    return lambda: fitted(build, config, ready)


def table(rows: Sequence[int] = (100_000, 1_000_000, 2_000_000, 4_000_000), repeats: int = 3) -> list[dict[str, Any]]:
    """For each number of rows: seconds of an epoch, memory over a float32 table's, of set-up and of training alone."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for num_rows in rows:
            path = f"{folder}/{num_rows}.parquet"
            written(path, num_rows)
            size = num_rows * COLUMNS * 4 / 2**20
            one = [measured("benchmark_scaling", "train_only", path, "1") for _ in range(repeats)]
            five = [measured("benchmark_scaling", "train_only", path, "5") for _ in range(repeats)]
            whole = measured("benchmark_scaling", "set_up_and_train", path)
            seconds = (median(s for s, _ in five) - median(s for s, _ in one)) / 4
            found.append(
                {
                    "rows": num_rows,
                    "seconds an epoch": seconds,
                    "microseconds a row": seconds / num_rows * 1e6,
                    "memory of set-up and training": whole[1] / size,
                    "of training alone, 1 epoch": 1 + median(m for _, m in one) / size,
                    "5 epochs": 1 + median(m for _, m in five) / size,
                }
            )
            Path(path).unlink()
    return found
