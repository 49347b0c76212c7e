"""Launcher: composes the jobs of a multirun, and trains those that differ only in what can be stacked as one.

Imported whenever Hydra starts, so nothing heavy is imported up here.
"""

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
from tabrun.runs.folder import clear, lock, read_metrics, unlock, write_whole

log = logging.getLogger(__name__)


class Launcher(HydraLauncher):
    """Writes for every job the folder that a run of its own would have; jobs that have one already are skipped."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config
        self.build: Any = task_function.build  # type: ignore[attr-defined]
        self.composed: dict[tuple[str, ...], DictConfig] = {}

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        setup_globals()
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        folder = Path(str(self.config.hydra.sweep.dir))
        jobs = {initial_job_idx + i: list(overrides) for i, overrides in enumerate(job_overrides)}
        composed = {number: self.compose(number, overrides) for number, overrides in jobs.items()}
        configs = {number: self.resolved(cfg, folder / str(number)) for number, cfg in composed.items()}
        finished = {number for number in jobs if (folder / str(number) / "metrics.json").exists()}
        returns = {number: self.finished(composed[number], folder / str(number)) for number in finished}
        if len(finished) < len(jobs):
            self.train(configs, composed, finished, folder, returns)
        return [returns[number] for number in sorted(returns)]

    def train(self, configs: Any, composed: Any, finished: set[int], folder: Path, returns: dict[int, Any]) -> None:
        """Trains what has not finished, and fills `returns`."""
        from tabrun.stack.plan import planned

        plan = planned(self.build, configs)
        plan.alone = {number: why for number, why in plan.alone.items() if number not in finished}
        plan.parts = [part for part in plan.parts if not finished.issuperset(part[0])]  # one that was cut trains whole
        done = f"; {len(finished)} finished before" if finished else ""
        log.info("%d jobs: %s%s", len(configs), plan, done)
        for numbers, way in plan.order():
            task, missing = self.task_function, [number for number in numbers if number not in finished]
            if way is not None:
                members = {number: plan.built.pop(number) for number in numbers}
                task = together(self.build, members, way, self.task_function)
                for number in missing:
                    clear(folder / str(number))  # what an attempt that was cut has left
            for number in missing:
                returns[number] = self.run(task, composed[number], folder / str(number))

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

        task = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"])
        return resolved(self.build, task, folder.absolute(), test=False)

    def run(self, task: TaskFunction, cfg: DictConfig, folder: Path) -> JobReturn:
        try:
            done = run_job(task, cfg, "hydra.sweep.dir", "hydra.sweep.subdir", self.hydra_context)
        except KeyboardInterrupt as stop:
            said = "what has finished is kept, and the same command with its folder= goes on"
            raise KeyboardInterrupt(said, *stop.args[1:]) from None
        if isinstance(error := outcome(done), Exception):
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


def together(build: Any, members: dict[int, Any], way: Any, alone: TaskFunction) -> Callable[[Any], Any]:
    """The task function of every job of a stack: the first that Hydra runs trains them all.

    Where one is found to train otherwise than alone after all, a line says so, and each trains alone.
    """
    from tabrun.stack.member import Unplayed
    from tabrun.stack.training import train_stack

    state: dict[str, bool] = {}

    def task(cfg: Any) -> Any:
        number = HydraConfig.get().job.num
        if not state:
            try:
                train_stack(build, list(members.values()), way)
                state["as one"] = True
            except Unplayed as reason:
                log.warning("jobs %s train alone: %s", ", ".join(map(str, members)), reason)
                state["as one"] = False
        if not state["as one"]:
            return alone(cfg)
        if members[number].error is not None:
            raise members[number].error
        return members[number].metrics[members[number].config["monitor"]]

    return task
