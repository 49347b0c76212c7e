"""Grid: every combination of the values that a multirun lists, by any launcher, and what is made of it all."""

import math
from collections.abc import Mapping
from itertools import islice, product
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.core.utils import configure_log, filter_overrides
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from tabrun.cli.errors import UserError
from tabrun.sweeps.launcher import Launcher, outcome

MOST_JOBS = 100_000  # of a sweep


class Grid(Sweeper):
    """Runs all jobs though one may fail, and ends with a report."""

    config: Any
    hydra_context: Any
    launcher: Any

    def __init__(self, params: dict[str, str] | None = None) -> None:
        self.params = params or {}

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.config = hydra_context, config
        self.build: Any = task_function.build  # type: ignore[attr-defined]
        self.launcher = Plugins.instance().instantiate_launcher(hydra_context, task_function, config)

    def sweep(self, arguments: list[str]) -> Any:
        values = {key: listed(key, override) for key, override in self.overrides(arguments).items()}
        if math.prod(map(len, values.values())) > MOST_JOBS:
            swept = ", ".join(key for key, found in values.items() if len(found) > 1)
            raise UserError(f"{swept}: a sweep may list {MOST_JOBS:,} values or jobs at the most")
        jobs = [list(job) for job in product(*values.values())]
        folder = Path(str(self.config.hydra.sweep.dir))
        folder.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(self.config, folder / "multirun.yaml")
        if not isinstance(self.launcher, Launcher):  # ours looks at every job before the first
            self.validate_batch_is_legal(jobs)
        returns = self.launcher.launch(jobs, initial_job_idx=0)
        self.report(folder, dict(enumerate(jobs)))
        errors = [found for found in map(outcome, returns) if isinstance(found, Exception)]
        if errors and ("rates" not in self.config.sweep or len(errors) == len(jobs)):
            raise errors[0]
        return [returns]

    def overrides(self, arguments: list[str]) -> dict[str, Override]:
        """What the command and hydra.sweeper.params say, by key; of what is said twice, the last."""
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        parsed = parser.parse_overrides([*(f"{key}={value}" for key, value in self.params.items()), *arguments])
        return {override.get_key_element(): override for override in parsed}

    def report(self, folder: Path, jobs: Mapping[int, list[str]]) -> None:
        """Shows and writes what the jobs have found, by their numbers and overrides."""
        from tabrun.sweeps.rates import report
        from tabrun.sweeps.summary import summarise

        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        own = {number: list(filter_overrides(words)) for number, words in jobs.items()}
        if "rates" in self.config.sweep:
            report(folder, own, self.build)
        else:
            summarise(folder, own, self.build, self.config.trust)


def listed(key: str, override: Override) -> list[str]:
    """The overrides that give a key one value each; UserError where there are none, or too many."""
    if override.is_interval_sweep():
        raise UserError(f"{override.input_line} is to be searched: add hydra/sweeper=optuna, or list values")
    swept = override.is_sweep_override()
    values = override.sweep_string_iterator() if swept else [override.get_value_element_as_str()]
    found = [f"{key}={value}" for value in islice(values, MOST_JOBS + 1)]
    if not found:
        raise UserError(f"{key}: it holds no value")
    if len(found) > MOST_JOBS:
        raise UserError(f"{key}: a sweep may list {MOST_JOBS:,} values or jobs at the most")
    return found
