"""Member: one run of a stack: its batches, what it has reached, and the folder that it leaves."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from lightning.pytorch.callbacks import EarlyStopping

from tabrun.cli.errors import UserError
from tabrun.runs.checkpoint_file import write_checkpoint
from tabrun.runs.checkpoints import Checkpoints, diverged
from tabrun.runs.csv_log import CsvLog
from tabrun.runs.folder import lock
from tabrun.runs.train import chance, write_results
from tabrun.tables.data import Batches, TabularData


class Member:
    """What is kept of one run: its log, its best weights, whether and why it ended."""

    classifier: Any
    table: TabularData

    def __init__(self, config: dict[str, Any], callbacks: Sequence[Any]) -> None:
        self.patience = next((one for one in callbacks if isinstance(one, EarlyStopping)), None)
        self.checkpoints: Checkpoints = next(one for one in callbacks if isinstance(one, Checkpoints))
        self.config = config
        self.best_epoch, self.epochs, self.steps = -1, 0, 0
        self.metrics: dict[str, float] = {}
        self.log: list[dict[str, float]] = []
        self.contents: dict[str, dict[str, Any]] = {}  # of best.ckpt and last.ckpt
        self.error: Exception | None = None

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
        if self.checkpoints.improved(values[self.checkpoints.monitor]):
            self.best_epoch, self.contents["best"] = epoch, content() | {"stopped": stop}
            self.metrics = {name: value for name, value in values.items() if name.startswith("val/")}
        if stop or self.epochs == trainer.max_epochs:
            self.contents["last"] = content() | {"stopped": stop}
        return stop

    def stops(self, values: dict[str, float], trainer: Any) -> bool:
        """Whether the member's own EarlyStopping would stop it, which is shown a Trainer of this member alone."""
        if self.patience is None:
            return False
        seen = {name: torch.tensor(value) for name, value in values.items()}
        own: Any = SimpleNamespace(
            callback_metrics=seen, current_epoch=self.epochs - 1, state=trainer.state, strategy=trainer.strategy,
            should_stop=False, fast_dev_run=False, sanity_checking=False, val_check_interval=1.0,
            check_val_every_n_epoch=1,
        )  # fmt: skip
        if self.epochs == 1:
            self.patience.setup(own, self.classifier, "fit")
        self.patience.on_train_epoch_end(own, self.classifier)
        return own.should_stop

    def callbacks(self) -> dict[str, Any]:
        return {one.state_key: one.state_dict() for one in (self.patience, self.checkpoints) if one}


def write(member: Member, identity: dict[str, Any]) -> None:
    """The folder that a run of its own would have: checkpoints, log, record and metrics."""
    schema: Any = member.table.schema
    folder = Path(member.config["folder"])
    lock(folder)
    identity = identity | {"data_sha256": member.table.sha256}
    log = CsvLog(str(folder / "log"))
    for row in member.log:
        log.log_metrics({k: v for k, v in row.items() if k != "step"}, step=int(row["step"]))
    position = log.position()
    for name, content in member.contents.items():
        content |= {"config": member.config, "schema": schema.plain(), "record": identity, "log": position}
        write_checkpoint(content, folder / "checkpoints" / f"{name}.ckpt")
    if member.error is None:
        loss, least = member.log[-1]["train/loss"], chance(member.classifier.loss, schema)
        seen = {"epochs": member.epochs, "steps": member.steps, "train/loss": loss, "chance": least}
        write_results(folder, identity | seen, member.metrics)


class StackedBatches:
    """The batches of every member: rows (P, batch, ...), or (batch, ...) where all have the same, and labels."""

    def __init__(self, tables: Sequence[TabularData], epoch: Callable[[], int]) -> None:
        self.each = [table.train_dataloader() for table in tables]
        for batches in self.each:
            batches.epoch = epoch

    @property
    def num_rows(self) -> int:
        return self.each[0].num_rows

    def __len__(self) -> int:
        return len(self.each[0])

    def __iter__(self) -> Iterator[tuple[Any, torch.Tensor]]:
        if all(same_order(self.each[0], other) for other in self.each):
            yield from self.each[0]
            return
        for batches in zip(*self.each, strict=True):
            rows, labels = zip(*batches, strict=True)
            pairs = isinstance(rows[0], tuple)
            yield tuple(map(torch.stack, zip(*rows, strict=True))) if pairs else torch.stack(rows), torch.stack(labels)


def same_order(one: Batches, other: Batches) -> bool:
    return one is other or (
        (one.seed, one.rows is other.rows) == (other.seed, True) and torch.equal(one.index, other.index)
    )
