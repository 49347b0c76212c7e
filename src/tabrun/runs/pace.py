"""Pace: how many threads and how many mini-batches at once suit a run."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tabrun.cli.errors import UserError

ALL_THREADS = torch.get_num_threads()  # the cores, or what OMP_NUM_THREADS says where jobs share the machine
THREADS_FROM = 2**23  # products in a step's forward pass, under which a second thread costs more than it gains
MOST_BATCHES, STEP_ROWS = 64, 2**14  # of what the Trainer is handed as one: hooks become cheap, rows stay in the cache
PER_EPOCH = {"tabrun.Checkpoints", "lightning.pytorch.callbacks.EarlyStopping"}  # when these listen
PER_RUN = {  # arguments of the Trainer that have no part in a single step, and values of others that have none
    *("_target_", "accelerator", "precision", "max_epochs", "limit_val_batches"),
    *("deterministic", "num_sanity_val_steps", "enable_model_summary", "enable_progress_bar"),
}
UNWATCHED = {
    **{"devices": 1, "num_nodes": 1, "strategy": "auto", "gradient_clip_val": None, "accumulate_grad_batches": 1},
    **{"limit_train_batches": 1.0, "profiler": None, "log_every_n_steps": 0},
}


def set_threads(config: dict[str, Any], net: nn.Module, num_nets: int = 1) -> None:
    """As many threads as speed.threads says, or as pay for a step of so many of these nets."""
    products = config["data"]["batch_size"] * num_nets * sum(p.numel() for p in net.parameters())
    torch.set_num_threads(config["speed"]["threads"] or (ALL_THREADS if products > THREADS_FROM else 1))


def batches_per_step(config: dict[str, Any]) -> int:
    """How many mini-batches the Trainer is handed as one: several where nothing listens in between."""
    wanted, batch_size = config["speed"]["chunk"], config["data"]["batch_size"]
    if not watched(config):
        return wanted or max(1, min(MOST_BATCHES, STEP_ROWS // batch_size))
    if wanted is not None and wanted > 1:
        raise UserError(
            f"speed.chunk={wanted} hands the Trainer many batches as one, but a callback or a key of "
            "trainer, such as gradient_clip_val, needs each: leave it out"
        )
    return 1


def watched(config: dict[str, Any]) -> bool:
    """Whether something has to see each mini-batch: a callback, a count of batches, another process, a profiler."""
    listeners = {node["_target_"] for node in config["callbacks"].values() if node and node.get("every_n_steps") != 0}
    return bool(listeners - PER_EPOCH) or any(
        key not in PER_RUN and repr(value) != repr(UNWATCHED.get(key, ...))  # 1 batch is not 1.0, which is all
        for key, value in config["trainer"].items()
    )


def free_memory(accelerator: str) -> int:
    """Bytes that are free where the Trainer trains."""
    if accelerator != "cpu" and torch.cuda.is_available():
        return torch.cuda.mem_get_info()[0]
    meminfo, container = Path("/proc/meminfo"), Path("/sys/fs/cgroup")
    if not meminfo.exists():  # not Linux: half of what is built in
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    free = int(meminfo.read_text().split("MemAvailable:")[1].split()[0]) * 1024
    if (container / "memory.max").exists() and (most := (container / "memory.max").read_text().strip()) != "max":
        free = min(free, int(most) - int((container / "memory.current").read_text()))
    return free
