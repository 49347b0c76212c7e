"""Grid: every combination of the values that a multirun lists, by any launcher, and what is made of it all.

Imported whenever Hydra starts, so nothing heavy is imported up here.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, product
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, configure_log, filter_overrides
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from tabrun.stack.launcher import Launcher, note_error, outcome


class Grid(Sweeper):
    """Runs all batches though a job may fail, and ends with a report."""

    def __init__(self, max_batch_size: int | None, params: dict[str, str] | None = None) -> None:
        self.max_batch_size, self.params = max_batch_size, params or {}

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.config = hydra_context, config
        self.build = getattr(task_function, "build", None)  # else another application's, as in Hydra's own tests
        self.launcher = Plugins.instance().instantiate_launcher(hydra_context, task_function, config)

    def sweep(self, arguments: list[str]) -> Any:
        assert self.config is not None
        assert self.launcher is not None
        jobs = self.jobs(arguments)
        folder = Path(str(self.config.hydra.sweep.dir))
        folder.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(self.config, folder / "multirun.yaml")
        size = self.max_batch_size or len(jobs)
        returns: list[Sequence[JobReturn]] = []
        for start in range(0, len(jobs), size):
            batch = jobs[start : start + size]
            if not isinstance(self.launcher, Launcher):  # ours looks at every job before the first
                self.validate_batch_is_legal(batch)
            returns.append(self.launcher.launch(batch, initial_job_idx=start))
        outcomes = {number: outcome(done) for number, done in enumerate(chain(*returns))}
        failed = {number: found for number, found in outcomes.items() if isinstance(found, Exception)}
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        if self.build is not None:
            for number, error in failed.items():
                note_error(folder / str(number), error)
            self.report(folder, jobs)
        for error in failed.values():
            if "rates" not in self.config.get("sweep", ()) or len(failed) == len(jobs):
                raise error
        return returns

    def jobs(self, arguments: list[str]) -> list[list[str]]:
        """The overrides of each job: every combination of the values that are listed."""
        assert self.hydra_context is not None
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        values: dict[str, list[str]] = {}
        for override in parser.parse_overrides([*(f"{key}={value}" for key, value in self.params.items()), *arguments]):
            key = override.get_key_element()
            swept = override.is_sweep_override()
            found = override.sweep_string_iterator() if swept else [override.get_value_element_as_str()]
            values[key] = [f"{key}={value}" for value in found]
        return [list(job) for job in product(*values.values())]

    def report(self, folder: Path, jobs: Sequence[list[str]]) -> None:
        from tabrun.stack.rates import report
        from tabrun.stack.summary import summarise

        assert self.config is not None
        assert self.build is not None
        if "rates" in self.config.sweep:
            rates = [
                (i, w.split("=")[1]) for i, words in enumerate(jobs) for w in words if w.startswith("optimizer.lr=")
            ]
            report(folder, {number: float(rate) for number, rate in rates}, self.build)
        else:
            overrides = {number: list(filter_overrides(words)) for number, words in enumerate(jobs)}
            summarise(folder, overrides, self.build, self.config.trust)
