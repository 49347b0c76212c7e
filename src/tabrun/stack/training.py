"""Training: a stack's members, from their plan to their folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tabrun.cli.errors import UserError
from tabrun.runs.build import Build
from tabrun.runs.chunks import MOST_BATCHES, STEP_ROWS
from tabrun.runs.folder import unlock
from tabrun.runs.pace import set_threads
from tabrun.runs.run import record
from tabrun.runs.train import interrupts
from tabrun.stack.member import Member, Unplayed, write
from tabrun.stack.network import Network


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
