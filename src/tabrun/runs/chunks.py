"""Quick: many mini-batches in one step of the Trainer, whose own hooks cost more than a small net's step.

Used where nothing listens in between, see pace.batches_per_step; the weights are the same to the last bit.
"""

import math
from collections.abc import Iterator
from typing import Any

import lightning
from lightning.pytorch import Callback
from torch import Tensor


class Quick(lightning.LightningModule):
    """The Trainer hands over many mini-batches as one; backward and the optimizer's steps still go through it."""

    def __init__(self, batch_size: int, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.batch_size, self.automatic_optimization = batch_size, False

    def __setattr__(self, name: str, value: Any) -> None:
        # Lightning notes the name of each hook on the module, ten times a step, where nn.Module looks for tensors first
        if name in self.__dict__ and (value is None or isinstance(value, str | int)):
            self.__dict__[name] = value
        else:
            super().__setattr__(name, value)

    def training_step(self, batch: tuple[Any, Tensor], batch_idx: int) -> None:
        optimizer: Any = self.optimizers()
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        trainer: Any = self.trainer
        # none of ours listens in between, but to call each one's empty hooks would take 15 us a mini-batch
        callbacks, trainer.callbacks = trainer.callbacks, [one for one in trainer.callbacks if listens(one)]
        try:
            for rows, labels in mini_batches(self.prepared(batch[0]), batch[1], self.batch_size):
                for parameter in parameters:  # as zero_grad() does, in 1 us and not in 12
                    parameter.grad = None
                self.manual_backward(self.mini_batch_loss(rows, labels))
                optimizer.step()
                self.mini_batch_ended()
        finally:
            trainer.callbacks = callbacks

    @property
    def num_steps(self) -> int:
        """Of the optimizer in the whole run."""
        self.trainer.fit_loop.setup_data()
        batches: Any = self.trainer.train_dataloader
        return math.ceil(batches.num_rows / self.batch_size) * int(self.trainer.max_epochs or 1)

    def prepared(self, rows: Any) -> Any:
        """What can be done to all rows before they are cut into mini-batches."""
        return rows

    def mini_batch_loss(self, rows: Any, labels: Tensor) -> Tensor:
        """What backward starts from, a scalar; rows are as `prepared` gave them."""
        raise NotImplementedError

    def mini_batch_ended(self) -> None:
        """For what is stepped with the optimizer."""


def listens(callback: Callback) -> bool:
    """Whether a callback has a hook that backward or the optimizer's step would call."""
    hooks = ("on_before_backward", "on_after_backward", "on_before_optimizer_step")
    return any(getattr(type(callback), hook) is not getattr(Callback, hook) for hook in hooks)


def encodes_ahead(encode: Any) -> bool:
    """Whether many mini-batches are encoded at once: nothing is learned there, and they still fit in the cache."""
    return not encode.embeddings and encode.out_features <= 256


def mini_batches(rows: Any, labels: Tensor, size: int) -> Iterator[tuple[Any, Tensor]]:
    """Views of `size` rows; where each run of a stack has rows of its own, (P, rows, ...), `size` of each."""
    parts = rows if isinstance(rows, tuple) else (rows,)
    dim = parts[0].dim() - 2
    for *cut, some in zip(*(part.split(size, dim) for part in (*parts, labels)), strict=True):
        yield (tuple(cut) if isinstance(rows, tuple) else cut[0]), some
