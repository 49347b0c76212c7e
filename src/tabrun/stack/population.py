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
from tabrun.stack.member import Member
from tabrun.stack.rows import Stack, flat, part, same_encode
from tabrun.stack.stacked import Rates, StackedOptimizer, forward_stacked
from tabrun.tables.data import TabularData

LOOPS = ("fit_loop", "validate_loop", "test_loop", "predict_loop")  # of which a checkpoint keeps where they are


class Population(Quick):
    """Trains its members' nets as one; `members` hold the outcome when the Trainer is done."""

    def __init__(self, members: list[Member], tables: list[TabularData]) -> None:
        super().__init__(tables[0].batch_size)
        self.members, self.tables, self.alive = members, tables, list(range(len(members)))
        nets = [member.classifier.net for member in members]
        self.names = [name for name, _ in nets[0].named_parameters()]
        of_each = [dict(net.named_parameters()) for net in nets]
        stacked = [torch.stack([own[name].detach() for own in of_each]) for name in self.names]
        self.values = [nn.Parameter(tensor) for tensor in stacked]
        self.stacked = nn.ParameterList(self.values)  # the same, registered; to iterate over it is slow
        self.classifiers = nn.ModuleList([member.classifier for member in members]).requires_grad_(False)
        self.scores_of = forward_stacked(nets[0], self.names)
        losses = [member.classifier.loss for member in members]
        assert all(isinstance(loss, nn.CrossEntropyLoss) for loss in losses)
        self.plain = all(loss.weight is None and loss.label_smoothing == losses[0].label_smoothing for loss in losses)
        self.learned_encode = any(name.startswith("encode.") for name in self.names)  # embeddings
        self.num_rows = 0

    def on_fit_start(self) -> None:
        self.look()

    def look(self) -> None:
        """What each step needs of the members that go on; looked up once, as a step takes less than a millisecond."""
        self.nets: list[Any] = [self.members[i].classifier.net for i in self.alive]
        self.functions: list[Any] = [self.members[i].classifier.loss for i in self.alive]
        self.sums = self.values[0].new_zeros(len(self.alive))  # of the epoch's losses
        self.one_encode = all(same_encode(net.encode, self.nets[0].encode) for net in self.nets)

    def train_dataloader(self) -> Stack:
        moved: dict[int, TabularData] = {}
        for table in self.tables:
            if (key := id(table.labels)) not in moved:
                table.to(self.device)
                moved[key] = table
            table.rows, table.labels = moved[key].rows, moved[key].labels  # once on the device, as once in memory
        self.stack = Stack(self.tables, lambda: self.trainer.current_epoch)
        return self.stack

    def forward(self, rows: Any, places: Sequence[int]) -> Tensor:
        """Scores (P, classes, rows) of the members at these places of the stack.

        rows: (rows, ...), the same for all, or (P, rows, ...), each member's own.
        """
        nets, values = [self.nets[place] for place in places], [value[list(places)] for value in self.values]
        return self.scores(nets, values, self.encoded(nets, rows))

    def encoded(self, nets: Sequence[Any], rows: Any) -> Any:
        """Of these nets, what their bodies take: (rows, features), or (P, rows, features); rows where it learns."""
        shared = (rows[0] if isinstance(rows, tuple) else rows).dim() == 2
        if self.learned_encode:
            return rows
        if not self.one_encode:
            return torch.stack([net.encode(rows if shared else part(rows, i)) for i, net in enumerate(nets)])
        encoded = nets[0].encode(rows if shared else flat(rows))
        return encoded if shared else encoded.view(len(nets), -1, encoded.shape[-1])

    def scores(self, nets: Sequence[Any], values: Sequence[Tensor], rows: Any) -> Tensor:
        """Scores (P, classes, rows) of these nets with the weights `values`, (P, ...) each, for encoded rows."""
        if not self.learned_encode:
            own = rows if rows.dim() == 3 else rows.expand(len(nets), *rows.shape)
            return self.scores_of(values, own.transpose(1, 2))
        buffers = [dict(net.named_buffers()) for net in nets]
        fixed = {name: torch.stack([buffer[name] for buffer in buffers]) for name in buffers[0]}
        dims = (0, 0, None if rows[0].dim() == 2 else 0)
        call = vmap(lambda p, b, r: functional_call(nets[0], (p, b), (r,)), dims, randomness="different")
        return call(dict(zip(self.names, values, strict=True)), fixed, rows).transpose(1, 2)

    def losses(self, scores: Tensor, labels: Tensor) -> Tensor:
        """The losses of each member, (P, rows), for labels (P, rows, ...); of a loss with weights the mean in each."""
        if self.plain:
            labels = labels.transpose(1, 2) if labels.dim() == 3 else labels
            smoothing = self.functions[0].label_smoothing
            return F.cross_entropy(scores, labels, reduction="none", label_smoothing=smoothing)
        means = [function(s.T, y) for function, s, y in zip(self.functions, scores, labels, strict=True)]
        return torch.stack(means)[:, None].expand(-1, scores.shape[-1])

    def prepared(self, rows: Any) -> Any:
        self.ahead = encodes_ahead(self.nets[0].encode)
        return self.encoded(self.nets, rows) if self.ahead else rows

    def mini_batch_loss(self, rows: Any, labels: Tensor) -> Tensor:
        rows = rows if self.ahead else self.encoded(self.nets, rows)
        numbers = rows[0] if isinstance(rows, tuple) else rows
        scores = self.scores(self.nets, self.values, rows)
        losses = self.losses(scores, labels if numbers.dim() == 3 else labels.expand(len(scores), *labels.shape))
        self.sums.add_(losses.detach().sum(1))
        self.num_rows += scores.shape[-1]
        return losses.sum() / scores.shape[-1]

    def on_train_epoch_end(self) -> None:
        means = (self.sums / self.num_rows).tolist()
        self.sums.zero_()
        self.num_rows = 0
        measured = [self.measure(place) if math.isfinite(mean) else {} for place, mean in enumerate(means)]
        if self.rates and self.rates_interval == "epoch":
            self.rates.step([m.get(self.monitor, math.nan) for m in measured] if self.monitor else None)
            self.rates.apply(self.optimizer)
        stopped = []
        for place, i in enumerate(self.alive):
            values, content = {"train/loss": means[place], **measured[place]}, partial(self.checkpoint, place)
            if self.members[i].epoch_ended(values, self.trainer, content):
                stopped.append(place)
        if stopped:
            self.drop(stopped)

    def mini_batch_ended(self) -> None:
        if self.rates and self.rates_interval == "step":
            self.rates.step()
            self.rates.apply(self.optimizer)

    @torch.no_grad()
    def measure(self, place: int) -> dict[str, float]:
        """Validation loss and metrics of the member at this place."""
        layers, measures = self.members[0].classifier.net, self.members[0].classifier.measures  # every member's
        layers.eval()
        for rows, labels in self.tables[self.alive[place]].batches("val"):
            measures.update(self(self.converted(rows), [place])[0].T, labels.to(self.device))
        layers.train()
        return {name: value.item() for name, value in measures.compute("val").items()}

    def checkpoint(self, place: int) -> dict[str, Any]:
        """What the checkpoint of the run alone would hold at the end of this epoch."""
        member, values = self.members[self.alive[place]], zip(self.names, self.values, strict=True)
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
        kept = [place for place in range(len(self.alive)) if place not in places]
        self.alive = self.stack.alive = [self.alive[place] for place in kept]
        if not kept:
            self.trainer.should_stop = True
            return
        alive = torch.ones(len(kept) + len(places), dtype=torch.bool, device=self.device)
        alive[places] = False
        self.optimizer.keep(alive)
        self.look()
        if self.rates:
            self.rates.schedules = [self.rates.schedules[place] for place in kept]

    def configure_optimizers(self) -> StackedOptimizer:
        classifiers: list[Any] = [member.classifier for member in self.members]
        schedule: Any = classifiers[0].schedule
        self.optimizer = StackedOptimizer(self.values, [c.optimizer for c in classifiers])
        self.rates = Rates(classifiers, self.num_steps) if schedule else None
        self.rates_interval: str = schedule.interval if schedule else ""
        self.monitor: str | None = schedule.monitor if schedule else None
        if self.rates:
            self.rates.apply(self.optimizer)
        return self.optimizer
