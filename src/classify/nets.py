"""Nets: a first layer that encodes a table's rows, and functions that give the layers between it and the head.

To add a model, write a function `name(in_features, out_features, ...) -> nn.Module` or a class, here or in another file
of the package, and conf/model/name.yaml, whose keys are its other arguments. One that has no argument in_features gets
the rows that Encode takes, and `schema` where it asks for it, so as to embed columns of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from classify.numbers import Periodic, Piecewise, centers_and_widths, clipped, quantiles_of
from tabrun.cli.errors import UserError
from tabrun.tables.columns import FIRST_CODE
from tabrun.tables.schema import Schema


class Encode(nn.Module):
    """Scales numbers, one-hot encodes or embeds category codes, and joins them: -> (rows, out_features).

    Takes numbers (rows, numbers), or with categories a pair: numbers and codes (rows, categories). A missing number
    (NaN) becomes the center; `indicators` are the numbers for which 1 is added where they are missing and 0 elsewhere.
    `num_codes` are the codes of each category, of which 0, for values that training never saw, is all zeros; `embedded`
    categories get a learned vector for each code instead. clip: squeeze what is far from the center. embed: gives more
    of the scaled numbers. scale_layer: multiply each output by a learned number. The statistics are fixed before
    training, so they are no parameters and not in the state_dict.
    """

    center: Tensor
    width: Tensor

    def __init__(
        self,
        centers: Sequence[float],
        widths: Sequence[float],
        indicators: Sequence[int] = (),
        num_codes: Sequence[int] = (),
        embedded: Sequence[bool] = (),
        clip: bool = False,
        embed: Periodic | Piecewise | None = None,
        scale_layer: bool = False,
    ) -> None:
        super().__init__()
        self.register_buffer("center", torch.tensor([centers], dtype=torch.float32), persistent=False)  # (1, numbers)
        self.register_buffer("width", torch.tensor([widths], dtype=torch.float32), persistent=False)
        self.indicators, self.num_codes, self.clip, self.embed = list(indicators), list(num_codes), clip, embed
        self.out_features = len(centers) + len(indicators) + (embed.out_features if embed else 0)
        self.embeddings = nn.ModuleDict()
        for i, (size, learned) in enumerate(zip(num_codes, embedded, strict=True)):
            if learned:
                width = min(50, round(1.6 * size**0.56))  # fastai's rule of thumb
                embedding = self.embeddings[str(i)] = nn.Embedding(size, width, padding_idx=0)
                embedding.weight.data *= 0.01  # as wide as torch makes them, they would drown the numbers
            self.out_features += width if learned else size - 1
        self.scale = nn.Parameter(torch.ones(1, self.out_features)) if scale_layer else None

    @classmethod
    def of(
        cls,
        schema: Schema,
        scale: str = "standard",
        embed: str | None = None,
        frequencies: int = 16,
        outputs: int = 3,
        std: float = 1.0,
        bins: int = 16,
        scale_layer: bool = False,
    ) -> Encode:
        """The layer that reads the rows of this schema, with the options of conf/encode; `numbers` has their maths."""
        centers, widths = centers_and_widths(schema.numbers, scale)
        clip = scale == "robust"
        embedding: Periodic | Piecewise | None = None
        if embed == "periodic" and centers:
            embedding = Periodic(len(centers), frequencies, outputs, std)
        elif embed and centers:
            borders = torch.tensor([quantiles_of(number, bins) for number in schema.numbers])
            scaled = (borders - torch.tensor(centers)[:, None]) / torch.tensor(widths)[:, None]
            embedding = Piecewise(clipped(scaled) if clip else scaled)
        return cls(
            centers,
            widths,
            [i for i, number in enumerate(schema.numbers) if number.indicator],
            [FIRST_CODE + len(category.values) for category in schema.categories],
            [category.embedded for category in schema.categories],
            clip,
            embedding,
            scale_layer,
        )

    def extra_repr(self) -> str:
        return f"clip={self.clip}"

    def forward(self, rows: Tensor | tuple[Tensor, Tensor]) -> Tensor:
        return self.stacked({}, rows)

    def stacked(self, values: Mapping[str, Tensor], rows: Tensor | tuple[Tensor, Tensor]) -> Tensor:
        """The same of P at once, (P, rows, out_features), where the parameters and buffers in `values` are (P, ...)."""
        numbers, codes = rows if isinstance(rows, tuple) else (rows, None)
        # in place: of 64 mini-batches at once, each further tensor of this size costs more than the arithmetic
        x = (numbers - values.get("center", self.center)).div_(values.get("width", self.width))
        x = clipped(x.nan_to_num_(0.0)) if self.clip else x.nan_to_num_(0.0, 0.0, 0.0)
        parts = [x]
        if self.embed is not None:
            own = {name.removeprefix("embed."): value for name, value in values.items() if name.startswith("embed.")}
            parts.append(self.embed.stacked(own, x))
        if self.indicators:
            parts.append(numbers[..., self.indicators].isnan().to(x.dtype))
        if codes is not None:
            for i, size in enumerate(self.num_codes):
                code = codes[..., i].long()
                if str(i) not in self.embeddings:
                    parts.append(F.one_hot(code, size)[..., 1:].to(x.dtype))
                elif (weight := f"embeddings.{i}.weight") in values:
                    parts.append(looked_up(values[weight], code))
                else:
                    parts.append(self.embeddings[str(i)](code))
        joined = parts[0] if len(parts) == 1 else torch.cat(alike(parts), dim=-1)
        return joined if self.scale is None else joined * values.get("scale", self.scale)


def looked_up(weights: Tensor, code: Tensor) -> Tensor:
    """The vectors (P, rows, width) in P tables (P, codes, width) for codes (rows,) or (P, rows)."""
    first = torch.arange(len(weights), device=code.device)[:, None] * weights.shape[1]
    return F.embedding(code + first, weights.flatten(0, 1))


def alike(parts: list[Tensor]) -> list[Tensor]:
    """What all members of a stack share, (rows, ...), as (P, rows, ...) where other parts are."""
    most = max(parts, key=Tensor.dim)
    return [part if part.dim() == most.dim() else part.expand(len(most), *part.shape) for part in parts]


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
