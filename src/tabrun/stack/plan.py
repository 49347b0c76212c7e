"""Plan: which jobs of a sweep train together as one network, and why the others train alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from lightning import LightningModule
from lightning.pytorch import Callback
from lightning.pytorch.core.hooks import CheckpointHooks, DataHooks, ModelHooks
from torch import nn

from tabrun.runs.build import Build, Config, ensemble
from tabrun.stack.member import Member, Unplayed
from tabrun.stack.optimizer import shared
from tabrun.stack.proof import prove
from tabrun.stack.ways import WAYS
from tabrun.tables.batches import EVALUATION_BATCH
from tabrun.tables.data import TabularData
from tabrun.training.chunks import STEP_ROWS, listeners
from tabrun.training.pace import free_memory
from tabrun.training.trainer import quieten

HOOKS = {name for kind in (ModelHooks, DataHooks, CheckpointHooks) for name in vars(kind) if not name.startswith("_")}
LISTENING = sorted((name for name in vars(Callback) if name[0] != "_"), key=lambda name: (name[:3] != "on_", name))
WIDE = 2**27  # products in a step's forward pass, which is work enough to keep a CPU busy


@dataclass
class Plan:
    """The jobs of a sweep by number: parts that train as one, each in a way, and why the others train alone."""

    parts: list[tuple[list[int], Any]] = field(default_factory=list)
    alone: dict[int, str] = field(default_factory=dict)  # "" where there is nothing to say
    built: dict[int, Member] = field(default_factory=dict)
    unit: str = "job"  # or "member"

    def order(self) -> list[tuple[list[int], Any]]:
        """Parts and jobs alone, by their first number."""
        return sorted([*self.parts, *(([number], None) for number in self.alone)], key=lambda part: part[0])

    def __str__(self) -> str:
        """In words: 16 as one, 1 alone (job 3: why)."""
        words = [f"{len(part)} as one" + (f" ({way.words})" if way is not WAYS[0] else "") for part, way in self.parts]
        reasons: dict[str, list[int]] = {}
        for number, reason in self.alone.items():
            reasons.setdefault(reason, []).append(number)
        for reason, numbers in reasons.items():
            jobs = f"{self.unit}{'s' * (len(numbers) > 1)} {', '.join(map(str, numbers))}"
            words.append(f"{len(numbers)} alone" + (f" ({jobs}: {reason})" if reason else ""))
        return ", ".join(words)


def planned(build: Build, configs: dict[int, Config], tables: Mapping[str, TabularData] | None = None) -> Plan:
    """Builds each job's parts, puts the equal ones together, and proves that they train as one as they would alone.

    tables: by `key_of` the configs, where they have been read already.
    """
    plan = Plan()
    known: dict[str, Any] = {**(tables or {})}
    alike: dict[Any, dict[int, Member]] = {}
    quieten()
    for number, config in configs.items() if len(configs) > 1 else ():
        try:
            if reason := own_reason(config):
                raise Unplayed(reason)
            member = Member(build, config, known)
            optimizer, scheduler = member.optimizers()
            for reason in unplayed(member):
                raise Unplayed(reason)
            alike.setdefault(signature(member, optimizer, scheduler), {})[number] = member
        except Unplayed as reason:
            plan.alone[number] = str(reason)
        except Exception:  # it says so itself when it trains
            plan.alone[number] = ""
    for group in alike.values():
        for part in parts(group):
            settle(plan, part)
    return plan if len(configs) > 1 else Plan(alone=dict.fromkeys(configs, ""))


def settle(plan: Plan, members: dict[int, Member]) -> None:
    """Puts these members into the plan, each in the first way that is proven for it."""
    reasons: dict[int, str] = {}
    for way in WAYS:
        numbers = list(members)
        if len(numbers) < 2:
            break
        try:
            failed = {numbers[place]: reason for place, reason in prove(way, list(members.values())).items()}
        except Exception as error:  # of torch, which cannot compute it so
            words = " ".join(str(error).split())[:100]
            what = str(error) if isinstance(error, Unplayed) else f"torch.func cannot map its training_step: {words}"
            failed = dict.fromkeys(numbers, what)
        proven = {number: member for number, member in members.items() if number not in failed}
        if len(proven) > 1:
            plan.parts.append((list(proven), way))
            plan.built |= proven
            members = {number: member for number, member in members.items() if number in failed}
        reasons |= failed
    plan.alone |= {number: reasons.get(number, "") for number in members}


def own_reason(config: Config) -> str:
    """Why the library's own keys keep a run out of stacks."""
    speed = config["speed"]
    if not speed.get("stack", True):
        return "speed.stack=false"
    if speed["chunk"] == 1:
        return "speed.chunk=1"
    given = {f"ensemble.{key}": value for key, value in ensemble(config).items()}  # a stack of its own
    given |= {"init_from": config["init_from"], "speed.compile": speed["compile"]}
    return next((f"{key}={value}" for key, value in given.items() if value), "")


