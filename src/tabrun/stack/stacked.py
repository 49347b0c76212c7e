"""Stacked: the forward pass, the optimizer and the rates of P runs at once, as tensors (P, ...)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

PER_MEMBER = ("lr", "weight_decay")  # arguments of optimizers that members may differ in


def forward_stacked(net: Any, names: Sequence[str]) -> Callable[[Sequence[Tensor], Tensor], Tensor] | None:
    """(stacked parameters of these names, encoded rows (P, features, rows)) -> scores (P, classes, rows), after Encode.

    Rows come last, as a batched product takes weights as they are then, and the loss runs along rows and not along a
    few classes: twice as fast. None: a net that learns to encode, or with layers that are not known here.
    """
    layers = dict(net.body.named_children()) if isinstance(net.body, nn.Sequential) else {"": net.body}
    known = all(type(layer) in (nn.Linear, nn.LayerNorm) or elementwise(layer) for layer in layers.values())
    if not known or any(not name.startswith("body.") for name in names):
        return None
    places = {name: i for i, name in enumerate(names)}
    plan: list[Any] = [  # each layer with the places of its weight and bias
        (layer, *(places.get(".".join(filter(None, ("body", name, kind)))) for kind in ("weight", "bias")))
        for name, layer in layers.items()
    ]
    flat_head = elementwise(net.head)

    def forward(values: Sequence[Tensor], rows: Tensor) -> Tensor:
        for layer, i, j in plan:
            if isinstance(layer, nn.LayerNorm):
                rows = F.layer_norm(rows.transpose(1, 2), layer.normalized_shape, eps=layer.eps).transpose(1, 2)
                rows = rows if i is None else rows * values[i].unsqueeze(-1)
                rows = rows if j is None else rows + values[j].unsqueeze(-1)
            elif i is None:
                rows = layer(rows)
            else:
                rows = values[i] @ rows if j is None else torch.baddbmm(values[j].unsqueeze(-1), values[i], rows)
        return net.head(rows) if flat_head else net.head(rows.transpose(1, 2)).transpose(1, 2)

    return forward


def elementwise(layer: nn.Module) -> bool:
    """Whether a layer treats each number by itself, as activations and dropout do: as seen, not by its name."""
    if [*layer.parameters(), *layer.buffers(), *layer.children()]:
        return False
    probe, training = torch.linspace(-3, 3, 35).view(5, 7), layer.training
    try:
        layer.eval()
        return torch.equal(layer(probe.T), layer(probe).T) and torch.equal(layer(probe[:1]), layer(probe)[:1])
    except (RuntimeError, ValueError):  # of a layer that needs another shape
        return False
    finally:
        layer.train(training)


class StackedOptimizer(Optimizer):
    """One torch optimizer for the whole stack, with a learning rate and a weight decay for each member.

    The steps of SGD, Adam, AdamW and RMSprop are linear in the rate and, without weight decay, do not depend on the
    weights. So the inner optimizer, at rate 1, moves zeros, and what it did is added to the weights times each
    member's rate. Weight decay is done here, as each optimizer defines it. All parameters are views of one tensor:
    tensor after tensor, member after member.
    """

    def __init__(self, parameters: list[nn.Parameter], makers: Sequence[Any]) -> None:
        super().__init__(parameters, {"lr": 1.0})
        self.parameters = parameters
        settings = [maker.keywords for maker in makers]
        shared = {key: value for key, value in settings[0].items() if key not in PER_MEMBER}
        self.decoupled = makers[0].func is torch.optim.AdamW or shared.get("decoupled_weight_decay", False)
        members = torch.arange(len(makers), device=parameters[0].device)
        self.member = torch.cat([members.repeat_interleave(p[0].numel()) for p in parameters])  # of each weight
        self.moves = nn.Parameter(torch.zeros_like(self.member, dtype=parameters[0].dtype))
        self.inner: Optimizer = makers[0].func([self.moves], lr=1.0, **shared, weight_decay=0.0)
        self.decays = self.of_each_weight([s.get("weight_decay", 0.0) for s in settings])
        self.decaying = bool(self.decays.any())
        self.rates = self.of_each_weight([s["lr"] for s in settings])
        self.lay_out(torch.cat([p.detach().flatten() for p in parameters]))

    def of_each_weight(self, values: Sequence[float]) -> Tensor:
        return torch.tensor(values, dtype=self.moves.dtype, device=self.moves.device)[self.member]

    def lay_out(self, weights: Tensor) -> None:
        """Has the parameters be views of `weights`."""
        self.weights, count = weights, int(self.member.max()) + 1
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
        self.moves.grad = gradients
        self.inner.step()
        if self.decaying and self.decoupled:
            self.weights.mul_(1 - self.rates * self.decays)
        self.weights.addcmul_(self.moves, self.rates)
        self.moves.zero_()
        return loss

    def keep(self, alive: Tensor) -> None:
        """Goes on with the members for which `alive`, (P,), is true."""
        kept = alive[self.member]
        state = self.inner.state[self.moves]
        for key, value in state.items():
            if isinstance(value, Tensor) and value.shape == kept.shape:
                state[key] = value[kept]
        self.rates, self.decays = self.rates[kept], self.decays[kept]
        self.moves.data, self.moves.grad = self.moves.data[kept], None
        self.member = (alive.cumsum(0) - 1)[self.member[kept]]
        self.lay_out(self.weights[kept])

    def state_of(self, place: int) -> list[dict[str, Tensor]]:
        """What the optimizer of a run alone would know of each of its parameters."""
        sizes = [p.numel() for p in self.parameters]
        found: list[dict[str, Tensor]] = [{} for _ in self.parameters]
        for key, value in self.inner.state[self.moves].items():
            parts = value.split(sizes) if value.dim() else [value] * len(sizes)
            for own, part, p in zip(found, parts, self.parameters, strict=True):
                own[key] = (part.view_as(p)[place] if value.dim() else part).cpu().clone()
        return found


class Rates:
    """Each member's scheduler, on an optimizer of its own that moves nothing: it tells the member's rate."""

    def __init__(self, members: Sequence[Any], steps: int, stacked: StackedOptimizer) -> None:
        self.stacked, self.schedules = stacked, []
        for member in members:
            optimizer, schedule = member.optimizer([nn.Parameter(torch.zeros(()))]), member.schedule
            total = {schedule.total: steps} if schedule.total else {}
            self.schedules.append(schedule.make(optimizer, **total))
            optimizer.step()  # moves nothing; a scheduler warns that is stepped before its optimizer
        self.apply()

    def step(self, metrics: Sequence[Any] | None = None) -> None:
        for i, schedule in enumerate(self.schedules):
            schedule.step(*([metrics[i]] if metrics else []))
        self.apply()

    def settings(self, place: int) -> dict[str, Any]:
        """The member's rate and what else its scheduler moves."""
        group = self.schedules[place].optimizer.param_groups[0]
        return {key: value for key, value in group.items() if key != "params"}

    def apply(self) -> None:
        groups = [schedule.optimizer.param_groups[0] for schedule in self.schedules]
        self.stacked.rates = self.stacked.of_each_weight([float(group["lr"]) for group in groups])
        for key in ("momentum", "betas"):  # OneCycleLR moves these too
            if key in groups[0]:
                self.stacked.inner.param_groups[0][key] = groups[0][key]
