"""Batches: the mini-batches of all members of a stack, and the tables that they share."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from tabrun.runs.build import Build, set_up
from tabrun.tables.batches import Batches
from tabrun.tables.data import TabularData
from tabrun.training.chunked import mini_batches


class StackedBatches:
    """The batches of every member: rows (P, batch, ...), or (batch, ...) where all have the same; labels, weights."""

    def __init__(self, tables: Sequence[TabularData], epoch: Callable[[], int]) -> None:
        self.each = [table.train_dataloader() for table in tables]
        for batches in self.each:
            batches.epoch = epoch

    def __len__(self) -> int:
        return len(self.each[0])

    def __iter__(self) -> Iterator[Any]:
        if all(same_order(self.each[0], other) for other in self.each):
            yield from self.each[0]
        else:
            yield from map(joined, zip(*self.each, strict=True))


def joined(batches: Sequence[Any]) -> Any:
    """One batch of those of P members, or the list of them where, as at the end of an epoch, some are shorter."""
    return stacked(batches) if len(of_one_length(batches)) == 1 else list(batches)


def of_one_length(batches: Sequence[Any]) -> list[list[int]]:
    """The places of batches that have equally many rows, together."""
    found: dict[int, list[int]] = {}
    for place, batch in enumerate(batches):
        found.setdefault(len(batch[1]), []).append(place)
    return list(found.values())


def steps(batch: Any, size: int) -> Iterator[Any]:
    """The mini-batches of what the Trainer is handed, each of all members."""
    if isinstance(batch, list):
        yield from map(joined, zip(*(mini_batches(own, size) for own in batch), strict=True))
    else:
        yield from mini_batches(batch, size)


def stacked(batches: Sequence[Any]) -> Any:
    """One batch, (P, rows, ...), of those of P members."""
    first = [batch[0] for batch in batches]
    pairs = isinstance(first[0], tuple)
    rows = tuple(map(torch.stack, zip(*first, strict=True))) if pairs else torch.stack(first)
    return rows, *(torch.stack(each) for each in list(zip(*batches, strict=True))[1:])


def same_order(one: Batches, other: Batches) -> bool:
    return one is other or (
        (one.seed, one.rows is other.rows) == (other.seed, True) and torch.equal(one.index, other.index)
    )


def key_of(config: dict[str, Any]) -> str:
    """What runs have in common that share a table in memory."""
    return json.dumps({name: value for name, value in config["data"].items() if name != "seed"})


def table_of(build: Build, config: dict[str, Any], known: dict[str, Any]) -> TabularData:
    """The data of a run; those that differ in the order of batches alone share one table in memory."""
    if (key := key_of(config)) not in known:
        known[key] = set_up(build, config)
    table = copy.copy(known[key])
    table.seed = config["data"]["seed"]
    return table


def numbers_of(batch: Any) -> Tensor:
    """The numbers of its rows, (rows, numbers) or (P, rows, numbers)."""
    return batch[0][0] if isinstance(batch[0], tuple) else batch[0]
