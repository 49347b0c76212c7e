"""Network: runs that differ in little more than numbers, trained side by side as one stacked network.

Every parameter of P equal modules is one tensor (P, ...), a step costs little more than that of one, and each member
gets the batches, the rates and the weights that its run alone would have.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import lightning
import torch
from torch import Tensor, nn

from tabrun.stack.batches import StackedBatches, numbers_of, of_one_length, stacked, steps
from tabrun.stack.member import Member, Unplayed
from tabrun.stack.observed import Unread
from tabrun.stack.optimizer import Schedules, StackedOptimizer
from tabrun.stack.proof import Layout, prove
from tabrun.tables.data import TabularData

LOOPS = ("fit_loop", "validate_loop", "test_loop", "predict_loop")  # of which a checkpoint keeps where they are


class Network(lightning.LightningModule):
    """Trains its members as one, in a proven way; `members` hold the outcome when the Trainer is done.

    The members' own parameters are views of the stacked ones, so that what is theirs needs no copy of the weights.
    """

    def __init__(self, members: list[Member], way: Any) -> None:
        super().__init__()
        self.members, self.way, self.batch_size = members, way, members[0].table.batch_size  # those that go on
        self.layout = Layout(members[0].module, members[0].optimizers()[0])
        modules = [member.module for member in members]
        self.values = [nn.Parameter(value) for value in self.layout.stacked(modules, self.layout.names)]
        self.stacked = nn.ParameterList(self.values)  # the same, registered; to iterate over it is slow
        self.own = nn.ModuleList(modules)
        self.automatic_optimization = False
        self.weight: Any = 0.0  # of the epoch so far: rows, or weights of these

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self.__dict__ and (value is None or isinstance(value, str | int)):  # as in Chunked
            self.__dict__[name] = value
        else:
            super().__setattr__(name, value)

    def look(self) -> None:
        """What each step needs of the members that go on; looked up once, as a step takes less than a millisecond."""
        modules = [member.module for member in self.members]
        for place, module in enumerate(modules):
            for own, value in zip(self.layout.of(module), self.values, strict=True):
                own.data = value.data[place]
        self.held = self.layout.stacked(modules, self.layout.held)
        self.computed = self.way(modules, [*self.layout.names, *self.layout.held])
        self.sums = self.values[0].new_zeros(len(self.members))  # of the epoch's losses
        self.watch()

    def watch(self) -> None:
        for member in self.members:
            member.module.trainer, member.module.log = Unread("trainer"), Unread("self.log")

    def train_dataloader(self) -> StackedBatches:
        moved: dict[int, TabularData] = {}
        tables = [member.table for member in self.members]
        for table in tables:
            if (key := id(table.labels)) not in moved:
                table.to(self.device)
                moved[key] = table
            first = moved[key]  # once on the device, as once in memory
            table.rows, table.labels, table.weights = first.rows, first.labels, first.weights
        self.batches = StackedBatches(tables, lambda: self.trainer.current_epoch)
        return self.batches

    def training_step(self, batch: Any, batch_idx: int) -> None:  # type: ignore[override]
        optimizer: Any = self.optimizers()
        for mini_batch in steps(batch, self.batch_size):
            for value in self.values:
                value.grad = None
            if isinstance(mini_batch, list):
                losses, rows = self.by_length(mini_batch)
            else:
                losses = self.computed.losses([*self.values, *self.held], mini_batch)
                rows = counted(mini_batch)
            losses.sum().backward()  # in 32-true and 64-true Lightning adds nothing to it but 17 us
            optimizer.step()
            self.schedules.after("step", None, self.trainer.global_step)
            self.sums.add_(losses.detach() * rows)
            self.weight = self.weight + rows

    def by_length(self, batches: list[Any]) -> tuple[Tensor, Tensor]:
        """The members' losses of batches that are not equally long, and by how much each counts in the epoch, (P,)."""
        groups, losses, rows = of_one_length(batches), [], []
        for places in groups:
            way = self.way([self.members[place].module for place in places], [*self.layout.names, *self.layout.held])
            batch = stacked([batches[place] for place in places])
            losses.append(way.losses([value[places] for value in (*self.values, *self.held)], batch))
            rows.append(torch.as_tensor(counted(batch), device=self.device).expand(len(places)))
        order = torch.tensor([place for places in groups for place in places], device=self.device).argsort()
        return torch.cat(losses)[order], torch.cat(rows)[order]

    def on_train_epoch_end(self) -> None:
        means = (self.sums / self.weight).tolist()
        self.sums.zero_()
        self.weight, epoch = 0.0, self.trainer.current_epoch
        measured = [
            {"train/loss": mean, **(one.validate(self.trainer, self.converted) if math.isfinite(mean) else {})}
            for one, mean in zip(self.members, means, strict=True)
        ]
        self.schedules.after("epoch", measured, epoch + 1)
        stopped = []
        for place, (member, values) in enumerate(zip(self.members, measured, strict=True)):
            if member.epoch_ended(values, self.trainer, partial(self.checkpoint, place)):
                stopped.append(place)
        one = self.members[epoch % len(self.members)]
        if one.error is None and (found := prove(self.way, [one], optimizer=False)):
            raise Unplayed(f"after epoch {epoch}, {found[0]}")
        self.watch()
        if stopped:
            self.drop(stopped)

    def checkpoint(self, place: int) -> dict[str, Any]:
        """What the checkpoint of the run alone would hold at the end of this epoch."""
        member, optimizer = self.members[place], self.optimizer.optimizers[place]
        for own, state in zip(self.layout.of(member.module), self.optimizer.state_of(place), strict=True):
            optimizer.state[own] = state
        kept = optimizer.state_dict()
        optimizer.state.clear()
        given = self.schedules.given[place]
        return {
            "epoch": self.trainer.current_epoch,
            "global_step": self.trainer.global_step,
            "pytorch-lightning_version": lightning.__version__,
            "state_dict": {name: value.cpu().clone() for name, value in member.module.state_dict().items()},
            "loops": {name: getattr(self.trainer, name).state_dict() for name in LOOPS},
            "callbacks": member.callbacks(),
            "optimizer_states": [kept],
            "lr_schedulers": [given["scheduler"].state_dict()] if given else [],
        }

    def converted(self, batch: Any) -> Any:
        """On the device, and numbers in the precision that is trained in."""

        def moved(part: Tensor) -> Tensor:
            return part.to(self.device, self.values[0].dtype) if part.is_floating_point() else part.to(self.device)

        rows, *truth = batch
        return (tuple(map(moved, rows)) if isinstance(rows, tuple) else moved(rows)), *map(moved, truth)

    def drop(self, places: list[int]) -> None:
        """Shrinks the stack, so that a member that has stopped costs nothing more."""
        kept = [place for place in range(len(self.members)) if place not in places]
        for place in places:
            for own in self.members[place].module.parameters():
                own.data = own.data.clone()  # no longer a view of what goes on
        if not kept:
            self.trainer.should_stop = True
            return
        alive = torch.ones(len(self.members), dtype=torch.bool, device=self.device)
        alive[places] = False
        self.optimizer.keep(alive)
        self.members = [self.members[place] for place in kept]
        self.batches.each = [self.batches.each[place] for place in kept]
        self.schedules.given = [self.schedules.given[place] for place in kept]
        self.look()

    def configure_optimizers(self) -> StackedOptimizer:
        found = [member.optimizers() for member in self.members]
        inner, _ = self.members[0].optimizers()
        self.optimizer = StackedOptimizer(self.values, self.layout.groups, [own for own, _ in found], inner)
        self.schedules = Schedules(self.optimizer, [scheduler for _, scheduler in found])
        self.look()
        return self.optimizer


def counted(batch: Any) -> Any:
    """By how much a mini-batch counts in the epoch's mean loss: its rows, or the sum of their weights, (P,)."""
    return numbers_of(batch).shape[-2] if len(batch) == 2 else batch[2].sum(-1)
