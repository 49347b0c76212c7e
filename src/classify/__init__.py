"""Classifiers on tables: PyTorch Lightning trains them, Hydra composes the experiments."""

import os
from typing import TYPE_CHECKING, Any

# Polars reads this when it is first imported: it then gives memory back at once, not when it next needs some, which may
# be never. Training takes half the memory for it, and reading a table a tenth longer. Later words win, and a process
# that has imported polars leaves its own words to those that it starts.
given = os.environ.get("_RJEM_MALLOC_CONF", "")
if not given.endswith("dirty_decay_ms:0"):
    os.environ["_RJEM_MALLOC_CONF"] = f"{given},dirty_decay_ms:0".lstrip(",")

if TYPE_CHECKING:
    from tabrun.runs.run import load as load


def __getattr__(name: str) -> Any:
    if name == "load":  # imported when asked for: torch takes a second, and `--help` needs none of it
        from tabrun.runs.run import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), "load"]
