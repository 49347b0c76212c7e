"""Rows: the batches of every member of a stack, which are the same for all or each member's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from tabrun.tables.data import Batches, TabularData, take


class Stack:
    """The batches of every member: rows (P, batch, ...), or (batch, ...) where all have the same, and labels."""

    def __init__(self, tables: Sequence[TabularData], epoch: Callable[[], int]) -> None:
        self.all = [table.train_dataloader() for table in tables]
        for batches in self.all:
            batches.epoch = epoch
        self.alive = list(range(len(tables)))

    @property
    def num_rows(self) -> int:
        return self.all[0].num_rows

    def __len__(self) -> int:
        return len(self.all[0])

    def __iter__(self) -> Any:
        members = [self.all[i] for i in self.alive]
        if all(same_order(members[0], other) for other in members):
            yield from members[0]
            return
        orders = [member.order().split(member.batch_size) for member in members]
        for batches in zip(*orders, strict=True):
            taken = [(take(m.rows, index), m.labels[index]) for m, index in zip(members, batches, strict=True)]
            rows: Any = [rows for rows, _ in taken]
            if isinstance(rows[0], tuple):
                rows = tuple(torch.stack(parts) for parts in zip(*rows, strict=True))
            else:
                rows = torch.stack(rows)
            yield rows, torch.stack([labels for _, labels in taken])


def same_order(one: Batches, other: Batches) -> bool:
    return one is other or (
        (one.seed, one.rows is other.rows) == (other.seed, True) and torch.equal(one.index, other.index)
    )


def part(rows: Any, i: int) -> Any:
    return tuple(each[i] for each in rows) if isinstance(rows, tuple) else rows[i]


def flat(rows: Any) -> Any:
    return tuple(part.flatten(0, 1) for part in rows) if isinstance(rows, tuple) else rows.flatten(0, 1)


def same_encode(one: Any, other: Any) -> bool:
    return one is other or (
        torch.equal(one.mean, other.mean) and torch.equal(one.std, other.std) and one.num_codes == other.num_codes
    )
