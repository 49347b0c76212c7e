"""Launcher: composes the jobs of a multirun, and trains those that differ only in what can be stacked as one."""

import contextlib
import copy
import io
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.core.utils import JobReturn, configure_log, filter_overrides, run_job, setup_globals
from hydra.plugins.launcher import Launcher as HydraLauncher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

from tabrun.cli.check import check_values
from tabrun.cli.errors import UserError
from tabrun.runs.build import resolved
from tabrun.runs.folder import clear, note_error

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
        jobs = {initial_job_idx + i: list(overrides) for i, overrides in enumerate(job_overrides)}
        composed = {number: self.compose(number, overrides) for number, overrides in jobs.items()}
        try:
            returns = self.train(composed, Path(str(self.config.hydra.sweep.dir)))
        except KeyboardInterrupt as stop:
            said = "what has finished is kept, and the same command with its folder= goes on"
            raise KeyboardInterrupt(said, *stop.args[1:]) from None
        return [returns[number] for number in sorted(returns)]

    def train(self, composed: dict[int, DictConfig], folder: Path) -> dict[int, JobReturn]:
        """What each job has found; of those that have finished, what their folder says."""
        from tabrun.stack.plan import planned

        def run(number: int, task: TaskFunction) -> JobReturn:
            return run_job(task, composed[number], "hydra.sweep.dir", "hydra.sweep.subdir", self.hydra_context)

        finished = [number for number in composed if (folder / str(number) / "metrics.json").exists()]
        returns = {number: run(number, self.task_function) for number in finished}
        if len(finished) == len(composed):
            return returns
        folders = {number: (folder / str(number)).absolute() for number in composed}
        configs = {n: resolved(self.build, cfg, folders[n], test=False) for n, cfg in composed.items()}
        plan = planned(self.build, configs)
        plan.alone = {number: why for number, why in plan.alone.items() if number not in finished}
        plan.parts = [part for part in plan.parts if not {*finished}.issuperset(part[0])]  # what was cut trains whole
        log.info("%d jobs: %s%s", len(composed), plan, f"; {len(finished)} finished before" if finished else "")
        for numbers, way in plan.order():
            task, missing = self.task_function, [number for number in numbers if number not in finished]
            if way is not None:
                for number in missing:
                    clear(folder / str(number))  # what an attempt that was cut has left
                task = self.together({number: plan.built.pop(number) for number in numbers}, way)
            returns |= {number: run(number, task) for number in missing}
        return returns

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

    def together(self, members: dict[int, Any], way: Any) -> TaskFunction:
        """Trains these as one, or says why each trains alone; gives the task that says what became of each."""
        from tabrun.stack.member import Unplayed
        from tabrun.stack.training import train_stack

        try:
            train_stack(self.build, list(members.values()), way)
        except Unplayed as reason:
            log.warning("jobs %s train alone: %s", ", ".join(map(str, members)), reason)
            return self.task_function

        def task(cfg: Any) -> Any:
            member = members[HydraConfig.get().job.num]
            if member.error is not None:
                note_error(Path(member.config["folder"]), member.error)
                raise member.error
            return member.metrics[cfg.monitor]

        return task


def outcome(done: JobReturn) -> Any:
    """What a job has returned, or the error that it raised."""
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # where Hydra would say it too
            return done.return_value
    except Exception as error:
        return error
