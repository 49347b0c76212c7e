"""Ways to fit a table: each takes a frame, its labels, the part of each row and a number of threads.

Part of benchmark.py: python scripts/benchmark.py accuracy FOLDER
"""

import logging
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from rivals import Part, Predict, installed

OURS = {
    "default": (),
    "strong, one net": ("experiment=strong", "ensemble.folds=null", "ensemble.vary=null"),
    "strong": ("experiment=strong",),
}


def rival(fit: Callable[..., Predict]) -> Callable[..., tuple[np.ndarray, float, float]]:
    """Somebody else's way, fitted to the training rows and stopped on the validation rows."""

    def work(frame: pd.DataFrame, labels: np.ndarray, parts: np.ndarray, threads: int) -> tuple[Any, float, float]:
        frame = with_dates(frame)
        texts = frame.columns[[not pd.api.types.is_numeric_dtype(kind) for kind in frame.dtypes]]
        frame = frame.astype(dict.fromkeys(texts, "category"))
        train, val, test = (Part(frame[parts == name], labels[parts == name]) for name in ("train", "val", "test"))
        began = time.perf_counter()
        predict = fit(train, val, threads)
        fitted = time.perf_counter()
        return predict(test.rows), fitted - began, time.perf_counter() - fitted

    return work


def with_dates(frame: pd.DataFrame) -> pd.DataFrame:
    """Columns of dates as seconds, and beside them weekday and hour, as rivals know no dates."""
    for name in frame.columns[[not pd.api.types.is_numeric_dtype(kind) for kind in frame.dtypes]]:
        dates = pd.to_datetime(frame[name], format="ISO8601", errors="coerce")
        if dates.notna().any() and (dates.notna() | frame[name].isna()).all():
            parts = {f"{name} weekday": dates.dt.weekday, f"{name} hour": dates.dt.hour}
            frame = frame.assign(**{name: (dates - pd.Timestamp(0)).dt.total_seconds()}, **parts)
    return frame


def ours(*overrides: str) -> Callable[..., tuple[np.ndarray, float, float]]:
    """A run of `data=csv` with these overrides, as the command trains it, on the same rows."""

    def work(frame: pd.DataFrame, labels: np.ndarray, parts: np.ndarray, threads: int) -> tuple[Any, float, float]:
        from hydra import compose, initialize_config_dir

        from classify import build, load
        from tabrun.runs.build import conf, num_members, resolved
        from tabrun.stack.ensemble import train_ensemble
        from tabrun.training.train import train

        logging.getLogger().setLevel(logging.ERROR)
        with tempfile.TemporaryDirectory() as folder:
            path = f"{folder}/table.csv"
            names = [f"c{label:04}" for label in labels]  # whose order is the labels'
            frame.assign(target=names, part=parts).to_csv(path, index=False)
            words = ["data=csv", f"data.path={path}", "data.target=target", "data.split.column=part", *overrides]
            rarest = np.bincount(labels[parts != "test"]).min()
            if rarest < 8 and "experiment=strong" in overrides and "ensemble.folds=null" not in overrides:
                words.append(f"ensemble.folds={rarest}")  # as the refusal of 8 says
            with initialize_config_dir(str(conf(build)), version_base="1.3"):
                cfg = compose("config", [*words, f"speed.threads={threads}", "logger={}"])
            config = resolved(build, cfg, f"{folder}/run", test=False)
            began = time.perf_counter()
            (train_ensemble if num_members(config) else train)(build, config)
            classifier = load(f"{folder}/run")
            fitted = time.perf_counter()
            found = classifier.predict_proba(frame[parts == "test"])
            return found, fitted - began, time.perf_counter() - fitted

    return work


def ways(added: Sequence[str] = ()) -> dict[str, Callable[..., tuple[np.ndarray, float, float]]]:
    """Everything that is compared, by name; `added` are further runs of ours, by the words of each."""
    own = OURS | {words: tuple(words.split()) for words in added}
    fitted = {name: rival(fit) for name, fit in installed().items()}
    return fitted | {name: ours(*words) for name, words in own.items()}
