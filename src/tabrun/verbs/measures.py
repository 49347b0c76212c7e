"""Measures: what is told of predictions, by scikit-learn where it has it."""

import math
from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from sklearn import metrics
from torch.nn.functional import cross_entropy
from torchmetrics.functional.classification import multiclass_calibration_error


def measure(
    labels: np.ndarray, probabilities: np.ndarray, predictions: np.ndarray, sample_weight: np.ndarray | None = None
) -> dict[str, float | None]:
    """One number each, by scikit-learn; None where the rows lack a class that it needs.

    labels, predictions: class indices, (rows,).  probabilities: (rows, classes).
    sample_weight: how often each row counts, above 0, (rows,), but in calibration_error, which has no weights: once.
    """
    classes = np.arange(probabilities.shape[1])
    ranked = probabilities[:, 1] if len(classes) == 2 else probabilities
    one_hot = labels == 1 if len(classes) == 2 else labels[:, None] == classes
    every_class = len(np.unique(labels)) == len(classes)
    tensors = torch.from_numpy(probabilities), torch.from_numpy(labels)
    given: Any = {"sample_weight": sample_weight}
    return {
        "accuracy": metrics.accuracy_score(labels, predictions, **given),
        "f1": metrics.f1_score(labels, predictions, labels=classes, average="macro", zero_division=0, **given),
        "auroc": metrics.roc_auc_score(labels, ranked, multi_class="ovr", **given) if every_class else None,
        "average_precision": metrics.average_precision_score(one_hot, ranked, **given) if every_class else None,
        "log_loss": metrics.log_loss(labels, probabilities, labels=classes, **given),
        "brier_score": metrics.brier_score_loss(labels, ranked, labels=classes, **given),
        "calibration_error": multiclass_calibration_error(*tensors, num_classes=len(classes), n_bins=15).item(),
    }


def wilson(share: float, rows: int) -> tuple[float, float]:
    """The 95 % interval of a share that was seen in so many rows (Wilson, 1927)."""
    z = 1.959964
    middle, width = share + z * z / (2 * rows), z * math.sqrt(share * (1 - share) / rows + (z / (2 * rows)) ** 2)
    return (middle - width) / (1 + z * z / rows), (middle + width) / (1 + z * z / rows)


def fit_temperature(scores: Any, labels: Any, weights: Any = None) -> float:
    """The number to divide scores by that makes the log loss least (Guo et al., 2017, arXiv:1706.04599)."""

    def loss(t: float) -> float:
        each = cross_entropy(scores.double() / math.exp(t), labels, reduction="none")
        return float(np.average(each, weights=weights))

    return math.exp(minimize_scalar(loss, bounds=(-5, 5), method="bounded").x)


def by_class(truth: np.ndarray, predictions: np.ndarray, names: list[str], **shares: Any) -> dict[str, Any]:
    """Precision, recall, F1 and number of rows of each class, and how often which is taken for which."""
    given = {"labels": range(len(names)), **shares}
    found = metrics.precision_recall_fscore_support(truth, predictions, zero_division=0, **given)
    columns = dict(zip(("precision", "recall", "f1", "support"), (column.tolist() for column in found), strict=True))
    return {
        "per_class": {name: {key: column[i] for key, column in columns.items()} for i, name in enumerate(names)},
        "confusion": metrics.confusion_matrix(truth, predictions, **given).tolist(),
    }
