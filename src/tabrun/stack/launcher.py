"""Launcher: composes the jobs of a multirun, and trains those that differ only in what can be stacked as one.

Imported whenever Hydra starts, so nothing heavy is imported up here.
"""

from __future__ import annotations

import copy
import logging
import traceback
from collections.abc import Callable, Sequence
from itertools import compress
from operator import not_
from pathlib import Path
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl, get_overrides_dirname
from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.utils import JobReturn, JobStatus, configure_log, filter_overrides, run_job, setup_globals
from omegaconf import DictConfig, OmegaConf, open_dict

from tabrun.cli.check import check_values
from tabrun.cli.errors import explained
from tabrun.runs.folder import clear, lock, read_metrics, release, unlock, write_whole

log = logging.getLogger(__name__)


class Launcher(BasicLauncher):
    """Writes for every job the folder that a run of its own would have; jobs that have one already are skipped."""

    def __init__(self) -> None:
        super().__init__()
        self.composed: dict[tuple[str, ...], DictConfig] = {}

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        assert self.config is not None
        if "sweep" not in self.config:  # another application's config, as in Hydra's own tests of launchers
            return super().launch(job_overrides, initial_job_idx)
        setup_globals()
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        folder = Path(str(self.config.hydra.sweep.dir))
        jobs = {initial_job_idx + i: list(overrides) for i, overrides in enumerate(job_overrides)}
        try:
            composed = {number: self._compose(number, overrides) for number, overrides in jobs.items()}
        except BaseException:
            release(folder)
            raise
        from tabrun.stack.plan import stacks

        configs = {number: self._resolved(cfg, folder / str(number)) for number, cfg in composed.items()}
        finished = {number for number in jobs if (folder / str(number) / "metrics.json").exists()}
        plan = stacks(configs, self.config.sweep.max_stack)  # a stack that was cut trains as the same again, whole
        plan = [stack for stack in plan if not finished.issuperset(stack)]
        log.info("%d jobs: %s", len(jobs), described(plan, len(finished)))
        returns = {number: self._finished(composed[number], folder / str(number)) for number in finished}
        for stack in plan:
            task = self.task_function if len(stack) == 1 else together({number: configs[number] for number in stack})
            missing = [number for number in stack if number not in finished]
            for number in missing if len(stack) > 1 else ():
                clear(folder / str(number))  # what an attempt that was cut has left
            for number in missing:
                returns[number] = self._run(task, composed[number], folder / str(number))
        return [returns[number] for number in sorted(returns)]

    def _compose(self, number: int, overrides: list[str]) -> DictConfig:
        """What Hydra composes; for jobs that choose the same of groups it does so once: a copy costs a fifteenth."""
        assert self.hydra_context is not None
        assert self.config is not None
        loader, parsed = self.hydra_context.config_loader, OverridesParser.create().parse_overrides(overrides)
        chosen = [self._chooses(override) for override in parsed]
        choices = tuple(str(override.input_line) for override in compress(parsed, chosen))
        if choices not in self.composed:
            self.composed[choices] = loader.load_sweep_config(self.config, list(choices))
        cfg = copy.deepcopy(self.composed[choices])
        ConfigLoaderImpl._apply_overrides_to_config(list(compress(parsed, map(not_, chosen))), cfg)
        task = [override for override in parsed if not override.is_hydra_override()]
        with open_dict(cfg):
            cfg.hydra.overrides.task = [override.input_line for override in task]
            cfg.hydra.job.override_dirname = get_overrides_dirname(task, **cfg.hydra.job.config.override_dirname)
            cfg.hydra.job.id = cfg.hydra.job.num = number
        try:
            check_values(cfg, cfg.hydra.runtime.choices)
        except ValueError as error:  # before any job has started
            raise ValueError(f"job {number} ({' '.join(filter_overrides(overrides))}): {error}") from None
        return cfg

    def _chooses(self, override: Override) -> bool:
        """Whether Hydra has to know it before it composes: a choice of a group, or a key of its own."""
        assert self.hydra_context is not None
        assert self.config is not None
        if override.is_hydra_override() or override.package is not None:
            return True
        key, hydra = override.key_or_group, self.config.hydra
        options = self.hydra_context.config_loader.get_group_options  # wherever hydra.searchpath leads
        return "." not in key and bool(options(key, None, hydra.job.config_name, list(hydra.overrides.hydra)))

    @staticmethod
    def _resolved(cfg: DictConfig, folder: Path) -> dict[str, Any]:
        from classify.build import resolved

        task = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"])
        return resolved(task, folder.absolute(), test=False)

    def _run(self, task: Callable[[Any], Any] | None, cfg: DictConfig, folder: Path) -> JobReturn:
        assert self.hydra_context is not None
        assert task is not None
        try:
            done = run_job(task, cfg, "hydra.sweep.dir", "hydra.sweep.subdir", self.hydra_context)
        except KeyboardInterrupt as stop:
            said = "what has finished is kept, and the same command with its folder= goes on"
            raise KeyboardInterrupt(said, *stop.args[1:]) from None
        if done.status == JobStatus.FAILED:
            note_error(folder, done._return_value)
        return done

    @staticmethod
    def _finished(cfg: DictConfig, folder: Path) -> JobReturn:
        value = read_metrics(folder, cfg.monitor)[cfg.monitor]
        return JobReturn(
            overrides=list(cfg.hydra.overrides.task), cfg=cfg, status=JobStatus.COMPLETED, _return_value=value
        )


def note_error(folder: Path, error: Exception) -> None:
    """Writes the error in one line, and its traceback, into a job's folder."""
    try:
        lock(folder)
    except ValueError:  # another process goes on there
        return
    text = [" ".join((explained(error) or str(error)).split()), "\n\n", *traceback.format_exception(error)]
    write_whole(folder / "error.txt", "".join(text).encode())
    unlock(folder)


def described(plan: list[list[int]], num_finished: int) -> str:
    """In words: 16 as one, 1 alone; 3 finished before."""
    parts = [f"{len(stack)} as one" if len(stack) > 1 else "1 alone" for stack in plan]
    return (", ".join(parts) or "none to run") + (f"; {num_finished} finished before" if num_finished else "")


def together(configs: dict[int, dict[str, Any]]) -> Callable[[Any], float]:
    """The task function of every job of a stack: the first that Hydra runs trains them all."""
    from tabrun.stack.training import train_population

    outcome: dict[int, Any] = {}  # a Member, or the error that stopped them all

    def task(_: Any) -> float:
        number = HydraConfig.get().job.num
        if not outcome:
            try:
                outcome.update(zip(configs, train_population(list(configs.values())), strict=True))
            except Exception as error:
                outcome.update(dict.fromkeys(configs, error))
        failed = outcome[number] if isinstance(outcome[number], Exception) else outcome[number].error
        if failed is not None:
            raise failed
        return outcome[number].metrics[configs[number]["monitor"]]

    return task
