"""Population: runs that differ in little more than numbers, trained side by side as one stacked network.

Every parameter of P equal nets is one tensor (P, ...), a step costs little more than that of one net, and each member
gets the batches, the rates and the weights that its run alone would have.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import lightning
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, vmap

from tabrun.runs.pace import Quick, encodes_ahead
from tabrun.stack.member import Member, StackedBatches
from tabrun.stack.stacked import Rates, StackedOptimizer, forward_stacked
from tabrun.tables.data import TabularData

LOOPS = ("fit_loop", "validate_loop", "test_loop", "predict_loop")  # of which a checkpoint keeps where they are


class Population(Quick):
    """Trains its members' nets as one; `members` hold the outcome when the Trainer is done."""

    def __init__(self, members: list[Member]) -> None:
        super().__init__(members[0].table.batch_size)
        self.members = members  # those that go on
        nets = [member.classifier.net for member in members]
        self.names = [name for name, _ in nets[0].named_parameters()]
        of_each = [dict(net.named_parameters()) for net in nets]
        stacked = [torch.stack([own[name].detach() for own in of_each]) for name in self.names]
        self.values = [nn.Parameter(tensor) for tensor in stacked]
        self.stacked = nn.ParameterList(self.values)  # the same, registered; to iterate over it is slow
        self.classifiers = nn.ModuleList([member.classifier for member in members]).requires_grad_(False)
        self.forward_stacked = forward_stacked(nets[0], self.names)  # else through vmap, with what encodes
        losses = [member.classifier.loss for member in members]
        self.plain = all(loss.weight is None and loss.label_smoothing == losses[0].label_smoothing for loss in losses)
        self.num_rows = 0

    def on_fit_start(self) -> None:
        self.look()

    def look(self) -> None:
        """What each step needs of the members that go on; looked up once, as a step takes less than a millisecond."""
        self.nets: list[Any] = [member.classifier.net for member in self.members]
        self.functions: list[Any] = [member.classifier.loss for member in self.members]
        self.sums = self.values[0].new_zeros(len(self.members))  # of the epoch's losses
        self.one_encode = all(same_encode(net.encode, self.nets[0].encode) for net in self.nets)

    def train_dataloader(self) -> StackedBatches:
        moved: dict[int, TabularData] = {}
        tables = [member.table for member in self.members]
        for table in tables:
            if (key := id(table.labels)) not in moved:
                table.to(self.device)
                moved[key] = table
            table.rows, table.labels = moved[key].rows, moved[key].labels  # once on the device, as once in memory
        self.batches = StackedBatches(tables, lambda: self.trainer.current_epoch)
        return self.batches

    def encoded(self, rows: Any) -> Tensor:
        """What the bodies take, of rows (rows, ...), the same for all members, or (P, rows, ...)."""
        parts = rows if isinstance(rows, tuple) else (rows,)

        def encode(net: Any, own: Sequence[Tensor]) -> Tensor:
            return net.encode(tuple(own) if len(own) > 1 else own[0])

        if self.one_encode:  # as it is where all have the same rows
            found = encode(self.nets[0], [part.flatten(0, -2) for part in parts])
            return found.view(*parts[0].shape[:-1], found.shape[-1])
        return torch.stack([encode(net, own) for net, own in zip(self.nets, zip(*parts, strict=True), strict=True)])

    def scores(self, rows: Any) -> Tensor:
        """Scores (P, classes, rows) for rows as `prepared` gives them."""
        if self.forward_stacked:
            rows = rows if self.ahead else self.encoded(rows)
            own = rows if rows.dim() == 3 else rows.expand(len(self.nets), *rows.shape)
            return self.forward_stacked(self.values, own.transpose(1, 2))
        buffers = [dict(net.named_buffers()) for net in self.nets]
        fixed = {name: torch.stack([buffer[name] for buffer in buffers]) for name in buffers[0]}
        dims = (0, 0, None if self.shared else 0)
        call = vmap(lambda p, b, r: functional_call(self.nets[0], (p, b), (r,)), dims, randomness="different")
        return call(dict(zip(self.names, self.values, strict=True)), fixed, rows).transpose(1, 2)

    def losses(self, scores: Tensor, labels: Tensor) -> Tensor:
        """The losses of each member, (P, rows), for labels (P, rows, ...); of a loss with weights the mean in each."""
        if self.plain:
            labels = labels.transpose(1, 2) if labels.dim() == 3 else labels
            smoothing = self.functions[0].label_smoothing
            return F.cross_entropy(scores, labels, reduction="none", label_smoothing=smoothing)
        means = [function(s.T, y) for function, s, y in zip(self.functions, scores, labels, strict=True)]
        return torch.stack(means)[:, None].expand(-1, scores.shape[-1])

    def prepared(self, rows: Any) -> Any:
        self.ahead = bool(self.forward_stacked) and encodes_ahead(self.nets[0].encode)
        self.shared = (rows[0] if isinstance(rows, tuple) else rows).dim() == 2
        return self.encoded(rows) if self.ahead else rows

    def mini_batch_loss(self, rows: Any, labels: Tensor) -> Tensor:
        scores = self.scores(rows)
        losses = self.losses(scores, labels.expand(len(scores), *labels.shape) if self.shared else labels)
        self.sums.add_(losses.detach().sum(1))
        self.num_rows += scores.shape[-1]
        return losses.sum() / scores.shape[-1]

    def on_train_epoch_end(self) -> None:
        means = (self.sums / self.num_rows).tolist()
        self.sums.zero_()
        self.num_rows = 0
        measured = [self.measure(place) if math.isfinite(mean) else {} for place, mean in enumerate(means)]
        if self.rates and self.schedule.interval == "epoch":
            monitor = self.schedule.monitor
            self.rates.step([m.get(monitor, math.nan) for m in measured] if monitor else None)
        stopped = []
        for place, member in enumerate(self.members):
            values = {"train/loss": means[place], **measured[place]}
            if member.epoch_ended(values, self.trainer, partial(self.checkpoint, place)):
                stopped.append(place)
        if stopped:
            self.drop(stopped)

    def mini_batch_ended(self) -> None:
        if self.rates and self.schedule.interval == "step":
            self.rates.step()

    @torch.no_grad()
    def measure(self, place: int) -> dict[str, float]:
        """Validation loss and metrics of the member at this place, by its own net with its weights of the stack."""
        member, net = self.members[place], self.nets[place]
        weights = {name: value[place] for name, value in zip(self.names, self.values, strict=True)}
        measures = member.classifier.measures
        net.eval()
        for rows, labels in member.table.batches("val"):
            measures.update(functional_call(net, weights, (self.converted(rows),)), labels.to(self.device))
        net.train()
        return {name: value.item() for name, value in measures.compute("val").items()}

    def checkpoint(self, place: int) -> dict[str, Any]:
        """What the checkpoint of the run alone would hold at the end of this epoch."""
        member, values = self.members[place], zip(self.names, self.values, strict=True)
        optimizer = member.classifier.optimizer([nn.Parameter(value[place]) for value in self.values]).state_dict()
        optimizer["state"] = dict(enumerate(self.optimizer.state_of(place)))
        if self.rates:
            optimizer["param_groups"][0] |= self.rates.settings(place)
        return {
            "epoch": self.trainer.current_epoch,
            "global_step": self.trainer.global_step,
            "pytorch-lightning_version": lightning.__version__,
            "state_dict": {f"net.{name}": value[place].detach().cpu().clone() for name, value in values},
            "loops": {name: getattr(self.trainer, name).state_dict() for name in LOOPS},
            "callbacks": member.callbacks(),
            "optimizer_states": [optimizer],
            "lr_schedulers": [self.rates.schedules[place].state_dict()] if self.rates else [],
        }

    def converted(self, rows: Any) -> Any:
        """On the device, and numbers in the precision that is trained in."""
        numbers, *codes = rows if isinstance(rows, tuple) else (rows,)
        numbers = numbers.to(self.device, self.values[0].dtype)
        return (numbers, codes[0].to(self.device)) if codes else numbers

    def drop(self, places: list[int]) -> None:
        """Shrinks the stack, so that a member that has stopped costs nothing more."""
        kept = [place for place in range(len(self.members)) if place not in places]
        if not kept:
            self.trainer.should_stop = True
            return
        alive = torch.ones(len(self.members), dtype=torch.bool, device=self.device)
        alive[places] = False
        self.optimizer.keep(alive)
        self.members = [self.members[place] for place in kept]
        self.batches.each = [self.batches.each[place] for place in kept]
        if self.rates:
            self.rates.schedules = [self.rates.schedules[place] for place in kept]
        self.look()

    def configure_optimizers(self) -> StackedOptimizer:
        classifiers: list[Any] = [member.classifier for member in self.members]
        self.schedule: Any = classifiers[0].schedule
        self.optimizer = StackedOptimizer(self.values, [c.optimizer for c in classifiers])
        self.rates = Rates(classifiers, self.num_steps, self.optimizer) if self.schedule else None
        return self.optimizer


def same_encode(one: Any, other: Any) -> bool:
    return one is other or (
        torch.equal(one.mean, other.mean) and torch.equal(one.std, other.std) and one.num_codes == other.num_codes
    )
