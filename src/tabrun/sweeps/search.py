"""Search: trials that Optuna asks for, a batch at a time, so that the launcher trains each batch as one stack."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn
from hydra.utils import get_class
from omegaconf import OmegaConf

from tabrun.cli.errors import UserError, value_of
from tabrun.sweeps.grid import Grid


class Search(Grid):
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
        super().__init__(params)
        self.sampler, self.storage, self.name, self.max_batch_size = sampler, storage, study, max_batch_size

    def sweep(self, arguments: list[str]) -> Any:
        folder, overrides = Path(str(self.config.hydra.sweep.dir)), self.overrides(arguments)
        most, trials = self.max_batch_size, self.config.sweep.trials
        for key, number in (("hydra.sweeper.max_batch_size", most), ("sweep.trials", trials)):
            if not isinstance(number, int) or number < 1:
                raise UserError(f"{key}={number} is out of range: it is a whole number of at least 1")
        try:
            from tabrun.sweeps.study import Study, distribution
        except ModuleNotFoundError:
            raise UserError("hydra/sweeper=optuna needs Optuna: pip install 'optuna>=5'") from None
        space = {key: distribution(o) for key, o in overrides.items() if o.is_sweep_override()}
        if not space:
            raise UserError("there is nothing to search: say optimizer.lr=tag(log,interval(0.001,1)), or the like")
        lines = sorted(str(o.input_line) for o in overrides.values())
        identity = [line for line in lines if not line.startswith(("folder=", "sweep."))]
        mode = self.build.better({str(key): value for key, value in self.config.items()})
        name = self.name or (str(folder.absolute()) if self.storage else "search")
        study = Study(folder.absolute(), self.storage, name, mode, identity, self.sampler_after(0))
        OmegaConf.save(self.config, folder / "multirun.yaml")
        study.settle(self.config.monitor)
        fixed = [str(o.input_line) for key, o in overrides.items() if key not in space]

        def job(trial: Any) -> list[str]:
            return [*fixed, *(f"{key}={value}" for key, value in trial.params.items())]

        returns: list[Sequence[JobReturn]] = []
        while (left := trials - (ended := study.num_ended())) > 0:
            asked = study.ask(space, min(left, most), self.sampler_after(ended))
            returns.append(self.launcher.launch([*map(job, asked.values())], initial_job_idx=min(asked)))
            for trial, done in zip(asked.values(), returns[-1], strict=True):
                study.tell(trial, done)
        found = study.ended_here()
        if not found:
            raise UserError(f"study {self.name} holds {ended} trials, all in other folders: raise sweep.trials")
        self.report(folder, {number: job(trial) for number, trial in found.items()})
        errors = [trial.user_attrs.get("error") for trial in found.values()]
        if None not in errors:
            raise UserError(f"all {len(errors)} trials failed, the first with: {errors[0]}")
        return returns

    def sampler_after(self, num_ended: int) -> Any:
        options: dict[str, Any] = {str(key): value for key, value in self.sampler.items() if key != "_target_"}
        if options.get("seed") is not None:
            options["seed"] += num_ended
        with value_of(f"hydra.sweeper.sampler={dict(self.sampler)}", self.build.__name__.partition(".")[0]):
            return get_class(self.sampler["_target_"])(**options)
