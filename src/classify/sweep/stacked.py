"""Stacked: the forward pass, the optimizer, the rates and the batches of P runs at once, as tensors (P, ...)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.optim import Optimizer

from classify.data import Batches, TabularData, take
from classify.module import Classifier

PER_MEMBER = ("lr", "weight_decay", "max_lr")  # arguments of optimizers and schedulers that members may differ in


def forward_stacked(net: Any) -> Callable[[dict[str, Tensor], Tensor], Tensor]:
    """(stacked parameters, encoded rows (P, rows, features)) -> scores (P, rows, classes), for the layers after Encode.

    Linear layers of the whole stack are one batched product each; any other net goes through torch.func.vmap.
    """
    layers = list(net.body) if isinstance(net.body, nn.Sequential) else [net.body]
    pointwise = [layer for layer in layers if not isinstance(layer, nn.Linear)]
    if any(True for layer in pointwise for _ in layer.parameters()) or any(
        list(layer.children()) for layer in pointwise
    ):

        def forward(parameters: dict[str, Tensor], rows: Tensor) -> Tensor:
            own = {name.removeprefix("body."): value for name, value in parameters.items()}
            return net.head(vmap(lambda p, x: functional_call(net.body, p, x), randomness="different")(own, rows))

        return forward

    def batched(parameters: dict[str, Tensor], rows: Tensor) -> Tensor:
        for i, layer in enumerate(layers):
            prefix = f"body.{i}." if isinstance(net.body, nn.Sequential) else "body."
            if isinstance(layer, nn.Linear):
                weight, bias = parameters[f"{prefix}weight"], parameters.get(f"{prefix}bias")
                if bias is None:
                    rows = rows @ weight.transpose(1, 2)
                else:
                    rows = torch.baddbmm(bias[:, None], rows, weight.transpose(1, 2))
            else:
                rows = layer(rows)
        return net.head(rows)

    return batched


class StackedOptimizer(Optimizer):
    """One torch optimizer for the whole stack, with a learning rate and a weight decay for each member.

    The steps of SGD, Adam, AdamW and RMSprop are linear in the rate and, without weight decay, do not depend on the
    weights. So the inner optimizer, at rate 1, moves a tensor of zeros, (P, parameters), and what it did is added to
    the weights times each member's rate. Weight decay is done here, as each optimizer defines it.
    """

    def __init__(self, parameters: list[nn.Parameter], makers: Sequence[Any]) -> None:
        super().__init__(parameters, {"lr": 1.0})
        settings = [maker.keywords for maker in makers]
        shared = {key: value for key, value in settings[0].items() if key not in PER_MEMBER}
        first = parameters[0]
        size = sum(parameter[0].numel() for parameter in parameters)
        self.moves = nn.Parameter(first.new_zeros(len(makers), size))
        self.inner: Optimizer = makers[0].func([self.moves], lr=1.0, **shared, weight_decay=0.0)
        self.decoupled = makers[0].func is torch.optim.AdamW or shared.get("decoupled_weight_decay", False)
        self.rates = first.new_tensor([float(s["lr"]) for s in settings], dtype=torch.float64)
        self.decays = first.new_tensor([float(s.get("weight_decay", 0.0)) for s in settings], dtype=torch.float64)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        with torch.enable_grad():
            loss = closure() if closure else None
        parameters: list[Tensor] = self.param_groups[0]["params"]
        rates, decays = self.rates.to(self.moves.dtype)[:, None], self.decays.to(self.moves.dtype)[:, None]
        gradients = torch.cat([p.grad.flatten(1) for p in parameters if p.grad is not None], dim=1)
        if self.decays.any():
            weights = torch.cat([p.flatten(1) for p in parameters], dim=1)
            if not self.decoupled:
                gradients.addcmul_(weights, decays)
        self.moves.grad = gradients
        self.inner.step()
        self.moves.mul_(rates)
        if self.decoupled and self.decays.any():
            self.moves.addcmul_(weights, rates * decays, value=-1)
        start = 0
        for p in parameters:
            end = start + p[0].numel()
            p.add_(self.moves[:, start:end].view_as(p))
            start = end
        self.moves.zero_()
        return loss

    def keep(self, alive: Tensor) -> None:
        """Goes on with these members only."""
        self.rates, self.decays = self.rates[alive], self.decays[alive]
        state = self.inner.state[self.moves]
        for key, value in state.items():
            if isinstance(value, Tensor) and value.dim() == 2:
                state[key] = value[alive]
        self.moves.data, self.moves.grad = self.moves.data[alive], None


class Rates:
    """Each member's scheduler, on an optimizer of its own that moves nothing: it tells the member's rate."""

    def __init__(self, members: Sequence[Classifier], steps: int) -> None:
        self.schedules: list[Any] = []
        for member in members:
            optimizer = member.optimizer([nn.Parameter(torch.zeros(()))])
            schedule = member.schedule
            assert schedule
            total = {schedule.total: steps} if schedule.total else {}
            self.schedules.append(schedule.make(optimizer, **total))

    def step(self, metrics: Sequence[Any] | None = None) -> None:
        for i, schedule in enumerate(self.schedules):
            schedule.optimizer._opt_called = True  # or torch warns that no step was taken
            schedule.step(*([metrics[i]] if metrics else []))

    def apply(self, optimizer: StackedOptimizer) -> None:
        groups = [schedule.optimizer.param_groups[0] for schedule in self.schedules]
        optimizer.rates = torch.tensor([float(group["lr"]) for group in groups], dtype=torch.float64)
        for key in ("momentum", "betas"):  # OneCycleLR moves these too
            if key in groups[0]:
                optimizer.inner.param_groups[0][key] = groups[0][key]


class Stack:
    """The batches of every member: rows (P, batch, ...), or (batch, ...) where all have the same, and labels."""

    def __init__(self, tables: Sequence[TabularData], epoch: Callable[[], int]) -> None:
        self.all = [table.train_dataloader() for table in tables]
        for batches in self.all:
            batches.epoch = epoch
        self.alive = list(range(len(tables)))

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
