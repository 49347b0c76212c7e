"""Run: a finished run, read back from its folder or from one checkpoint alone."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from classify import build, heads
from classify.schema import Schema

if TYPE_CHECKING:
    from classify.data import TabularData

PACKAGES = ("torch", "lightning", "torchmetrics", "hydra-core", "scikit-learn", "polars", "numpy")


class TrainedClassifier(nn.Module):
    """A trained net with its schema, in eval mode: rows -> scores (rows, classes)."""

    def __init__(self, net: nn.Sequential, schema: Schema) -> None:
        super().__init__()
        self.net, self.schema = net, schema
        self.classes_ = schema.classes
        self.requires_grad_(False).eval()

    def forward(self, rows: Tensor) -> Tensor:
        return self.net(torch.as_tensor(rows, dtype=torch.float32))

    def predict_proba(self, rows: Tensor) -> Tensor:
        """Probabilities, (rows, classes), in the order of `classes_`."""
        return self(rows).softmax(-1)

    def predict(self, rows: Tensor, threshold: float | None = None) -> list[str]:
        """The class of each row; with two classes, the second from `threshold` (0.5 when None) upwards."""
        return [self.classes_[i] for i in heads.predict(self.predict_proba(rows), threshold).tolist()]


@dataclass(frozen=True)
class Run:
    """What a checkpoint holds: the config and schema of its run, what identifies it, and the weights."""

    path: Path
    config: build.Config
    schema: Schema
    record: dict[str, Any]
    weights: dict[str, Tensor]

    @classmethod
    def open(cls, path: str | Path, checkpoint: str = "best") -> Run:
        """Reads a run's folder (its best.ckpt, or its last.ckpt) or a checkpoint file; ValueError if it is neither."""
        file = Path(path)
        if file.is_dir():
            file = file / "checkpoints" / f"{checkpoint}.ckpt"
        content = read_checkpoint(file)
        weights = {k.removeprefix("net."): v for k, v in content["state_dict"].items() if k.startswith("net.")}
        return cls(file, content["config"], Schema.from_plain(content["schema"]), content["record"], weights)

    def classifier(self) -> TrainedClassifier:
        net = build.net(self.config, self.schema)
        net.load_state_dict(self.weights)
        return TrainedClassifier(net, self.schema)

    def data(self) -> TabularData:
        """The run's own table and split; ValueError when its rows are not the ones that the run saw."""
        table = build.data(self.config, self.schema)
        if table.sha256 != self.record["data_sha256"]:
            raise ValueError(f"{table.path} has changed since {self.path} was written: its rows have another hash")
        return table


def load(path: str | Path) -> TrainedClassifier:
    """The trained classifier in a run's folder or a checkpoint file; neither Hydra nor Lightning is needed."""
    return Run.open(path).classifier()


def read_checkpoint(file: Path) -> dict[str, Any]:
    """The content of one of our checkpoints, unpickling nothing but tensors and plain values."""
    if not file.exists():
        raise ValueError(f"there is no checkpoint {file}: name a run's folder or a .ckpt file")
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
        if content.keys() >= {"state_dict", "config", "schema", "record"}:
            return content
    except Exception as error:  # torch.load raises a dozen kinds, from EOFError to UnpicklingError
        reason = str(error).strip().split("\n")[0]
        raise ValueError(f"{file} is not a whole checkpoint ({type(error).__name__}: {reason})") from error
    raise ValueError(f"{file} is not a checkpoint of this project: it holds no config, schema and record")


def record(table: TabularData) -> dict[str, Any]:
    """What identifies a run: commit (None outside of git), versions, the hash of the data."""

    def git(*words: str) -> str | None:
        done = subprocess.run(["git", "-C", str(Path(__file__).parent), *words], capture_output=True, text=True)
        return done.stdout.strip() if done.returncode == 0 else None

    changes = git("status", "--porcelain")
    return {
        "git_commit": git("rev-parse", "HEAD"),
        "git_clean": None if changes is None else not changes,
        "python": sys.version.split()[0],
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
        "threads": torch.get_num_threads(),
        "data_sha256": table.sha256,
    }


def describe(metrics: dict[str, float]) -> str:
    """A line for each split: val  loss 0.0612  accuracy 0.9825 ..."""
    lines: dict[str, str] = {}
    for key, value in metrics.items():
        split, name = key.split("/")
        lines[split] = lines.get(split, f"{split:4}") + f"  {name} {value:.4f}"
    return "\n".join(lines.values())


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Writes beside and renames, so that a reader never finds half a file."""
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(values, indent=2) + "\n")
    os.replace(part, path)
