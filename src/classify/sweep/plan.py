"""Plan: which jobs of a sweep train together as one network."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import torch

from classify.build import watched

MOST_STACKED = 256  # members, where sweep.max_stack does not say

STACKED = {  # keys in which the members of a stack may differ
    *("folder", "seed", "data.seed", "data.fold", "optimizer.lr", "optimizer.weight_decay"),
    *("loss.label_smoothing", "loss.class_weights", "scheduler.make.max_lr"),
}
OPTIMIZERS = {f"torch.optim.{name}" for name in ("SGD", "Adam", "AdamW", "RMSprop")}


def stackable(config: dict[str, Any]) -> str | None:
    """What the configs of a stack have in common, as text; None for a run that has to train alone."""
    alone = (
        config["init_from"]
        or config["optimizer"]["_target_"] not in OPTIMIZERS
        or config["model"].get("dropout")  # its random numbers would not be those of the run alone
        or watched(config)
        or {name for name, node in config["logger"].items() if node} != {"csv"}
        or config["trainer"]["precision"] not in ("32-true", "64-true")
        or config["trainer"]["limit_val_batches"] != 1.0
        or (wide(config) and not torch.cuda.is_available())
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
    return config["data"]["batch_size"] * sum(a * b for a, b in pairwise(widths)) > 2**25


def stacks(configs: dict[int, dict[str, Any]], max_stack: int | None) -> list[list[int]]:
    """The numbers of the jobs that train as one, and of those that train alone, in the order of their first."""
    plan: dict[str, list[list[int]]] = {}
    for number, config in configs.items():
        key = stackable(config) or f"alone {number}"
        groups = plan.setdefault(key, [[]])
        if len(groups[-1]) >= (max_stack or MOST_STACKED):
            groups.append([])
        groups[-1].append(number)
    return sorted(group for groups in plan.values() for group in groups)
