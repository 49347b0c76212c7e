"""Nets: a first layer that encodes a table's rows, and functions that give the layers between it and the head.

To add a model, write a function `name(in_features, out_features, ...) -> nn.Module` or a class, here or in another file
of the package, and conf/model/name.yaml, whose keys are its other arguments. One that has no argument in_features gets
the rows that Encode takes, and `schema` where it asks for it, so as to embed columns of its own.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tabrun.cli.errors import UserError
from tabrun.tables.columns import FIRST_CODE
from tabrun.tables.schema import Schema


class Encode(nn.Module):
    """Standardises numbers, one-hot encodes or embeds category codes, and joins them: -> (rows, out_features).

    Takes numbers (rows, numbers), or with categories a pair: numbers and codes (rows, categories). A missing number
    (NaN) becomes the mean; `indicators` are the numbers for which 1 is added where they are missing and 0 elsewhere.
    `num_codes` are the codes of each category, of which 0, for values that training never saw, is all zeros; `embedded`
    categories get a learned vector for each code instead. The statistics are fixed before training, so they are no
    parameters and not in the state_dict.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        means: Sequence[float],
        stds: Sequence[float],
        indicators: Sequence[int] = (),
        num_codes: Sequence[int] = (),
        embedded: Sequence[bool] = (),
    ) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(means, dtype=torch.float32), persistent=False)
        self.register_buffer("std", torch.tensor(stds, dtype=torch.float32), persistent=False)
        self.indicators, self.num_codes = list(indicators), list(num_codes)
        self.out_features = len(means) + len(indicators)
        self.embeddings = nn.ModuleDict()
        for i, (size, learned) in enumerate(zip(num_codes, embedded, strict=True)):
            if learned:
                width = min(50, round(1.6 * size**0.56))  # fastai's rule of thumb
                embedding = self.embeddings[str(i)] = nn.Embedding(size, width, padding_idx=0)
                embedding.weight.data *= 0.01  # as wide as torch makes them, they would drown the numbers
            self.out_features += width if learned else size - 1

    @classmethod
    def of(cls, schema: Schema) -> Encode:
        """The layer that reads the rows of this schema."""
        return cls(
            [number.mean for number in schema.numbers],
            [number.std or 1.0 for number in schema.numbers],  # 0: a constant that is sometimes missing
            [i for i, number in enumerate(schema.numbers) if number.indicator],
            [FIRST_CODE + len(category.values) for category in schema.categories],
            [category.embedded for category in schema.categories],
        )

    def forward(self, rows: Tensor | tuple[Tensor, Tensor]) -> Tensor:
        numbers, codes = rows if isinstance(rows, tuple) else (rows, None)
        # in place: of 64 mini-batches at once, each further tensor of this size costs more than the arithmetic
        parts = [(numbers - self.mean).div_(self.std).nan_to_num_(0.0, 0.0, 0.0)]
        if self.indicators:
            parts.append(numbers[:, self.indicators].isnan().to(parts[0].dtype))
        if codes is not None:
            for i, size in enumerate(self.num_codes):
                code = codes[:, i].long()
                if str(i) in self.embeddings:
                    parts.append(self.embeddings[str(i)](code))
                else:
                    parts.append(F.one_hot(code, size)[:, 1:].to(parts[0].dtype))
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)


class AsItIs(nn.Identity):
    """In the place of Encode for a model that reads the table's rows itself."""

    embeddings: Sequence[str] = ()
    out_features = 0  # of what it would compute


def activation_layer(name: str) -> nn.Module:
    """The torch.nn activation called `name`, such as ReLU, Tanh or Sigmoid."""
    try:
        return getattr(nn, name if name in nn.modules.activation.__all__ else "")()
    except (AttributeError, TypeError):  # no such name, or one that needs arguments
        raise UserError(f"model.activation={name} is no activation: say ReLU, GELU, SiLU, Tanh, Sigmoid, ...") from None


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
