"""Predictor: what `load` gives: a net with its schema, for tensors, arrays and frames."""

from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor, nn

from tabrun.cli.errors import UserError
from tabrun.reading.formats import as_told
from tabrun.reading.values import RowError, of_kind
from tabrun.tables.schema import Rows, Schema

PIECE = 1024  # rows at a time: what is computed of them stays in the processor's cache


class TrainedClassifier(nn.Module):
    """A trained net with its schema, in eval mode: rows -> scores (rows, classes).

    `predict` and `predict_proba` also take a polars or pandas frame, and give what scikit-learn's classifiers give.
    """

    def __init__(self, net: nn.Module, schema: Schema) -> None:
        super().__init__()
        self.net, self.schema = net, schema
        self.classes_ = of_kind(schema.classes, schema.target_kind if isinstance(schema.target, str) else "String")
        self.requires_grad_(False).eval()

    def forward(self, rows: Any) -> Tensor:
        """Scores of the schema's rows: numbers in the order of `schema.numbers`, or a pair of numbers and codes."""
        return self.net(self.checked(rows))

    def checked(self, rows: Any) -> Rows:
        """The rows as tensors; UserError where they are not as wide as the schema."""
        numbers, *codes = rows if isinstance(rows, tuple) else (rows,)
        try:
            numbers, *codes = torch.as_tensor(numbers, dtype=torch.float32), *map(torch.as_tensor, codes)
        except (TypeError, ValueError, RuntimeError):
            kind = f"{type(numbers).__name__} {getattr(numbers, 'dtype', '')}".rstrip()  # such as ndarray <U1
            raise TypeError(f"rows are a {kind}, not a frame of polars or pandas or an array of numbers") from None
        width = len(self.schema.numbers)
        if numbers.dim() != 2 or numbers.shape[1] != width or len(codes) != bool(self.schema.categories):
            names = ", ".join(number.name for number in self.schema.numbers)
            pair = " and codes of categories: a frame has both" if self.schema.categories else ""
            raise UserError(f"rows are {tuple(numbers.shape)}, and must be (rows, {width}): {names}{pair}")
        return (numbers, *codes) if codes else numbers

    def probabilities(self, rows: Any, temperature: float = 1.0) -> Tensor:
        """Of the schema's rows, (rows, classes); UserError where a score over the temperature is not finite."""
        rows = self.checked(rows)
        pair = isinstance(rows, tuple)
        pieces = zip(*(part.split(PIECE) for part in rows), strict=True) if pair else rows.split(PIECE)
        found = (torch.cat([self.net(piece) for piece in pieces]) / temperature).softmax(-1)
        if not found.isfinite().all():
            row = found.isfinite().all(-1).int().argmin()
            raise RowError("", row, f"its scores, divided by the temperature {temperature}, are beyond float32")
        return found

    def predict_proba(self, table: Any, temperature: float = 1.0) -> np.ndarray:
        """Probabilities, (rows, classes), in the order of `classes_`; scores are divided by the temperature."""
        names = [number.name for number in self.schema.numbers]
        if isinstance(table, np.ndarray) and not self.schema.categories and table.shape[1:] == (len(names),):
            table = pl.DataFrame(table, schema=names)
        if isinstance(table, pl.DataFrame | pl.LazyFrame) or (hasattr(table, "iloc") and hasattr(table, "columns")):
            frame = polars_frame(table)
            table = self.schema.rows(as_told(frame, dict(self.schema.formats)))
        return self.probabilities(table, temperature).numpy()

    def predict(self, table: Any, threshold: float | None = None) -> np.ndarray:
        """The class of each row; with two classes, the second from `threshold` (0.5 when None) upwards."""
        return self.classes_[decide(torch.from_numpy(self.predict_proba(table)), threshold).numpy()]


def decide(probabilities: Tensor, threshold: float | None = None) -> Tensor:
    """Class indices (rows,) of probabilities (rows, classes); of two, class 1 from `threshold` (None: 0.5) upwards."""
    if probabilities.shape[-1] == 2:
        return (probabilities[..., 1] >= (0.5 if threshold is None else threshold)).long()
    if threshold is not None:
        raise UserError(f"a threshold is for 2 classes, there are {probabilities.shape[-1]}")
    return probabilities.argmax(-1)


def polars_frame(table: Any) -> pl.DataFrame:
    """A polars frame of a polars or pandas one."""
    if isinstance(table, pl.LazyFrame):
        table = table.collect()
    if isinstance(table, pl.DataFrame):
        return table
    columns = {}
    for name in table.columns:
        values = table[name].to_numpy()
        if values.dtype == object:  # texts, with NaN where they are missing
            values = [None if gone else value for value, gone in zip(values, table[name].isna(), strict=True)]
        elif values.dtype.kind == "M":  # polars knows no dates in whole seconds
            values = values.astype("datetime64[us]")
        columns[str(name)] = pl.Series(str(name), values, strict=False, nan_to_null=True)
    return pl.DataFrame(columns)
