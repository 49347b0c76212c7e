"""Plan: which jobs of a sweep train together as one network."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from tabrun.runs.pace import batches_per_step, watched

STACKED = {  # keys in which the members of a stack may differ
    *("folder", "seed", "data.seed", "data.fold", "optimizer.lr", "optimizer.weight_decay"),
    *("loss.label_smoothing", "loss.class_weights", "scheduler.make.max_lr"),
}
SHIPPED = {"checkpoints", "early_stopping", "gradient_norms"}  # callbacks whose part a stack takes
OPTIMIZERS = {f"torch.optim.{name}" for name in ("SGD", "Adam", "AdamW", "RMSprop")}


def stackable(config: dict[str, Any]) -> str | None:
    """What the configs of a stack have in common, as text; None for a run that has to train alone."""
    alone = (
        config["init_from"]
        or config["trainer"]["compile"]
        or config["optimizer"]["_target_"] not in OPTIMIZERS
        or (config["model"].get("dropout") and not config["sweep"]["stack_dropout"])  # its random numbers would differ
        or watched(config)
        or batches_per_step(config) == 1  # its loops count as the Trainer's own do, and a stack's do not
        or {name for name, node in config["callbacks"].items() if node} - SHIPPED
        or {name for name, node in config["logger"].items() if node} != {"csv"}
        or config["trainer"]["precision"] not in ("32-true", "64-true")
        or repr(config["trainer"]["limit_val_batches"]) != "1.0"  # 1 is one batch
        or (wide(config) and (config["trainer"]["accelerator"] == "cpu" or not torch.cuda.is_available()))
    )

    def common(node: dict[str, Any], prefix: str = "") -> dict[str, Any]:
        return {
            key: common(value, f"{prefix}{key}.") if isinstance(value, dict) else value
            for key, value in node.items()
            if f"{prefix}{key}" not in STACKED
        }

    shared = common({key: value for key, value in config.items() if key not in ("logger", "sweep")})
    shared["callbacks"] = {name: node for name, node in shared["callbacks"].items() if name != "checkpoints"}
    return None if alone else json.dumps(shared, sort_keys=True)


def wide(config: dict[str, Any]) -> bool:
    """Whether a step is work enough to keep a CPU busy, so that a stack would gain nothing."""
    widths = config["model"].get("hidden", [])
    return config["data"]["batch_size"] * sum(a * b for a, b in pairwise(widths)) > 2**27


def stacks(configs: dict[int, dict[str, Any]], max_stack: int | None) -> list[list[int]]:
    """The numbers of the jobs that train as one, and of those that train alone, in the order of their first."""
    plan: dict[str, list[list[int]]] = {}
    for number, config in configs.items():
        key = stackable(config) or f"alone {number}"
        groups = plan.setdefault(key, [[]])
        if len(groups[-1]) == max_stack:
            groups.append([])
        groups[-1].append(number)
    return sorted(group for groups in plan.values() for group in groups)


def most_members(net: nn.Module, rows: int, bytes_each: int, free: int) -> int:
    """How many nets like this one may be a stack, so that it takes half of the free memory (bytes) at most.

    rows: of the largest batch; bytes_each: of a number. A member has its parameters ten times (its own net, the stack,
    gradient, move, two states of Adam, last and best weights, and two for a moment), and for each row what goes into
    each layer and comes out of it.
    """
    sizes = [(parameter.numel(), sum(parameter.shape)) for parameter in net.parameters()]
    member = sum(10 * numel + rows * width for numel, width in sizes) * bytes_each
    return max(1, free // 2 // member)
