"""Member: one run of a stack: its module, its batches, and what it has reached."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import EarlyStopping
from torch.optim import Optimizer
from torchmetrics import Metric

from tabrun.cli.errors import UserError
from tabrun.runs.build import Build
from tabrun.stack.batches import table_of
from tabrun.training.checkpoints import Checkpoints
from tabrun.training.chunked import Counted
from tabrun.training.epochs import Epochs, diverged


class Unplayed(Exception):
    """Why a run cannot be one of a stack, in words."""


class Member:
    """One run: what is built of its config, and what is kept of it as it trains.

    known: tables, measures and Trainers that members before it have in common with it; filled.
    """

    def __init__(self, build: Build, config: dict[str, Any], known: dict[str, Any]) -> None:
        self.config, self.alike = config, json.dumps(build.alike(config), sort_keys=True)
        self.table = table_of(build, config, known)
        schema: Any = self.table.schema
        lightning.seed_everything(config["seed"], verbose=False)  # the weights that the run alone would start from
        shared = f"{self.alike} {schema.classes}"
        if shared not in known:
            known[shared] = build.measures(config, schema)
        self.module: Any = build.classifier(config, schema, known[shared])
        callbacks = build.callbacks(config)
        self.others = [one for one in callbacks if type(one) not in (EarlyStopping, Checkpoints)]
        self.stopping = [one for one in callbacks if type(one) is EarlyStopping]
        self.checkpoints: Checkpoints = next(one for one in callbacks if isinstance(one, Checkpoints))
        if self.alike not in known:
            known[self.alike] = build.trainer(config, [], [], enable_checkpointing=False)
        self.trainer = known[self.alike]
        self.best_epoch, self.epochs, self.steps, self.wants_stop = -1, 0, 0, False
        self.metrics: dict[str, float] = {}
        self.log: list[dict[str, float]] = []
        self.contents: dict[str, dict[str, Any]] = {}  # of best.ckpt and last.ckpt
        self.error: Exception | None = None

    @property
    def num_batches(self) -> int:
        """Mini-batches of an epoch."""
        return math.ceil(len(self.table.index["train"]) / self.table.batch_size)

    def optimizers(self) -> tuple[Optimizer, dict[str, Any] | None]:
        """A new optimizer, and its scheduler as Lightning is told of one, by the module's own configure_optimizers."""
        self.module.trainer = Counted(self.trainer, self.num_batches)
        found = self.module.configure_optimizers()
        if isinstance(found, Optimizer):
            return found, None
        if isinstance(found, tuple) and [len(each) for each in found if isinstance(each, list)] == [1, 1]:
            found = {"optimizer": found[0][0], "lr_scheduler": found[1][0]}
        if not isinstance(found, dict) or "optimizer" not in found:
            raise Unplayed("configure_optimizers gives more than one optimizer and scheduler")
        scheduler = found.get("lr_scheduler")
        given = scheduler if isinstance(scheduler, dict) else {"scheduler": scheduler}
        defaults = {"interval": "epoch", "frequency": 1, "monitor": None}
        return found["optimizer"], None if scheduler is None else defaults | given

    def mini_batches(self) -> Iterator[Any]:
        """The first of the first epoch, and the last, which may be short."""
        batches = self.table.batches("train", self.table.batch_size, self.table.seed)
        order = batches.order().split(batches.batch_size)
        batches.seed = None
        for batches.index in (order[0], order[-1]):
            yield next(iter(batches))

    @torch.no_grad()
    def validate(self, trainer: Any, converted: Callable[[Any], Any]) -> dict[str, float]:
        """What the module's own validation_step logs of its validation rows."""
        logged, self.module.trainer = Logged(), trainer
        self.module.log = logged.log
        self.module.eval()
        try:
            for number, batch in enumerate(self.table.batches("val")):
                logged.rows = len(batch[1])
                self.module.validation_step(converted(batch), number)
        finally:
            self.module.train()
            del self.module.log
        return logged.compute()

    def epoch_ended(self, values: dict[str, float], trainer: Any, content: Callable[[], Any]) -> bool:
        """Notes an epoch and, where it is the best or the member's last, its checkpoint; True when the member stops.

        trainer: of the whole stack.
        """
        epoch, steps = self.epochs, trainer.global_step
        self.log.append({"epoch": epoch, "step": steps - 1} | values)
        self.epochs, self.steps = epoch + 1, steps
        if not math.isfinite(values["train/loss"]):
            self.error = UserError(diverged(values["train/loss"], epoch, steps))
            return True
        self.checkpoints.train_loss = values["train/loss"]
        stop = self.stops(values, trainer)
        if self.checkpoints.monitor in values and self.checkpoints.improved(values[self.checkpoints.monitor]):
            self.best_epoch, self.contents["best"] = epoch, content() | {"stopped": self.wants_stop}
            self.metrics = {name: value for name, value in values.items() if name != "train/loss"}
        if stop or self.epochs == trainer.max_epochs:
            self.contents["last"] = content() | {"stopped": self.wants_stop}
        return stop

    def stops(self, values: dict[str, float], trainer: Any) -> bool:
        """Whether the member's own EarlyStopping would stop it, which is shown a Trainer of this member alone."""
        seen = {name: torch.tensor(value) for name, value in values.items()}
        own: Any = SimpleNamespace(
            callback_metrics=seen, current_epoch=self.epochs - 1, state=trainer.state, strategy=trainer.strategy,
            should_stop=self.wants_stop, fast_dev_run=False, sanity_checking=False, val_check_interval=1.0,
            check_val_every_n_epoch=1,
        )  # fmt: skip
        for patience in self.stopping:
            if self.epochs == 1:
                patience.setup(own, self.module, "fit")
            patience.on_train_epoch_end(own, self.module)
        self.wants_stop = own.should_stop
        return self.wants_stop and self.epochs >= (trainer.min_epochs or 0)

    def callbacks(self) -> dict[str, Any]:
        return {one.state_key: one.state_dict() for one in (*self.stopping, self.checkpoints, Epochs())}


class Logged:
    """What self.log is given over an epoch, reduced as Lightning does: means over rows; metrics compute themselves."""

    def __init__(self) -> None:
        self.rows = 0  # of the batch
        self.values: dict[str, Any] = {}

    def log(self, name: str, value: Any, *, batch_size: int | None = None, **options: Any) -> None:
        if isinstance(value, Metric):
            self.values[name] = value
            return
        rows = batch_size or self.rows
        total, count = self.values.get(name, (0.0, 0))
        self.values[name] = total + torch.as_tensor(value) * rows, count + rows

    def compute(self) -> dict[str, float]:
        found = {}
        for name, value in self.values.items():
            found[name] = (value.compute() if isinstance(value, Metric) else value[0] / value[1]).item()
        for value in self.values.values():
            if isinstance(value, Metric):
                value.reset()
        return found
