"""Classifiers on tables: PyTorch Lightning trains them, Hydra composes the experiments."""

import os
from typing import TYPE_CHECKING, Any

# Before polars is imported: it gives memory back at once, and not when it next needs some, which may be never. Training
# takes half the memory for it, and reading a table an eighth longer.
os.environ.setdefault("_RJEM_MALLOC_CONF", "dirty_decay_ms:0")

if TYPE_CHECKING:
    from classify.run import load as load


def __getattr__(name: str) -> Any:
    if name == "load":  # imported when asked for: torch takes a second, and `--help` needs none of it
        from classify.run import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
