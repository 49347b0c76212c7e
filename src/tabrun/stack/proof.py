"""Proof: that a stack trains each member as its own training_step and optimizer would, before it trains any.

Weights after one step would prove nothing: doubling the loss moves Adam's first step by 5e-7, and momentum leaves it as
it is. So gradients are compared, and several steps of the optimizer on equal gradients, all in float64.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tabrun.stack.batches import of_one_length, stacked
from tabrun.stack.member import Member, Unplayed
from tabrun.stack.observed import Step, Unread, cut, in_float64, kept_random, left_behind, random_states, refuse_log
from tabrun.stack.optimizer import Schedules, StackedOptimizer

LARGEST = 1e-8  # difference, relative to the largest number of a tensor
STEPS = 3  # of the optimizer


class Layout:
    """Which of a module's parameters are trained, in the order of their optimizer's groups, and which are held."""

    def __init__(self, module: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        groups = [[id(p) for p in group["params"]] for group in optimizer.param_groups]
        names = {id(p): name for name, p in module.named_parameters()}
        trained = {id(p) for p in module.parameters() if p.requires_grad}
        if any(one not in names for group in groups for one in group):
            raise Unplayed("its optimizer has parameters that are not the module's")
        self.names = [names[one] for group in groups for one in group if one in trained]
        self.groups = [number for number, group in enumerate(groups) for one in group if one in trained]
        self.held = [name for name in names.values() if name not in self.names]

    def of(self, module: nn.Module) -> list[nn.Parameter]:
        own = dict(module.named_parameters())
        return [own[name] for name in self.names]

    def stacked(self, modules: Sequence[nn.Module], names: list[str]) -> list[Tensor]:
        own = [dict(module.named_parameters()) for module in modules]
        return [torch.stack([each[name].detach() for each in own]) for name in names]


@dataclass(frozen=True)
class Own:
    """What a member's own training_step gives of two mini-batches."""

    module: Any
    batches: list[Any]
    losses: list[Tensor]
    gradients: list[list[Tensor]]


def prove(way: Any, members: Sequence[Member], optimizer: bool = True) -> dict[int, str]:
    """The places of members that would not train as their run alone, and why; optimizer: prove its steps too.

    The global random state is put back. The way may raise what torch does, which disproves them all.
    """
    modules, dropout = [member.module for member in members], members[0].config["sweep"]["stack_dropout"]
    found: dict[int, str] = {}
    own: dict[int, Own] = {}
    with in_float64(modules), kept_random():
        layout = Layout(modules[0], members[0].optimizers()[0])
        for place, member in enumerate(members):
            member.module.train(not dropout)
            try:
                own[place] = observed(member, layout, dropout)
            except Unplayed as reason:
                found[place] = str(reason)
            except Exception as error:  # it says so itself when it trains
                found[place] = f"its training_step raises {type(error).__name__}"
        for module in modules:
            module.trainer, module.log = Unread("trainer"), Unread("self.log")
        if own:
            found |= compare(way, own, layout)
        if optimizer and (right := {place: members[place] for place in own if place not in found}):
            found |= prove_steps(right, layout)
        for module in modules:
            module.__dict__.pop("log", None)
            module.train()
    return found


def observed(member: Member, layout: Layout, dropout: bool) -> Own:
    """Its first and its last mini-batch; Unplayed where a step is more than a function of weights and batch."""
    module = member.module
    own = Own(module, [cut(batch, module) for batch in member.mini_batches()], [], [])
    for batch in own.batches:
        module.trainer, module.log = Unread("trainer"), refuse_log
        before, states = left_behind(module), random_states()
        loss = Step(module)(batch)
        gradients = torch.autograd.grad(loss, layout.of(module), allow_unused=True)
        again = None if own.losses else Step(module)(batch).detach()
        if states != random_states():
            raise Unplayed("its training_step draws random numbers" + ("" if dropout else ": see sweep.stack_dropout"))
        after = left_behind(module)
        if changed := [name for name in after if after[name] != before.get(name, after[name])]:
            raise Unplayed(f"its training_step leaves {changed[0]} changed")
        if again is not None and not close(again, loss.detach(), 0.0):
            raise Unplayed("its training_step gives another loss when it is taken again: it keeps or draws something")
        if unused := [name for name, each in zip(layout.names, gradients, strict=True) if each is None]:
            raise Unplayed(f"its {unused[0]} gets no gradient")
        own.losses.append(loss.detach())
        own.gradients.append(list(gradients))
    return own


