"""Data: a table, split into training, validation and test rows, as batches on a LightningDataModule."""

import hashlib
import math
from collections.abc import Callable, Iterator

import lightning
import numpy as np
import polars as pl
import torch
from sklearn.model_selection import train_test_split
from torch import Tensor

from classify.schema import Schema

EVALUATION_BATCH = 8192  # rows; nothing is learned from these batches, so their size is a matter of speed alone


class Batches:
    """Some rows of a table in memory, a batch at a time: (rows, labels).

    Whole batches are gathered with one index tensor each, which costs a tenth of collating row by row.
    The order of an epoch depends on the seed and the epoch alone; without a seed it is the table's own.
    Under DDP each process takes every num_processes-th row, and the last ones are repeated to share evenly.
    """

    def __init__(self, rows: Tensor, labels: Tensor, index: Tensor, batch_size: int, seed: int | None = None) -> None:
        self.rows, self.labels, self.index, self.batch_size, self.seed = rows, labels, index, batch_size, seed
        self.epoch: Callable[[], int] = lambda: 0
        self.process, self.num_processes = 0, 1

    def order(self) -> Tensor:
        """This epoch's row numbers in this process, (rows,)."""
        order = self.index
        if self.seed is not None:
            # SeedSequence mixes the two, so that no epoch of one seed equals another epoch of the next
            mixed = np.random.SeedSequence((self.seed, self.epoch())).generate_state(1, np.uint64)
            order = order[torch.randperm(len(order), generator=torch.Generator().manual_seed(int(mixed[0])))]
        if self.seed is not None and len(order) % self.num_processes:
            order = torch.cat([order, order[: -len(order) % self.num_processes]])
        return order[self.process :: self.num_processes]

    def __len__(self) -> int:
        repeated = self.num_processes - 1 if self.seed is not None else self.num_processes - 1 - self.process
        return math.ceil((len(self.index) + repeated) // self.num_processes / self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for batch in self.order().split(self.batch_size):
            yield self.rows[batch], self.labels[batch]


class TabularData(lightning.LightningDataModule):
    """A table read by `read(path)`, split by `split_seed`, its training rows shuffled by `seed`.

    After `setup`: schema (fitted on the training rows, unless a finished run's is given), rows (rows, columns),
    labels (rows,), index (the row numbers of each split) and sha256 (of all that the net will see).
    """

    def __init__(
        self,
        path: str,
        read: Callable[..., pl.DataFrame],
        target: str,
        batch_size: int = 32,
        validation_fraction: float = 0.2,
        test_fraction: float = 0.2,
        split_seed: int = 0,
        seed: int = 0,
        schema: Schema | None = None,
    ) -> None:
        super().__init__()
        self.path, self.read, self.target, self.batch_size = path, read, target, batch_size
        self.validation_fraction, self.test_fraction, self.split_seed = validation_fraction, test_fraction, split_seed
        self.seed, self.schema = seed, schema
        self.index: dict[str, Tensor] = {}

    def setup(self, stage: str | None = None) -> None:
        if self.index:
            return
        frame = self.read(path=self.path, target=self.target)
        self.index = self._split(frame[self.target].to_numpy())
        self.schema = self.schema or Schema.fit(frame[self.index["train"].numpy()], self.target)
        self.rows, self.labels = self.schema.rows(frame), self.schema.labels(frame)
        self.sha256 = self._sha256()

    def _split(self, labels: np.ndarray) -> dict[str, Tensor]:
        """Row numbers of train, val and test; each split holds the classes in the table's own proportions."""

        def part(numbers: Tensor, fraction: float) -> list[Tensor]:
            parts = train_test_split(
                numbers.numpy(), test_size=fraction, stratify=labels[numbers], random_state=self.split_seed
            )
            return [torch.from_numpy(np.sort(part)) for part in parts]

        rest, test = part(torch.arange(len(labels)), self.test_fraction)
        train, val = part(rest, self.validation_fraction / (1 - self.test_fraction))
        return {"train": train, "val": val, "test": test}

    def _sha256(self) -> str:
        digest = hashlib.sha256()
        for tensor in (self.rows, self.labels, *self.index.values()):
            digest.update(tensor.numpy().data)
        return digest.hexdigest()

    def _batches(self, split: str, batch_size: int, seed: int | None = None) -> Batches:
        batches = Batches(self.rows, self.labels, self.index[split], batch_size, seed)
        if trainer := self.trainer:
            batches.process, batches.num_processes = trainer.global_rank, trainer.world_size
            batches.epoch = lambda: trainer.current_epoch
        return batches

    def train_dataloader(self) -> Batches:
        return self._batches("train", self.batch_size, self.seed)

    def val_dataloader(self) -> Batches:
        return self._batches("val", EVALUATION_BATCH)

    def test_dataloader(self) -> Batches:
        return self._batches("test", EVALUATION_BATCH)
