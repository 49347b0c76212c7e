"""Nets: a first layer that encodes a table's rows, and functions that give the layers between it and the head.

To add a model, write a function `name(in_features, out_features, ...) -> nn.Module` here and conf/model/name.yaml,
whose keys are the function's other arguments.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Encode(nn.Module):
    """Standardises numbers: (rows, numbers) -> (rows, out_features), a missing number (NaN) becoming the mean.

    Its statistics are fixed before training, so they are no parameters and not in the state_dict.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, means: Sequence[float], stds: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(means, dtype=torch.float32), persistent=False)
        self.register_buffer("std", torch.tensor(stds, dtype=torch.float32), persistent=False)
        self.out_features = len(means)

    def forward(self, rows: Tensor) -> Tensor:
        return ((rows - self.mean) / self.std).nan_to_num(0.0)


def activation_layer(name: str) -> nn.Module:
    """The torch.nn activation called `name`, such as ReLU, Tanh or Sigmoid."""
    layer = getattr(nn.modules.activation, name, None)
    if not isinstance(layer, type) or name.startswith("_"):
        raise ValueError(f"model.activation={name} is not in torch.nn: say ReLU, GELU, SiLU, Tanh, Sigmoid, ...")
    return layer()


def mlp(
    in_features: int, out_features: int, hidden: Sequence[int], activation: str = "ReLU", dropout: float = 0.0
) -> nn.Sequential:
    """Linear, activation (and dropout, when > 0) for each width in `hidden`, and a last Linear."""
    layers: list[nn.Module] = []
    for width in hidden:
        layers += [nn.Linear(in_features, width), activation_layer(activation)]
        if dropout:
            layers.append(nn.Dropout(dropout))
        in_features = width
    return nn.Sequential(*layers, nn.Linear(in_features, out_features))


def linear(in_features: int, out_features: int) -> nn.Sequential:
    """One Linear: with a head and cross-entropy this is logistic regression."""
    return mlp(in_features, out_features, hidden=())
