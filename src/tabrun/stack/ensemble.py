"""Ensemble: one run of several nets: they train as one where they can, and leave the folder of one run."""

from __future__ import annotations

import copy
import logging
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning
import torch

from tabrun.cli.errors import UserError, shown
from tabrun.runs.build import Build, Config, ensemble, num_members, set_up, varied
from tabrun.runs.checkpoint_file import ENDED, alias, write_checkpoint
from tabrun.runs.folder import LOCK, clear, read_json, whole
from tabrun.runs.mean import of_fold, out_of_fold
from tabrun.runs.resume import goes_on
from tabrun.runs.run import Run
from tabrun.runs.trust import recorded
from tabrun.stack.batches import key_of
from tabrun.stack.member import Member, Unplayed
from tabrun.stack.plan import planned
from tabrun.stack.training import train_stack
from tabrun.tables.data import TabularData
from tabrun.training.outcome import DIVERGED, log_outcome, tell_table, write_results
from tabrun.training.train import train
from tabrun.training.trainer import quieten

log = logging.getLogger(__name__)

Jobs = Mapping[int, tuple[Config, TabularData]]  # of the members, by number


def train_ensemble(build: Build, config: Config, start: dict[str, Any] | None = None) -> dict[str, float]:
    """Trains the members in folders of their own, writes one checkpoint of them all, and returns its metrics.

    What had finished before a cut is kept: members, and all of them with `start`, the content of the folder's
    last.ckpt. UserError: what `train` says, or the ensemble has finished.
    """
    folder = Path(config["folder"])
    if (folder / "metrics.json").exists():
        raise UserError(f"resume={shown(folder)}: an ensemble that has finished has no more epochs: train a new one")
    quieten()
    if build.trainer(config, [], [], enable_checkpointing=False).world_size > 1:
        raise UserError("an ensemble trains in one process: leave out trainer=ddp, or ensemble.folds and .seeds")
    data = set_up(build, config)
    if start and start["record"]["data_sha256"] != data.sha256:
        raise UserError(f"resume={shown(folder)}: {data.path} has changed since: its rows have another hash")
    if start is None:
        tell_table(folder, data)
    jobs = members(config, data)
    if start is None or recorded(start["config"], folder, trust=True) != config:
        train_members(build, jobs, folder)
        collect(build, config, data, jobs)
    alias(folder / "checkpoints" / "last.ckpt", folder / "checkpoints" / "best.ckpt")
    for own, _ in jobs.values():
        clear(Path(own["folder"]), ("checkpoints", LOCK))
    return finish(build, config, data, jobs)


def train_members(build: Build, jobs: Jobs, folder: Path) -> None:
    """Trains those that have not finished, of an ensemble in this folder."""
    tables = {key_of(own): table for own, table in jobs.values()}
    plan = planned(build, {number: own for number, (own, _) in jobs.items()}, tables)
    plan.unit = "member"
    drawn = "; what a stack draws at random, as dropout does, is its own" if plan.parts else ""
    log.info("%d members: %s%s", len(jobs), plan, drawn)
    with interrupts(folder):
        for numbers, way in plan.order():
            part = {number: jobs[number] for number in numbers}
            stack = [plan.built.pop(number) for number in numbers] if way else []
            if not all(finished(build, *job) for job in part.values()):
                train_part(build, part, stack, way)


def members(config: Config, data: TabularData) -> Jobs:
    """The config and the rows of each member, all with one schema.

    Of folds, member i is the run with data.num_folds and data.fold=i; of seeds, that with seed + i, and data.seed too
    where it is the same.
    """
    folds, found = ensemble(config)["folds"], {}
    for number in range(num_members(config)):
        own = recorded(varied(config, number), Path(config["folder"]) / "members" / str(number), trust=True)
        own |= {"ensemble": ensemble({}), "test": False, "sweep": own["sweep"] | {"stack_dropout": True}}
        if folds:
            own["data"] |= {"num_folds": folds, "fold": number}
        else:
            own["data"] |= {"seed": own["seed"] + number} if own["data"]["seed"] == own["seed"] else {}
            own["seed"] += number
        table = of_fold(data, number) if folds else copy.copy(data)
        table.seed = own["data"]["seed"]
        found[number] = own, table
    return found


