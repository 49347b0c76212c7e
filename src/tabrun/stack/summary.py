"""Summary: what a sweep found, best first, on the terminal and in its folder; the best, as an experiment and tested."""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from tabrun.cli.errors import UserError
from tabrun.runs.build import Build, conf
from tabrun.runs.folder import read_json, read_metrics, write_json, write_whole
from tabrun.runs.run import Run, describe

log = logging.getLogger(__name__)

REPEATS = ("seed", "data.seed", "data.split.seed", "data.fold")  # repetitions of a setting, not settings
SHOWN = 20  # lines of the leaderboard on the terminal
LONG = re.compile(r"\d+\.\d{6,}(e-?\d+)?")  # a number that a search drew


def summarise(folder: Path, jobs: Mapping[int, list[str]], build: Build, trust: bool) -> None:
    """Writes sweep.csv, shows the leaderboard, and crowns the best setting, unless the jobs only repeat one.

    jobs: the overrides of each by its number; the rest is read from their folders. Settings are ranked by their mean
    over seeds and folds. Of the best, the first repetition goes on to best.yaml and the test rows: it was not chosen
    for its luck.
    """
    rows = [row(folder, number, words, build) for number, words in sorted(jobs.items())]
    check_tables(rows)
    keys = dict.fromkeys(key for r in rows for key in r["overrides"])
    varied = [key for key in keys if len({text(r["overrides"].get(key)) for r in rows}) > 1]
    settings = [key for key in varied if key not in REPEATS]
    repeats = [key for key in varied if key in REPEATS]
    monitor, sign = next((r["monitored"] for r in rows if r["metrics"]), ("", 1))
    rows = ranked(rows, settings if repeats else ["number"], monitor, sign)
    table = pl.DataFrame(
        [
            {"job": r["number"], **{key: text(r["overrides"].get(key)) for key in varied}, "status": r["status"]}
            | {"best_epoch": r["best_epoch"], **r["metrics"], "folder": str(folder / str(r["number"]))}
            for r in rows
        ],
        infer_schema_length=None,
    )
    write_whole(folder / "sweep.csv", table.write_csv().encode())
    more = f"\n... and {len(table) - SHOWN} more in {folder / 'sweep.csv'}" if len(table) > SHOWN else ""
    log.info("\n%s%s", shown(table.drop("folder").head(SHOWN)), more)
    if repeats and monitor:
        means = shown(spread(table, settings).head(SHOWN))
        log.info("\nmean and standard deviation over %s:\n%s", ", ".join(repeats), means)
    for r in rows:
        if r["status"] == "failed":
            log.error("job %d failed: %s (%s)", r["number"], r["error"], folder / str(r["number"]) / "error.txt")
    finite = [r for r in rows if math.isfinite(r["metrics"].get(monitor, math.nan))]
    if finite and (settings or not repeats):
        best = finite[0]
        write_whole(folder / "best.yaml", experiment(best["words"], conf(build)).encode())
        run = Run.open(folder / str(best["number"]), build, trust=trust)
        tested = run.measure(run.data(), "test")
        write_json(run.folder / "metrics.json", best["metrics"] | tested)
        log.info("\nbest: job %d, on the test rows\n%s", best["number"], describe(tested))
    log.info("%s", folder)


def row(folder: Path, number: int, words: list[str], build: Build) -> dict[str, Any]:
    """What one job's folder says."""
    own = folder / str(number)
    result: dict[str, Any] = {"number": number, "words": words, "error": "", "metrics": {}, "best_epoch": None}
    parsed = OverridesParser.create().parse_overrides(words)
    result["overrides"] = {o.key_or_group: o.value() for o in parsed if o.key_or_group != "folder"}
    if not (own / "metrics.json").exists():
        error = own / "error.txt"
        return result | {
            "status": "failed",
            "error": error.read_text(errors="replace").split("\n")[0] if error.exists() else "unknown",
        }
    metrics = {k: v for k, v in read_metrics(own).items() if k.startswith("val/")}
    run = Run.open(own, build)
    monitored = run.config["monitor"], 1 if run.config["mode"] == "min" else -1
    seen = read_json(own / "run.json", dict[str, Any])
    diverged = (seen.get("train/loss") or 0.0) > seen.get("chance", math.inf)
    return result | {
        "status": "worse than chance" if diverged else "finished",
        "data": json.dumps(run.config["data"] | {"seed": None}),
        "sha256": run.record["data_sha256"],
        "metrics": metrics,
        "best_epoch": run.num_epochs - 1,
        "monitored": monitored,
    }


def check_tables(rows: list[dict[str, Any]]) -> None:
    """Raises UserError where jobs that say the same of the data were trained on different rows."""
    seen: dict[Any, Any] = {}
    for r in rows:
        number, sha256 = seen.setdefault(r.get("data"), (r["number"], r.get("sha256")))
        if sha256 != r.get("sha256"):
            raise UserError(f"the data has changed between job {number} and job {r['number']}: name a new folder")


def ranked(rows: list[dict[str, Any]], settings: list[str], monitor: str, sign: int) -> list[dict[str, Any]]:
    """Jobs by the mean of the monitored metric over those of the same setting; within one, by number.

    sign: 1 where less is better, else -1.
    """
    found: dict[str, list[float | None]] = {}

    def setting(row: dict[str, Any]) -> str:
        return "\n".join(text((row | row["overrides"]).get(key)) for key in settings)

    for row in rows:
        found.setdefault(setting(row), []).append(row["metrics"].get(monitor))
    return sorted(rows, key=lambda row: (order(found[setting(row)], sign), setting(row), row["number"]))


def order(values: list[float | None], sign: int) -> tuple[int, float]:
    """By the mean; after them settings of which a repetition gave NaN, then those of which one failed."""
    finite = [value for value in values if value is not None and math.isfinite(value)]
    worst = 2 if None in values else 1 if len(finite) < len(values) else 0
    return worst, sign * sum(finite) / len(finite) if finite else math.inf


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


def short(number: re.Match[str]) -> str:
    return f"{float(number[0]):.4g}"


def shown(table: pl.DataFrame) -> str:
    """Columns side by side, numbers with four digits."""
    cells = [
        [name, *("" if v is None else f"{v:.4f}" if isinstance(v, float) else LONG.sub(short, str(v)) for v in column)]
        for name, column in table.to_dict().items()
    ]
    widths = [max(map(len, column)) for column in cells]
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True))
        for line in zip(*cells, strict=True)
    )


def experiment(words: list[str], conf: Path) -> str:
    """The job as an experiment: copied to conf/experiment/, it trains the winner again."""
    defaults: list[Any] = []
    values = OmegaConf.create({"hydra": {"mode": "RUN"}})
    for override in OverridesParser.create().parse_overrides(words):
        key, value = override.key_or_group.split("@")[0], override.value()
        if key == "experiment":
            defaults.insert(0, value)
        elif (conf / key).is_dir():
            defaults.append({f"override /{key}": value})
        elif key != "folder" and not key.startswith("sweep."):
            OmegaConf.update(values, key, value)
    head = "# @package _global_\n# The best job of a sweep: copy it to conf/experiment/ and say experiment=best.\n"
    return head + OmegaConf.to_yaml(OmegaConf.create({"defaults": [*defaults, "_self_"]})) + OmegaConf.to_yaml(values)
