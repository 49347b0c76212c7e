"""Ways: how the losses of P runs are computed at once; which of them is right for a module, the proof tells."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, vmap

from tabrun.stack.batches import numbers_of
from tabrun.stack.layers import Layer, dropped, elementwise, linear, norm, rows_first
from tabrun.stack.member import Unplayed
from tabrun.stack.observed import Step


class Mapped:
    """The members' own training_step through torch.func.vmap, which takes any that is a function of its tensors."""

    words = "by torch.func"

    def __init__(self, modules: Sequence[nn.Module], names: Sequence[str]) -> None:
        self.step, self.names = Step(modules[0]), [f"module.{name}" for name in names]
        self.buffers = stacked_buffers([Step(module) for module in modules])

    def losses(self, values: Sequence[Tensor], batch: Any) -> Tensor:
        """(P,), of parameters (P, ...) and a batch that all members share, or with rows (P, rows, ...)."""
        shared = 0 if numbers_of(batch).dim() == 3 else None
        call = vmap(lambda p, b, rows: called(self.step, p, b, rows), (0, 0, shared), randomness="different")
        return call(dict(zip(self.names, values, strict=True)), self.buffers, batch)


class Batched:
    """The loss of the net's scores, layer by layer, each layer computed for all members in one kernel.

    It is right where training_step is `loss(net(rows), *truth)`. Rows come last, (P, features, rows), as a batched
    product takes weights as they are then, and the loss runs along rows and not along a few classes: twice as fast. A
    layer may have a method `stacked(values, rows)` of its own, of its parameters (P, ...) by name and rows
    (P, rows, features); one that has none and is not known here goes through vmap. The net's `encode` may have one too,
    which takes a batch's rows, (rows, ...) where all members share them, and also its buffers in which members differ.
    """

    words = "layer by layer"

    def __init__(self, modules: Sequence[Any], names: Sequence[str]) -> None:
        if not (isinstance(getattr(modules[0], "net", None), nn.Sequential) and hasattr(modules[0], "loss")):
            raise Unplayed("it has no net and loss")
        if any(not name.startswith("net.") for name in names):
            raise Unplayed("it has parameters beside the net's")
        self.modules, self.places = modules, {name: place for place, name in enumerate(names)}
        self.nets, self.functions = [one.net for one in modules], [one.loss for one in modules]
        net = self.nets[0]
        layers = net.body if isinstance(net.body, nn.Sequential) else [net.body]
        names_of = {layer: f"net.body.{name}".rstrip(".") for name, layer in net.body.named_modules()}
        self.layers = [self.layer(layer, names_of[layer]) for layer in layers]
        self.head = net.head if elementwise(net.head) else rows_first(net.head)
        plain = all(
            type(f) is nn.CrossEntropyLoss and f.weight is None and f.reduction == "mean" for f in self.functions
        )
        self.plain = plain and len({f.label_smoothing for f in self.functions}) == 1
        states = [settings(function) for function in self.functions]
        self.one_loss = all(s == states[0] and not [*f.buffers()] for s, f in zip(states, self.functions, strict=True))
        self.learned = any(name.startswith("net.encode.") for name in names)
        self.one_encode = not self.learned and all(same(one.encode, net.encode) for one in self.nets)
        self.encode = None if self.one_encode else self.encoder()

    def own(self, prefix: str) -> dict[str, int]:
        """The places of the parameters of the layer of this name."""
        return {name.removeprefix(f"{prefix}."): i for name, i in self.places.items() if name.startswith(f"{prefix}.")}

    def layer(self, layer: Any, name: str) -> Layer:
        places = self.own(name)
        weight, bias = (places.get(kind, -1) for kind in ("weight", "bias"))
        if type(layer) is nn.Linear:
            return linear(weight, bias)
        if type(layer) is nn.LayerNorm and min(weight, bias) >= 0 and len(layer.normalized_shape) == 1:
            return norm(layer, weight, bias)
        if type(layer) is nn.Dropout and layer.p < 1:
            return lambda values, rows: dropped(layer, rows)
        if elementwise(layer):
            return lambda values, rows: layer(rows)
        if hasattr(layer, "stacked"):
            return lambda values, rows: layer.stacked(
                {key: values[place] for key, place in places.items()}, rows.transpose(1, 2)
            ).transpose(1, 2)
        own = self.mapped([net.get_submodule(name.removeprefix("net.")) for net in self.nets], name)
        return lambda values, rows: own(values, rows.transpose(1, 2), 0).transpose(1, 2)

    def mapped(self, layers: Sequence[nn.Module], name: str) -> Callable[..., Tensor]:
        """A layer of every member through vmap, of rows (P, rows, ...) or, with None for `dim`, (rows, ...)."""
        places, buffers = self.own(name), stacked_buffers(layers)

        def call(values: Sequence[Tensor], rows: Any, dim: int | None) -> Tensor:
            each = vmap(lambda p, b, r: called(layers[0], p, b, r), (0, 0, dim), randomness="different")
            return each({key: values[place] for key, place in places.items()}, buffers, rows)

        return call

    def encoder(self) -> Callable[..., Tensor] | None:
        """Encodes for every member at once, where members differ in it and it says how."""
        encodes = [net.encode for net in self.nets]
        if not hasattr(encodes[0], "stacked"):
            return self.mapped(encodes, "net.encode") if self.learned else None
        places, own = self.own("net.encode"), stacked_buffers(encodes)
        differ = {name: buffer for name, buffer in own.items() if not (buffer == buffer[0]).all()}
        return lambda values, rows, _: encodes[0].stacked(
            differ | {key: values[place] for key, place in places.items()}, rows
        )

    def losses(self, values: Sequence[Tensor], batch: Any) -> Tensor:
        """(P,), of parameters (P, ...) and a batch that all members share, or with rows (P, rows, ...)."""
        rows, *truth = batch
        shared = numbers_of(batch).dim() == 2
        encoded = self.encoded(values, rows, shared)
        hidden = (encoded if encoded.dim() == 3 else encoded.expand(len(self.nets), *encoded.shape)).transpose(1, 2)
        for layer in self.layers:
            hidden = layer(values, hidden)
        scores = self.head(hidden)  # (P, classes, rows)
        truth = [each.expand(len(scores), *each.shape) for each in truth] if shared else truth
        if self.plain and len(truth) == 1:
            labels = truth[0].transpose(1, 2) if truth[0].dim() == 3 else truth[0]
            smoothing = self.functions[0].label_smoothing
            return F.cross_entropy(scores, labels, reduction="none", label_smoothing=smoothing).mean(1)
        if self.one_loss:
            return vmap(self.functions[0], randomness="different")(scores.transpose(1, 2), *truth)
        each = zip(self.functions, scores, *truth, strict=True)
        return torch.stack([function(own.T, *labels) for function, own, *labels in each])

    def encoded(self, values: Sequence[Tensor], rows: Any, shared: bool) -> Tensor:
        """What the bodies take, (P, rows, features), or (rows, features) where it is the same for all."""
        if self.encode:
            return self.encode(values, rows, None if shared else 0)
        parts = rows if isinstance(rows, tuple) else (rows,)
        if self.one_encode:
            flat = [part.flatten(0, -2) for part in parts]
            found = self.nets[0].encode(tuple(flat) if len(flat) > 1 else flat[0])
            return found.view(*parts[0].shape[:-1], found.shape[-1])
        each = [rows] * len(self.nets) if shared else list(zip(*parts, strict=True)) if len(parts) > 1 else list(rows)
        return torch.stack([net.encode(own) for net, own in zip(self.nets, each, strict=True)])


