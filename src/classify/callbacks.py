"""Callbacks: what listens to the Trainer without changing what is learned."""

import math
import os
import shutil
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.utilities import grad_norm
from torch.optim import Optimizer


class GradientNorms(Callback):
    """Logs the 2-norm of the gradient of every weight and bias, each `every_n_steps` steps; 0 is never."""

    def __init__(self, every_n_steps: int) -> None:
        self.every_n_steps = every_n_steps

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        if self.every_n_steps and trainer.global_step % self.every_n_steps == 0:
            for logger in trainer.loggers:
                logger.log_metrics(grad_norm(pl_module, norm_type=2), trainer.global_step)


class Checkpoints(Checkpoint):
    """Writes last.ckpt after each epoch; best.ckpt is the one with the best monitored metric.

    Lightning's own ModelCheckpoint(save_last=True) saves last.ckpt only together with a new best, and writes both.
    """

    def __init__(self, folder: str, monitor: str, mode: str) -> None:
        self.folder, self.monitor, self.sign = Path(folder), monitor, -1 if mode == "min" else 1
        self.best = math.nan  # of sign * monitored metric

    def improved(self, score: float) -> bool:
        """Whether this value of the monitored metric is the best so far."""
        better = self.sign * score > self.best or math.isnan(self.best)
        self.best = self.sign * score if better else self.best
        return better

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        improved = self.improved(trainer.callback_metrics[self.monitor].item())
        trainer.save_checkpoint(self.folder / "last.ckpt.part")
        if trainer.is_global_zero:
            os.replace(self.folder / "last.ckpt.part", self.folder / "last.ckpt")
            if improved:  # one file with two names, until the next epoch's last.ckpt takes its place
                os.link(self.folder / "last.ckpt", self.folder / "best.ckpt.part")
                os.replace(self.folder / "best.ckpt.part", self.folder / "best.ckpt")

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best}

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Goes on from another run's best.ckpt too, as nothing that follows may be better."""
        best = Path(str(trainer.ckpt_path)).with_name("best.ckpt")
        if best.exists():
            self.best = checkpoint["callbacks"][self.state_key]["best"]
            if not (self.folder / "best.ckpt").exists():
                self.folder.mkdir(parents=True, exist_ok=True)
                shutil.copy(best, self.folder)


class SaveWith(Callback):
    """Puts plain values into every checkpoint, beside the weights."""

    def __init__(self, values: dict[str, Any]) -> None:
        self.values = values

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint.update(self.values)
