"""Summary: what a sweep found, best first, on the terminal and in its folder; the best, as an experiment and tested."""

import json
import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from tabrun.cli.errors import UserError
from tabrun.reading.values import aligned
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
    runs, overrides = finished(folder, jobs, build), {number: texts(words) for number, words in sorted(jobs.items())}
    keys = dict.fromkeys(key for own in overrides.values() for key in own)
    varied = [key for key in keys if len({own.get(key, "") for own in overrides.values()}) > 1]
    settings, repeats = [key for key in varied if key not in REPEATS], [key for key in varied if key in REPEATS]
    table = pl.DataFrame(
        [
            {"job": number, **{key: own.get(key, "") for key in varied}}
            | {**outcome(runs.get(number)), "folder": str(folder / str(number))}
            for number, own in overrides.items()
        ],
        infer_schema_length=None,
    )
    one = next(iter(runs.values()), None)
    table = ranked(table, settings if repeats else ["job"], one) if one else table
    write_whole(folder / "sweep.csv", table.write_csv().encode())
    more = f"\n... and {len(table) - SHOWN} more in {folder / 'sweep.csv'}" if len(table) > SHOWN else ""
    log.info("\n%s%s", shown(table.drop("folder")), more)
    if repeats and runs:
        log.info("\nmean and standard deviation over %s:\n%s", ", ".join(repeats), shown(spread(table, settings)))
    for number in sorted(overrides.keys() - runs.keys()):
        error = folder / str(number) / "error.txt"
        reason = error.read_text(errors="replace").split("\n")[0] if error.exists() else "unknown"
        log.error("job %d failed: %s (%s)", number, reason, error)
    best: Any = table.filter(pl.col(one.config["monitor"]).is_finite())["job"] if one else []
    if len(best) and (settings or not repeats):
        write_whole(folder / "best.yaml", experiment(jobs[best[0]], conf(build)).encode())
        run = Run.open(folder / str(best[0]), build, trust=trust)
        tested = run.measure(run.data(), "test")
        write_json(run.folder / "metrics.json", read_metrics(run.folder) | tested)
        log.info("\nbest: job %d, on the test rows\n%s", best[0], describe(tested))
    log.info("%s", folder)


def finished(folder: Path, jobs: Iterable[int], build: Build) -> dict[int, Run]:
    """The runs that have finished, without weights; UserError where what they say of the data meant other rows."""
    runs: dict[int, Run] = {}
    seen: dict[str, int] = {}
    for number in sorted(jobs):
        if (folder / str(number) / "metrics.json").exists():
            runs[number] = run = replace(Run.open(folder / str(number), build), weights={})
            first = seen.setdefault(json.dumps(run.config["data"] | {"seed": None}), number)
            if runs[first].record["data_sha256"] != run.record["data_sha256"]:
                raise UserError(f"the data has changed between job {first} and job {number}: name a new folder")
    return runs


def texts(words: list[str]) -> dict[str, str]:
    """The overrides of a job by key, their values as text."""
    parsed = OverridesParser.create().parse_overrides(words)
    values = {str(o.key_or_group): o.value() for o in parsed if o.key_or_group != "folder"}
    return {key: "" if value is None else str(value) for key, value in values.items()}


def outcome(run: Run | None) -> dict[str, Any]:
    """What a job's folder says."""
    if run is None:
        return {"status": "failed", "best_epoch": None}
    seen = read_json(run.folder / "run.json", dict[str, Any])
    diverged = (seen.get("train/loss") or 0.0) > seen.get("chance", float("inf"))
    metrics = {name: value for name, value in read_metrics(run.folder).items() if name.startswith("val/")}
    return {"status": "worse than chance" if diverged else "finished", "best_epoch": run.num_epochs - 1, **metrics}


def ranked(table: pl.DataFrame, setting: list[str], run: Run) -> pl.DataFrame:
    """Jobs by the mean of what `run` monitors over their setting; last where a repetition failed, before them NaN."""
    metric, sign = pl.col(run.config["monitor"]), 1 if run.config["mode"] == "min" else -1
    finite = pl.when(metric.is_finite()).then(metric)
    keys = [metric.is_null().any(), finite.is_null().any(), sign * finite.mean()]
    return table.sort(*(key.over(setting or pl.lit(0)) for key in keys), *setting, "job", nulls_last=True)


def spread(table: pl.DataFrame, settings: list[str]) -> pl.DataFrame:
    """Mean and standard deviation of each metric, for each setting, over its repetitions."""
    columns = [pl.col(name) for name in table.columns if name.startswith("val/")]
    measures = [part for c in columns for part in (c.mean().name.suffix(" mean"), c.std().name.suffix(" std"))]
    gather = table.group_by(settings, maintain_order=True).agg if settings else table.select
    return gather(pl.len().alias("jobs"), *measures)


def shown(table: pl.DataFrame) -> str:
    """The first rows, of texts and numbers that a search drew four digits."""
    rows = table.head(SHOWN).rows()
    short = [[LONG.sub(lambda n: f"{float(n[0]):.4g}", c) if isinstance(c, str) else c for c in row] for row in rows]
    return aligned([table.columns, *short])


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
