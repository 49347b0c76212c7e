"""How soon a command answers, and what it imports.

Part of benchmark.py: python scripts/benchmark.py start
"""

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from statistics import median
from typing import Any

TRAIN = ["-m", "classify.train"]
COMPLETION = {"COMP_LINE": "python -m classify.train optimizer.l", "COMP_POINT": "36"}
COMMANDS = {
    "--help": [*TRAIN, "--help"],
    "--cfg job": [*TRAIN, "--cfg", "job"],
    "shell completion": [*TRAIN, "--shell-completion", "query=bash"],
    "a wrong key": [*TRAIN, "optimizer.lrr=1"],
    "a wrong value": [*TRAIN, "trainer.max_epochs=three"],
    "a value out of range": [*TRAIN, "optimizer.lr=-1"],
    "a wrong choice": [*TRAIN, "model=mpl"],
    "import lightning": ["-c", "import lightning"],
    "predict": ["-m", "classify.predict", "RUN", "TABLE", "-o", "OUT"],
    "evaluate": ["-m", "classify.evaluate", "RUN"],
    "a default run": [*TRAIN],
    "sixteen of them": [*TRAIN, "-m", f"optimizer.lr={','.join(f'{0.001 * 1.4**i:.2g}' for i in range(16))}"],
}
HEAVY = ("torch", "lightning", "torchmetrics", "hydra", "sklearn", "polars")


def answered(words: Sequence[str], folder: str, *options: str) -> tuple[float, str]:
    """Seconds that python takes, and its stderr."""
    places = {"RUN": f"{folder}/run", "TABLE": f"{folder}/table.csv", "OUT": f"{folder}/{time.monotonic_ns()}.csv"}
    start = time.perf_counter()
    command = [sys.executable, *options, *(places.get(word, word) for word in words)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=os.environ | COMPLETION)
    return time.perf_counter() - start, done.stderr


def imported(words: Sequence[str], folder: str) -> dict[str, float]:
    """The seconds that each module's own code takes to import, by name."""
    lines = re.findall(r"import time: +(\d+) \| +\d+ \| +(\S+)", answered(words, folder, "-X", "importtime")[1])
    return {name: int(microseconds) / 1e6 for microseconds, name in lines}


def table(repeats: int = 5, without: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Of each command: seconds, the seconds of imports beyond `import lightning`, and what of HEAVY it imports."""
    from sklearn.datasets import load_breast_cancer

    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, *TRAIN, f"folder={folder}/run"], check=True, capture_output=True)
        load_breast_cancer(as_frame=True).data.to_csv(f"{folder}/table.csv", index=False)
        commands = {name: words for name, words in COMMANDS.items() if name not in without}
        runs = [{name: answered(words, folder)[0] for name, words in commands.items()} for _ in range(repeats)]
        lightning = imported(COMMANDS["import lightning"], folder)
        found = []
        for name, words in commands.items():
            modules = imported(words, folder)
            more = {module: seconds for module, seconds in modules.items() if module not in lightning}
            pandas = sum(seconds for module, seconds in more.items() if module.split(".")[0] == "pandas")
            row: dict[str, Any] = {"command": name, "s": median(run[name] for run in runs)}
            row["imports, s"] = sum(modules.values())
            row["of these beyond lightning's, s"] = sum(more.values()) - pandas
            row["pandas, which scikit-learn imports where it is installed, s"] = pandas
            found.append(row | {"imports": ", ".join(module for module in HEAVY if module in modules)})
    return found
