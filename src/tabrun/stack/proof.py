"""Proof: that a stack trains each member as its own training_step and optimizer would, before it trains any.

Weights after one step would prove nothing: doubling the loss moves Adam's first step by 5e-7, and momentum leaves it as
it is. So gradients are compared, and several steps of the optimizer on equal gradients, all in float64.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tabrun.stack.member import Member, Unplayed, stacked
from tabrun.stack.optimizer import Schedules, StackedOptimizer
from tabrun.stack.ways import Step, Unread, numbers_of

LARGEST = 1e-8  # difference, relative to the largest number of a tensor
ROWS = 2**21  # products in a step's forward pass, above which fewer rows of the first mini-batch prove as much
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


def prove(way: Any, members: list[Member], optimizer: bool = True) -> dict[int, str]:
    """The places of members that would not train as their run alone, and why; optimizer: prove its steps too.

    The global random state is put back. The way may raise what torch does, which disproves them all.
    """
    modules, dropout = [member.module for member in members], members[0].config["sweep"]["stack_dropout"]
    with in_float64(modules), kept_random():
        layout = Layout(modules[0], members[0].optimizers()[0])
        for module in modules:
            module.train(not dropout)
        batches = [
            [cut(batch, module) for batch in one.mini_batches()] for one, module in zip(members, modules, strict=True)
        ]
        found: dict[int, str] = {}
        own: list[Any] = [None] * len(members)
        for place, (module, pair) in enumerate(zip(modules, batches, strict=True)):
            try:
                own[place] = [observed(module, batch, layout, dropout) for batch in pair]
            except Unplayed as reason:
                found[place] = str(reason)
        right = [place for place in range(len(members)) if place not in found]
        if right:
            for module in modules:
                module.trainer, module.log = Unread("trainer"), Unread("self.log")
            compare(
                [modules[p] for p in right],
                way,
                layout,
                [batches[p] for p in right],
                [own[p] for p in right],
                right,
                found,
            )
        if optimizer and (right := [place for place in right if place not in found]):
            prove_steps([members[place] for place in right], layout, right, found)
        for module in modules:
            module.__dict__.pop("log", None)
            module.train()
    return found


def compare(
    modules: list[Any],
    way: Any,
    layout: Layout,
    batches: list[Any],
    own: list[Any],
    places: list[int],
    found: dict[int, str],
) -> None:
    """Notes the members for which a way gives another loss or gradient than their own training_step."""
    names = [*layout.names, *layout.held]
    values = [value.requires_grad_() for value in layout.stacked(modules, layout.names)]
    built = way(modules, names)
    for i in range(2):
        losses = built.losses([*values, *layout.stacked(modules, layout.held)], stacked([pair[i] for pair in batches]))
        gradients = torch.autograd.grad(losses.sum(), values, allow_unused=True, materialize_grads=True)
        for p, place in enumerate(places):
            loss, expected = own[p][i]
            most = max(float(each.abs().max()) for each in expected)
            if not close(losses[p].detach(), loss, 0.0):
                found.setdefault(place, "its loss is another one in a stack")
            for name, each, right in zip(layout.names, gradients, expected, strict=True):
                if not close(each[p], right, 1e-13 * most):
                    found.setdefault(place, f"the gradient of {name} is another one in a stack")


def close(found: Tensor, expected: Tensor, nothing: float) -> bool:
    """Whether both are equal to LARGEST of the expected, or to what is nothing beside the rest; or both diverged."""
    if not expected.isfinite().all():
        return not found.isfinite().all()
    gap = (found - expected).abs().max()
    return bool(gap <= max(LARGEST * float(expected.abs().max()), nothing))


def observed(module: Any, batch: Any, layout: Layout, dropout: bool) -> tuple[Tensor, list[Tensor]]:
    """Loss and gradients of the module's own training_step; Unplayed where it is more than a function of its batch."""
    module.trainer, module.log = Unread("trainer"), refuse_log
    before, states = left_behind(module), random_states()
    loss = Step(module)(batch)
    parameters = layout.of(module)
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    if any(one != other for one, other in zip(states, random_states(), strict=True)):
        raise Unplayed("its training_step draws random numbers" + ("" if dropout else ": see sweep.stack_dropout"))
    after = left_behind(module)
    if changed := [name for name in after if after[name] != before.get(name, after[name])]:
        raise Unplayed(f"its training_step leaves {changed[0]} changed")
    for name, gradient in zip(layout.names, gradients, strict=True):
        if gradient is None:
            raise Unplayed(f"its {name} gets no gradient")
    return loss.detach(), list(gradients)


