"""How well this project's runs predict, beside what people would pick instead, on a folder of tables.

Part of benchmark.py: python scripts/benchmark.py accuracy FOLDER
"""

import json
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from ways import ways

SEEDS = 5  # of stratified splits: 60 % train, 20 % validate, 20 % test
ADDED = 0.01  # to each value, so that a table on which nearly nothing is wrong does not decide the mean
MISSING = ["", "NA", "N/A", "NaN", "nan", "null", "NULL", "?"]  # what data=csv takes for missing
# of OpenML-CC18 and TabArena, of at most 20,000 rows
OPENML = (
    *("credit-g", "diabetes", "vehicle", "phoneme", "qsar-biodeg", "wdbc", "blood-transfusion-service-center", "ilpd"),
    *("cmc", "car", "segment", "steel-plates-fault", "spambase", "churn", "wilt", "pc4", "kc1", "credit-approval"),
    *("banknote-authentication", "wall-robot-navigation", "balance-scale", "tic-tac-toe"),
)


def tables(folder: str | None) -> dict[str, Path]:
    """CSV files with a column `target`, by name: those of the folder, or of OpenML, fetched once."""
    if folder:
        found = {path.stem: path for path in sorted(Path(folder).glob("*.csv"))}
        if not found:
            sys.exit(f"error: no CSV file in {folder}")
        return found
    from sklearn.datasets import fetch_openml

    kept = Path.home() / ".cache" / "classify" / "openml"
    kept.mkdir(parents=True, exist_ok=True)
    for name in OPENML:
        path = kept / f"{name}.csv"
        if not path.exists():
            try:
                bunch = fetch_openml(name, version=1, as_frame=True, parser="auto")
            except Exception as error:
                sys.exit(f"error: {name} is not fetched from OpenML ({error}): give a folder of CSV files instead")
            bunch.data.assign(target=bunch.target).to_csv(path, index=False)
    return {name: kept / f"{name}.csv" for name in OPENML}


def split(labels: np.ndarray, seed: int) -> np.ndarray:
    """train, val or test for each row."""
    from sklearn.model_selection import train_test_split

    rest, test = train_test_split(np.arange(len(labels)), test_size=0.2, stratify=labels, random_state=seed)
    _, val = train_test_split(rest, test_size=0.25, stratify=labels[rest], random_state=seed)
    parts = np.full(len(labels), "train", dtype=object)
    parts[val], parts[test] = "val", "test"
    return parts


def measured(path: Path, seed: int, name: str, added: Sequence[str], threads: int) -> dict[str, Any]:
    """One line of results: this way on this split of this table."""
    import torch
    from sklearn.metrics import log_loss, roc_auc_score

    torch.set_num_threads(threads)
    warnings.simplefilter("ignore")
    frame = pd.read_csv(path, na_values=MISSING, keep_default_na=False)
    labels = np.unique(frame.pop("target").astype(str), return_inverse=True)[1]
    parts = split(labels, seed)
    try:
        found, fit, predict = ways(added)[name](frame, labels, parts, threads)
    except Exception as error:  # some cannot be told between processes
        raise RuntimeError(f"{path.stem}, split {seed}, {name}: {error}") from None
    truth = labels[parts == "test"]
    scores = found[:, 1] if found.shape[1] == 2 else found / found.sum(1, keepdims=True)
    return {
        "table": path.stem,
        "seed": seed,
        "name": name,
        "loss": log_loss(truth, found / found.sum(1, keepdims=True), labels=range(found.shape[1])),
        "auroc": 1 - roc_auc_score(truth, scores, multi_class="ovr"),
        "error": float((found.argmax(1) != truth).mean()),
        "fit": fit,
        "predict": predict,
    }


