"""Classifiers on tables: PyTorch Lightning trains them, Hydra composes the experiments."""

from typing import Any


def load(path: Any, trust: bool = False) -> Any:
    """Gives the trained classifier in a run's folder or a checkpoint file; neither Hydra nor Lightning is needed."""
    import tabrun
    from classify import build

    return tabrun.load(path, build)
