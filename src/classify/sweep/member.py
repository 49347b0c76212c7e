"""Member: one run of a population: what it has reached, and the folder that it leaves."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor

from classify.data import TabularData
from classify.module import Classifier
from classify.run import record, write_json


class Member:
    """What is kept of one run: its log, its best weights, whether and why it ended."""

    classifier: Classifier

    def __init__(self, config: dict[str, Any]) -> None:
        node = config["callbacks"].get("early_stopping")
        self.patience = EarlyStopping(**{k: v for k, v in node.items() if k != "_target_"}) if node else None
        self.config = config
        self.sign = -1 if config["mode"] == "min" else 1
        self.best, self.best_epoch, self.epochs, self.steps = math.nan, -1, 0, 0
        self.metrics: dict[str, float] = {}
        self.log: list[dict[str, float]] = []
        self.weights: dict[str, dict[str, Tensor]] = {}  # of best and last
        self.error: Exception | None = None

    def epoch_ended(self, values: dict[str, float], weights: dict[str, Tensor], steps: int) -> bool:
        """Notes an epoch; True when the member stops here."""
        epoch = self.epochs
        self.log.append({"epoch": epoch, "step": steps - 1} | values)
        self.epochs, self.steps = epoch + 1, steps
        if not math.isfinite(values["train/loss"]):
            self.error = ValueError(f"the training loss is {values['train/loss']} in epoch {epoch}, by step {steps}")
            return True
        score = self.sign * values[self.config["monitor"]]
        self.weights["last"] = weights
        if score > self.best or math.isnan(self.best):
            self.best, self.best_epoch, self.weights["best"] = score, epoch, self.weights["last"]
            self.metrics = {name: value for name, value in values.items() if name.startswith("val/")}
        if self.patience is None:
            return False
        return self.patience._evaluate_stopping_criteria(torch.tensor(values[self.config["monitor"]]))[0]


def write(member: Member, table: TabularData) -> None:
    """The folder that a run of its own would have: checkpoints, log, record and metrics."""
    assert table.schema
    folder = Path(member.config["folder"])
    identity = record(table)
    for name, weights in member.weights.items():
        epochs = member.best_epoch if name == "best" else member.epochs - 1
        content = {"state_dict": weights, "config": member.config, "schema": table.schema.plain(), "record": identity}
        (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
        torch.save(content | {"epoch": epochs, "global_step": member.steps}, folder / "checkpoints" / f"{name}.ckpt")
    logger = CSVLogger(folder, name="", version="log")
    for row in member.log:
        logger.log_metrics({k: v for k, v in row.items() if k != "step"}, step=int(row["step"]))
    logger.save()
    write_json(folder / "run.json", identity | {"epochs": member.epochs, "steps": member.steps})
    write_json(folder / "metrics.json", member.metrics)
