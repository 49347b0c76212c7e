"""Limits: what the library is told of conf/'s keys: what their values may be, and which runs may train as one."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from tabrun.cli.errors import UserError, shown
from tabrun.cli.roles import CALLBACK, MODULE, Role

RANGES: Mapping[str, tuple[float, float]] = {  # the least and the most of a number, or of each in a list
    "model.hidden": (1, 2**24),
    "model.dropout": (0, 0.999),
    **dict.fromkeys(("encode.frequencies", "encode.outputs"), (1, 1024)),
    "encode.std": (0, 1e6),
    "encode.bins": (2, 32),
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
    "encode.scale": (None, "standard", "robust"),
    "encode.embed": (None, "periodic", "piecewise"),
    "scheduler.interval": (None, "step", "epoch"),
    "trainer.precision": ("32-true", "64-true", "16-mixed", "bf16-mixed", "16-true", "bf16-true"),
    "trainer.profiler": (None, "simple", "advanced", "pytorch", "xla"),
}
ROLES: Mapping[str, Role] = {"model": MODULE, "loss": MODULE, "callbacks.*": CALLBACK}
MEANT: Mapping[str, str] = {  # keys by names that are too far from them to be guessed
    **{"learning_rate": "optimizer.lr", "epochs": "trainer.max_epochs", "layers": "model.hidden"},
}
MORE: Sequence[str] = ("trainer.max_epochs", "callbacks.early_stopping.patience")  # that a finished run may be given
ADDED: Sequence[str] = ("encode", "optimizer.decay_biases", "loss.undo_smoothing")  # that older runs may lack
BETTER = "better on most tables, and slower: experiment=strong"  # said after a run of one net on an own table
BESIDE: Sequence[str] = ("callbacks.checkpoints.minutes", "logger")  # what may be another when a run goes on


def alike(config: dict[str, Any]) -> Any:
    """What runs that train as one have in common and their modules do not show."""
    return {"trainer": config["trainer"], "metrics": config["metrics"]}


def check(config: Mapping[str, Any]) -> None:
    """Raises UserError for parts that cannot be made, that do not go together, or that watch what nothing measures."""
    from tabrun.cli.keys import nearest  # here, as `load` needs no Hydra

    nodes = {f"{key}.{name}": node for key in ("callbacks", "logger", "metrics") for name, node in config[key].items()}
    nodes |= {key: config.get(key) for key in ("model", "loss", "optimizer", "scheduler")}
    names = [f"val/{name}" for name in ("loss", *(name for name, metric in config["metrics"].items() if metric))]
    if config["monitor"] not in names:
        there = f"{nearest(str(config['monitor']), names)}: there are {', '.join(names)}"
        raise UserError(f"monitor={config['monitor']} is not measured{there}")
    for key, node in nodes.items():
        if node and not (isinstance(node, Mapping) and "_target_" in node and key.count(".") < 2):
            raise UserError(f"{key} is nothing that can be made: it needs a _target_, and a name without dots")
        if node and node.get("monitor", "train/loss") not in ("train/loss", *names):
            raise UserError(f"{key}.monitor={node['monitor']} is not measured: there are {', '.join(names)}")
    if "loss" in config["metrics"]:
        raise UserError("metrics.loss: this name is taken by the cross-entropy: call the metric something else")
    if not config["callbacks"].get("checkpoints"):
        raise UserError("callbacks.checkpoints cannot be left out: a run is read back from them")
    if config["loss"].get("undo_smoothing") and config["loss"].get("class_weights") is not None:
        raise UserError("loss.undo_smoothing does not go with loss.class_weights: say loss=cross_entropy beside these")
    mode = config["speed"]["compile"]
    if mode not in (None, "default") and config["trainer"]["accumulate_grad_batches"] != 1:
        raise UserError(
            f"speed.compile={mode} replays CUDA graphs, which write over gradients that "
            "trainer.accumulate_grad_batches keeps: say speed.compile=default"
        )


def check_more(before: dict[str, Any], after: dict[str, Any], num_epochs: int) -> None:
    """Raises UserError where a run of the config `before`, in this epoch, cannot go on with that of `after`."""
    old, new = (config["trainer"]["max_epochs"] for config in (before, after))
    if new != old and (before.get("scheduler") or {}).get("total"):
        raise UserError(f"trainer.max_epochs: the schedule of {shown(after['folder'])} was made for {old} epochs")
    if new < num_epochs:
        raise UserError(
            f"trainer.max_epochs: {shown(after['folder'])} is in epoch {num_epochs} already: say that or more"
        )
