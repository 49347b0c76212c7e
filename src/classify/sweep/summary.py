"""Summary: what a sweep found, best first, on the terminal and in its folder."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import OmegaConf

from classify.errors import CONF
from classify.folder import write_json
from classify.run import Run, describe

log = logging.getLogger(__name__)

REPEATS = ("seed", "data.seed", "data.split.seed", "data.fold")  # repetitions of a setting, not settings


def summarise(
    folder: Path, overrides: dict[int, list[str]], configs: dict[int, dict[str, Any]], returns: Mapping[int, JobReturn]
) -> None:
    """Writes sweep.csv and best.yaml, shows the leaderboard, measures the winner on its test rows."""
    rows = [row(folder, number, words, returns[number]) for number, words in sorted(overrides.items())]
    monitor, mode = configs[min(configs)]["monitor"], configs[min(configs)]["mode"]
    varied = list(dict.fromkeys(key for r in rows for key in r["overrides"]))
    varied = [key for key in varied if len({json.dumps(r["overrides"].get(key)) for r in rows}) > 1]
    sign = 1 if mode == "min" else -1
    rows.sort(key=lambda r: (order(r["metrics"].get(monitor), sign), r["number"]))
    table = pl.DataFrame(
        [
            {"job": r["number"], **{key: text(r["overrides"].get(key)) for key in varied}, "status": r["status"]}
            | {"best_epoch": r["best_epoch"]}
            | {name: value for name, value in r["metrics"].items() if name.startswith("val/")}
            | {"folder": str(folder / str(r["number"]))}
            for r in rows
        ],
        infer_schema_length=None,
    )
    table.write_csv(folder / "sweep.csv")
    log.info("\n%s", shown(table.drop("folder")))
    if (repeats := [key for key in varied if key in REPEATS]) and monitor in table.columns:
        settings = [key for key in varied if key not in REPEATS]
        log.info("\nmean and standard deviation over %s:\n%s", ", ".join(repeats), shown(spread(table, settings)))
    failed = [r for r in rows if r["status"] != "finished"]
    for r in failed:
        log.error(
            "job %d failed: %s (%s)", r["number"], " ".join(r["error"].split()), folder / str(r["number"]) / "error.txt"
        )
    if rows[0]["status"] == "finished" and math.isfinite(rows[0]["metrics"].get(monitor, math.nan)):
        winner = rows[0]["number"]
        (folder / "best.yaml").write_text(experiment(rows[0]["words"]))
        run = replace(Run.open(folder / str(winner)), config=configs[winner], trust=True)  # this command's own
        tested = run.measure(run.data(), "test")
        write_json(folder / str(winner) / "metrics.json", rows[0]["metrics"] | tested)
        log.info("\nbest: job %d, on the test rows\n%s\n%s", winner, describe(tested), folder)


def row(folder: Path, number: int, words: list[str], done: JobReturn) -> dict[str, Any]:
    """What one job's folder says."""
    own, result = (
        folder / str(number),
        {"number": number, "words": words, "error": "", "metrics": {}, "best_epoch": None},
    )
    parsed = OverridesParser.create().parse_overrides(words)
    result["overrides"] = {o.key_or_group: o.value() for o in parsed if o.key_or_group != "folder"}
    if done.status == JobStatus.FAILED:
        return result | {"status": "failed", "error": str(done._return_value)}
    metrics = {k: v for k, v in json.loads((own / "metrics.json").read_text()).items() if k.startswith("val/")}
    return result | {"status": "finished", "metrics": metrics, "best_epoch": Run.open(own).num_epochs - 1}


def order(value: float | None, sign: int) -> tuple[int, float]:
    """Finite values by size, then NaN, then what has failed."""
    if value is None:
        return 2, 0.0
    return (1, 0.0) if math.isnan(value) else (0, sign * value)


def text(value: Any) -> str:
    return "" if value is None else str(value)


def spread(table: pl.DataFrame, settings: list[str]) -> pl.DataFrame:
    """Mean and standard deviation of each metric, for each setting, over its repetitions."""
    names = [name for name in table.columns if name.startswith("val/")]
    measures = [
        f(pl.col(name)).alias(f"{name} {word}")
        for name in names
        for word, f in (("mean", pl.Expr.mean), ("std", pl.Expr.std))
    ]
    if not settings:
        return table.select(pl.len().alias("jobs"), *measures)
    return table.group_by(settings, maintain_order=True).agg(pl.len().alias("jobs"), *measures)


def shown(table: pl.DataFrame) -> str:
    """Columns side by side, numbers with four digits."""
    cells = [
        [name, *("" if v is None else f"{v:.4f}" if isinstance(v, float) else str(v) for v in table[name])]
        for name in table.columns
    ]
    widths = [max(map(len, column)) for column in cells]
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True))
        for line in zip(*cells, strict=True)
    )


def experiment(words: list[str]) -> str:
    """The job as an experiment: copied to conf/experiment/, it trains the winner again."""
    defaults: list[Any] = []
    values = OmegaConf.create({"hydra": {"mode": "RUN"}})
    for override in OverridesParser.create().parse_overrides(words):
        key, value = override.key_or_group.split("@")[0], override.value()
        if key == "experiment":
            defaults.insert(0, value)
        elif (CONF / key).is_dir():
            defaults.append({f"override /{key}": value})
        elif key != "folder":
            OmegaConf.update(values, key, value)
    head = "# @package _global_\n# The best job of a sweep: copy it to conf/experiment/ and say experiment=best.\n"
    return head + OmegaConf.to_yaml(OmegaConf.create({"defaults": [*defaults, "_self_"]})) + OmegaConf.to_yaml(values)
