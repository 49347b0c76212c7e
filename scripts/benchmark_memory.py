"""Time and memory of a function of another script here, in a process of its own.

Part of benchmark.py.
"""

import importlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path


def measured(script: str, function: str, *words: str) -> tuple[float, float]:
    """Seconds, and the most memory above what was there before, in MiB; the function gives what is measured."""
    command = [sys.executable, __file__, script, function, *words]
    own = {key: value for key, value in os.environ.items() if key != "_RJEM_MALLOC_CONF"}  # polars leaves it there
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=own)
    if done.returncode:
        raise RuntimeError(done.stderr)
    seconds, memory = done.stdout.split()[-2:]
    return float(seconds), float(memory)


def resident() -> float:
    """MiB of this process that the kernel cannot drop: pages of a mapped file do not count, as it can drop those."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("RssAnon:")[1].split()[0]) / 1024


def measure(function: Callable[[], object]) -> None:
    before, most, done = resident(), [0.0], threading.Event()

    def watch() -> None:
        while not done.wait(0.002):
            most[0] = max(most[0], resident())

    watcher = threading.Thread(target=watch)
    watcher.start()
    start = time.perf_counter()
    kept = function()
    seconds = time.perf_counter() - start
    done.set()
    watcher.join()
    print(seconds, max(most[0], resident()) - before)
    del kept


if __name__ == "__main__":
    measure(getattr(importlib.import_module(sys.argv[1]), sys.argv[2])(*sys.argv[3:]))