def unplayed(member: Member) -> Iterator[str]:
    """What a stack does not play as the run alone would, or would gain nothing by, in words."""
    module, table, trainer = member.module, member.table, member.trainer
    yield from listeners(module, table, trainer)
    for name in sorted(HOOKS):
        if getattr(type(module), name, None) is not getattr(LightningModule, name, None):
            yield f"{type(module).__name__}.{name} is not played in a stack"
    for one in member.others:
        if own := [name for name in LISTENING if getattr(type(one), name) is not getattr(Callback, name)]:
            yield f"{type(one).__name__}.{own[0]} is not played in a stack"
    for name, value in (("limit_val_batches", 1.0), ("check_val_every_n_epoch", 1)):
        if type(getattr(trainer, name)) is not type(value) or getattr(trainer, name) != value:
            yield f"trainer.{name}={getattr(trainer, name)}"
    if trainer.precision not in ("32-true", "64-true"):
        yield f"trainer.precision={trainer.precision}"
    if 2 * table.batch_size > STEP_ROWS:
        yield f"a step of {table.batch_size} rows would gain nothing"
    sizes = sum(p.numel() for p in module.parameters() if p.dim() > 1)
    if table.batch_size * sizes > WIDE and trainer.strategy.root_device.type == "cpu":
        yield "a step of a net so wide would gain nothing"


def signature(member: Member, optimizer: Any, scheduler: Any) -> Any:
    """What members of a stack have in common; the proof tells the rest."""
    module, table = member.module, member.table
    groups = [
        repr(sorted(shared(group).items(), key=str)) + str(len(group["params"])) for group in optimizer.param_groups
    ]
    given = scheduler and (
        type(scheduler["scheduler"]).__name__,
        *(scheduler[k] for k in ("interval", "frequency", "monitor")),
    )
    shapes = tuple((name, p.shape, p.requires_grad) for name, p in module.named_parameters())
    own = member.config["sweep"]["stack_dropout"], member.config["speed"]["threads"], member.config["speed"]["chunk"]
    made = type(module).__qualname__, repr(module), shapes, type(optimizer).__qualname__, tuple(groups), given
    return member.alike, own, made, table.batch_size, member.num_batches, member.config["sweep"]["max_stack"]


def parts(group: dict[int, Member]) -> Iterator[dict[int, Member]]:
    """As many at a time as sweep.max_stack says, or as the memory that is free holds."""
    first = next(iter(group.values()))
    most = first.config["sweep"]["max_stack"]
    if not most:
        rows = max(first.table.batch_size, min(len(first.table.index["val"]), EVALUATION_BATCH))
        bytes_each = 8 if first.trainer.precision == "64-true" else 4
        most = most_members(first.module, rows, bytes_each, free_memory(first.trainer.strategy.root_device.type))
    numbers = list(group)
    for start in range(0, len(numbers), most):
        yield {number: group[number] for number in numbers[start : start + most]}


def most_members(net: nn.Module, rows: int, bytes_each: int, free: int) -> int:
    """How many nets like this one may be a stack, so that it takes half of the free memory (bytes) at most.

    rows: of the largest batch; bytes_each: of a number. A member has its parameters ten times (its own net, the stack,
    gradient, move, two states of Adam, last and best weights, and two for a moment), and for each row what goes into
    each layer and comes out of it.
    """
    sizes = [(parameter.numel(), sum(parameter.shape)) for parameter in net.parameters()]
    member = sum(10 * numel + rows * width for numel, width in sizes) * bytes_each
    return max(1, free // 2 // member)
