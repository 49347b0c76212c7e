"""Train: one run, from its config to its folder."""

import copy
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning
import torch
from torch import nn

from tabrun.cli.check import FIRST_PROCESS
from tabrun.cli.errors import UserError, shown
from tabrun.runs.build import Build, Config, set_up
from tabrun.runs.checkpoint_file import write_checkpoint
from tabrun.runs.run import Run, record
from tabrun.tables.data import TabularData
from tabrun.training.outcome import finish, tell_end, tell_table
from tabrun.training.pace import set_threads
from tabrun.training.trainer import in_chunks, trainer_of

log = logging.getLogger(__name__)


def train(
    build: Build, config: Config, start: dict[str, Any] | None = None, data: TabularData | None = None
) -> dict[str, float]:
    """Trains what a resolved config describes, writes its folder, and returns the metrics of its best weights.

    start: the content of the folder's last.ckpt, where the run goes on from there. data: its table, where it is read.
    UserError: the data, the head and the rest of the config do not fit together.
    """
    folder = Path(config["folder"])
    lightning.seed_everything(config["seed"], verbose=False)
    if data is None:
        data = set_up(build, config)
        if FIRST_PROCESS and not start:
            tell_table(folder, data)
    assert data.schema
    if start and start["record"]["data_sha256"] != data.sha256:
        raise UserError(f"resume={shown(folder)}: {data.path} has changed since: its rows have another hash")
    classifier: Any = build.classifier(config, data.schema)
    check_scores(classifier, data)
    set_threads(config["speed"]["threads"], data.batch_size, classifier)
    if config["init_from"] and not start:
        log.info(take_weights(classifier.net, Run.open(config["init_from"], build)))
    saved: dict[str, Any] = {"config": config, "schema": data.schema.plain()}
    trainer = trainer_of(build, config, saved)
    in_chunks(classifier, data, trainer, config["speed"])
    saved["record"] = record(data, trainer.strategy.root_device.type)
    if start and FIRST_PROCESS:
        go_on(start, saved, folder)
    try:
        with interrupts(folder):
            last, began = folder / "checkpoints" / "last.ckpt" if start else None, time.monotonic()
            trainer.fit(classifier, data, ckpt_path=last, weights_only=True)
            tell_end(trainer, time.monotonic() - began)
            return finish(trainer, classifier, data, saved)
    except Exception as error:
        if words := mendable(error, config):
            raise UserError(words) from error
        raise
    finally:
        end_others(trainer.strategy.launcher)


def go_on(start: dict[str, Any], saved: dict[str, Any], folder: Path) -> None:
    """Notes at once the config by which the run goes on, as it may be killed again, and takes its outcome away."""
    if start["config"] != saved["config"]:
        own = {key: saved[key] for key in ("config", "schema")}
        write_checkpoint(start | own, folder / "checkpoints" / "last.ckpt")
    (folder / "metrics.json").unlink(missing_ok=True)


@torch.no_grad()
def check_scores(classifier: Any, data: Any) -> None:
    """Raises UserError where the net does not give a score for each row and class."""
    rows, labels, *_ = next(iter(data.batches("val", 2)))
    if not hasattr(classifier, "net"):
        return
    net = copy.deepcopy(classifier.net).float().eval()
    found, wanted = tuple(net(rows).shape), (len(labels), data.schema.num_classes)
    if found != wanted:
        raise UserError(f"model: its scores are {found}, where rows and classes are {wanted}: see out_features")


def take_weights(net: nn.Module, run: Run) -> str:
    """Loads the run's weights whose names and shapes are the net's own, and says which; UserError where none are."""
    own = {name: tuple(value.shape) for name, value in net.state_dict().items()}
    theirs = {name: tuple(value.shape) for name, value in run.weights.items()}
    fitting = {name: value for name, value in run.weights.items() if own.get(name) == theirs[name]}
    left = [f"{name} {own[name]}, there {theirs.get(name, 'missing')}" for name in own if name not in fitting]
    left += [f"{name} {theirs[name]}, here missing" for name in theirs if name not in own]
    if not fitting:
        raise UserError(f"init_from={shown(run.path)} has no weights that fit: {'; '.join(left)}")
    net.load_state_dict(fitting, strict=False)
    rest = f"; not taken: {'; '.join(left)}" if left else ", which are all"
    return f"weights from {shown(run.path)}: {', '.join(fitting)}{rest}"


def mendable(error: Exception, config: Config) -> str | None:
    """What a person can do about an error of torch: memory that is not there, or a step that is not compiled."""
    without = "can't allocate memory" in str(error)  # of a RuntimeError, as torch has no type for it on the CPU
    if without or isinstance(error, MemoryError | torch.OutOfMemoryError):
        return f"out of memory: lower data.batch_size or model.hidden: {error}"
    if config["speed"]["compile"] and type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
        return f"speed.compile: {str(error).partition(chr(10) * 2)[0]}"
    return None


def end_others(launcher: Any) -> None:
    """Ends the other processes of trainer=ddp."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    others = getattr(launcher, "procs", [])
    while others:
        others.pop().kill()  # off the list first, or Lightning, which watches it, would kill this process too


@contextmanager
def interrupts(folder: Path | None = None) -> Iterator[None]:
    """Turns SystemExit, which ends the Trainer on Ctrl-C or SIGTERM, into how to go on with the run in `folder`."""
    try:
        yield
    except SystemExit as stop:
        said = f"go on with resume={shown(folder)}" if folder else ""
        raise KeyboardInterrupt(said, 130 if stop.code in (1, 130) else 143) from None
