"""Grid: every combination of the values that a multirun lists, by any launcher, and what is made of it all.

Imported whenever Hydra starts, so nothing heavy is imported up here.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn, JobStatus, configure_log, filter_overrides
from omegaconf import OmegaConf

from tabrun.stack.launcher import Launcher, note_error


class Grid(BasicSweeper):
    """Hydra's own sweeper, except that all batches run though a job may fail, and that a report ends them."""

    def __init__(self, max_batch_size: int | None, params: dict[str, str] | None = None) -> None:
        self.max_batch_size, self.params = max_batch_size, params or {}

    def sweep(self, arguments: list[str]) -> Any:
        assert self.config is not None
        assert self.launcher is not None
        assert self.hydra_context is not None
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        batches = self.split_arguments(parser.parse_overrides([*self._parse_config(), *arguments]), self.max_batch_size)
        folder = Path(str(self.config.hydra.sweep.dir))
        folder.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(self.config, folder / "multirun.yaml")
        returns: list[Sequence[JobReturn]] = []
        for batch in batches:
            if not isinstance(self.launcher, Launcher):  # ours looks at every job before the first
                self.validate_batch_is_legal(batch)
            returns.append(self.launcher.launch(batch, initial_job_idx=sum(map(len, returns))))
        failed = {i: done for i, done in enumerate(chain(*returns)) if done.status == JobStatus.FAILED}
        if "sweep" in self.config:  # else another application's config, as in Hydra's own tests
            configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
            for number, done in failed.items():
                note_error(folder / str(number), done._return_value)
            self.report(folder, dict(enumerate(chain(*batches))))
        for done in failed.values():
            if "rates" not in self.config.get("sweep", ()) or len(failed) == sum(map(len, returns)):
                raise done._return_value
        return returns

    def report(self, folder: Path, jobs: dict[int, list[str]]) -> None:
        from tabrun.stack.rates import report
        from tabrun.stack.summary import summarise

        assert self.config is not None
        if "rates" in self.config.sweep:
            rates = ((i, w.split("=")[1]) for i, words in jobs.items() for w in words if w.startswith("optimizer.lr="))
            report(folder, {number: float(rate) for number, rate in rates})
        else:
            overrides = {number: list(filter_overrides(words)) for number, words in jobs.items()}
            summarise(folder, overrides, self.config.trust)
