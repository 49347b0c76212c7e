"""Study: what Optuna keeps of a search: its trials, and which of them have their folder in a sweep's."""

import math
from pathlib import Path
from typing import Any

import optuna
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from hydra.core.utils import JobReturn
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState

from tabrun.cli.errors import UserError
from tabrun.runs.folder import read_metrics
from tabrun.sweeps.grid import listed
from tabrun.sweeps.launcher import outcome


class Study:
    """Opens the study of a sweep's folder, new or to be continued.

    storage: a URL of SQLAlchemy's, which several machines may share, or None for a file in the folder.
    overrides: what the search was asked for; UserError when the study is of another, or the storage cannot be opened.
    """

    def __init__(
        self, folder: Path, storage: str | None, name: str, mode: str, overrides: list[str], sampler: BaseSampler
    ) -> None:
        self.folder, self.shared = folder, storage is not None
        url = storage or f"sqlite:///{folder}/optuna.db"
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        direction = StudyDirection.MINIMIZE if mode == "min" else StudyDirection.MAXIMIZE
        options: dict[str, Any] = {"storage": url, "study_name": name, "direction": direction, "sampler": sampler}
        try:
            self.study = optuna.create_study(load_if_exists=True, **options)
        except Exception as error:  # of SQLAlchemy, of a database's driver, of Optuna
            raise UserError(f"hydra.sweeper.storage={url} cannot be opened: {str(error).splitlines()[0]}") from error
        if not self.study.user_attrs:
            self.study.set_user_attr("overrides", overrides)
        if self.study.user_attrs["overrides"] != overrides:
            raise UserError(f"study {name} in {url} is of another search: name a new one, hydra.sweeper.study=...")

    def ask(self, space: dict[str, BaseDistribution], number: int, sampler: BaseSampler) -> dict[int, Trial]:
        """New trials, by the number of their folder."""
        self.study.sampler = sampler
        # some may be another study's
        folders = [int(path.name) for path in self.folder.iterdir() if path.name.isdecimal()]
        first = 1 + max([*self.here(), *folders], default=-1)
        trials = {}
        try:
            for i in range(first, first + number):
                trials[i] = self.study.ask(space)
                trials[i].set_user_attr("folder", str(self.folder / str(i)))
        except ImportError as error:
            raise UserError(f"hydra.sweeper.sampler needs more than Optuna: {error}") from error
        return trials

    def tell(self, trial: Trial, done: JobReturn) -> None:
        """A trial that failed, or whose metric is not finite, is recorded as failed."""
        value = outcome(done)
        failed = isinstance(value, Exception)
        if failed or not math.isfinite(value):
            trial.set_user_attr("error", " ".join(str(value).split()) if failed else f"the metric is {value}")
        self.end(trial.number, math.nan if failed else value)

    def end(self, number: int, value: float) -> None:
        finished = math.isfinite(value)
        self.study.tell(number, value if finished else None, None if finished else TrialState.FAIL)

    def settle(self, monitor: str) -> None:
        """What a killed command left running: with metrics it has finished, else it has failed, and does not count."""
        for trial in self.study.get_trials(deepcopy=False, states=[TrialState.RUNNING]):
            if not trial.user_attrs and not self.shared:  # killed before its folder was noted
                self.end(trial.number, math.nan)
        for number, trial in self.here().items():
            if trial.state == TrialState.RUNNING:
                own = self.folder / str(number)
                written = (own / "metrics.json").exists()
                self.end(trial.number, read_metrics(own, monitor)[monitor] if written else math.nan)

    def here(self) -> dict[int, FrozenTrial]:
        """The trials of this folder, by number."""
        asked = [t for t in self.study.get_trials(deepcopy=False) if "folder" in t.user_attrs]
        paths = [(Path(trial.user_attrs["folder"]), trial) for trial in asked]
        return {int(path.name): trial for path, trial in paths if not self.shared or path.parent == self.folder}

    def ended_here(self) -> dict[int, FrozenTrial]:
        return {number: trial for number, trial in self.here().items() if counts(trial)}

    def num_ended(self) -> int:
        """Trials that have ended, and those that other machines are at, as these will."""
        return sum(map(counts, self.study.get_trials(deepcopy=False)))


def counts(trial: FrozenTrial) -> bool:
    """Whether it was not killed: then it has a folder, and where it has failed an error."""
    return ("error" if trial.state == TrialState.FAIL else "folder") in trial.user_attrs


def distribution(override: Override) -> BaseDistribution:
    """Optuna's word for a sweep: interval and range are numbers, with tag(log, ...) on a logarithmic scale."""
    sweep: Any = override.value()
    if override.is_discrete_sweep():
        values = {text.partition("=")[2] for text in listed(str(override.get_key_element()), override)}
    if not isinstance(sweep, RangeSweep | IntervalSweep):  # as text, since a list is no value of Optuna's
        return CategoricalDistribution(sorted(values))
    ends: list[Any] = sorted(sweep.range()) if isinstance(sweep, RangeSweep) else [sweep.start, sweep.end]
    options: dict[str, Any] = {"step": abs(sweep.step)} if isinstance(sweep, RangeSweep) else {}
    kind: Any = IntDistribution if isinstance(ends[0], int) else FloatDistribution
    try:
        return kind(ends[0], ends[-1], log="log" in sweep.tags, **options)
    except ValueError as error:
        raise UserError(f"{override.input_line} cannot be searched: {error}") from error
