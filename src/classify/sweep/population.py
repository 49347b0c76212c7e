"""Population: runs that differ in little more than numbers, trained side by side as one stacked network.

Every parameter of P equal nets is one tensor (P, ...), a step costs little more than that of one net, and each member
gets the batches, the rates and the weights that its run alone would have.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import lightning
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, vmap

from classify.data import TabularData
from classify.sweep.member import Member
from classify.sweep.stacked import Rates, Stack, StackedOptimizer, forward_stacked, same_order


class Population(lightning.LightningModule):
    """Trains its members' nets as one; `members` hold the outcome when the Trainer is done."""

    def __init__(self, members: list[Member], tables: list[TabularData]) -> None:
        super().__init__()
        self.members, self.tables, self.alive = members, tables, list(range(len(members)))
        nets = [member.classifier.net for member in members]
        self.names = [name for name, _ in nets[0].named_parameters()]
        of_each = [dict(net.named_parameters()) for net in nets]
        stacked = [torch.stack([own[name].detach() for own in of_each]) for name in self.names]
        self.values = [nn.Parameter(tensor) for tensor in stacked]
        self.stacked = nn.ParameterList(self.values)  # the same, registered; to iterate over it is slow
        self.classifiers = nn.ModuleList([member.classifier for member in members]).requires_grad_(False)
        self.scores_of = forward_stacked(nets[0])
        self.stack = Stack(tables, lambda: self.trainer.current_epoch)
        losses = [member.classifier.loss for member in members]
        assert all(isinstance(loss, nn.CrossEntropyLoss) for loss in losses)
        self.plain = all(loss.weight is None and loss.label_smoothing == losses[0].label_smoothing for loss in losses)
        self.learned_encode = any(name.startswith("encode.") for name in self.names)  # embeddings
        self.look()
        self.sums: Any = 0.0
        self.num_rows = 0

    def look(self) -> None:
        """What each step needs of the members that go on; looked up once, as a step takes less than a millisecond."""
        self.nets: list[Any] = [self.classifier(i).net for i in self.alive]
        self.functions = [self.classifier(i).loss for i in self.alive]
        self.one_encode = all(same_encode(net.encode, self.nets[0].encode) for net in self.nets)

    def classifier(self, i: int) -> Any:
        return self.classifiers[i]

    def train_dataloader(self) -> Stack:
        return self.stack

    def forward(self, rows: Any, places: Sequence[int]) -> Tensor:
        """Scores (P, rows, classes) of the members at these places of the stack.

        rows: (rows, ...), the same for all, or (P, rows, ...), each member's own.
        """
        whole = len(places) == len(self.alive)
        nets = self.nets if whole else [self.nets[place] for place in places]
        own = {name: v if whole else v[list(places)] for name, v in zip(self.names, self.values, strict=True)}
        shared = (rows[0] if isinstance(rows, tuple) else rows).dim() == 2
        if self.learned_encode:
            buffers = [dict(net.named_buffers()) for net in nets]
            fixed = {name: torch.stack([buffer[name] for buffer in buffers]) for name in buffers[0]}
            dims = (0, 0, None if shared else 0)
            call = vmap(lambda p, b, r: functional_call(nets[0], (p, b), (r,)), dims, randomness="different")
            return call(own, fixed, rows)
        if self.one_encode:
            encoded = nets[0].encode(rows if shared else flat(rows))
            width = encoded.shape[-1]
            encoded = encoded.expand(len(nets), -1, width) if shared else encoded.view(len(nets), -1, width)
        else:
            encoded = torch.stack([net.encode(rows if shared else part(rows, i)) for i, net in enumerate(nets)])
        return self.scores_of(own, encoded)

    def losses(self, scores: Tensor, labels: Tensor, shared: bool) -> Tensor:
        """The loss of each member, (P,); labels are (rows, ...) when all share them, else (P, rows, ...)."""
        count = scores.shape[0]
        labels = labels.expand(count, *labels.shape) if shared else labels
        if self.plain:
            smoothing = self.functions[0].label_smoothing
            each = F.cross_entropy(
                scores.flatten(0, 1), labels.flatten(0, 1), reduction="none", label_smoothing=smoothing
            )
            return each.view(count, -1).mean(1)
        return torch.stack([function(s, y) for function, s, y in zip(self.functions, scores, labels, strict=True)])

    def training_step(self, batch: tuple[Any, Tensor], batch_idx: int) -> Tensor:
        rows, labels = batch
        numbers = rows[0] if isinstance(rows, tuple) else rows
        losses = self.losses(self(rows, range(len(self.alive))), labels, shared=numbers.dim() == 2)
        num = numbers.shape[-2]
        self.sums = self.sums + losses.detach() * num
        self.num_rows += num
        return losses.sum()

    def on_train_epoch_end(self) -> None:
        means = (self.sums / self.num_rows).tolist()
        self.sums, self.num_rows = 0.0, 0
        measured = self.measure(means)
        stopped = []
        for place, i in enumerate(self.alive):
            values = {"train/loss": means[place], **measured[place]}
            if self.members[i].epoch_ended(values, self.weights(place), self.trainer.global_step):
                stopped.append(place)
        if isinstance(self.rates, Rates) and self.rates_interval == "epoch":
            self.rates.step([m.get(self.monitor, math.nan) for m in measured] if self.monitor else None)
            self.rates.apply(self.optimizer)
        if stopped:
            self.drop(stopped)

    def on_train_batch_end(self, *_: Any) -> None:
        if isinstance(self.rates, Rates) and self.rates_interval == "step":
            self.rates.step()
            self.rates.apply(self.optimizer)

    @torch.no_grad()
    def measure(self, means: list[float]) -> list[dict[str, float]]:
        """Validation loss and metrics of each member that goes on; nothing of one whose training loss is not finite."""
        for net in (self.classifier(0).net, *self.nets):  # the first gives the stack its layers, such as dropout
            net.eval()
        loaders = [self.tables[i].batches("val") for i in self.alive]
        if all(same_order(loaders[0], other) for other in loaders):
            for rows, labels in loaders[0]:
                for i, scores in zip(self.alive, self(self.converted(rows), range(len(self.alive))), strict=True):
                    self.classifier(i).measures.update(scores, labels.to(self.device))
        else:
            for place, (i, loader) in enumerate(zip(self.alive, loaders, strict=True)):
                for rows, labels in loader:
                    scores = self(self.converted(rows), [place])[0]
                    self.classifier(i).measures.update(scores, labels.to(self.device))
        for net in (self.classifier(0).net, *self.nets):
            net.train()
        found = []
        for i, mean in zip(self.alive, means, strict=True):
            measures = self.classifier(i).measures
            found.append({k: v.item() for k, v in measures.compute("val").items()} if math.isfinite(mean) else {})
        return found

    def converted(self, rows: Any) -> Any:
        """On the device, and numbers in the precision that is trained in."""
        numbers, *codes = rows if isinstance(rows, tuple) else (rows,)
        numbers = numbers.to(self.device, self.values[0].dtype)
        return (numbers, codes[0].to(self.device)) if codes else numbers

    def weights(self, place: int) -> dict[str, Tensor]:
        return {
            f"net.{name}": value[place].detach().cpu().clone()
            for name, value in zip(self.names, self.values, strict=True)
        }

    def drop(self, places: list[int]) -> None:
        """Shrinks the stack, so that a member that has stopped costs nothing more."""
        kept = [place for place in range(len(self.alive)) if place not in places]
        self.alive = self.stack.alive = [self.alive[place] for place in kept]
        if not kept:
            self.trainer.should_stop = True
            return
        self.look()
        index = torch.tensor(kept, device=self.device)
        for parameter in self.values:
            parameter.data, parameter.grad = parameter.data[index], None
        self.optimizer.keep(index)
        if isinstance(self.rates, Rates):
            self.rates.schedules = [self.rates.schedules[place] for place in kept]

    def configure_optimizers(self) -> StackedOptimizer:
        classifiers = [member.classifier for member in self.members]
        schedule = classifiers[0].schedule
        self.optimizer = StackedOptimizer(self.values, [c.optimizer for c in classifiers])
        self.rates = Rates(classifiers, int(self.trainer.estimated_stepping_batches)) if schedule else None
        self.rates_interval, self.monitor = (schedule.interval, schedule.monitor) if schedule else ("", None)
        if self.rates:
            self.rates.apply(self.optimizer)
        return self.optimizer


def part(rows: Any, i: int) -> Any:
    return tuple(each[i] for each in rows) if isinstance(rows, tuple) else rows[i]


def flat(rows: Any) -> Any:
    return tuple(part.flatten(0, 1) for part in rows) if isinstance(rows, tuple) else rows.flatten(0, 1)


def same_encode(one: Any, other: Any) -> bool:
    return one is other or (
        torch.equal(one.mean, other.mean) and torch.equal(one.std, other.std) and one.num_codes == other.num_codes
    )
