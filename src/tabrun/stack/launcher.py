"""Launcher: composes the jobs of a multirun, and trains those that differ only in what can be stacked as one.

Imported whenever Hydra starts, so nothing heavy is imported up here.
"""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.core.utils import JobReturn, JobStatus, configure_log, filter_overrides, run_job, setup_globals
from hydra.plugins.launcher import Launcher as HydraLauncher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

from tabrun.cli.check import check_values
from tabrun.cli.errors import UserError, explained
from tabrun.runs.folder import clear, lock, read_metrics, release, unlock, write_whole

log = logging.getLogger(__name__)


class Launcher(HydraLauncher):
    """Writes for every job the folder that a run of its own would have; jobs that have one already are skipped.

    Jobs of an application that was not made by `tabrun.application` run one after the other.
    """

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config
        self.build = getattr(task_function, "build", None)
        self.composed: dict[tuple[str, ...], DictConfig] = {}

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        setup_globals()
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        folder = Path(str(self.config.hydra.sweep.dir))
        jobs = {initial_job_idx + i: list(overrides) for i, overrides in enumerate(job_overrides)}
        try:
            composed = {number: self.compose(number, overrides) for number, overrides in jobs.items()}
        except BaseException:
            release(folder)
            raise
        if self.build is None:
            return [self.run(self.task_function, cfg, folder / str(number)) for number, cfg in composed.items()]
        from tabrun.stack.plan import stacks

        configs = {number: self.resolved(cfg, folder / str(number)) for number, cfg in composed.items()}
        finished = {number for number in jobs if (folder / str(number) / "metrics.json").exists()}
        plan = stacks(configs, self.build, self.config.sweep.max_stack)
        plan = [stack for stack in plan if not finished.issuperset(stack)]  # one that was cut trains again, whole
        log.info("%d jobs: %s", len(jobs), described(plan, len(finished)))
        returns = {number: self.finished(composed[number], folder / str(number)) for number in finished}
        for stack in plan:
            task, missing = self.task_function, [number for number in stack if number not in finished]
            if len(stack) > 1:
                task = together(self.build, {number: configs[number] for number in stack})
                for number in missing:
                    clear(folder / str(number))  # what an attempt that was cut has left
            for number in missing:
                returns[number] = self.run(task, composed[number], folder / str(number))
        return [returns[number] for number in sorted(returns)]

    def compose(self, number: int, overrides: list[str]) -> DictConfig:
        """What Hydra composes; where jobs differ in values of keys alone it does so once: a copy costs a fifteenth."""
        parsed = OverridesParser.create().parse_overrides(overrides)
        values = [override for override in parsed if self.sets_a_value(override, parsed)]
        rest = tuple(str(override.input_line) for override in parsed if override not in values)
        if rest not in self.composed:
            self.composed[rest] = self.hydra_context.config_loader.load_sweep_config(self.config, list(rest))
        cfg = copy.deepcopy(self.composed[rest])
        for override in values:
            OmegaConf.update(cfg, override.key_or_group, override.value())
        task = [str(override.input_line) for override in parsed if not override.is_hydra_override()]
        naming = cfg.hydra.job.config.override_dirname
        named = sorted(line for line in task if line.split("=")[0] not in naming.exclude_keys)
        with open_dict(cfg):
            cfg.hydra.overrides.task = task
            cfg.hydra.job.override_dirname = naming.item_sep.join(named).replace("=", naming.kv_sep)
            cfg.hydra.job.id = cfg.hydra.job.num = number
        if self.build is not None:
            try:
                check_values(cfg, cfg.hydra.runtime.choices, self.build)
            except UserError as error:  # before any job has started
                raise UserError(f"job {number} ({' '.join(filter_overrides(overrides))}): {error}") from None
        return cfg

    def sets_a_value(self, override: Override, others: Sequence[Override]) -> bool:
        """Whether it gives one key another value, which no other override takes away, adds or chooses."""
        key = override.key_or_group
        groups = self.hydra_context.config_loader.get_group_options  # wherever hydra.searchpath leads

        def simple(one: Override) -> bool:
            return one.type == OverrideType.CHANGE and not isinstance(one.value(), dict)

        return (
            simple(override)
            and not (override.is_hydra_override() or override.package or groups(key))
            and all(simple(one) or not f"{key}.".startswith(f"{one.key_or_group}.") for one in others)
        )

    def resolved(self, cfg: DictConfig, folder: Path) -> dict[str, Any]:
        from tabrun.runs.build import resolved

        assert self.build is not None
        task = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"])
        return resolved(self.build, task, folder.absolute(), test=False)

    def run(self, task: TaskFunction, cfg: DictConfig, folder: Path) -> JobReturn:
        try:
            done = run_job(task, cfg, "hydra.sweep.dir", "hydra.sweep.subdir", self.hydra_context)
        except KeyboardInterrupt as stop:
            said = "what has finished is kept, and the same command with its folder= goes on"
            raise KeyboardInterrupt(said, *stop.args[1:]) from None
        if self.build is not None and isinstance(error := outcome(done), Exception):
            note_error(folder, error)
        return done

    @staticmethod
    def finished(cfg: DictConfig, folder: Path) -> JobReturn:
        done = JobReturn(overrides=list(cfg.hydra.overrides.task), cfg=cfg, status=JobStatus.COMPLETED)
        done.return_value = read_metrics(folder, cfg.monitor)[cfg.monitor]
        return done


def outcome(done: JobReturn) -> Any:
    """What a job has returned, or the error that it raised."""
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # where Hydra would say it too
            return done.return_value
    except Exception as error:
        return error


def note_error(folder: Path, error: Exception) -> None:
    """Writes the error in one line, and its traceback, into a job's folder."""
    try:
        lock(folder)
    except UserError:  # another process goes on there
        return
    text = [" ".join((explained(error) or str(error)).split()), "\n\n", *traceback.format_exception(error)]
    write_whole(folder / "error.txt", "".join(text).encode())
    unlock(folder)


def described(plan: list[list[int]], num_finished: int) -> str:
    """In words: 16 as one, 1 alone; 3 finished before."""
    parts = [f"{len(stack)} as one" if len(stack) > 1 else "1 alone" for stack in plan]
    return (", ".join(parts) or "none to run") + (f"; {num_finished} finished before" if num_finished else "")


def together(build: Any, configs: dict[int, dict[str, Any]]) -> Callable[[Any], float]:
    """The task function of every job of a stack: the first that Hydra runs trains them all."""
    from tabrun.stack.training import train_population

    members: dict[int, Any] = {}

    def task(_: Any) -> float:
        number = HydraConfig.get().job.num
        if not members:
            members.update(zip(configs, train_population(build, list(configs.values())), strict=True))
        if members[number].error is not None:
            raise members[number].error
        return members[number].metrics[configs[number]["monitor"]]

    return task
