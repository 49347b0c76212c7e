"""Mean: an ensemble of nets as one net, and what its members say of the rows that they did not train on."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import torch
from torch import Tensor, nn

from tabrun.tables.split import one_fold

if TYPE_CHECKING:
    from tabrun.runs.run import Run
    from tabrun.tables.data import TabularData


class Mean(nn.Module):
    """Gives log(mean of the nets' softmax) as scores, (rows, classes), whose softmax is the mean of probabilities.

    weights: how much each counts in the mean; as a rule equally much.
    """

    log_shares: Tensor

    def __init__(self, nets: Iterable[nn.Module], weights: Sequence[float] | None = None) -> None:
        super().__init__()
        self.nets = nn.ModuleList(nets)
        shares = torch.ones(len(self.nets)) if weights is None else torch.tensor(weights)
        self.register_buffer("log_shares", (shares / shares.sum()).log()[:, None, None], persistent=False)

    def forward(self, rows: Any) -> Tensor:
        scores = torch.stack([net(rows) for net in self.nets])  # (nets, rows, classes)
        return (scores.log_softmax(-1) + self.log_shares).logsumexp(0)


def of_fold(data: TabularData, number: int) -> TabularData:
    """The same table, of which this fold of an ensemble validates and the others train."""
    table, parts = copy.copy(data), {name: rows.numpy() for name, rows in data.index.items()}
    table.index = {name: torch.from_numpy(rows) for name, rows in one_fold(parts, number).items()}
    return table


def out_of_fold(run: Run, data: TabularData) -> pl.DataFrame:
    """The rows that do not test, each as the member judges it that did not train on it: row, from 0 in the file, a
    probability_<class> for each class, and label.
    """
    index, scores, labels = map(torch.cat, list(zip(*run.scored(data, "val"), strict=True))[:3])
    order = index.argsort()
    codes = labels if labels.dim() == 1 else labels.argmax(-1)
    names = [f"probability_{name}" for name in run.schema.classes]
    shares = map(pl.Series, names, scores[order].softmax(-1).T.numpy())
    label = pl.Series("label", run.schema.classes)[codes[order].numpy()]
    return pl.DataFrame([pl.Series("row", np.asarray(data.numbers)[index[order].numpy()]), *shares, label])
