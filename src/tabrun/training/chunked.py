"""Chunked: a module of any class that takes its own training_step for each mini-batch of a chunk."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import lightning
from lightning import LightningModule, Trainer
from torch import Tensor

from tabrun.cli.errors import UserError

if TYPE_CHECKING:
    from tabrun.training.epochs import Epochs


@dataclass
class Chunk:
    """What a Chunked module is handed, and how it deals with it."""

    step: Callable[[Any, int], Tensor]  # the module's own training_step, which may be compiled
    epochs: Epochs
    batch_size: int  # rows
    num_batches: int  # in what the Trainer is handed as one
    epoch_batches: int  # mini-batches of an epoch
    stepping: bool = False  # whether the module is within its training_step
    row: set[str] = field(default_factory=set)  # names that were logged, for the next row of the log


class Chunked(lightning.LightningModule):
    """Takes a module's own training_step for each mini-batch of a chunk; backward and steps go through the Trainer."""

    chunk: Chunk

    def __setattr__(self, name: str, value: Any) -> None:
        # Lightning notes the name of each hook on the module, ten times a step, where nn.Module looks for tensors first
        if name in self.__dict__ and (value is None or isinstance(value, str | int)):
            self.__dict__[name] = value
        else:
            super().__setattr__(name, value)

    def training_step(self, batch: Any, batch_idx: int) -> None:  # type: ignore[override]
        chunk, trainer, optimizer = self.chunk, self.trainer, self.optimizers()
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]  # type: ignore[union-attr]
        schedulers = [one for one in trainer.lr_scheduler_configs if one.interval == "step"]
        # no callback listens in between, but to call each one's empty hooks would take 15 us a mini-batch
        listening, trainer.callbacks = trainer.callbacks, []  # type: ignore[attr-defined]
        chunk.stepping = True
        try:
            first = batch_idx * chunk.num_batches
            for number, mini_batch in enumerate(mini_batches(batch, chunk.batch_size), first):
                for parameter in parameters:  # as zero_grad() does, in 1 us and not in 12
                    parameter.grad = None
                loss = chunk.step(mini_batch, number)
                self.manual_backward(loss)
                optimizer.step()  # type: ignore[union-attr]
                chunk.epochs.add(loss, mini_batch)
                for one in schedulers:
                    if (number + 1) % one.frequency == 0:
                        one.scheduler.step()  # type: ignore[call-arg]
        finally:
            trainer.callbacks, chunk.stepping = listening, False  # type: ignore[attr-defined]

    def log(self, name: str, *arguments: Any, **options: Any) -> None:
        """Without the loggers, as Lightning would number their rows by what it was handed."""
        if self.chunk.stepping:
            step = f"{type(self).__name__}.training_step"
            raise UserError(f"{step} logs {name}, which it did not at first: speed.chunk=1")
        if options.get("logger", True) is not False:
            self.chunk.row.add(name)
        super().log(name, *arguments, **options | {"logger": False})

    def write_row(self, step: int) -> None:
        """Has the loggers write what was logged since the last row."""
        row, metrics = self.chunk.row, self.trainer.callback_metrics
        values = {name: metrics[name].item() for name in metrics if name in row}
        for logger in self.loggers:
            logger.log_metrics(values | {"epoch": self.current_epoch}, step)
            logger.save()
        row.clear()

    def configure_optimizers(self) -> Any:
        self.automatic_optimization, trainer = True, self.trainer  # so that schedulers keep what they watch
        self.trainer = Counted(trainer, self.chunk.epoch_batches)  # type: ignore[assignment]
        try:
            return super().configure_optimizers()
        finally:
            self.trainer = trainer

    def on_fit_start(self) -> None:
        self.automatic_optimization = False
        super().on_fit_start()


class Counted:
    """A Trainer that says how many steps a run takes, of so many mini-batches an epoch."""

    def __init__(self, trainer: Trainer, num_batches: int) -> None:
        self.trainer, self.num_batches = trainer, num_batches

    def __getattr__(self, name: str) -> Any:
        return getattr(self.trainer, name)

    @property
    def estimated_stepping_batches(self) -> float:
        epochs = self.trainer.max_epochs
        return self.num_batches * epochs if epochs and epochs > 0 else math.inf


def chunked(module: LightningModule, chunk: Chunk) -> None:
    """Has the module, which stays what else it is, train by chunks."""
    own = type(module)
    module.chunk = chunk  # type: ignore[assignment]
    module.__class__ = type(own.__name__, (Chunked, own), {"__module__": own.__module__, "__doc__": own.__doc__})


def mini_batches(batch: Any, size: int) -> Iterator[Any]:
    """Views of `size` rows; where each run of a stack has rows of its own, (P, rows, ...), `size` of each."""
    rows, *truth = batch
    parts = rows if isinstance(rows, tuple) else (rows,)
    dim = parts[0].dim() - 2
    for cut in zip(*(part.split(size, dim) for part in (*parts, *truth)), strict=True):
        own = tuple(cut[: len(parts)]) if isinstance(rows, tuple) else cut[0]
        yield (own, *cut[len(parts) :])
