"""Train: one run, from its config to its folder."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from inspect import signature
from pathlib import Path
from typing import Any

import lightning
import torch
from torch import nn

from tabrun.cli.check import FIRST_PROCESS
from tabrun.cli.errors import UserError, shown
from tabrun.runs.build import Build, Config, set_up
from tabrun.runs.checkpoint_file import write_checkpoint
from tabrun.runs.csv_log import CsvLog
from tabrun.runs.folder import write_json
from tabrun.runs.run import Run, record
from tabrun.tables.data import TabularData
from tabrun.tables.schema import Schema
from tabrun.training.pace import set_threads
from tabrun.training.trainer import in_chunks, trainer_of
from tabrun.training.weights import Weighted

log = logging.getLogger(__name__)

NO_MEMORY = "can't allocate memory"  # of a RuntimeError, as torch has no type for it on the CPU
DIVERGED = "the training loss ends at %.4g, above %.4g of the class shares: train longer, or lower optimizer.lr"


def train(
    build: Build, config: Config, start: dict[str, Any] | None = None, data: TabularData | None = None
) -> dict[str, float]:
    """Trains what a resolved config describes, writes its folder, and returns the metrics of its best weights.

    start: the content of the folder's last.ckpt, where the run goes on from there. data: its table, where it is read.
    UserError: the data, the head and the rest of the config do not fit together.
    """
    folder = Path(config["folder"])
    last = folder / "checkpoints" / "last.ckpt"
    lightning.seed_everything(config["seed"], verbose=False)
    data = data or set_up(build, config)
    assert data.schema
    if start and start["record"]["data_sha256"] != data.sha256:
        raise UserError(f"resume={shown(folder)}: {data.path} has changed since: its rows have another hash")
    classifier: Any = build.classifier(config, data.schema)
    set_threads(config["speed"]["threads"], data.batch_size, classifier)
    if config["init_from"] and not start:
        log.info(take_weights(classifier.net, Run.open(config["init_from"], build)))
    identity: dict[str, Any] = {}
    saved = {"config": config, "schema": data.schema.plain(), "record": identity}
    trainer = trainer_of(build, config, saved, start)
    if (reason := in_chunks(classifier, data, trainer, config["speed"])) and FIRST_PROCESS:
        log.info("each mini-batch is a step of the Trainer: %s", reason)
    identity |= record(data, trainer.strategy.root_device.type)
    if start and FIRST_PROCESS:
        if start["state_dict"].keys() != classifier.state_dict().keys():
            raise UserError(f"{last}: its weights do not fit its config")
        if start["config"] != config:  # of more epochs, say: noted at once, as the run may be killed again
            write_checkpoint(start | {"config": config, "schema": data.schema.plain()}, last)
        (folder / "metrics.json").unlink(missing_ok=True)  # of fewer epochs
    try:
        with interrupts(folder):
            trainer.fit(classifier, data, ckpt_path=last if start else None, weights_only=True)
            return finish(trainer, classifier, data, config, identity)
    except Exception as error:
        if (words := mendable(error, config)) is None:
            raise
        raise UserError(words) from error
    finally:
        end_others(trainer.strategy.launcher)


def take_weights(net: nn.Module, run: Run) -> str:
    """Loads the run's weights whose names and shapes are the net's own; says which these were, and which not.

    UserError: none are.
    """
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
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or NO_MEMORY in str(error):
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


def finish(trainer: Any, classifier: Any, data: Any, config: Config, identity: dict[str, Any]) -> dict[str, float]:
    """Measures the best weights on the validation rows and, with `test`, on the test rows; writes what was found."""
    folder = Path(config["folder"])
    metrics: dict[str, float] = {}
    loss, least = getattr(trainer.checkpoint_callback, "train_loss", 0.0), chance(classifier, data.schema)
    if trainer.is_global_zero and loss > least:
        log.warning(DIVERGED, loss, least)
    seen = {"epochs": trainer.current_epoch, "steps": trainer.global_step, "train/loss": loss, "chance": least}
    for measure in [trainer.validate, trainer.test] if config["test"] else [trainer.validate]:
        best, loggers = folder / "checkpoints" / "best.ckpt", trainer.loggers
        trainer.loggers = [] if measure == trainer.validate else loggers  # as it is no epoch, so not a row of the log
        measure(classifier, ckpt_path=best, weights_only=True, verbose=False, datamodule=data)
        trainer.loggers = loggers
        metrics |= {name: value.item() for name, value in trainer.callback_metrics.items()}
    if trainer.is_global_zero:
        log_outcome(trainer.loggers, config, metrics, trainer.global_step)
        write_results(folder, identity | seen, metrics)
    return metrics


def write_results(folder: Path, record: dict[str, Any], metrics: dict[str, float]) -> None:
    """Writes run.json and then metrics.json, by which a run has finished."""
    write_json(folder / "run.json", record)
    write_json(folder / "metrics.json", metrics)


def log_outcome(loggers: Iterable[Any], config: Config, metrics: dict[str, float], step: int) -> None:
    """Has each logger but our own keep the run's config and final metrics, by its own means."""
    for logger in loggers:
        if isinstance(logger, CsvLog):  # metrics.json stands beside it, and the checkpoints hold the config
            continue
        takes_metrics = "metrics" in signature(logger.log_hyperparams).parameters
        logger.log_hyperparams(config, *([metrics] if takes_metrics else []))
        if not takes_metrics:
            logger.log_metrics({f"best/{name}": value for name, value in metrics.items()}, step)
        logger.save()


def chance(module: Any, schema: Schema) -> float:
    """The cross-entropy of predicting the class shares; with weights or smoothing, of all classes alike.

    Infinite for another loss, which nothing is known of.
    """
    loss: Any = getattr(module, "loss", None)
    weighted = isinstance(loss, Weighted)
    loss = loss.loss if weighted else loss
    if not isinstance(loss, nn.CrossEntropyLoss):
        return math.inf
    plain = loss.weight is None and not loss.label_smoothing and not weighted
    counts = [count for count in schema.class_counts if count] if plain else [1.0] * schema.num_classes
    return -sum(count / sum(counts) * math.log(count / sum(counts)) for count in counts)


@contextmanager
def interrupts(folder: Path | None = None) -> Iterator[None]:
    """Turns SystemExit, which ends the Trainer on Ctrl-C or SIGTERM, into how to go on with the run in `folder`."""
    try:
        yield
    except SystemExit as stop:
        kept = folder and (folder / "checkpoints" / "last.ckpt").exists()
        said = f"go on with resume={shown(folder)}" if folder and kept else "nothing was kept" if folder else ""
        raise KeyboardInterrupt(said, 130 if stop.code in (1, 130) else 143) from None
