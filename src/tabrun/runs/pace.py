"""Pace: threads, and many mini-batches in one step of the Trainer, whose own hooks cost more than a small net's step.

Where nothing listens in between, the weights are the same to the last bit.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch import Callback
from torch import Tensor, nn

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
    trainer = {key: value for key, value in config["trainer"].items() if key not in PER_RUN}
    one_batch = isinstance(trainer.get("limit_train_batches"), int)  # and not 1.0, which is all
    return bool(listeners - PER_EPOCH) or trainer != UNWATCHED or one_batch


def free_memory(accelerator: str) -> int:
    """Bytes that are free where the Trainer trains."""
    if accelerator != "cpu" and torch.cuda.is_available():
        return torch.cuda.mem_get_info()[0]
    meminfo, container = Path("/proc/meminfo"), Path("/sys/fs/cgroup")
    if not hasattr(os, "sysconf"):  # Windows: what most machines have free
        return 2**32
    if not meminfo.exists():  # not Linux: half of what is built in
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    free = int(meminfo.read_text().split("MemAvailable:")[1].split()[0]) * 1024
    if (container / "memory.max").exists() and (most := (container / "memory.max").read_text().strip()) != "max":
        free = min(free, int(most) - int((container / "memory.current").read_text()))
    return free


class Quick(lightning.LightningModule):
    """The Trainer hands over many mini-batches as one; backward and the optimizer's steps still go through it."""

    def __init__(self, batch_size: int, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.batch_size, self.automatic_optimization = batch_size, False

    def __setattr__(self, name: str, value: Any) -> None:
        # Lightning notes the name of each hook on the module, ten times a step, where nn.Module looks for tensors first
        if name in self.__dict__ and (value is None or isinstance(value, str | int)):
            self.__dict__[name] = value
        else:
            super().__setattr__(name, value)

    def training_step(self, batch: tuple[Any, Tensor], batch_idx: int) -> None:
        optimizer: Any = self.optimizers()
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        trainer: Any = self.trainer
        # none of ours listens in between, but to call each one's empty hooks would take 15 us a mini-batch
        callbacks, trainer.callbacks = trainer.callbacks, [one for one in trainer.callbacks if listens(one)]
        try:
            for rows, labels in mini_batches(self.prepared(batch[0]), batch[1], self.batch_size):
                for parameter in parameters:  # as zero_grad() does, in 1 us and not in 12
                    parameter.grad = None
                self.manual_backward(self.mini_batch_loss(rows, labels))
                optimizer.step()
                self.mini_batch_ended()
        finally:
            trainer.callbacks = callbacks

    @property
    def num_steps(self) -> int:
        """The optimizer's steps in the whole run."""
        self.trainer.fit_loop.setup_data()
        batches: Any = self.trainer.train_dataloader
        return math.ceil(batches.num_rows / self.batch_size) * int(self.trainer.max_epochs or 1)

    def prepared(self, rows: Any) -> Any:
        """What can be done to all rows before they are cut into mini-batches."""
        return rows

    def mini_batch_loss(self, rows: Any, labels: Tensor) -> Tensor:
        """What backward starts from, a scalar; rows are as `prepared` gave them."""
        raise NotImplementedError

    def mini_batch_ended(self) -> None:
        """For what is stepped with the optimizer."""


def listens(callback: Callback) -> bool:
    """Whether a callback has a hook that backward or the optimizer's step would call."""
    hooks = ("on_before_backward", "on_after_backward", "on_before_optimizer_step")
    return any(getattr(type(callback), hook) is not getattr(Callback, hook) for hook in hooks)


def encodes_ahead(encode: Any) -> bool:
    """Whether many mini-batches are encoded at once: nothing is learned there, and they still fit in the cache."""
    return not encode.embeddings and encode.out_features <= 256


def mini_batches(rows: Any, labels: Tensor, size: int) -> Iterator[tuple[Any, Tensor]]:
    """Views of `size` rows; where each run of a stack has rows of its own, (P, rows, ...), `size` of each."""
    parts = rows if isinstance(rows, tuple) else (rows,)
    dim = parts[0].dim() - 2
    for *cut, some in zip(*(part.split(size, dim) for part in (*parts, labels)), strict=True):
        yield (tuple(cut) if isinstance(rows, tuple) else cut[0]), some
