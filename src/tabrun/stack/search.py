"""Search: trials that Optuna asks for, a batch at a time, so that the launcher trains each batch as one population.

Imported whenever Hydra starts, so nothing heavy is imported up here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, configure_log, filter_overrides
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from hydra.utils import get_class
from omegaconf import DictConfig, OmegaConf

from tabrun.cli.errors import UserError
from tabrun.runs.folder import release


class Search(Sweeper):
    """Asks until the study holds `sweep.trials` trials that have ended, in this command or in an earlier one.

    A batch's sampler is seeded by its seed and the number of trials before it, so that a search which was cut asks for
    what the whole one would have asked for.
    """

    def __init__(
        self,
        sampler: Mapping[str, Any],
        storage: str | None,
        study: str | None,
        max_batch_size: int,
        params: dict[str, str] | None = None,
    ) -> None:
        self.sampler, self.storage, self.name, self.batch = sampler, storage, study, max_batch_size
        self.params = params or {}

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.config = hydra_context, config
        self.build = task_function.build  # type: ignore[attr-defined]
        self.launcher = Plugins.instance().instantiate_launcher(hydra_context, task_function, config)

    def sweep(self, arguments: list[str]) -> Any:
        assert self.config is not None
        folder = Path(str(self.config.hydra.sweep.dir))
        try:
            self.read(arguments)
            return self.search(folder)
        except BaseException:
            release(folder)  # unless there was a trial
            raise

    def search(self, folder: Path) -> list[Sequence[JobReturn]]:
        assert self.config is not None
        assert self.launcher is not None
        study = self.open(folder.absolute())
        OmegaConf.save(self.config, folder / "multirun.yaml")
        study.settle(self.config.monitor)
        returns: list[Sequence[JobReturn]] = []
        while (left := self.config.sweep.trials - (ended := study.num_ended())) > 0:
            trials = study.ask(self.space, min(left, self.batch), self.sampler_after(ended))
            overrides = [self.words(trial.params) for trial in trials.values()]
            returns.append(self.launcher.launch(overrides, initial_job_idx=min(trials)))
            for trial, done in zip(trials.values(), returns[-1], strict=True):
                study.tell(trial, done)
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        from tabrun.stack.summary import summarise

        jobs = {number: self.words(trial.params) for number, trial in study.ended_here().items()}
        if not jobs:
            raise UserError(f"study {self.name} holds {ended} trials, all in other folders: raise sweep.trials")
        of_jobs = {number: list(filter_overrides(words)) for number, words in jobs.items()}
        summarise(folder, of_jobs, self.build, self.config.trust)
        errors = [trial.user_attrs.get("error") for trial in study.ended_here().values()]
        if None not in errors:
            raise UserError(f"all {len(errors)} trials failed, the first with: {errors[0]}")
        return returns

    def read(self, arguments: list[str]) -> None:
        """The space that is searched, and the overrides that are the same for every trial."""
        assert self.config is not None
        assert self.hydra_context is not None
        for key, number in (("sweep.trials", self.config.sweep.trials), ("hydra.sweeper.max_batch_size", self.batch)):
            if not isinstance(number, int) or number < 1:
                raise UserError(f"{key}={number} is not a whole number of at least 1")
        try:
            from tabrun.stack.study import distribution
        except ModuleNotFoundError:
            raise UserError("hydra/sweeper=optuna needs Optuna: pip install 'optuna>=5'") from None
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        parsed = parser.parse_overrides([*(f"{key}={value}" for key, value in self.params.items()), *arguments])
        overrides = {override.get_key_element(): override for override in parsed}
        self.space = {key: distribution(o) for key, o in overrides.items() if o.is_sweep_override()}
        if not self.space:
            raise UserError("there is nothing to search: say optimizer.lr=tag(log,interval(0.001,1)), or the like")
        self.fixed = [str(o.input_line) for o in overrides.values() if not o.is_sweep_override()]
        lines = sorted(str(o.input_line) for o in overrides.values())
        self.identity = [line for line in lines if not line.startswith(("folder=", "sweep."))]

    def open(self, folder: Path) -> Any:
        from tabrun.stack.study import Study

        assert self.config is not None
        mode = self.build.better({str(key): value for key, value in self.config.items()})
        name = self.name or (str(folder) if self.storage else "search")
        return Study(folder, self.storage, name, mode, self.identity, self.sampler_after(0))

    def sampler_after(self, num_ended: int) -> Any:
        options: dict[str, Any] = {str(key): value for key, value in self.sampler.items() if key != "_target_"}
        if options.get("seed") is not None:
            options["seed"] += num_ended
        try:
            return get_class(self.sampler["_target_"])(**options)
        except Exception as error:
            raise UserError(f"hydra.sweeper.sampler={dict(self.sampler)}: {error}") from error

    def words(self, parameters: dict[str, Any]) -> list[str]:
        """The overrides of a trial."""
        return [*self.fixed, *(f"{key}={value}" for key, value in parameters.items())]