def compare(way: Any, own: Mapping[int, Own], layout: Layout) -> dict[int, str]:
    """The places for which a way gives another loss or gradient than their own training_step."""
    found: dict[int, str] = {}
    places, alike = list(own), dict[tuple[int, ...], list[int]]()
    for i in range(2):
        for group in of_one_length([each.batches[i] for each in own.values()]):
            alike.setdefault(tuple(places[number] for number in group), []).append(i)
    for together, batches in alike.items():
        for place, reason in compare_equal(way, {place: own[place] for place in together}, batches, layout):
            found.setdefault(place, reason)
    return found


def compare_equal(way: Any, own: Mapping[int, Own], batches: list[int], layout: Layout) -> Iterator[tuple[int, str]]:
    """The same for these of their batches, which are equally long."""
    modules = [each.module for each in own.values()]
    values = [value.requires_grad_() for value in layout.stacked(modules, layout.names)]
    held, built = layout.stacked(modules, layout.held), way(modules, [*layout.names, *layout.held])
    for i in batches:
        losses = built.losses([*values, *held], stacked([each.batches[i] for each in own.values()]))
        gradients = torch.autograd.grad(losses.sum(), values, allow_unused=True, materialize_grads=True)
        for p, (place, expected) in enumerate(own.items()):
            if not close(losses[p].detach(), expected.losses[i], 0.0):
                yield place, "its loss is another one in a stack"
            most = max(float(each.abs().max()) for each in expected.gradients[i])
            for name, each, right in zip(layout.names, gradients, expected.gradients[i], strict=True):
                if not close(each[p], right, 1e-13 * most):
                    yield place, f"the gradient of {name} is another one in a stack"


def close(found: Tensor, expected: Tensor, nothing: float) -> bool:
    """Whether both are equal to LARGEST of the expected, or to what is nothing beside the rest; or both diverged."""
    if not expected.isfinite().all():
        return not found.isfinite().all()
    gap = (found - expected).abs().max()
    return bool(gap <= max(LARGEST * float(expected.abs().max()), nothing))


def prove_steps(members: Mapping[int, Member], layout: Layout) -> dict[int, str]:
    """The places whose optimizer and schedule the stack does not step as their own do, on equal gradients."""
    found: dict[int, str] = {}
    modules = [member.module for member in members.values()]
    parameters = [layout.of(module) for module in modules]
    generator = torch.Generator().manual_seed(0)
    values = [nn.Parameter(value) for value in layout.stacked(modules, layout.names)]
    playing, alone = ([member.optimizers() for member in members.values()] for _ in range(2))
    inner, _ = next(iter(members.values())).optimizers()
    stack = StackedOptimizer(values, layout.groups, [optimizer for optimizer, _ in playing], inner)
    schedules = Schedules(stack, [scheduler for _, scheduler in playing])
    metrics = [{str((one or {}).get("monitor")): 1.0} for _, one in playing]
    for step in range(1, STEPS + 1):
        before = [[p.detach().clone() for p in own] for own in parameters]
        start = [value.detach().clone() for value in values]
        for number, value in enumerate(values):
            value.grad = torch.randn(value.shape, generator=generator, dtype=value.dtype).to(value.device)
            for p, own in enumerate(parameters):
                own[number].grad = value.grad[p].clone()
        stack.step()
        for interval in ("step", "epoch"):
            schedules.after(interval, metrics, step)
        for p, (place, (optimizer, scheduler)) in enumerate(zip(members, alone, strict=True)):
            optimizer.step()
            if scheduler and step % scheduler["frequency"] == 0:
                plateau = isinstance(scheduler["scheduler"], torch.optim.lr_scheduler.ReduceLROnPlateau)
                scheduler["scheduler"].step(*([1.0] if plateau else []))
            for number, parameter in enumerate(parameters[p]):
                moved, stacks = parameter.detach() - before[p][number], values[number][p] - start[number][p]
                if not close(stacks, moved, 1e-14 * float(parameter.detach().abs().max())):
                    name = type(optimizer).__name__
                    found.setdefault(place, f"{name} or its schedule steps {layout.names[number]} otherwise")
    return found
