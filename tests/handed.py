"""The library's functions with the template's `build` handed over, as the template's own files hand it."""

from functools import partial
from typing import Any

from classify import build
from tabrun.cli import check
from tabrun.runs import build as runs_build
from tabrun.runs import resume, trust
from tabrun.runs import train as runs_train
from tabrun.runs.run import Run
from tabrun.stack import plan, training

CONF = runs_build.conf(build)
train = partial(runs_train.train, build)
continued, goes_on = partial(resume.continued, build), resume.goes_on
set_up, trainer_of = partial(runs_build.set_up, build), partial(runs_build.trainer_of, build)
train_population = partial(training.train_population, build)
compared = partial(resume.compared, build=build)
check_values, check_targets = partial(check.check_values, build=build), partial(trust.check_targets, build=build)
stackable = partial(plan.stackable, build=build)
shipped = partial(trust.shipped, CONF)


def stacks(configs: dict[int, Any], max_stack: int | None) -> list[list[int]]:
    return plan.stacks(configs, build, max_stack)


def open_run(path: object, checkpoint: str = "best", trust: bool = False) -> Run:
    return Run.open(str(path), build, checkpoint, trust)
