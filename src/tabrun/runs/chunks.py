"""Chunks: many mini-batches in one step of the Trainer, whose own hooks cost more than a small net's step.

Where nothing listens in between, the weights are the same to the last bit.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import lightning
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch import Callback, callbacks
from lightning.pytorch.core.hooks import DataHooks
from lightning.pytorch.profilers import PassThroughProfiler
from torch import Tensor

from tabrun.cli.errors import UserError

if TYPE_CHECKING:
    from tabrun.runs.epochs import Epochs
    from tabrun.tables.data import TabularData

MOST_BATCHES, STEP_ROWS = 64, 2**14  # of what the Trainer is handed as one: hooks become cheap, rows stay in the cache
STEP_HOOKS = ("on_before_zero_grad", "on_before_backward", "on_after_backward", "on_before_optimizer_step")
BATCH_HOOKS = ("on_train_batch_start", "on_train_batch_end", *STEP_HOOKS)
OWN_STEPS = (  # of a module: what it may do of its own with each mini-batch
    *("optimizer_step", "optimizer_zero_grad", "lr_scheduler_step", "backward", "manual_backward"),
    *("configure_gradient_clipping", "clip_gradients"),
)
MOVES = ("on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer")
IDLE: dict[type[Callback], Callable[[Any], bool]] = {  # whose hooks on batches do nothing that a chunk would change
    callbacks.ProgressBar: lambda bar: True,  # it counts what the Trainer is handed
    callbacks.LearningRateMonitor: lambda monitor: monitor.logging_interval == "epoch",
}
WHOLE: dict[str, Any] = {  # arguments of the Trainer under which a step is nothing but its mini-batch
    **{"accumulate_grad_batches": 1, "gradient_clip_val": None, "max_steps": -1, "min_steps": None},
    **{"limit_train_batches": 1.0, "val_check_interval": 1.0, "world_size": 1},
}


def chunk_size(module: LightningModule, data: TabularData, trainer: Trainer, wanted: int | None) -> tuple[int, str]:
    """How many mini-batches the Trainer is handed as one, and what costs more than one, if anything does.

    wanted: as speed.chunk says; UserError where that cannot be.
    """
    if wanted == 1:
        return 1, ""
    reason = next(listeners(module, data, trainer), "") or unsaid(module, data, trainer)
    if reason and wanted:
        raise UserError(f"speed.chunk={wanted} hands the Trainer many batches as one, but {reason}: leave it out")
    return (1, reason) if reason else (wanted or max(1, min(MOST_BATCHES, STEP_ROWS // data.batch_size)), "")


def listeners(module: LightningModule, data: TabularData, trainer: Trainer) -> Iterator[str]:
    """What has to see each mini-batch, in words."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        idle = any(isinstance(callback, kind) and rests(callback) for kind, rests in IDLE.items())
        if not (idle or getattr(callback, "chunks_suffice", False)):
            yield from overridden(callback, Callback, BATCH_HOOKS)
    yield from overridden(module, LightningModule, (*BATCH_HOOKS, *OWN_STEPS, *MOVES))
    yield from overridden(data, DataHooks, MOVES)
    if not module.automatic_optimization:
        yield f"{type(module).__name__} takes its optimizer's steps itself"
    for name, value in WHOLE.items():
        found = getattr(trainer, name)
        if type(found) is not type(value) or found != value:
            yield f"trainer.{name}={found} is of single ones"
    if not isinstance(trainer.profiler, PassThroughProfiler):  # type: ignore[attr-defined]
        yield "trainer.profiler times each"


def overridden(part: Any, base: type, names: tuple[str, ...]) -> Iterator[str]:
    """The hooks of these names that a part has as its own, in words."""
    for name in names:
        if getattr(type(part), name) is not getattr(base, name):
            yield f"{type(part).__name__}.{name} is called for each"


def unsaid(module: LightningModule, data: TabularData, trainer: Trainer) -> str:
    """What only shows when a step is taken: that it logs, or raises, or gives no loss; tried on a copy."""
    precision, logged = trainer.precision_plugin, []
    tried: Any = precision.convert_module(copy.deepcopy(module))
    tried.trainer = trainer
    tried.log = tried.log_dict = lambda *arguments, **options: logged.append(arguments)
    batch = precision.convert_input(next(iter(data.batches("train", data.batch_size))))
    with torch.random.fork_rng(devices=[]), precision.train_step_context():
        try:
            loss = tried.training_step(batch, 0)
        except Exception as error:  # with the traceback, when it trains
            return f"its training_step raises {type(error).__name__}"
    if logged:
        return f"{type(module).__name__}.training_step logs, for each"
    return "" if isinstance(loss, Tensor) else f"{type(module).__name__}.training_step gives no loss alone"


