"""Checkpoints: last.ckpt, from which a run goes on, and best.ckpt; how they are written, and what they hold."""

import math
import signal
import threading
import time
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.trainer.states import TrainerFn

from tabrun.runs.checkpoint_file import alias, read_checkpoint, write_checkpoint
from tabrun.runs.csv_log import CsvLog
from tabrun.training.epochs import Epochs


class Checkpoints(Checkpoint):
    """Writes last.ckpt after each epoch, and within one each `minutes`; best.ckpt is the one with the best metric.

    From last.ckpt a run goes on as if it had never stopped: the order of rows, sums within the epoch, random numbers,
    patience and log are as they were. On Ctrl-C or SIGTERM it is written once more, after the step, and the run ends.
    Lightning's own ModelCheckpoint(save_last=True) saves last.ckpt only together with a new best, and writes both.
    """

    chunks_suffice = True

    def __init__(self, folder: str, monitor: str, mode: str, minutes: float = 10.0) -> None:
        self.folder, self.monitor, self.sign = Path(folder), monitor, -1 if mode == "min" else 1
        self.seconds, self.saved = 60 * minutes, 0.0  # the clock when last.ckpt was written
        self.best = math.nan  # of sign * monitored metric
        self.train_loss = math.nan  # of the last epoch
        self.best_epoch = -1  # -1: before the run went on
        self.is_best = False  # whether last.ckpt is
        self.asked = 0  # the signal that asks to stop
        self.restored: dict[str, Any] = {}  # the checkpoint that the run goes on from

    def improved(self, score: float) -> bool:
        """Whether this value of the monitored metric is the best so far."""
        better = self.sign * score > self.best or math.isnan(self.best)
        self.best = self.sign * score if better else self.best
        return better

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.patience = [stopping.patience for stopping in trainer.early_stopping_callbacks]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.saved = time.monotonic()
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):  # Lightning puts back what was there when it ends
                signal.signal(number, self.ask)
        before = [stopping.patience for stopping in trainer.early_stopping_callbacks]
        for stopping, patience in zip(trainer.early_stopping_callbacks, self.patience, strict=True):
            stopping.patience = patience  # the config's, which may have been raised
        trainer.should_stop = self.restored.get("stopped", False) and before == self.patience
        if "rng" not in self.restored:  # a new run, or one that was trained in a stack
            return
        if "batches" in self.restored:  # cut within an epoch; Lightning may forget it
            trainer.train_dataloader.load_state_dict(self.restored["batches"])  # type: ignore[union-attr]
        torch.set_rng_state(self.restored["rng"])
        if "cuda_rng" in self.restored and pl_module.device.type == "cuda":
            torch.cuda.set_rng_state(self.restored["cuda_rng"], pl_module.device)

    def ask(self, number: int, frame: Any) -> None:
        """The first signal lets the step end, the second ends at once."""
        self.asked = number
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        due = self.asked or time.monotonic() - self.saved > self.seconds
        # not after the last batch, as the end of the epoch follows; nor where processes would have to agree on a batch
        stepped = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if due and stepped and not (trainer.is_last_batch or trainer.world_size > 1):
            sums = next(one for one in trainer.callbacks if isinstance(one, Epochs))  # type: ignore[attr-defined]
            if math.isfinite(sums.loss):  # else the end of the epoch says what is wrong
                self.save(trainer, improved=False)
            self.stop_if(self.asked)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        metrics = trainer.callback_metrics
        self.train_loss = metrics["train/loss"].item() if "train/loss" in metrics else math.nan
        best = self.monitor in metrics and self.improved(metrics[self.monitor].item())
        self.best_epoch = trainer.current_epoch if best else self.best_epoch
        self.save(trainer, best)
        self.stop_if(trainer.strategy.reduce_boolean_decision(bool(self.asked), all=False) and (self.asked or 15))

    def save(self, trainer: Trainer, improved: bool) -> None:
        for logger in trainer.loggers:
            logger.save()
        last, self.is_best = self.folder / "last.ckpt", improved
        if trainer.is_global_zero and last.exists():
            alias(last, self.folder / "previous.ckpt")  # to go on from where the disk damages the other
        trainer.save_checkpoint(last)
        if trainer.is_global_zero and improved:
            alias(last, self.folder / "best.ckpt")  # one file with two names, until last.ckpt is another
        self.saved = time.monotonic()

    def stop_if(self, number: int) -> None:
        if number:
            raise SystemExit(128 + number)

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "train_loss": self.train_loss}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best, self.train_loss = state_dict["best"], state_dict["train_loss"]

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if trainer.train_dataloader is not None and not trainer.is_last_batch:
            checkpoint["batches"] = trainer.train_dataloader.state_dict()
        checkpoint |= {"rng": torch.get_rng_state(), "stopped": trainer.should_stop, "is_best": self.is_best}
        if pl_module.device.type == "cuda":
            checkpoint["cuda_rng"] = torch.cuda.get_rng_state(pl_module.device)
        for logger in trainer.loggers:
            if isinstance(logger, CsvLog) and trainer.is_global_zero:
                checkpoint["log"] = logger.position()

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if trainer.state.fn != TrainerFn.FITTING:  # the best weights are measured
            return
        self.restored = checkpoint
        for logger in trainer.loggers:
            if isinstance(logger, CsvLog) and trainer.is_global_zero and "log" in checkpoint:
                logger.go_on(**checkpoint["log"])
        if checkpoint.get("is_best") and trainer.is_global_zero:  # as the run may have been cut before it was said
            alias(self.folder / "last.ckpt", self.folder / "best.ckpt")


class WholeFiles(TorchCheckpointIO):
    """Writes checkpoints beside and renames them, each with the values `saved`, and reads none that is not whole.

    Lightning's own passes them through the folder for temporary files, which may be full, or of another disk.
    """

    def __init__(self, saved: dict[str, Any]) -> None:
        self.saved = saved

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        write_checkpoint(checkpoint | self.saved, Path(path))

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = True) -> dict[str, Any]:
        return read_checkpoint(Path(path))
