"""Chunks: many mini-batches as one step of the Trainer, where nothing listens in between: the weights are the same."""

import copy
from collections.abc import Callable, Iterator
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch import Callback, callbacks
from lightning.pytorch.core.hooks import DataHooks
from lightning.pytorch.profilers import PassThroughProfiler
from torch import Tensor

from tabrun.cli.errors import UserError
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
    """How many mini-batches the Trainer is handed as one, and what forbids more; UserError where `wanted` cannot be."""
    look = unsaid(module, data, trainer)  # always, so that a step which draws by itself has drawn alike
    if wanted == 1:
        return 1, ""
    reason = next(listeners(module, data, trainer), "") or look
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
    try:
        tried: Any = precision.convert_module(copy.deepcopy(module))
    except Exception:  # of a part of a fork's own
        return f"{type(module).__name__} cannot be copied"
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
