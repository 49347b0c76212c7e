"""Measures: the loss and the metrics of rows that nothing is learned from."""

import math

import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import MeanMetric, Metric, MetricCollection


class Measures(nn.Module):
    """The validation loss and the metrics, over all batches since the last `compute`.

    loss is the mean cross-entropy without class weights or label smoothing, so that runs which differ in these can be
    compared by it. Metrics take probabilities (rows, classes) and class indices (rows,).
    """

    def __init__(self, metrics: dict[str, Metric]) -> None:
        super().__init__()
        self.loss = MeanMetric(nan_strategy=math.nan)  # or NaN would be left out of the mean
        self.metrics = MetricCollection(dict(metrics))

    def update(self, scores: Tensor, labels: Tensor) -> None:
        by_class = scores.T.contiguous()  # softmax along the rows is several times as fast as along a few classes
        self.loss.update(
            F.cross_entropy(by_class[None], labels[None] if labels.dim() == 1 else labels.T[None]), len(labels)
        )
        probabilities = by_class.softmax(0).T.contiguous()
        self.metrics.update(probabilities, labels if labels.dim() == 1 else labels.argmax(-1))

    def compute(self, prefix: str) -> dict[str, Tensor]:
        values = {"loss": self.loss.compute(), **self.metrics.compute()}
        self.loss.reset()
        self.metrics.reset()
        return {f"{prefix}/{name}": value for name, value in values.items()}
