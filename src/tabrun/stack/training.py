"""Training: from the configs of a stack to its members' outcomes and folders."""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning
from torch import nn

from tabrun.cli.errors import UserError
from tabrun.runs.build import Build, quieten, set_up
from tabrun.runs.folder import unlock
from tabrun.runs.pace import free_memory, set_threads
from tabrun.runs.run import record
from tabrun.runs.train import interrupts
from tabrun.stack.member import Member, write
from tabrun.stack.plan import most_members
from tabrun.stack.population import Population
from tabrun.tables.data import EVALUATION_BATCH, TabularData

log = logging.getLogger(__name__)

RANDOM = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout, nn.RReLU)


def train_population(build: Build, configs: list[dict[str, Any]]) -> list[Member]:
    """Trains runs whose configs `stackable` has put together; each member holds its own outcome, or its error."""
    members = [Member(config, build.callbacks(config)) for config in configs]
    alike: dict[Any, list[Member]] = {}
    known: dict[str, TabularData] = {}
    measures: Any = None  # shared, as one member after the other is measured
    quieten()
    for member, config in zip(members, configs, strict=True):
        try:
            member.table = table_of(build, config, known)
            schema: Any = member.table.schema
            lightning.seed_everything(config["seed"], verbose=False)  # the weights that the run alone would start from
            measures = measures or build.measures(config, schema)
            member.classifier = build.classifier(config, schema, measures)
            check_stackable(member.classifier, config["sweep"]["stack_dropout"])
        except Exception as error:  # this one's alone
            member.error = error
            continue
        shapes = tuple(parameter.shape for parameter in member.classifier.net.parameters())
        alike.setdefault((shapes, len(member.table.index["train"])), []).append(member)  # folds may differ in these
    for group in (part for whole in alike.values() for part in parts(whole)):
        try:
            train_group(build, group)
        except Exception as error:
            for member in group:
                member.error = error
    return members


def check_stackable(classifier: Any, stack_dropout: bool) -> None:
    """Raises UserError for what a stack would not train as the run alone does, and the config does not show."""
    alone = "does not train in a stack: say hydra/launcher=basic"
    if names := [name for name, _ in classifier.net.body.named_buffers()]:
        raise UserError(f"a net with buffers ({names[0]}) {alone}")
    for layer in () if stack_dropout else classifier.net.body.modules():
        if isinstance(layer, RANDOM):
            raise UserError(f"a net with {type(layer).__name__} {alone}, or sweep.stack_dropout=true")
    if not isinstance(classifier.loss, nn.CrossEntropyLoss):
        raise UserError(f"a loss such as {type(classifier.loss).__name__} {alone}")


def train_group(build: Build, group: list[Member]) -> None:
    config, population = group[0].config, Population(group)
    set_threads(config, group[0].classifier.net, len(group))
    with interrupts():
        build.trainer(config, callbacks=[], loggers=[], enable_checkpointing=False).fit(population)
    identity = record(group[0].table, str(population.device.type))
    for member in group:
        folder = Path(member.config["folder"])
        if not (folder / "metrics.json").exists():
            try:
                write(member, identity)
            except (OSError, UserError) as error:  # of a full disk, or a folder that another process has
                member.error = error
            finally:
                unlock(folder)


def parts(group: list[Member]) -> Iterator[list[Member]]:
    """As many at a time as sweep.max_stack says, or as the memory that is free then holds."""
    config, table, net = group[0].config, group[0].table, group[0].classifier.net
    rows = max(table.batch_size, min(len(table.index["val"]), EVALUATION_BATCH))
    bytes_each = 8 if config["trainer"]["precision"] == "64-true" else 4
    while group:
        free = free_memory(config["trainer"]["accelerator"])
        most = config["sweep"]["max_stack"] or most_members(net, rows, bytes_each, free)
        if most < len(group):
            log.info("the memory holds %d of %d at once", most, len(group))
        yield group[:most]
        group = group[most:]


def table_of(build: Build, config: dict[str, Any], known: dict[str, TabularData]) -> TabularData:
    """The data of a run; those that differ in the order of batches alone share one table in memory."""
    key = json.dumps({name: value for name, value in config["data"].items() if name != "seed"})
    if key not in known:
        known[key] = set_up(build, config)
    table = copy.copy(known[key])
    table.seed = config["data"]["seed"]
    return table
