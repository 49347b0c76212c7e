"""Classifiers on tables: PyTorch Lightning trains them, Hydra composes the experiments."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from classify.run import load as load


def __getattr__(name: str) -> Any:
    if name == "load":  # imported when asked for: torch takes a second, and `--help` needs none of it
        from classify.run import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