def finished(build: Build, config: Config, table: TabularData) -> bool:
    """Whether this member has been trained, on these rows."""
    folder = Path(config["folder"])
    if not ((folder / "metrics.json").exists() and (folder / "checkpoints" / "best.ckpt").exists()):
        return False
    run = Run.open(folder, build)
    return recorded(run.config, folder, trust=True) == config and run.record["data_sha256"] == table.sha256


def train_part(build: Build, jobs: Jobs, stack: list[Member], way: Any) -> None:
    """Trains these members, as one where there is a way, else one after the other."""
    if stack:
        for config, _ in jobs.values():
            shutil.rmtree(config["folder"], ignore_errors=True)  # what an attempt that was cut has left
        lightning.seed_everything(stack[0].config["seed"], verbose=False)  # whatever was trained or skipped before
        try:
            train_stack(build, stack, way)
            for number, member in zip(jobs, stack, strict=True):
                raise_of(number, member.error)
            return
        except Unplayed as reason:
            log.warning("members %s train alone: %s", ", ".join(map(str, jobs)), reason)
    for number, (config, table) in jobs.items():
        if finished(build, config, table):
            continue
        start = goes_on(config)
        if start is None:
            shutil.rmtree(config["folder"], ignore_errors=True)
        try:
            train(build, config, start, table)
        except UserError as error:
            raise_of(number, error)


def raise_of(number: int, error: Exception | None) -> None:
    if isinstance(error, UserError):
        raise UserError(f"member {number} of the ensemble: {error}") from error
    if error is not None:
        raise error


def collect(build: Build, config: Config, data: TabularData, jobs: Jobs) -> None:
    """Writes the checkpoint of the ensemble, of its members' best weights."""
    assert data.schema
    runs = [Run.open(own["folder"], build) for own, _ in jobs.values()]
    content = {
        "state_dict": {f"net.nets.{i}.{name}": v for i, run in enumerate(runs) for name, v in run.weights.items()},
        "epoch": max(run.num_epochs for run in runs) - 1,
        **ENDED,
        **{"config": config, "schema": data.schema.plain(), "record": runs[0].record},
    }
    write_checkpoint(content, Path(config["folder"]) / "checkpoints" / "last.ckpt")


def finish(build: Build, config: Config, data: TabularData, jobs: Jobs) -> dict[str, float]:
    """Measures the ensemble, as `evaluate` will, and writes what was found."""
    folder = Path(config["folder"])
    seen = [read_json(Path(own["folder"]) / "run.json", dict[str, Any]) for own, _ in jobs.values()]
    means = {"epochs": int(max(own["epochs"] for own in seen)), "steps": int(sum(own["steps"] for own in seen))}
    means |= {name: sum(own[name] for own in seen) / len(seen) for name in ("train/loss", "chance")}
    if means["train/loss"] > means["chance"]:
        log.warning(DIVERGED, means["train/loss"], means["chance"])
    run = Run.open(folder, build, trust=True)
    torch.set_num_threads(run.record["threads"])
    metrics = run.measure(data, "val") | (run.measure(data, "test") if config["test"] else {})
    if ensemble(config)["folds"]:
        with whole(folder / "out_of_fold.parquet") as file:
            out_of_fold(run, data).write_parquet(file)
    loggers = build.loggers(config)
    log_outcome(loggers, config, metrics, int(means["steps"]))
    for logger in loggers:
        logger.finalize("success")
    write_results(folder, run.record | means, metrics)
    return metrics


@contextmanager
def interrupts(folder: Path) -> Iterator[None]:
    """Says how to go on with the ensemble, and not with the member that was cut."""
    try:
        yield
    except KeyboardInterrupt as stop:
        kept = (folder / "members").exists()
        said = f"go on with resume={shown(folder)}" if kept else "nothing was kept"
        raise KeyboardInterrupt(said, *stop.args[1:]) from None
