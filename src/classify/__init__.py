"""Classifiers on tables: PyTorch Lightning trains them, Hydra composes the experiments."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from tabrun.runs.predictor import TrainedClassifier


def load(path: str | Path) -> TrainedClassifier:
    """Gives the trained classifier in a run's folder or a checkpoint file; neither Hydra nor Lightning is needed."""
    import tabrun  # here, as torch takes a second
    from classify import build

    return tabrun.load(path, build)
