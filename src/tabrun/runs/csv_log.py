"""CSV log: metrics.csv, a row for each step that something is logged at; what was written before stays whole."""

import csv
import io
import os
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from tabrun.runs.folder import sync, write_whole


class CsvLog(Logger):
    """Writes folder/metrics.csv, columns in alphabetical order; Lightning's CSVLogger empties it for each new one."""

    name = version = ""

    def __init__(self, folder: str) -> None:
        super().__init__()
        self.folder, self.file = folder, Path(folder) / "metrics.csv"
        self.columns: list[str] = []
        self.rows: list[dict[str, Any]] = []  # that are not written yet

    @property
    def save_dir(self) -> str:
        return self.folder

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        numbers = {name: getattr(value, "item", lambda value=value: value)() for name, value in metrics.items()}
        self.rows.append(numbers | {"step": step})

    def log_hyperparams(self, params: Any, metrics: Any = None) -> None:  # type: ignore[override]
        """Writes nothing: the checkpoints hold the config, and metrics.json stands beside it."""

    @rank_zero_only
    def save(self) -> None:
        rows, self.rows = self.rows, []
        columns = sorted({*self.columns, *(name for row in rows for name in row)})
        if columns != self.columns:
            rows, self.columns = [*self.written(), *rows], columns
            self.file.parent.mkdir(parents=True, exist_ok=True)
            write_whole(self.file, self.text(rows, header=True))
        elif rows:
            size = self.file.stat().st_size
            try:
                with self.file.open("ab") as file:
                    file.write(self.text(rows))
            except OSError:  # a full disk
                os.truncate(self.file, size)
                raise

    def position(self) -> dict[str, Any]:
        """How much is on the disk, in bytes, and with which columns."""
        self.save()
        if not self.file.exists():
            return {"size": 0, "columns": []}
        sync(self.file)
        return {"size": self.file.stat().st_size, "columns": self.columns}

    def go_on(self, size: int, columns: list[str]) -> None:
        """Drops what was written after `position` gave these."""
        if self.file.exists():
            self.columns = columns
            write_whole(self.file, self.text(self.written(), header=True)[:size])

    def written(self) -> list[dict[str, Any]]:
        if not self.file.exists() or not self.columns:
            return []
        with self.file.open(newline="") as file:
            return list(csv.DictReader(file))

    def text(self, rows: list[dict[str, Any]], header: bool = False) -> bytes:
        lines = io.StringIO(newline="")
        writer = csv.DictWriter(lines, self.columns, extrasaction="ignore")
        if header:
            writer.writeheader()
        writer.writerows(rows)
        return lines.getvalue().encode()
