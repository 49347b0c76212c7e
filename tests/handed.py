"""The library's functions with the template's `build` handed over, as the template's own files hand it."""

from functools import partial
from typing import Any

from classify import build
from tabrun.cli import check
from tabrun.runs import build as runs_build
from tabrun.runs import resume, trust
from tabrun.runs.run import Run
from tabrun.stack import plan
from tabrun.stack.ensemble import train_ensemble
from tabrun.stack.training import train_stack
from tabrun.training import train as run
from tabrun.training import trainer

CONF = runs_build.conf(build)
train = partial(run.train, build)
ensemble_of = partial(train_ensemble, build)
continued, goes_on = partial(resume.continued, build), resume.goes_on
set_up, trainer_of = partial(runs_build.set_up, build), partial(trainer.trainer_of, build)
compared = partial(resume.compared, build=build)
check_values, check_targets = partial(check.check_values, build=build), partial(trust.check_targets, build=build)
shipped = partial(trust.shipped, CONF)


def planned(configs: list[Any]) -> plan.Plan:
    return plan.planned(build, dict(enumerate(configs)))


def train_as_one(configs: list[Any]) -> list[Any]:
    """The members of a stack of all these configs, trained."""
    found = planned(configs)
    assert [len(numbers) for numbers, _ in found.parts] == [len(configs)], str(found)
    members = [found.built[number] for number in range(len(configs))]
    train_stack(build, members, found.parts[0][1])
    return members


def open_run(path: object, checkpoint: str = "best", trust: bool = False) -> Run:
    return Run.open(str(path), build, checkpoint, trust)
