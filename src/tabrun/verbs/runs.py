"""Runs: lists the runs and sweeps below a folder, or compares two runs."""

from __future__ import annotations

import csv
import json
import time
from pathlib import Path
from typing import Any

from tabrun.cli.errors import Parser, UserError, one_line_errors, visible
from tabrun.runs.build import Build
from tabrun.runs.folder import STARTED

SAME = ("folder", "resume", "rerun", "trust")  # keys in which all runs differ
WIDEST = 60  # characters of the overrides that are shown
AGES = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))


def listed(top: Path, words: list[str]) -> list[list[Any]]:
    """A row for each run, or sweep, that holds all words: folder, table, overrides, metric, state, age; newest last."""
    found = []
    for note in top.glob(f"**/{STARTED}"):
        folder = note.parent.parent
        if not (folder.parent / "sweep.json").exists():
            found.append((note.stat().st_mtime, row(folder, read(note))))
    for note in top.glob("**/sweep.json"):
        found.append((note.stat().st_mtime, sweep_row(note)))
    rows = [each for _, each in sorted(found, key=lambda pair: pair[0])]
    return [each for each in rows if all(word in " ".join(map(str, each)) for word in words)]


def read(file: Path) -> Any:
    try:
        return json.loads(file.read_text())
    except (OSError, ValueError):  # it is being written, or is damaged: the rest is still of use
        return {}


def row(folder: Path, config: dict[str, Any]) -> list[Any]:
    metrics, monitor = read(folder / "metrics.json"), config.get("monitor", "")
    failed, kept = (folder / "error.txt").exists(), (folder / "checkpoints" / "last.ckpt").exists()
    state = "finished" if metrics else "failed" if failed else "unfinished" if kept else "nothing kept"
    data = config.get("data", {})
    return [str(folder), Path(str(data.get("path"))).name, said(folder), metrics.get(monitor), state, age(folder)]


def sweep_row(note: Path) -> list[Any]:
    """The metric is the winner's, or of repetitions the first one's."""
    folder, words = note.parent, [word for word in read(note) if "=" in word]
    given = {key: value for key, _, value in (word.partition("=") for word in words)}
    jobs, best = len(list(folder.glob("[0-9]*/metrics.json"))), None
    if (folder / "sweep.csv").exists():
        with (folder / "sweep.csv").open(newline="") as table:
            winner = next(csv.DictReader(table), {}).get("job", "")  # a range test has none
        best = read(folder / winner / "metrics.json").get(given.get("monitor", "val/loss"))
    table_name = Path(given.get("data.path", given.get("data", ""))).name
    overrides = " ".join(word for word in words if not word.startswith("data.path="))
    return [str(folder), table_name, overrides, best, f"{jobs} jobs" + ("" if best else " so far"), age(folder)]


def said(folder: Path) -> str:
    """The words of the command line, but for the table's and the folder's."""
    file = folder / ".hydra" / "overrides.yaml"
    lines = [line.removeprefix("- ").strip("'\"") for line in file.read_text().splitlines()] if file.exists() else []
    return " ".join(line for line in lines if not line.startswith(("folder=", "data.path=", "[]")))


def cut(text: str) -> str:
    return text if len(text) <= WIDEST else f"{text[: WIDEST - 4]} ..."


def age(folder: Path) -> str:
    seconds = time.time() - folder.stat().st_mtime
    return next(f"{seconds // size:.0f} {name}" for size, name in AGES if seconds >= size or size == 1)


def compared(one: Path, other: Path, build: Build) -> list[list[Any]]:
    """A row for each key of the config, each metric and each fact of the record in which two runs differ."""
    from tabrun.cli.keys import leaves
    from tabrun.runs.run import Run

    sides = []
    for folder in (one, other):
        record = read(folder / "run.json")
        facts = {key: record.get(key) for key in ("git_commit", "data_sha256", "epochs")}
        sides.append(dict(leaves(Run.open(folder, build).config)) | read(folder / "metrics.json") | facts)
    keys = [key for key in dict.fromkeys([*sides[0], *sides[1]]) if key.rpartition(".")[2] not in SAME]
    return [[key, *(side.get(key) for side in sides)] for key in keys if sides[0].get(key) != sides[1].get(key)]


def main(build: Build) -> None:
    parser = Parser(prog=f"python -m {build.__package__}.runs", description=__doc__)
    parser.add_argument("words", nargs="*", help="a folder (outputs) and words that a row holds; or two runs' folders")
    words = parser.parse_args().words
    with one_line_errors():
        from tabrun.reading.values import aligned

        folders = [word for word in words if Path(word).is_dir()]
        if len(folders) == 2 == len(words):
            rows = compared(Path(words[0]), Path(words[1]), build)
            print(visible(aligned([["", *words], *rows]) if rows else "they are equal"))
            return
        top = Path(folders[0] if folders else "outputs")
        if not top.is_dir():
            raise UserError(f"there is no folder {top}: name one that holds runs")
        rows = listed(top, [word for word in words if word not in folders])
        if not rows:
            raise UserError(f"{top} holds no runs{' of these words' if len(words) > len(folders) else ''}")
        short = [[*each[:2], cut(each[2]), *each[3:]] for each in rows]
        print(visible(aligned([["folder", "table", "overrides", "metric", "state", "age"], *short])))