@dataclass
class Chunk:
    """What a Chunked module is handed, and how it deals with it."""

    step: Callable[[Any, int], Tensor]  # the module's own training_step, which may be compiled
    epochs: Epochs
    batch_size: int  # rows
    num_batches: int  # in what the Trainer is handed as one
    epoch_batches: int  # mini-batches of an epoch
    stepping: bool = False  # whether the module is within its training_step
    row: set[str] = field(default_factory=set)  # names that were logged, for the next row of the log


class Chunked(lightning.LightningModule):
    """Another training_step for a module of any class: its own, for each mini-batch of a chunk.

    Backward and the optimizer's steps still go through the Trainer.
    """

    chunk: Chunk

    def __setattr__(self, name: str, value: Any) -> None:
        # Lightning notes the name of each hook on the module, ten times a step, where nn.Module looks for tensors first
        if name in self.__dict__ and (value is None or isinstance(value, str | int)):
            self.__dict__[name] = value
        else:
            super().__setattr__(name, value)

    def training_step(self, batch: Any, batch_idx: int) -> None:  # type: ignore[override]
        chunk, trainer, optimizer = self.chunk, self.trainer, self.optimizers()
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]  # type: ignore[union-attr]
        schedulers = [one for one in trainer.lr_scheduler_configs if one.interval == "step"]
        # no callback listens in between, but to call each one's empty hooks would take 15 us a mini-batch
        listening, trainer.callbacks = trainer.callbacks, []  # type: ignore[attr-defined]
        chunk.stepping = True
        try:
            first = batch_idx * chunk.num_batches
            for number, mini_batch in enumerate(mini_batches(batch, chunk.batch_size), first):
                for parameter in parameters:  # as zero_grad() does, in 1 us and not in 12
                    parameter.grad = None
                loss = chunk.step(mini_batch, number)
                self.manual_backward(loss)
                optimizer.step()  # type: ignore[union-attr]
                chunk.epochs.add(loss, mini_batch)
                for one in schedulers:
                    if (number + 1) % one.frequency == 0:
                        one.scheduler.step()  # type: ignore[call-arg]
        finally:
            trainer.callbacks, chunk.stepping = listening, False  # type: ignore[attr-defined]

    def log(self, name: str, *arguments: Any, **options: Any) -> None:
        """Without the loggers, as Lightning would number their rows by what it was handed."""
        if self.chunk.stepping:
            raise UserError(
                f"{type(self).__name__}.training_step logs {name}, which it did not at first: speed.chunk=1"
            )
        if options.get("logger", True) is not False:
            self.chunk.row.add(name)
        super().log(name, *arguments, **options | {"logger": False})

    def write_row(self, step: int) -> None:
        """Has the loggers write what was logged since the last row."""
        row, metrics = self.chunk.row, self.trainer.callback_metrics
        values = {name: metrics[name].item() for name in metrics if name in row}
        for logger in self.loggers:
            logger.log_metrics(values | {"epoch": self.current_epoch}, step)
            logger.save()
        row.clear()

    def configure_optimizers(self) -> Any:
        self.automatic_optimization, trainer = True, self.trainer  # so that schedulers keep what they watch
        self.trainer = Counted(trainer, self.chunk.epoch_batches)  # type: ignore[assignment]
        try:
            return super().configure_optimizers()
        finally:
            self.trainer = trainer

    def on_fit_start(self) -> None:
        self.automatic_optimization = False
        super().on_fit_start()


class Counted:
    """A Trainer that says how many steps a run takes, of so many mini-batches an epoch."""

    def __init__(self, trainer: Trainer, num_batches: int) -> None:
        self.trainer, self.num_batches = trainer, num_batches

    def __getattr__(self, name: str) -> Any:
        return getattr(self.trainer, name)

    @property
    def estimated_stepping_batches(self) -> float:
        epochs = self.trainer.max_epochs
        return self.num_batches * epochs if epochs and epochs > 0 else math.inf


def chunked(module: LightningModule, chunk: Chunk) -> None:
    """Has the module, which stays what else it is, train by chunks."""
    own = type(module)
    module.chunk = chunk  # type: ignore[assignment]
    module.__class__ = type(own.__name__, (Chunked, own), {"__module__": own.__module__, "__doc__": own.__doc__})


def mini_batches(batch: Any, size: int) -> Iterator[Any]:
    """Views of `size` rows; where each run of a stack has rows of its own, (P, rows, ...), `size` of each."""
    rows, *truth = batch
    parts = rows if isinstance(rows, tuple) else (rows,)
    dim = parts[0].dim() - 2
    for cut in zip(*(part.split(size, dim) for part in (*parts, *truth)), strict=True):
        own = tuple(cut[: len(parts)]) if isinstance(rows, tuple) else cut[0]
        yield (own, *cut[len(parts) :])
