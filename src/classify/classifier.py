"""Classifier: the LightningModule that trains a net; the Trainer does backward and the optimizer's steps."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import lightning
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer
from torchmetrics import MeanMetric, Metric, MetricCollection


@dataclass(frozen=True)
class Schedule:
    """A learning-rate scheduler, made by `make(optimizer)`."""

    make: Callable[..., Any]
    interval: str  # after which it is stepped: step or epoch
    total: str | None = None  # the argument of `make` that is given the run's number of optimizer steps
    monitor: str | None = None  # the metric that it watches


class Measures(nn.Module):
    """The validation loss and the metrics, over all batches since the last `compute`.

    loss is the mean cross-entropy without class weights or label smoothing, so that runs which differ in these can be
    compared by it. Metrics take probabilities (rows, classes) and class indices (rows,); those that know weights of
    rows have an argument `weights`, which none of torchmetrics has.
    """

    def __init__(self, metrics: dict[str, Metric]) -> None:
        super().__init__()
        self.loss = MeanMetric(nan_strategy=math.nan)  # or NaN would be left out of the mean
        self.metrics = MetricCollection(dict(metrics))

    def update(self, scores: Tensor, labels: Tensor, weights: Tensor | None = None) -> None:
        """Counts a batch in; labels as the Classifier's loss takes them, weights (rows,)."""
        by_class = scores.T.contiguous()  # softmax along the rows is several times as fast as along a few classes
        targets = labels[None] if labels.dim() == 1 else labels.T[None]
        if weights is None:
            self.loss.update(F.cross_entropy(by_class[None], targets), len(labels))
        else:
            self.loss.update(F.cross_entropy(by_class[None], targets, reduction="none")[0], weights)
        probabilities = by_class.softmax(0).T.contiguous()
        given = {} if weights is None else {"weights": weights}  # for those whose update takes them
        self.metrics.update(probabilities, labels if labels.dim() == 1 else labels.argmax(-1), **given)

    def named(self, part: str) -> dict[str, Metric]:
        """Each by the name that is logged, such as val/loss, for Lightning to compute and reset."""
        return {f"{part}/{name}": metric for name, metric in [("loss", self.loss), *self.metrics.items()]}

    def compute(self, part: str) -> dict[str, Tensor]:
        """The same as numbers, and begins anew."""
        values = {name: metric.compute() for name, metric in self.named(part).items()}
        self.loss.reset()
        self.metrics.reset()
        return values


class Classifier(lightning.LightningModule):
    """Trains `net`, which maps rows to scores (rows, classes).

    loss: of scores and labels, which are class indices (rows,) or one-hot or soft targets (rows, classes); and with
    data.weight of weights (rows,). optimizer: makes the optimizer from parameters, such as partial(SGD, lr=0.1).
    decay_biases: whether its weight decay is of all parameters, or of weights alone.
    A batch is a mini-batch of the table's rows, as the schema lays them out, with their labels and, if any, weights.
    """

    def __init__(
        self,
        net: nn.Module,
        optimizer: Callable[..., Optimizer],
        schedule: Schedule | None = None,
        loss: nn.Module | None = None,
        measures: Measures | None = None,
        decay_biases: bool = True,
    ) -> None:
        super().__init__()
        self.net, self.optimizer, self.schedule, self.decay_biases = net, optimizer, schedule, decay_biases
        self.loss = loss or nn.CrossEntropyLoss()
        self.measures = measures or Measures({})

    def forward(self, rows: Any) -> Tensor:
        return self.net(rows)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        rows, *truth = batch
        return self.loss(self(rows), *truth)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        rows, *truth = batch
        self.measures.update(self(rows), *truth)
        self.log_dict(self.measures.named("val"))

    def test_step(self, batch: Any, batch_idx: int) -> None:
        rows, *truth = batch
        self.measures.update(self(rows), *truth)
        self.log_dict(self.measures.named("test"))

    def configure_optimizers(self) -> Any:
        # of the net, and of a loss that has parameters
        optimizer = self.optimizer(self.parameters() if self.decay_biases else decay_groups(self))
        if self.schedule is None:
            return optimizer
        steps = {self.schedule.total: self.trainer.estimated_stepping_batches} if self.schedule.total else {}
        scheduler = {"scheduler": self.schedule.make(optimizer, **steps), "interval": self.schedule.interval}
        return {"optimizer": optimizer, "lr_scheduler": scheduler | {"monitor": self.schedule.monitor}}


def decay_groups(net: nn.Module) -> list[dict[str, Any]]:
    """Gives the parameters as groups: weights, and what is not decayed: biases, scales, norms, frequencies."""
    weights = {name: p for name, p in net.named_parameters() if p.dim() > 1 and name.endswith("weight")}
    others = [p for name, p in net.named_parameters() if name not in weights]
    undecayed = [{"params": others, "weight_decay": 0.0}] if others else []
    return [{"params": [*weights.values()]}, *undecayed]
