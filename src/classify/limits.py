"""Limits: what the library is told of conf/'s keys: what their values may be, and which runs may train as one."""

import math
import sys
from collections.abc import Mapping, Sequence
from itertools import pairwise
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
MAY_DIFFER: Sequence[str] = (  # keys in which runs that train as one may differ
    *("optimizer.lr", "optimizer.weight_decay", "scheduler.make.max_lr"),
    *("loss.label_smoothing", "loss.class_weights"),
)
STACKED = {f"torch.optim.{name}" for name in ("SGD", "Adam", "AdamW", "RMSprop")}  # optimizers that a stack plays


def alone(config: dict[str, Any]) -> bool:
    """Whether a stack does not play a run's model or optimizer as the run alone does, or would gain nothing."""
    import torch

    random = config["model"].get("dropout") and not config["sweep"]["stack_dropout"]  # its random numbers would differ
    products = sum(a * b for a, b in pairwise(config["model"].get("hidden", [])))
    wide = config["data"]["batch_size"] * products > 2**27  # a step is work enough to keep a CPU busy
    on_cpu = config["trainer"]["accelerator"] == "cpu" or not torch.cuda.is_available()
    return bool(random or config["optimizer"]["_target_"] not in STACKED or (wide and on_cpu))