def all_lines(
    file: Path, paths: dict[str, Path], names: Sequence[str], added: Sequence[str], options: Any
) -> list[Any]:
    """All lines, of which those that the file holds already are not measured again."""
    done = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    have = {(line["table"], line["seed"], line["name"]) for line in done}
    wanted = [(table, seed, name) for seed in range(options["splits"]) for table in paths for name in names]
    with ProcessPoolExecutor(options["jobs"], get_context("spawn")) as pool, file.open("a") as sink:
        rest = [key for key in wanted if key not in have]
        work = {
            pool.submit(measured, paths[table], seed, name, added, options["threads"]): (table, seed, name)
            for table, seed, name in rest
        }
        for number, future in enumerate(as_completed(work), 1):
            table, seed, name = work[future]
            print(f"{number} of {len(rest)}: {table}, split {seed}, {name}", file=sys.stderr)
            sink.write(json.dumps(future.result()) + "\n")
            sink.flush()
            done.append(future.result())
    return [line for line in done if (line["table"], line["seed"], line["name"]) in set(wanted)]


def ratios(lines: Sequence[dict[str, Any]], name: str, reference: str, what: str) -> np.ndarray:
    """For each table, (mean over splits + ADDED) over that of the reference."""
    frame = pd.DataFrame(lines).pivot_table(index="table", columns="name", values=what)
    return ((frame[name] + ADDED) / (frame[reference] + ADDED)).to_numpy()


def holm(values: Sequence[float]) -> np.ndarray:
    """p values, each times how many are no smaller, and no smaller than those before (Holm 1979)."""
    order = np.argsort(values)
    adjusted = np.maximum.accumulate(np.sort(values) * np.arange(len(values), 0, -1)).clip(max=1)
    return adjusted[np.argsort(order)]


def compared(lines: Sequence[dict[str, Any]], names: Sequence[str], reference: str) -> Iterator[dict[str, Any]]:
    """For each way: ratios over tables to the reference, tables ahead and behind, Wilcoxon's p, median seconds."""
    from scipy.stats import wilcoxon

    frame = pd.DataFrame(lines)
    others = [name for name in names if name != reference]
    logs = {name: np.log(ratios(lines, name, reference, "loss")) for name in names}
    tests = dict(zip(others, holm([wilcoxon(logs[name]).pvalue for name in others]), strict=True))
    for name in names:
        own = frame[frame["name"] == name]
        yield {
            "": name,
            **{
                what: float(np.exp(np.log(ratios(lines, name, reference, what)).mean()))
                for what in ("loss", "auroc", "error")
            },
            "ahead, tied, behind": "{} {} {}".format(*(int(n) for n in counted(logs[name]))),
            "p": float(tests.get(name, 1.0)),
            "fit, s": float(own["fit"].median()),
            "predict, s": float(own["predict"].median()),
        }


def counted(logs: np.ndarray, tie: float = 0.005) -> tuple[int, int, int]:
    """Tables where a way is better, the same to 0.5 %, and worse."""
    return (logs < -tie).sum(), (abs(logs) <= tie).sum(), (logs > tie).sum()


def table(
    folder: str | None = None,
    results: str = "accuracy.jsonl",
    splits: int = SEEDS,
    threads: int = 1,
    jobs: int = 1,
    only: Sequence[str] = (),
    without: Sequence[str] = (),
    added: Sequence[str] = (),
    reference: str = "CatBoost",
) -> list[dict[str, Any]]:
    """For each way its losses, AUROCs' complements and errors over the reference's, over all tables of a folder."""
    os.environ["OMP_NUM_THREADS"] = str(threads)  # before anything of these is imported in the processes of the pool
    names = [name for name in ways(added) if name not in without and (not only or name in (*only, reference))]
    if reference not in names:
        sys.exit(f"error: {reference} is not installed: pip install -e '.[rivals]', or another --reference")
    options = {"splits": splits, "threads": threads, "jobs": jobs}
    lines = all_lines(Path(results), tables(folder), names, added, options)
    return list(compared(lines, names, reference))
