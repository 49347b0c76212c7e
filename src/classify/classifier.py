"""Classifier: the LightningModule that trains a net; the Trainer does backward and the optimizer's steps."""

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import lightning
import torch
import torch.nn.functional as F
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn
from torch.optim import Optimizer
from torchmetrics import MeanMetric, Metric, MetricCollection

from tabrun.cli.errors import UserError
from tabrun.runs.checkpoints import diverged
from tabrun.runs.pace import Quick, encodes_ahead


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


class Classifier(lightning.LightningModule):
    """Trains `net`, which maps rows to scores (rows, classes).

    loss: of scores and labels, which are class indices (rows,) or one-hot or soft targets (rows, classes).
    optimizer: makes the optimizer from the net's parameters, such as partial(SGD, lr=0.1).
    """

    def __init__(
        self,
        net: nn.Module,
        optimizer: Callable[..., Optimizer],
        schedule: Schedule | None = None,
        loss: nn.Module | None = None,
        measures: Measures | None = None,
    ) -> None:
        super().__init__()
        self.net, self.optimizer, self.schedule = net, optimizer, schedule
        self.loss = loss or nn.CrossEntropyLoss()
        self.measures = measures or Measures({})
        self.train_loss: Tensor | float = 0.0  # logged once an epoch: self.log at each step costs 150 us
        self.train_rows = 0

    def forward(self, rows: Any) -> Tensor:
        return self.net(rows)

    def training_step(self, batch: tuple[Any, Tensor], batch_idx: int) -> Tensor:
        rows, labels = batch
        loss = self.batch_loss(rows, labels)
        if isinstance(self.train_loss, Tensor):
            self.train_loss.add_(loss.detach(), alpha=len(labels))
        else:
            self.train_loss = loss.detach() * len(labels)
        self.train_rows += len(labels)
        return loss

    def batch_loss(self, rows: Any, labels: Tensor) -> Tensor:
        """What backward starts from; compiled as a whole where speed.compile says so."""
        return self.loss(self(rows), labels)

    def validation_step(self, batch: tuple[Any, Tensor], batch_idx: int) -> None:
        rows, labels = batch
        self.measures.update(self(rows), labels)

    test_step = validation_step

    def on_validation_epoch_end(self) -> None:
        values: dict[str, Tensor] = {}
        if self.train_rows:  # one row of the log for both
            mean = torch.as_tensor(self.train_loss / self.train_rows, device=self.device)
            mean = self.trainer.strategy.reduce(mean)  # in trainer=ddp all fail if one does, or the others would wait
            if not mean.isfinite():
                raise UserError(diverged(mean.item(), self.current_epoch, self.global_step))
            values["train/loss"] = mean
            self.train_loss, self.train_rows = 0.0, 0
        values |= self.measures.compute("val")
        # the final `validate` of the best weights is no epoch, so not a row of the log
        self.note(values, in_log=self.trainer.state.fn == TrainerFn.FITTING)

    def note(self, values: dict[str, Tensor], in_log: bool = True) -> None:
        """Shows values of an epoch to callbacks and, with `in_log`, to loggers."""
        self.log_dict(values, sync_dist=True, logger=in_log)

    def on_train_epoch_end(self) -> None:
        """Here and not by the Trainer, which would do it after the epoch's checkpoint is written."""
        if self.schedule and self.schedule.monitor:
            watched = self.trainer.callback_metrics[self.schedule.monitor]
            self.lr_schedulers().step(watched)  # type: ignore[union-attr, arg-type]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["train_sums"] = {"loss": torch.as_tensor(self.train_loss), "rows": self.train_rows}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if "train_sums" in checkpoint and checkpoint["train_sums"]["rows"]:  # written within an epoch
            self.train_loss = checkpoint["train_sums"]["loss"].to(self.device)
            self.train_rows = checkpoint["train_sums"]["rows"]

    def on_test_epoch_end(self) -> None:
        self.note(self.measures.compute("test"))

    @property
    def num_steps(self) -> int:
        """The optimizer's steps in the whole run."""
        return int(self.trainer.estimated_stepping_batches)

    def configure_optimizers(self) -> Any:
        optimizer = self.optimizer(self.net.parameters())
        if self.schedule is None:
            return optimizer
        total = {self.schedule.total: self.num_steps} if self.schedule.total else {}
        return {
            "optimizer": optimizer,
            "lr_scheduler": {
                "scheduler": self.schedule.make(optimizer, **total),
                "interval": self.schedule.interval,
                "monitor": self.schedule.monitor,
                "frequency": sys.maxsize if self.schedule.monitor else 1,  # never, as on_train_epoch_end does it
            },
        }


class QuickClassifier(Quick, Classifier):  # type: ignore[misc]  # training_step gives no loss: backward is done
    encoded = False  # whether `forward` is given rows that have been through the net's first layer

    def training_step(self, batch: tuple[Any, Tensor], batch_idx: int) -> None:  # type: ignore[override]
        super().training_step(batch, batch_idx)
        self.encoded = False

    def prepared(self, rows: Any) -> Any:
        net: Any = self.net
        self.encoded = encodes_ahead(net.encode)
        return net.encode(rows) if self.encoded else rows

    def forward(self, rows: Any) -> Tensor:
        net: Any = self.net
        return net.head(net.body(rows)) if self.encoded else net(rows)

    def mini_batch_loss(self, rows: Any, labels: Tensor) -> Tensor:
        return Classifier.training_step(self, (rows, labels), 0)

    def mini_batch_ended(self) -> None:
        if self.schedule and self.schedule.interval == "step":
            self.lr_schedulers().step()  # type: ignore[union-attr]

    def on_train_epoch_end(self) -> None:
        super().on_train_epoch_end()
        if self.schedule and self.schedule.interval == "epoch" and not self.schedule.monitor:
            self.lr_schedulers().step()  # type: ignore[union-attr]

    def note(self, values: dict[str, Tensor], in_log: bool = True) -> None:
        self.log_dict(values, logger=False)
        row = {name: value.item() for name, value in values.items()} | {"epoch": self.current_epoch}
        for logger in self.loggers if in_log else ():
            # as Lightning numbers a row, but for what was handed over as one
            logger.log_metrics(row, self.global_step - (self.trainer.state.fn == TrainerFn.FITTING))
            logger.save()

    def configure_optimizers(self) -> Any:
        made = super().configure_optimizers()
        if self.schedule:
            made["lr_scheduler"].pop("monitor")  # the Trainer steps none of them where backward is called by hand
        return made
