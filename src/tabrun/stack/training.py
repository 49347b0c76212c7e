"""Training: a stack's members, from their plan to their folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tabrun.cli.errors import UserError
from tabrun.runs.build import Build
from tabrun.runs.checkpoint_file import write_checkpoint
from tabrun.runs.csv_log import CsvLog
from tabrun.runs.folder import lock, unlock
from tabrun.runs.run import record
from tabrun.stack.member import Member, Unplayed
from tabrun.stack.network import Network
from tabrun.training.chunks import MOST_BATCHES, STEP_ROWS
from tabrun.training.outcome import chance, log_outcome, write_results
from tabrun.training.pace import set_threads
from tabrun.training.train import interrupts


def train_stack(build: Build, members: list[Member], way: Any) -> None:
    """Trains these as one; each then holds its outcome, or its error. Unplayed: one trained otherwise than alone."""
    config, table = members[0].config, members[0].table
    for member in members:
        speed = member.config["speed"]["chunk"]
        member.table.batches_per_step = speed or max(1, min(MOST_BATCHES, STEP_ROWS // table.batch_size))
    set_threads(config["speed"]["threads"], table.batch_size, *(member.module for member in members))
    try:
        network = Network(members, way)
        with interrupts():
            build.trainer(config, [], [], enable_checkpointing=False).fit(network)
    except Unplayed:
        raise
    except Exception as error:
        for member in members:
            member.error = error
        return
    identity = record(table, str(network.device.type))
    for member in members:
        folder = Path(member.config["folder"])
        if not (folder / "metrics.json").exists():
            try:
                write(build, member, identity)
            except (OSError, UserError) as error:  # of a full disk, or a folder that another process has
                member.error = error
            finally:
                unlock(folder)


def write(build: Build, member: Member, identity: dict[str, Any]) -> None:
    """The folder that a run of its own would have: checkpoints, log, record and metrics."""
    schema: Any = member.table.schema
    folder = Path(member.config["folder"])
    lock(folder)
    identity = identity | {"data_sha256": member.table.sha256}
    loggers = build.loggers(member.config)
    position: dict[str, Any] = {}
    for logger in loggers:
        for row in member.log:
            logger.log_metrics({k: v for k, v in row.items() if k != "step"}, int(row["step"]))
            if not isinstance(logger, CsvLog):
                logger.save()
        position |= {"log": logger.position()} if isinstance(logger, CsvLog) else {}
    for name, content in member.contents.items():
        content |= {"config": member.config, "schema": schema.plain(), "record": identity, **position}
        write_checkpoint(content, folder / "checkpoints" / f"{name}.ckpt")
    if member.error is None:
        loss, least = member.log[-1]["train/loss"], chance(member.module, schema)
        seen = {"epochs": member.epochs, "steps": member.steps, "train/loss": loss, "chance": least}
        log_outcome(loggers, member.config, member.metrics, member.steps)
        write_results(folder, identity | seen, member.metrics)
    for logger in loggers:
        logger.finalize("failed" if member.error else "success")
