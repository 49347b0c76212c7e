"""Optimizer: the steps of P runs at once, on tensors (P, ...), each with its own rates."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from tabrun.stack.member import Unplayed

# of a parameter group: what members may differ in
PER_MEMBER = ("params", "lr", "initial_lr", "max_lr", "min_lr", "weight_decay")


class StackedOptimizer(Optimizer):
    """One torch optimizer for the whole stack, with a learning rate and a weight decay for each member and group.

    The steps of SGD, Adam, AdamW and RMSprop are linear in the rate and, without weight decay, do not depend on the
    weights. So the inner optimizer, at rate 1, moves zeros, and what it did is added to the weights times each
    member's rate. Weight decay is done here, as each optimizer defines it. All parameters are views of one tensor:
    tensor after tensor, member after member. An optimizer of which this is not true fails the proof.

    parameters: stacked (P, ...), those of a group one after the other; groups: the number of each one's group.
    optimizers: one of each member, which say the settings and are not stepped; inner: another one like the first.
    """

    def __init__(
        self, parameters: list[nn.Parameter], groups: list[int], optimizers: Sequence[Optimizer], inner: Optimizer
    ) -> None:
        super().__init__(parameters, {"lr": 1.0})
        self.parameters, self.optimizers, self.inner = parameters, list(optimizers), inner
        device, count = parameters[0].device, len(groups)
        members = torch.arange(len(optimizers), device=device)
        self.member = torch.cat([members.repeat_interleave(p[0].numel()) for p in parameters])  # of each weight
        sizes = [p.numel() for p in parameters]
        self.group = torch.tensor(groups, device=device).repeat_interleave(torch.tensor(sizes, device=device))
        self.num_groups = 1 + max(groups)
        sizes = [sum(size for size, own in zip(sizes, groups, strict=True) if own == g) for g in range(self.num_groups)]
        self.moves = [nn.Parameter(torch.zeros(size, dtype=parameters[0].dtype, device=device)) for size in sizes]
        inner.param_groups.clear()
        for move, group in zip(self.moves, optimizers[0].param_groups, strict=True):
            decay = {"weight_decay": 0.0} if "weight_decay" in group else {}
            inner.add_param_group({"params": [move], **shared(group), "lr": 1.0, **decay})
        self.decoupled = bool(optimizers[0].defaults.get("decoupled_weight_decay", False))
        self.apply()
        assert count == len(parameters)
        self.lay_out(torch.cat([p.detach().flatten() for p in parameters]))

    def of_each_weight(self, key: str) -> Tensor:
        """What the members' optimizers say now, for each weight."""
        values = [[float(group.get(key, 0.0)) for group in one.param_groups] for one in self.optimizers]
        each = torch.tensor(values, dtype=self.moves[0].dtype, device=self.member.device)
        return each.flatten()[self.member * self.num_groups + self.group]

    def apply(self) -> None:
        """Takes over what the schedulers have made of the members' optimizers; Unplayed where it is not alike."""
        self.rates, self.decays = self.of_each_weight("lr"), self.of_each_weight("weight_decay")
        self.decaying = bool(self.decays.any())
        self.shrink = 1 - self.rates * self.decays if self.decaying else self.decays  # of a decoupled decay
        settings = [shared(group) for group in self.optimizers[0].param_groups]
        if any([shared(group) for group in one.param_groups] != settings for one in self.optimizers):
            raise Unplayed("its schedule moves more than rates and weight decays")
        for inner, own in zip(self.inner.param_groups, settings, strict=True):
            inner.update(own)

    def lay_out(self, weights: Tensor) -> None:
        """Has the parameters be views of `weights`."""
        self.weights, count = weights, len(self.optimizers)
        sizes = [count * p[0].numel() for p in self.parameters]
        for p, part in zip(self.parameters, weights.split(sizes), strict=True):
            p.data, p.grad = part.view(count, *p.shape[1:]), None

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        with torch.enable_grad():
            loss = closure() if closure else None
        gradients = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in self.parameters])
        if self.decaying and not self.decoupled:
            gradients.addcmul_(self.weights, self.decays)
        sizes = [len(move) for move in self.moves]
        for move, part in zip(self.moves, gradients.split(sizes), strict=True):
            move.grad = part
        self.inner.step()
        if self.decaying and self.decoupled:
            self.weights.mul_(self.shrink)
        for move, weights, rates in zip(self.moves, self.weights.split(sizes), self.rates.split(sizes), strict=True):
            weights.addcmul_(move, rates)
            move.zero_()
        return loss

    def keep(self, alive: Tensor) -> None:
        """Goes on with the members for which `alive`, (P,), is true."""
        kept = alive[self.member]
        for move, part in zip(self.moves, kept.split([len(move) for move in self.moves]), strict=True):
            state = self.inner.state[move]
            for key, value in state.items():
                if isinstance(value, Tensor) and value.shape == part.shape:
                    state[key] = value[part]
            move.data, move.grad = move.data[part], None
        self.rates, self.decays, self.group = self.rates[kept], self.decays[kept], self.group[kept]
        self.shrink = self.shrink[kept]
        self.member = (alive.cumsum(0) - 1)[self.member[kept]]
        self.optimizers = [one for one, goes_on in zip(self.optimizers, alive.tolist(), strict=True) if goes_on]
        self.lay_out(self.weights[kept])

    def state_of(self, place: int) -> list[dict[str, Any]]:
        """What the optimizer of a run alone would know of each parameter."""
        sizes = [p.numel() for p in self.parameters]
        found: list[dict[str, Any]] = [{} for _ in self.parameters]
        states = [self.inner.state[move] for move in self.moves]
        for key, first in states[0].items():
            whole = isinstance(first, Tensor) and first.dim() > 0
            parts = torch.cat([state[key] for state in states]).split(sizes) if whole else [first] * len(sizes)
            for own, part, p in zip(found, parts, self.parameters, strict=True):
                own[key] = part.view_as(p)[place].cpu().clone() if whole else copy.deepcopy(part)
        return found


def shared(group: dict[str, Any]) -> dict[str, Any]:
    """Of a parameter group, what all members of a stack have in common."""
    return {key: value for key, value in group.items() if key not in PER_MEMBER}


class Schedules:
    """Each member's own scheduler, on its own optimizer, which is not stepped: it tells the member's rate."""

    def __init__(self, stacked: StackedOptimizer, given: Sequence[dict[str, Any] | None]) -> None:
        self.stacked, self.given = stacked, list(given)
        self.steps = 0
        for optimizer in stacked.optimizers if given[0] else ():
            optimizer.step()  # moves nothing, as there are no gradients; a scheduler warns that is stepped before it

    def after(self, interval: str, values: Sequence[dict[str, float]] | None = None, number: int = 0) -> None:
        """Steps those of this interval, after the `number`th (1 is the first); values: each member's metrics."""
        first: Any = self.given[0]
        if not first or first["interval"] != interval or number % first["frequency"]:
            return
        for place, one in enumerate(self.given):
            assert one
            watched = isinstance(one["scheduler"], torch.optim.lr_scheduler.ReduceLROnPlateau) and values
            one["scheduler"].step(*([values[place].get(one["monitor"], torch.nan)] if watched and values else []))
        self.stacked.apply()
