"""Train: one run, from its config to its folder."""

import copy
import logging
import math
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
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
from tabrun.runs.folder import write_json, write_whole
from tabrun.runs.run import Run, record
from tabrun.tables.data import TabularData
from tabrun.tables.overview import described
from tabrun.tables.schema import Schema
from tabrun.training.pace import set_threads
from tabrun.training.trainer import in_chunks, trainer_of
from tabrun.training.weights import Weighted

log = logging.getLogger(__name__)

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
    if FIRST_PROCESS and not (start or data):
        data = set_up(build, config)
        log.info("%s", described(data))
        write_table(folder, data)
    data = data or set_up(build, config)
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
    if (reason := in_chunks(classifier, data, trainer, config["speed"])) and FIRST_PROCESS:
        log.info("each mini-batch is a step of the Trainer: %s", reason)
    saved["record"] = record(data, trainer.strategy.root_device.type)
    if start and FIRST_PROCESS:
        if start["config"] != config:  # of more epochs, say: noted at once, as the run may be killed again
            write_checkpoint(start | {key: saved[key] for key in ("config", "schema")}, last)
        (folder / "metrics.json").unlink(missing_ok=True)  # of fewer epochs
    try:
        with interrupts(folder):
            began = time.monotonic()
            trainer.fit(classifier, data, ckpt_path=last if start else None, weights_only=True)
            if FIRST_PROCESS:
                log.info("%s, %.1f s", how_it_ended(trainer), time.monotonic() - began)
            return finish(trainer, classifier, data, saved)
    except Exception as error:
        if words := mendable(error, config):
            raise UserError(words) from error
        raise
    finally:
        end_others(trainer.strategy.launcher)


def write_table(folder: Path, data: Any) -> None:
    """columns.csv and table.json, of a table that was looked at."""
    if data.report:
        columns, findings = data.report
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / "columns.csv", columns.write_csv().encode())
        write_json(folder / "table.json", {"findings": [asdict(finding) for finding in findings]})


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


def finish(trainer: Any, classifier: Any, data: Any, saved: dict[str, Any]) -> dict[str, float]:
    """Measures the best weights on the validation rows and, with `test`, on the test rows; writes what was found."""
    config, loggers = saved["config"], trainer.loggers
    folder = Path(config["folder"])
    best: dict[str, Any] = {"ckpt_path": folder / "checkpoints" / "best.ckpt", "weights_only": True, "verbose": False}
    loss, least = getattr(trainer.checkpoint_callback, "train_loss", 0.0), chance(classifier, data.schema)
    if trainer.is_global_zero and loss > least:
        log.warning(DIVERGED, loss, least)
    seen = {"epochs": trainer.current_epoch, "steps": trainer.global_step, "train/loss": loss, "chance": least}
    trainer.loggers = []  # as this is no epoch, so not a row of the log
    trainer.validate(classifier, datamodule=data, **best)
    metrics = dict(trainer.callback_metrics)
    trainer.loggers = loggers
    if config["test"]:
        trainer.test(classifier, datamodule=data, **best)
    metrics = {name: value.item() for name, value in (metrics | trainer.callback_metrics).items()}
    if trainer.is_global_zero:
        log_outcome(loggers, config, metrics, trainer.global_step)
        write_results(folder, saved["record"] | seen, metrics)
    return metrics


def how_it_ended(trainer: Any) -> str:
    """Which epoch was the best, and why there was no further one."""
    stopped = any(stopping.stopped_epoch for stopping in trainer.early_stopping_callbacks)
    why = "ended by early stopping" if stopped else "which was the last that was asked for"
    best = getattr(trainer.checkpoint_callback, "best_epoch", -1)
    found = f"best epoch {best}" if best >= 0 else "best epoch before the run went on"
    return f"{found}; last epoch {trainer.current_epoch - 1}, {why}"


def write_results(folder: Path, record: dict[str, Any], metrics: dict[str, float]) -> None:
    """Writes run.json and then metrics.json, by which a run has finished."""
    write_json(folder / "run.json", record)
    write_json(folder / "metrics.json", metrics)


def log_outcome(loggers: Iterable[Any], config: Config, metrics: dict[str, float], step: int) -> None:
    """Has each logger keep the run's config and final metrics, by its own means."""
    for logger in loggers:
        takes_metrics = "metrics" in signature(logger.log_hyperparams).parameters
        logger.log_hyperparams(config, *([metrics] if takes_metrics else []))
        if not takes_metrics:
            logger.log_metrics({f"best/{name}": value for name, value in metrics.items()}, step)
        logger.save()


def chance(module: Any, schema: Schema) -> float:
    """The cross-entropy of the class shares; with weights or smoothing, of equal ones; infinite for another loss."""
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
        said = f"go on with resume={shown(folder)}" if folder else ""
        raise KeyboardInterrupt(said, 130 if stop.code in (1, 130) else 143) from None
