"""Winner: which setting of a sweep is the best; its first job as an experiment, and on the test rows."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from tabrun.runs.folder import write_json, write_whole
from tabrun.cli.keys import CONF
from tabrun.runs.run import Run, describe

log = logging.getLogger(__name__)


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


def crown(folder: Path, number: int, words: list[str], metrics: dict[str, float], trust: bool) -> None:
    """Writes best.yaml into the sweep's folder, and measures the job on its test rows."""
    write_whole(folder / "best.yaml", experiment(words).encode())
    run = Run.open(folder / str(number), trust=trust)
    tested = run.measure(run.data(), "test")
    write_json(folder / str(number) / "metrics.json", metrics | tested)
    log.info("\nbest: job %d, on the test rows\n%s", number, describe(tested))


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
        elif key != "folder" and not key.startswith("sweep."):
            OmegaConf.update(values, key, value)
    head = "# @package _global_\n# The best job of a sweep: copy it to conf/experiment/ and say experiment=best.\n"
    return head + OmegaConf.to_yaml(OmegaConf.create({"defaults": [*defaults, "_self_"]})) + OmegaConf.to_yaml(values)
