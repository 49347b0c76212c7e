"""Trained: what `load` gives: a net with its schema, for tensors, arrays and frames."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor, nn

from classify import heads
from classify.schema import Schema


class TrainedClassifier(nn.Module):
    """A trained net with its schema, in eval mode: rows -> scores (rows, classes).

    `predict` and `predict_proba` also take a polars or pandas frame, and give what scikit-learn's classifiers give.
    """

    def __init__(self, net: nn.Sequential, schema: Schema) -> None:
        super().__init__()
        self.net, self.schema = net, schema
        self.classes_ = np.array(schema.classes)
        self.requires_grad_(False).eval()

    def forward(self, rows: Any) -> Tensor:
        """Scores of the schema's rows: numbers in the order of `schema.numbers`, or a pair of numbers and codes."""
        try:
            numbers = rows[0] if isinstance(rows, tuple) else torch.as_tensor(rows, dtype=torch.float32)
        except (TypeError, ValueError, RuntimeError):
            what = f"of {type(rows[0]).__name__}" if isinstance(rows, list) and rows else ""
            raise TypeError(f"rows are a {type(rows).__name__} {what}: give a frame, an array or a tensor") from None
        if numbers.dim() != 2 or numbers.shape[1] != len(self.schema.numbers):
            names = ", ".join(number.name for number in self.schema.numbers)
            raise ValueError(
                f"rows are {tuple(numbers.shape)}, and must be (rows, {len(self.schema.numbers)}): {names}"
            )
        return self.net(rows if isinstance(rows, tuple) else numbers)

    def predict_proba(self, table: Any, temperature: float = 1.0) -> np.ndarray:
        """Probabilities, (rows, classes), in the order of `classes_`; scores are divided by the temperature."""
        if isinstance(table, np.ndarray) and not self.schema.categories:  # columns in the order of schema.numbers
            table = pl.DataFrame(table, schema=[number.name for number in self.schema.numbers])
        if isinstance(table, pl.DataFrame | pl.LazyFrame) or hasattr(table, "iloc"):
            table = self.schema.rows(polars_frame(table))
        return (self(table) / temperature).softmax(-1).numpy()

    def predict(self, table: Any, threshold: float | None = None) -> np.ndarray:
        """The class of each row; with two classes, the second from `threshold` (0.5 when None) upwards."""
        return self.classes_[heads.predict(torch.from_numpy(self.predict_proba(table)), threshold).numpy()]


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
