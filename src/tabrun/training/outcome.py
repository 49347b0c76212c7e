"""Outcome: what is said and written of a run beside its checkpoints: its table, how it ended, its metrics."""

import logging
import math
from collections.abc import Iterable
from dataclasses import asdict
from inspect import signature
from pathlib import Path
from typing import Any

from torch import nn

from tabrun.runs.build import Config
from tabrun.runs.folder import write_json, write_whole
from tabrun.tables.overview import described
from tabrun.tables.schema import Schema
from tabrun.training.weights import Weighted

log = logging.getLogger(__name__)

DIVERGED = "the training loss ends at %.4g, above %.4g of the class shares: train longer, or lower optimizer.lr"


def tell_table(folder: Path, data: Any) -> None:
    """Says what became of the table, and writes columns.csv and table.json where it was looked at."""
    log.info("%s", described(data))
    if data.report:
        columns, findings = data.report
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / "columns.csv", columns.write_csv().encode())
        write_json(folder / "table.json", {"findings": [asdict(finding) for finding in findings]})


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


def tell_end(trainer: Any, seconds: float) -> None:
    """Says which epoch was the best, why there was no further one, and how long it took."""
    stopped = any(stopping.stopped_epoch for stopping in trainer.early_stopping_callbacks)
    why = "ended by early stopping" if stopped else "which was the last that was asked for"
    best = getattr(trainer.checkpoint_callback, "best_epoch", -1)
    found = f"best epoch {best}" if best >= 0 else "best epoch before the run went on"
    if trainer.is_global_zero:
        log.info("%s; last epoch %d, %s, %.1f s", found, trainer.current_epoch - 1, why, seconds)


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