def called(module: nn.Module, parameters: dict[str, Tensor], buffers: dict[str, Tensor], rows: Any) -> Any:
    """What a module gives with other parameters and buffers."""
    # a layer that is there twice would be left with what it is given here; weights in two layers have to be tied
    tied = len([*module.named_modules(remove_duplicate=False)]) == len([*module.modules()])
    return functional_call(module, (parameters, buffers), (rows,), tie_weights=tied)


WAYS = (Batched, Mapped)  # the quicker first


def settings(module: nn.Module) -> list[dict[str, Any]]:
    """The plain attributes of a module and of each within it."""
    return [{k: v for k, v in vars(m).items() if isinstance(v, int | float | str)} for m in module.modules()]


def stacked_buffers(modules: Sequence[nn.Module]) -> dict[str, Tensor]:
    own = [dict(module.named_buffers()) for module in modules]
    return {name: torch.stack([each[name] for each in own]) for name in own[0]}


def same(one: nn.Module, other: nn.Module) -> bool:
    """Whether two layers without parameters do the same."""
    buffers = [dict(layer.named_buffers()) for layer in (one, other)]
    return one is other or (
        repr(one) == repr(other)
        and buffers[0].keys() == buffers[1].keys()
        and all(torch.equal(buffers[0][name], buffers[1][name]) for name in buffers[0])
    )
