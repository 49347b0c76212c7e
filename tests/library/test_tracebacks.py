"""What a fork writes keeps its traceback; what a person types is answered in one line that names its key."""

from pathlib import Path

import pytest
from trees import forked, tree

from classify import build

TEMPLATE = Path(build.__file__).parent.name
OWN = """
import polars as pl
from lightning.pytorch import Callback
from lightning.pytorch.loggers.logger import DummyLogger
from torchmetrics.classification import MulticlassAccuracy
from tabrun import from_sklearn


class BadHook(Callback):
    def on_train_epoch_start(self, *arguments):
        raise ValueError("as a fork may write it")


class BadCallback(Callback):
    def __init__(self):
        raise ValueError("as a fork may write it")


class BadUpdate(MulticlassAccuracy):
    def __new__(cls, **arguments):
        return object.__new__(cls)

    def __init__(self, num_classes):
        super().__init__(num_classes=num_classes)

    def update(self, *arguments):
        raise ValueError("as a fork may write it")


class BadMetric(BadUpdate):
    def __init__(self, num_classes):
        raise ValueError("as a fork may write it")


class BadLogger(DummyLogger):
    def __init__(self):
        raise ValueError("as a fork may write it")


def bad_source(path, target, kinds=None):
    raise ValueError("as a fork may write it")


def bad_schedule(optimizer, **arguments):
    raise ValueError("as a fork may write it")
"""
NETS = """


class BadForward(nn.Linear):
    def forward(self, rows):
        raise ValueError("as a fork may write it")


def bad_forward(in_features, out_features) -> nn.Module:
    return BadForward(in_features, out_features)


def bad_net(in_features, out_features) -> nn.Module:
    raise ValueError("as a fork may write it")
"""
BROKEN = {  # the words: the file whose line is shown
    "model=linear model._target_={t}.nets.bad_forward": "nets.py",
    "model=linear model._target_={t}.nets.bad_net": "nets.py",
    "+callbacks.mine._target_={t}.own.BadHook": "own.py",
    "+callbacks.mine._target_={t}.own.BadCallback": "own.py",
    "+metrics.mine._target_={t}.own.BadMetric": "own.py",
    "+metrics.mine._target_={t}.own.BadUpdate": "own.py",
    "+logger.mine._target_={t}.own.BadLogger": "own.py",
    "data=iris data.read._target_={t}.own.bad_source": "own.py",
    "scheduler=reduce_on_plateau scheduler.make={{_target_:{t}.own.bad_schedule,_partial_:true}}": "own.py",
    "+callbacks.mine._target_={t}.unfinished.Mine": "unfinished.py",
}
WRONG = {  # the words: how the line begins
    "+callbacks.mine={{_target_:{t}.own.BadHook,often:1}}": "callbacks.mine: ",
    "+metrics.mine={{_target_:{t}.own.BadUpdate,often:1}}": "metrics.mine: ",
    "+logger.mine={{_target_:{t}.own.BadLogger,often:1}}": "logger.mine: ",
    "data=iris data.read._target_={t}.own.bad_source +data.read.often=1": "data.read: ",
    "data=iris +data.read.often=1": "data.read: ",
    "+data.often=1": "data: ",
    "+data.split.often=1": "data.split: ",
    "+callbacks.checkpoints.often=1": "callbacks.checkpoints: ",
    "+callbacks.early_stopping.often=1": "callbacks.early_stopping: ",
    "callbacks.early_stopping.mode=x": "callbacks.early_stopping",
    "metrics.auroc.average=wrong": "metrics.auroc",
    "+metrics.mine={{_target_:torchmetrics.classification.MulticlassRecall,often:1}}": "metrics.mine: ",
    "+metrics.mine._target_={t}.own.Nowhere": "metrics.mine: ",
    "+metrics.mine._target_={t}.nowhere.Mine": "metrics.mine: ",
    "+callbacks.mine._target_=nowhere.Mine": "callbacks.mine: ",
    "+callbacks.mine._target_={t}..Mine": "callbacks.mine: ",
    "+optimizer.often=1": "optimizer: ",
    "+trainer.often=1": "trainer: ",
    "trainer.strategy=often": "trainer: ",
}


def run(cases: list[str], folder: Path) -> list[tuple[str, int, str]]:
    """(Words, exit code, stderr) of each training of a fork with what is broken in it."""
    copy = tree(folder / "fork", "src", "conf")
    package = copy / "src" / TEMPLATE
    (package / "own.py").write_text(OWN)
    (package / "unfinished.py").write_text("raise ValueError('as a fork may write it')\n")
    with (package / "nets.py").open("a") as nets:
        nets.write(NETS)
    words = [case.format(t=TEMPLATE).split() for case in cases]
    commands = [[f"{TEMPLATE}.train", "debug=fast", *own, f"folder=run{i}"] for i, own in enumerate(words)]
    done = forked(commands, copy, copy / "src")
    return [(case, code, error) for case, (code, _, error) in zip(cases, done, strict=True)]


@pytest.mark.slow
def test_an_error_in_a_fork_keeps_its_traceback(tmp_path: Path) -> None:
    """Of a run, and of a sweep, whose jobs are stacked (a net, a metric) or train one by one."""
    swept = [words for words in BROKEN if words.endswith(("bad_forward", "BadMetric", "BadCallback", "BadHook"))]
    files = BROKEN | {f"{words} -m seed=1,2": BROKEN[words] for words in swept}
    for words, code, error in run([*files], tmp_path):
        assert "Traceback (most recent call last)" in error, (words, error)
        assert f'{TEMPLATE}/{files[words]}", line' in error, (words, error)
        assert (code, error.splitlines()[-1]) == (1, "ValueError: as a fork may write it"), words


@pytest.mark.slow
def test_a_wrong_argument_names_its_entry_in_one_line(tmp_path: Path) -> None:
    for words, code, error in run([*WRONG], tmp_path):
        assert error.startswith(f"error: {WRONG[words]}"), (words, error)
        assert (code, error.count("\n")) == (1, 1), (words, error)
