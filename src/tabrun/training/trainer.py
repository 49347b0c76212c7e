"""Trainer: what the library adds to the template's, and how many mini-batches it is handed at once."""

import logging
import math
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar, TQDMProgressBar

from tabrun.runs.build import Build, Config
from tabrun.tables.data import TabularData
from tabrun.training.checkpoints import WholeFiles
from tabrun.training.chunked import Chunk, chunked
from tabrun.training.chunks import chunk_size
from tabrun.training.epochs import Epochs, watched

log = logging.getLogger(__name__)


def trainer_of(build: Build, config: Config, saved: dict[str, Any]) -> Trainer:
    """The Trainer with its callbacks and loggers; `saved`, of plain values, goes into each checkpoint."""
    quieten()
    callbacks = [*build.callbacks(config), Epochs()]
    trainer: Any = build.trainer(config, callbacks, build.loggers(config), plugins=[WholeFiles(saved)])
    barred = [isinstance(one, ProgressBar) and one not in callbacks for one in trainer.callbacks]  # Lightning's own
    trainer.callbacks = [Bar() if bar else one for bar, one in zip(barred, trainer.callbacks, strict=True)]
    return trainer


class Bar(TQDMProgressBar):
    """Shows the monitored metric of the last epoch, and the best so far."""

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        return {**trainer.progress_bar_metrics, **{name: f"{value:.4f}" for name, value in watched(trainer).items()}}


def in_chunks(module: LightningModule, data: TabularData, trainer: Trainer, speed: Mapping[str, Any]) -> None:
    """Has the Trainer be handed many mini-batches as one, or says what needs each; compiles the step, if so wanted."""
    data.batches_per_step, reason = chunk_size(module, data, trainer, speed["chunk"])
    step: Any = module.training_step
    if speed["compile"]:  # for two sizes, the batch's and the last one's, in each run of a process
        options: dict[str, Any] = {"mode": speed["compile"], "dynamic": False, "isolate_recompiles": True}
        step = torch.compile(step, **options)
        if data.batches_per_step == 1:
            module.training_step = step  # type: ignore[method-assign]
    if data.batches_per_step > 1:
        sums = next(one for one in trainer.callbacks if isinstance(one, Epochs))  # type: ignore[attr-defined]
        batches = math.ceil(len(data.index["train"]) / data.batch_size)
        chunked(module, Chunk(step, sums, data.batch_size, data.batches_per_step, batches))
    if reason and trainer.is_global_zero:
        log.info("each mini-batch is a step of the Trainer: %s", reason)


def quieten() -> None:
    """Leaves out Lightning's tips, the hardware that is not there, and warnings of what is right."""
    for part in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(part).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)`", FutureWarning)
    warnings.filterwarnings("ignore", "There is a performance drop", UserWarning)  # of a function that vmap loops over
