"""Run: a finished run, read back from its folder or from one checkpoint alone."""

from __future__ import annotations

import importlib.metadata
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import torch
from torch import Tensor

from classify import build, tables
from classify.folder import checkpoint_file
from classify.schema import Rows, Schema
from classify.trained import TrainedClassifier
from classify.values import polars_type

if TYPE_CHECKING:
    from classify.data import TabularData

SECTIONS = {"data", "model", "head", "metrics", "trainer", "callbacks", "monitor", "mode", "folder"}  # of every config
PACKAGES = ("torch", "lightning", "torchmetrics", "hydra-core", "scikit-learn", "polars", "numpy")


@dataclass(frozen=True)
class Run:
    """What a checkpoint holds: the config and schema of its run, what identifies it, and the weights."""

    path: Path  # of the checkpoint
    config: build.Config
    schema: Schema
    record: dict[str, Any]
    num_epochs: int
    weights: dict[str, Tensor]
    trust: bool = False

    @classmethod
    def open(cls, path: str | Path, checkpoint: str = "best", trust: bool = False) -> Run:
        """Reads a run's folder (its best.ckpt, or its last.ckpt) or a checkpoint file; ValueError if it is neither.

        trust: whether its config may have anything called, or only what conf/ names.
        """
        file = checkpoint_file(path, checkpoint)
        content = read_checkpoint(file)
        try:
            sound = {key: type(content["record"][key]) for key in ("threads", "device", "data_sha256")}
            if sound != {"threads": int, "device": str, "data_sha256": str} or not content["config"].keys() >= SECTIONS:
                raise KeyError("config or record")
            return cls(
                path=file,
                config=content["config"],
                schema=Schema.from_plain(content["schema"]),
                record=content["record"],
                num_epochs=content["epoch"] + 1,
                weights={k.removeprefix("net."): v for k, v in content["state_dict"].items() if k.startswith("net.")},
                trust=trust,
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{file} is not a checkpoint of this project ({type(error).__name__}: {error})") from None

    def classifier(self) -> TrainedClassifier:
        try:
            net = build.net(self.config, self.schema)
            net.load_state_dict(self.weights)
            return TrainedClassifier(net, self.schema)
        except (RuntimeError, TypeError, KeyError, OverflowError) as error:
            raise ValueError(f"{self.path}: its weights do not fit its config: {str(error).splitlines()[-1]}") from None

    def trusted(self, *keys: str) -> build.Config:
        """The config; ValueError when something at these keys may not be called."""
        from classify.trust import check_targets  # only here, as it reads conf/ with OmegaConf

        if not self.trust:
            check_targets([self.config[key] for key in keys], self.path)
        return self.config

    @property
    def folder(self) -> Path:
        return self.path.parent.parent if self.path.parent.name == "checkpoints" else self.path.parent

    def measure(self, data: TabularData, part: str) -> dict[str, float]:
        """The run's loss and metrics on its val or test rows."""
        from classify.module import Measures

        classifier, measures = self.classifier(), Measures(build.metrics(self.trusted("metrics"), self.schema))
        for rows, labels in data.batches(part):
            measures.update(classifier(rows), labels)
        return {name: value.item() for name, value in measures.compute(part).items()}

    def labelled(self, path: str) -> tuple[Rows, Tensor]:
        """The rows and labels of another CSV or Parquet file, read as the run read its own."""
        from classify.target import probabilities, with_target
        from classify.values import numbered

        target = self.schema.target if isinstance(self.schema.target, str) else list(self.schema.target)
        kind = polars_type(self.schema.target_kind)
        kinds = self.schema.kinds | dict.fromkeys([target] if isinstance(target, str) else target, kind)
        data = self.config["data"]
        options = {key: data["read"][key] for key in ("separator", "null_values") if key in data["read"]}
        try:
            frame = pl.concat([pl.DataFrame(), *tables.read_batches(path, kinds, **options)], how="diagonal")
            frame, rows = with_target(frame, target, data["drop_missing_target"])
            with numbered(rows):
                if isinstance(target, list):
                    probabilities(frame, target)
                return self.schema.rows(frame), self.schema.labels(frame)
        except ValueError as error:
            raise ValueError(f"{path}: {error}" if path not in str(error) else str(error)) from error

    def data(self) -> TabularData:
        """The run's own table and split; ValueError when its rows are not the ones that the run saw."""
        table = build.data(self.trusted("data"), self.schema)
        if table.sha256 != self.record["data_sha256"]:
            raise ValueError(f"{table.path} has changed since {self.path} was written: its rows have another hash")
        return table


def load(path: str | Path) -> TrainedClassifier:
    """The trained classifier in a run's folder or a checkpoint file; neither Hydra nor Lightning is needed."""
    return Run.open(path).classifier()


def read_checkpoint(file: Path) -> dict[str, Any]:
    """The content of one of our checkpoints, unpickling nothing but tensors and plain values."""
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
        if isinstance(content, dict) and content.keys() >= {"state_dict", "config", "schema", "record"}:
            return content
    except Exception as error:  # torch.load raises a dozen kinds, from EOFError to UnpicklingError
        raise ValueError(f"{file} is not a whole checkpoint ({type(error).__name__})") from error
    raise ValueError(f"{file} is not a checkpoint of this project: it holds no config, schema and record")


def record(table: TabularData, device: str) -> dict[str, Any]:
    """What identifies a run: commit (None outside of git), versions, the device, the hash of the data."""
    return {**code(), "threads": torch.get_num_threads(), "device": device, "data_sha256": table.sha256}


@cache  # it is what this process has imported
def code() -> dict[str, Any]:
    def git(*words: str) -> str | None:
        if shutil.which("git") is None:
            return None
        done = subprocess.run(["git", "-C", str(Path(__file__).parent), *words], capture_output=True, text=True)
        return done.stdout.strip() if done.returncode == 0 else None

    changes = git("status", "--porcelain")
    return {
        "git_commit": git("rev-parse", "HEAD"),
        "git_clean": None if changes is None else not changes,
        "python": sys.version.split()[0],
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
    }


def describe(metrics: dict[str, float]) -> str:
    """A line for each split: val  loss 0.0612  accuracy 0.9825 ..."""
    lines: dict[str, str] = {}
    for key, value in metrics.items():
        split, name = key.split("/")
        lines[split] = lines.get(split, f"{split:4}") + f"  {name} {value:.4f}"
    return "\n".join(lines.values())
