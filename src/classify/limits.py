"""Limits: what the library is told of conf/'s keys: what their values may be, and which runs may train as one."""

import math
import sys
from collections.abc import Mapping
from typing import Any

RANGES: Mapping[str, tuple[float, float]] = {  # the least and the most of a number, or of each in a list
    "model.hidden": (1, 2**24),
    "model.dropout": (0, 0.999),
    "optimizer.lr": (0, sys.float_info.max),
    "optimizer.momentum": (0, 1),
    "optimizer.weight_decay": (0, sys.float_info.max),
    "loss.label_smoothing": (0, 1),
    "callbacks.early_stopping.patience": (1, math.inf),
    "trainer.max_epochs": (1, math.inf),
    "trainer.accumulate_grad_batches": (1, math.inf),
    "trainer.limit_train_batches": (1e-9, math.inf),
    "trainer.limit_val_batches": (1e-9, math.inf),
}
CHOICES: Mapping[str, tuple[str | None, ...]] = {  # the words that a key may be
    "head": ("auto", "sigmoid", "softmax"),
    "scheduler.interval": (None, "step", "epoch"),
    "trainer.precision": ("32-true", "64-true", "16-mixed", "bf16-mixed", "16-true", "bf16-true"),
    "trainer.profiler": (None, "simple", "advanced", "pytorch", "xla"),
}


def alike(config: dict[str, Any]) -> Any:
    """What runs that train as one have in common and their modules do not show."""
    return {"trainer": config["trainer"], "metrics": config["metrics"]}
