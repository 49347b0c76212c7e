"""Run: a finished run, read back from its folder or from one checkpoint alone."""

from __future__ import annotations

import importlib.metadata
import logging
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from tabrun.cli.errors import UserError, checkpoint_file
from tabrun.reading.reader import Table, in_file
from tabrun.reading.values import columns_of, numbered, polars_type
from tabrun.runs.build import Build, Config, ensemble, net_of, set_up
from tabrun.runs.checkpoint_file import read_checkpoint
from tabrun.runs.predictor import TrainedClassifier
from tabrun.tables.schema import Schema
from tabrun.tables.target import Wanted, probabilities, weights_of, with_target

if TYPE_CHECKING:
    from tabrun.tables.data import TabularData

log = logging.getLogger(__name__)
PACKAGES = ("torch", "lightning", "torchmetrics", "hydra-core", "scikit-learn", "polars", "numpy")


@dataclass(frozen=True)
class Run:
    """What a checkpoint holds: the config and schema of its run, what identifies it, and the weights."""

    path: Path  # of the checkpoint
    config: Config
    schema: Schema
    record: dict[str, Any]
    num_epochs: int
    weights: dict[str, Tensor]
    build: Build
    trust: bool = False
    members: Sequence[dict[str, Any]] = ()  # of an ensemble of runs: name, weight and config of each

    @classmethod
    def open(cls, path: str | Path, build: Build, checkpoint: str = "best", trust: bool = False) -> Run:
        """Reads a run's folder, or a checkpoint file; trust: whether its config may have anything called."""
        file = checkpoint_file(path, checkpoint)
        content = read_checkpoint(file)
        weights = {k.removeprefix("net."): v for k, v in content["state_dict"].items() if k.startswith("net.")}
        epochs = content["epoch"] + 1
        members = content.get("members") or ()
        known = content["config"], content["schema"], content["record"]
        return cls(file, *known, epochs, weights, build, trust, members)

    def classifier(self) -> TrainedClassifier:
        try:
            most = sum(weight.numel() for weight in self.weights.values())
            net = net_of(self.build, self.config, self.schema, most, self.members)
            for name, value in net.state_dict().items():
                if value.is_floating_point() != self.weights[name].is_floating_point():
                    raise TypeError(f"{name} is of another type")
            net.load_state_dict(self.weights)
            return TrainedClassifier(net, self.schema)
        except (RuntimeError, TypeError, KeyError, ArithmeticError) as error:
            raise UserError(f"{self.path}: its weights do not fit its config: {str(error).splitlines()[-1]}") from None

    def trusted(self) -> Config:
        """The config; UserError when something in it may not be called."""
        from tabrun.runs.trust import check_config  # here, as it reads conf/ with OmegaConf

        for config in (self.config, *(own["config"] for own in self.members)) if not self.trust else ():
            check_config(config, self.path, self.build)
        self.classifier()  # made before anything is written
        return self.config

    def trainable(self) -> Config:
        """The config, to train by it; UserError for an ensemble of runs, of which each has its own."""
        if self.members:
            raise UserError(f"{self.path} is an ensemble of other runs: train these, and make one of them again")
        return self.trusted()

    @property
    def folder(self) -> Path:
        return self.path.parent.parent if self.path.parent.name == "checkpoints" else self.path.parent

    def measure(self, data: TabularData, part: str) -> dict[str, float]:
        """The run's loss and metrics on its val or test rows."""
        measures = self.build.measures(self.trusted(), self.schema)
        for _, *scored in self.scored(data, part):
            measures.update(*scored)
        return {name: value.item() for name, value in measures.compute(part).items()}

    def scored(self, data: TabularData, part: str) -> Iterator[tuple[Tensor, ...]]:
        """The numbers of the part's rows, their scores, labels and, if any, weights, a batch at a time.

        The val rows of an ensemble of folds are each judged by the member that did not train on them.
        """
        classifier = self.classifier()
        judges = {part: classifier}
        if part == "val" and ensemble(self.config)["folds"]:
            nets: Any = classifier.net.nets
            judges = {f"fold{number}": TrainedClassifier(net, self.schema) for number, net in enumerate(nets)}
        for name, judge in judges.items():
            batches = data.batches(name)
            for index, (rows, *truth) in zip(batches.order().split(batches.batch_size), batches, strict=True):
                yield index, judge(rows), *truth

    def table(self, path: str) -> Table:
        """Another file, to be read as the run read its own."""
        data, targets = self.config["data"], columns_of(self.schema.target)
        kind = "Float64" if data.get("bins") else self.schema.target_kind
        kinds = self.schema.kinds | dict.fromkeys(targets, polars_type(kind))
        words = ("separator", "null_values", "header", "encoding", "sheet")
        options = {key: data["read"][key] for key in words if key in data["read"]}
        formats = dict(self.schema.formats)
        return Table(path, kinds, **options, verbatim=columns_of(data["id"]), formats=formats)

    def labelled(self, path: str) -> tuple[Any, ...]:
        """The rows and labels of another file, and the weights where it has the column of data.weight."""
        data, target, frame = self.config["data"], self.schema.target, self.table(path).frame()
        if (weight := data.get("weight")) is not None and str(weight) not in frame.columns:
            log.warning("%s has no column %s, which data.weight names: each row counts once", path, weight)
            weight = None
        with in_file(path):
            wanted = Wanted(*(data.get(key, default) for key, default in asdict(Wanted()).items()))
            frame, numbers = with_target(frame, target, data["drop_missing_target"], wanted, self.schema.classes)
            with numbered(numbers):
                if not isinstance(target, str):
                    probabilities(frame, target)
                weights = weights_of(frame, weight and str(weight), {"table's": slice(None)})
                return self.schema.rows(frame), self.schema.labels(frame), *([] if weights is None else [weights])

    def data(self) -> TabularData:
        """The run's own table and split; UserError when its rows are not the ones that the run saw."""
        table = set_up(self.build, self.trusted(), self.schema)
        if table.sha256 != self.record["data_sha256"]:
            raise UserError(f"{table.path} has changed since {self.path} was written: its rows have another hash")
        return table


def load(path: str | Path, build: Build) -> TrainedClassifier:
    """The trained classifier in a run's folder or a checkpoint file; neither Hydra nor Lightning is needed."""
    return Run.open(path, build).classifier()


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
        split, _, name = key.partition("/")
        lines[split] = lines.get(split, f"{split:4}") + f"  {name} {value:.4f}"
    return "\n".join(lines.values())
