"""Plan: which jobs of a sweep train together as one network."""

from __future__ import annotations

import json
from typing import Any

from torch import nn

from tabrun.runs.build import Build, Config
from tabrun.runs.pace import batches_per_step, watched

MAY_DIFFER = ("folder", "seed", "data.seed", "data.fold")  # and the template's own


def stackable(config: Config, build: Build) -> str | None:
    """What the configs of a stack have in common, as text; None for a run that has to train alone."""
    callbacks = [node["_target_"] for node in config["callbacks"].values() if node and node.get("every_n_steps") != 0]
    alone = (
        config["init_from"]
        or config["speed"]["compile"]
        or build.alone(config)
        or watched(config)
        or batches_per_step(config) == 1  # its loops count as the Trainer's own do, and a stack's do not
        or len(callbacks) > len(set(callbacks))  # a member plays one of each
        or {node["_target_"] for node in config["logger"].values() if node} != {"tabrun.CsvLog"}
        or config["trainer"]["precision"] not in ("32-true", "64-true")
        or repr(config["trainer"]["limit_val_batches"]) != "1.0"  # 1 is one batch
    )

    def common(node: dict[str, Any], prefix: str = "") -> dict[str, Any]:
        return {
            key: common(value, f"{prefix}{key}.") if isinstance(value, dict) else value
            for key, value in node.items()
            if f"{prefix}{key}" not in (*MAY_DIFFER, *build.MAY_DIFFER)
        }

    shared = common({key: value for key, value in config.items() if key not in ("logger", "sweep")})
    shared["callbacks"] = {name: node for name, node in shared["callbacks"].items() if name != "checkpoints"}
    return None if alone else json.dumps(shared, sort_keys=True)


def stacks(configs: dict[int, Config], build: Build, max_stack: int | None) -> list[list[int]]:
    """The numbers of the jobs that train as one, and of those that train alone, in the order of their first."""
    plan: dict[str, list[list[int]]] = {}
    for number, config in configs.items():
        key = stackable(config, build) or f"alone {number}"
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
