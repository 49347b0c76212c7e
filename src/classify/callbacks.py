"""Callbacks: what listens to the Trainer without changing what is learned; put your own here."""

from lightning.pytorch import Callback, LightningModule, Trainer
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
