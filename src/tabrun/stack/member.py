"""Member: one run of a stack: its module, its batches, what it has reached, and the folder that it leaves."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import EarlyStopping
from torch.optim import Optimizer
from torchmetrics import Metric

from tabrun.cli.errors import UserError
from tabrun.runs.build import Build, set_up
from tabrun.runs.checkpoint_file import write_checkpoint
from tabrun.runs.checkpoints import Checkpoints
from tabrun.runs.chunks import Counted
from tabrun.runs.csv_log import CsvLog
from tabrun.runs.epochs import Epochs, diverged
from tabrun.runs.folder import lock
from tabrun.runs.train import chance, log_outcome, write_results
from tabrun.tables.data import Batches, TabularData


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
        measures = known.setdefault(f"{self.alike} {schema.classes}", build.measures(config, schema))
        self.module: Any = build.classifier(config, schema, measures)
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


def write(build: Build, member: Member, identity: dict[str, Any]) -> None:
    """The folder that a run of its own would have: checkpoints, log, record and metrics."""
    schema: Any = member.table.schema
    folder = Path(member.config["folder"])
    lock(folder)
    identity = identity | {"data_sha256": member.table.sha256}
    loggers = build.loggers(member.config)
    position: dict[str, Any] = {}
    for logger in loggers:
        for row in member.log:
            logger.log_metrics({k: v for k, v in row.items() if k != "step"}, int(row["step"]))
            if not isinstance(logger, CsvLog):
                logger.save()
        position |= {"log": logger.position()} if isinstance(logger, CsvLog) else {}
    for name, content in member.contents.items():
        content |= {"config": member.config, "schema": schema.plain(), "record": identity, **position}
        write_checkpoint(content, folder / "checkpoints" / f"{name}.ckpt")
    if member.error is None:
        loss, least = member.log[-1]["train/loss"], chance(member.module, schema)
        seen = {"epochs": member.epochs, "steps": member.steps, "train/loss": loss, "chance": least}
        log_outcome(loggers, member.config, member.metrics, member.steps)
        write_results(folder, identity | seen, member.metrics)
    for logger in loggers:
        logger.finalize("failed" if member.error else "success")


class StackedBatches:
    """The batches of every member: rows (P, batch, ...), or (batch, ...) where all have the same; labels, weights."""

    def __init__(self, tables: Sequence[TabularData], epoch: Callable[[], int]) -> None:
        self.each = [table.train_dataloader() for table in tables]
        for batches in self.each:
            batches.epoch = epoch

    def __len__(self) -> int:
        return len(self.each[0])

    def __iter__(self) -> Iterator[Any]:
        if all(same_order(self.each[0], other) for other in self.each):
            yield from self.each[0]
        else:
            yield from map(stacked, zip(*self.each, strict=True))


def stacked(batches: Sequence[Any]) -> Any:
    """One batch, (P, rows, ...), of those of P members."""
    first = [batch[0] for batch in batches]
    pairs = isinstance(first[0], tuple)
    rows = tuple(map(torch.stack, zip(*first, strict=True))) if pairs else torch.stack(first)
    return rows, *(torch.stack(each) for each in list(zip(*batches, strict=True))[1:])


def same_order(one: Batches, other: Batches) -> bool:
    return one is other or (
        (one.seed, one.rows is other.rows) == (other.seed, True) and torch.equal(one.index, other.index)
    )


def table_of(build: Build, config: dict[str, Any], known: dict[str, Any]) -> TabularData:
    """The data of a run; those that differ in the order of batches alone share one table in memory."""
    key = json.dumps({name: value for name, value in config["data"].items() if name != "seed"})
    if key not in known:
        known[key] = set_up(build, config)
    table = copy.copy(known[key])
    table.seed = config["data"]["seed"]
    return table
