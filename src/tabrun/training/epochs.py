"""Epochs: what is done around any LightningModule's own steps: the mean training loss, schedulers, rows of the log."""

import logging
import math
import sys
import time
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch import Callback
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from tabrun.cli.errors import UserError
from tabrun.training.chunked import Chunked

log = logging.getLogger(__name__)

SECONDS = 5  # between two lines of a run off a terminal


class Epochs(Callback):
    """Logs train/loss, the mean over an epoch's rows, and raises UserError where it is not finite.

    It is summed on the device and logged once, as self.log at each step costs 150 us. A scheduler that watches a metric
    is stepped here, before the epoch's checkpoint is written, and not after it, where a resumed run would miss it.
    """

    chunks_suffice = True

    def __init__(self) -> None:
        self.loss: Tensor | float = 0.0  # sum over rows, of which so many, or with weights of these
        self.rows = 0.0
        self.said = time.monotonic()  # when a line was last written
        self.watching: list[tuple[Any, int]] = []  # schedulers and after how many epochs each is stepped

    def add(self, loss: Tensor, batch: Any) -> None:
        """Counts a mini-batch in, whose mean loss this is."""
        rows = len(batch[1]) if len(batch) < 3 else batch[2].sum().item()
        if isinstance(self.loss, Tensor):
            self.loss.add_(loss.detach(), alpha=rows)
        else:
            self.loss = loss.detach() * rows
        self.rows += rows

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        chunked = isinstance(pl_module, Chunked)
        found = trainer.lr_scheduler_configs if chunked or pl_module.automatic_optimization else []
        own = [one for one in found if one.interval == "epoch" and (chunked or one.reduce_on_plateau)]
        self.watching = [(one, one.frequency) for one in own]
        for one in own:
            one.frequency = sys.maxsize  # never, for the Trainer

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if isinstance(pl_module, Chunked) or not isinstance(outputs, dict) or "loss" not in outputs:
            return  # counted in already, or a step by hand that does not say its loss
        parts = trainer.accumulate_grad_batches if pl_module.automatic_optimization else 1
        self.add(outputs["loss"] * parts, batch)  # which the Trainer has divided

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn != TrainerFn.FITTING or isinstance(self.loss, float):
            return
        # in trainer=ddp all fail if one does, or the others would wait
        mean = trainer.strategy.reduce(self.loss / self.rows)
        if not mean.isfinite():
            raise UserError(diverged(mean.item(), trainer.current_epoch, trainer.global_step))
        pl_module.log("train/loss", mean, sync_dist=True)  # said of what is equal already, or Lightning warns
        self.loss, self.rows = 0.0, 0.0

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if isinstance(pl_module, Chunked) and trainer.state.fn == TrainerFn.FITTING:
            pl_module.write_row(trainer.global_step - 1)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if isinstance(pl_module, Chunked):
            pl_module.write_row(trainer.global_step)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero and not sys.stderr.isatty() and time.monotonic() - self.said > SECONDS:
            found = trainer.callback_metrics
            losses: dict[str, float] = {
                name: found[name].item() for name in ("train/loss", "val/loss") if name in found
            }
            values = "  ".join(f"{name} {value:.4f}" for name, value in (losses | watched(trainer)).items())
            log.info("epoch %d  %s", trainer.current_epoch, values)
            self.said = time.monotonic()
        for one, frequency in self.watching:
            if (trainer.current_epoch + 1) % frequency:
                continue
            if one.reduce_on_plateau and one.monitor not in trainer.callback_metrics:
                raise UserError(f"a scheduler watches {one.monitor}, which is not logged")
            metric = trainer.callback_metrics[one.monitor] if one.reduce_on_plateau else None
            pl_module.lr_scheduler_step(one.scheduler, metric)

    def state_dict(self) -> dict[str, Any]:
        return {"loss": torch.as_tensor(self.loss), "rows": float(self.rows)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if state_dict["rows"]:  # written within an epoch
            self.loss, self.rows = state_dict["loss"], state_dict["rows"]


def watched(trainer: Trainer) -> dict[str, float]:
    """The monitored metric, and the best of it so far; nothing before it is measured."""
    saved: Any = trainer.checkpoint_callback
    name, sign = getattr(saved, "monitor", ""), getattr(saved, "sign", 0)  # of Checkpoints, or of another's kind
    if not sign or name not in trainer.callback_metrics:
        return {}
    score = trainer.callback_metrics[name].item()
    known = [one for one in (sign * score, saved.best) if not math.isnan(one)]
    return {name: score, "best": sign * max(known, default=math.nan)}


def diverged(loss: float, epoch: int, step: int) -> str:
    """What is said of a training loss that is not finite."""
    hint = "lower optimizer.lr or set trainer.gradient_clip_val; the last checkpoint is from before it"
    return f"the training loss is {loss} in epoch {epoch}, by step {step}: {hint}"