def refuse_log(*arguments: Any, **options: Any) -> None:
    raise Unplayed("its training_step logs")


def left_behind(module: nn.Module) -> dict[str, Any]:
    """What a step could change beside weights: plain attributes, the lengths of collections, sums of buffers."""
    found: dict[str, Any] = {}
    for prefix, part in module.named_modules():
        for name, value in vars(part).items():
            if isinstance(value, int | float | str | None):
                found[f"{prefix}.{name}".lstrip(".")] = repr(value)  # as nan is not nan
            elif isinstance(value, list | dict | set):
                found[f"{prefix}.{name}".lstrip(".")] = len(value)
    return found | {name: value.sum().item() for name, value in module.named_buffers()}


def prove_steps(members: list[Member], layout: Layout, places: list[int], found: dict[int, str]) -> None:
    """Notes the members whose optimizer and schedule the stack does not step as their own do."""
    modules = [member.module for member in members]
    generator = torch.Generator().manual_seed(0)
    values = [nn.Parameter(value) for value in layout.stacked(modules, layout.names)]
    playing = [member.optimizers() for member in members]
    stack = StackedOptimizer(values, layout.groups, [optimizer for optimizer, _ in playing])
    schedules = Schedules(stack, [scheduler for _, scheduler in playing])
    alone = [member.optimizers() for member in members]
    for step in range(1, STEPS + 1):
        before = [[p.detach().clone() for p in layout.of(module)] for module in modules]
        for number, value in enumerate(values):
            value.grad = torch.randn(value.shape, generator=generator, dtype=value.dtype)
            for place, module in enumerate(modules):
                layout.of(module)[number].grad = value.grad[place].clone()
        start = [value.detach().clone() for value in values]
        stack.step()
        metrics = [{str((one or {}).get("monitor")): 1.0} for _, one in playing]
        for interval in ("step", "epoch"):
            schedules.after(interval, metrics, step)
        for place, (optimizer, scheduler) in enumerate(alone):
            optimizer.step()
            if scheduler and step % scheduler["frequency"] == 0:
                plateau = isinstance(scheduler["scheduler"], torch.optim.lr_scheduler.ReduceLROnPlateau)
                scheduler["scheduler"].step(*([1.0] if plateau else []))
            for number, parameter in enumerate(layout.of(modules[place])):
                own, stacks = parameter.detach() - before[place][number], values[number][place] - start[number][place]
                if not close(stacks, own, 1e-14 * float(parameter.detach().abs().max())):
                    name = type(optimizer).__name__
                    found.setdefault(places[place], f"{name} or its schedule steps {layout.names[number]} otherwise")


@contextmanager
def in_float64(modules: Sequence[Any]) -> Iterator[None]:
    """Has the modules hold copies of their weights in float64, and then what they held."""
    own = [[(p, p.data) for p in module.parameters()] for module in modules]
    buffers = [[(b, b.data) for b in module.buffers()] for module in modules]
    try:
        for parameter, data in (pair for pairs in own for pair in pairs):
            parameter.data = data.to(torch.float64, copy=True)
        for buffer, data in (pair for pairs in buffers for pair in pairs):
            buffer.data = data.to(torch.float64, copy=True) if data.is_floating_point() else data.clone()
        yield
    finally:
        for pairs in (*own, *buffers):
            for tensor, data in pairs:
                tensor.grad = None
                tensor.data = data


@contextmanager
def kept_random() -> Iterator[None]:
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])


def random_states() -> list[Any]:
    arrays: Any = np.random.get_state()
    return [random.getstate(), arrays[1].tobytes(), arrays[2:], torch.get_rng_state().numpy().tobytes()]


def cut(batch: Any, module: nn.Module) -> Any:
    """A mini-batch in float64, on the module's device; where its rows make much work, the first that do not."""
    weights = sum(p.numel() for p in module.parameters())
    device, rows = next(module.parameters()).device, max(8, ROWS // max(weights, 1))
    rows = min(rows, len(numbers_of(batch)))

    def moved(part: Tensor) -> Tensor:
        part = part[:rows].to(device)
        return part.double() if part.is_floating_point() else part

    own = tuple(map(moved, batch[0])) if isinstance(batch[0], tuple) else moved(batch[0])
    return own, *map(moved, batch[1:])
