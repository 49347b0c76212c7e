"""Pace: how many threads and how much memory there are to train with."""

import os
from pathlib import Path

import torch
from torch import nn

ALL_THREADS = torch.get_num_threads()  # the cores, or what OMP_NUM_THREADS says where jobs share the machine
THREADS_FROM = 2**23  # products in a step's forward pass, under which a second thread costs more than it gains


def set_threads(wanted: int | None, batch_size: int, *modules: nn.Module) -> None:
    """As many threads as speed.threads says, or as pay for a step of these modules, each on so many rows."""
    products = batch_size * sum(p.numel() for module in modules for p in module.parameters())
    torch.set_num_threads(wanted or (ALL_THREADS if products > THREADS_FROM else 1))


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
