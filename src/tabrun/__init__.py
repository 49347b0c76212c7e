"""The library behind a template: tables become tensors, a run is a folder, many runs train as one.

It is updated as a whole and never edited by a fork; what a template hands over is said in runs/build.py. The NAMES
stand in configs and checkpoints, and never move.
"""

import importlib
import os
from typing import Any

__version__ = "1.3.1"

# Polars reads this when it is first imported: it then gives memory back at once, not when it next needs some, which may
# be never. Training takes half the memory for it, and reading a table a tenth longer. Later words win, and a process
# that has imported polars leaves its own words to those that it starts.
given = os.environ.get("_RJEM_MALLOC_CONF", "")
if not given.endswith("dirty_decay_ms:0"):
    os.environ["_RJEM_MALLOC_CONF"] = f"{given},dirty_decay_ms:0".lstrip(",")

NAMES = {  # imported when asked for: torch takes a second, and `--help` needs none of it
    **dict.fromkeys(
        ("from_sklearn", "moons", "clusters", "read_csv", "read_parquet", "read_excel", "read_sql"), "reading.sources"
    ),
    **{"TabularData": "tables.data", "Split": "tables.split", "Columns": "tables.columns", "Schema": "tables.schema"},
    **{"Checkpoints": "training.checkpoints", "CsvLog": "runs.csv_log", "Guard": "cli.check"},
    **{"Run": "runs.run", "load": "runs.run", "application": "cli.application", "UserError": "cli.errors"},
}


def __getattr__(name: str) -> Any:
    if name not in NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{NAMES[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *NAMES]
