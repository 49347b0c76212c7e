"""The search: Hydra's words as Optuna's, what it leaves, and how it goes on after failures, kills and mistakes."""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import polars as pl
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import OmegaConf
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState
from sqlalchemy import event
from sqlalchemy.engine import Engine

from tabrun.sweeps.study import Study, distribution

pytestmark = pytest.mark.filterwarnings("ignore")
SEARCH = ["-m", "hydra/sweeper=optuna", "data=iris", "trainer.max_epochs=2"]
RATE = "optimizer.lr=tag(log,interval(0.001,1))"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("tag(log,interval(1e-4,1))", FloatDistribution(1e-4, 1, log=True)),
        ("interval(0.1,0.9)", FloatDistribution(0.1, 0.9)),
        ("int(interval(4,64))", IntDistribution(4, 64)),
        ("tag(log,int(interval(4,64)))", IntDistribution(4, 64, log=True)),
        ("range(1,10)", IntDistribution(1, 9)),
        ("range(8,65,8)", IntDistribution(8, 64, step=8)),
        ("range(0.25,1,0.25)", FloatDistribution(0.25, 0.75, step=0.25)),
        ("choice(b,a)", CategoricalDistribution(["a", "b"])),
        ("shuffle(b,a)", CategoricalDistribution(["a", "b"])),
        ("[8],[16,8]", CategoricalDistribution(["[16,8]", "[8]"])),
    ],
)
def test_hydras_words_are_optunas_distributions(words: str, expected: BaseDistribution) -> None:
    assert distribution(OverridesParser.create().parse_override(f"key={words}")) == expected


def trials(folder: Path) -> list[optuna.trial.FrozenTrial]:
    return optuna.load_study(study_name="search", storage=f"sqlite:///{folder}/optuna.db").trials


def metrics(folder: Path, number: int) -> dict[str, float]:
    return json.loads((folder / str(number) / "metrics.json").read_text())


@pytest.mark.slow
def test_a_search_its_failures_and_how_it_goes_on(
    tmp_path: Path, inside: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*SEARCH, RATE, "optimizer.weight_decay=0.0,1e30", "hydra.sweeper.max_batch_size=2"]
    assert inside(*words, "sweep.trials=6", "folder=whole") is None
    assert inside(*words, "sweep.trials=4", "folder=part") is None
    assert capsys.readouterr().out.count("best: job") == 2  # not once a batch
    part = tmp_path / "part"
    table = pl.read_csv(part / "sweep.csv")
    assert sorted(table["job"]) == list(range(4))
    assert {"finished", "failed"} == set(table["status"])
    for trial in trials(part):
        said = OmegaConf.to_object(OmegaConf.load(part / str(trial.number) / ".hydra" / "overrides.yaml"))
        assert {f"{key}={value}" for key, value in trial.params.items()} <= set(said)
        if trial.params["optimizer.weight_decay"] == "1e+30":
            assert trial.state == TrialState.FAIL
            assert "the training loss is" in trial.user_attrs["error"]
        else:
            assert trial.value == metrics(part, trial.number)["val/loss"]
    finished = [trial for trial in trials(part) if trial.state == TrialState.COMPLETE]
    best = min(finished, key=lambda trial: trial.value)
    assert table["job"][0] == best.number
    assert [t.number for t in finished if "test/loss" in metrics(part, t.number)] == [best.number]
    assert str(best.params["optimizer.lr"]) in (part / "best.yaml").read_text()

    # a command that was killed left three trials running, of which the last had been written
    study = optuna.load_study(study_name="search", storage=f"sqlite:///{part}/optuna.db")
    for number in (4, 5, 6):
        study.ask(finished[0].distributions).set_user_attr("folder", str(part / str(number)))
    shutil.copytree(part / str(best.number), part / "6")
    before = (part / str(best.number) / "checkpoints" / "best.ckpt").stat().st_mtime_ns
    assert inside(*words, "sweep.trials=6", "folder=part") is None
    states = [trial.state for trial in trials(part)]
    assert states[4:7] == [TrialState.FAIL, TrialState.FAIL, TrialState.COMPLETE]
    assert len(states) == 8  # six, and two that were killed
    assert (part / str(best.number) / "checkpoints" / "best.ckpt").stat().st_mtime_ns == before
    whole = [trial.params for trial in trials(tmp_path / "whole")]
    assert [trial.params for trial in trials(part)[:4]] == whole[:4]
    assert sorted(pl.read_csv(part / "sweep.csv")["job"]) == [0, 1, 2, 3, 6, 7]


def study(folder: Path, **options: Any) -> Study:
    folder.mkdir(exist_ok=True)
    defaults: dict[str, Any] = {"storage": None, "name": "search", "mode": "max", "overrides": ["a"]}
    return Study(folder, **(defaults | options), sampler=sampler())


def sampler() -> optuna.samplers.BaseSampler:
    return optuna.samplers.RandomSampler(seed=0)


def test_a_batch_that_was_killed_is_asked_for_again(tmp_path: Path) -> None:
    search, space = study(tmp_path), {"x": FloatDistribution(0, 1)}
    first = search.ask(space, 3, sampler())
    (tmp_path / "5").mkdir()  # of a study whose file is gone
    again = study(tmp_path)
    again.settle("val/loss")
    assert again.num_ended() == 0
    second = again.ask(space, 3, sampler())
    assert [trial.params for trial in first.values()] == [trial.params for trial in second.values()]
    assert list(second) == [6, 7, 8]  # in folders of their own


def cut_at(number: int, folder: Path) -> tuple[int, list[optuna.trial.FrozenTrial]]:
    """Goes on with a search of three trials, of which one fails, and is killed before its commit of this number.

    Returns the number of commits, and the trials.
    """
    commits = iter(range(1, 1000))

    def commit(connection: Any) -> None:
        nonlocal last
        if (last := next(commits)) == number:
            os.kill(os.getpid(), signal.SIGKILL)

    last = 0
    event.listen(Engine, "commit", commit)
    search = study(folder)
    search.settle("val/loss")
    while (left := 3 - search.num_ended()) > 0:
        for place, trial in search.ask({"x": FloatDistribution(0, 1)}, min(left, 2), sampler()).items():
            (folder / str(place)).mkdir()
            error = ValueError("too high") if place == 1 else None
            if not error:
                (folder / str(place) / "metrics.json").write_text('{"val/loss": 1.0}')
            status = JobStatus.FAILED if error else JobStatus.COMPLETED
            search.tell(trial, JobReturn(_return_value=error or 1.0, status=status))
    event.remove(Engine, "commit", commit)
    return last, search.study.trials


@pytest.mark.slow
def test_a_search_that_is_killed_at_any_commit_ends_with_all_its_trials(tmp_path: Path) -> None:
    begun = study(tmp_path / "begun")  # one trial has no folder yet, one was training, one had written its metrics
    begun.study.ask({"x": FloatDistribution(0, 1)})
    begun.ask({"x": FloatDistribution(0, 1)}, 2, sampler())
    (tmp_path / "begun" / "0").mkdir()
    (tmp_path / "begun" / "0" / "metrics.json").write_text('{"val/loss": 1.0}')
    shutil.copytree(tmp_path / "begun", tmp_path / "whole")
    commits, _ = cut_at(0, tmp_path / "whole")
    assert commits > 10
    for number in range(1, commits + 1):
        folder = tmp_path / str(number)
        shutil.copytree(tmp_path / "begun", folder)
        if (process := os.fork()) == 0:
            cut_at(number, folder)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == -signal.SIGKILL
        _, found = cut_at(0, folder)
        ended = [trial for trial in found if trial.state == TrialState.COMPLETE or "error" in trial.user_attrs]
        assert len(ended) == 3, number
        assert all(trial.state.is_finished() for trial in found), number


def test_a_metric_that_is_nan_is_a_failed_trial(tmp_path: Path) -> None:
    search = study(tmp_path)
    asked = search.ask({"x": FloatDistribution(0, 1)}, 3, sampler())
    for trial, value in zip(asked.values(), (0.5, math.nan, 0.7), strict=True):
        search.tell(trial, JobReturn(_return_value=value, status=JobStatus.COMPLETED))
    assert search.num_ended() == 3
    assert [trial.state.name for trial in search.ended_here().values()] == ["COMPLETE", "FAIL", "COMPLETE"]
    assert search.study.best_value == 0.7  # the mode is max


def test_a_storage_that_two_folders_share(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/shared.db"
    one, other = (study(tmp_path / name, storage=url, name="shared") for name in "ab")
    (mine,) = one.ask({"x": FloatDistribution(0, 1)}, 1, sampler()).values()
    other.settle("val/loss")  # leaves the other's running trial alone
    (theirs,) = other.ask({"x": FloatDistribution(0, 1)}, 1, sampler()).values()
    for search, trial in ((one, mine), (other, theirs)):
        search.tell(trial, JobReturn(_return_value=1.0, status=JobStatus.COMPLETED))
        assert list(search.ended_here()) == [0]
        assert search.num_ended() == 2
    with pytest.raises(ValueError, match=r"study shared in sqlite.* is of another search"):
        study(tmp_path / "c", storage=url, name="shared", overrides=["b"])


BAD = {  # a search's words: what its one line of error must say
    "optimizer.lrr=interval(0,1)": "no key optimizer.lrr (did you mean optimizer.lr?)",
    "optimizer.lr=": "there is nothing to search",
    "optimizer.lr=interval(-1,1)": ": optimizer.lr=-0.",
    "optimizer.lr=interval(1,0)": "optimizer.lr=interval(1,0) cannot be searched",
    "optimizer.lr=range(5,1)": "it holds no value",
    f"{RATE} sweep.trials=0": "sweep.trials=0 is out of range",
    f"{RATE} hydra.sweeper.storage=sqlite:////no/such/x.db": "storage=sqlite:////no/such/x.db cannot be opened",
    f"{RATE} hydra.sweeper.storage=nonsense": "hydra.sweeper.storage=nonsense cannot be opened",
    f"{RATE} +hydra.sweeper.sampler.nope=1": "unexpected keyword argument 'nope'",
    f"{RATE} sweep.stack_dropout=3": "sweep.stack_dropout=3 is not true or false",
}


@pytest.mark.slow
def test_bad_input_is_one_line_and_leaves_no_job(
    tmp_path: Path, inside: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def check(words: str, text: str) -> None:
        message = inside(*SEARCH, *words.split(), "folder=search")
        assert message.startswith("error: "), words
        assert "\n" not in message, words
        assert text in message, (words, message)
        assert not [*(tmp_path / "search").glob("[0-9]*")], words

    for words, text in BAD.items():
        check(words, text)
    monkeypatch.setitem(sys.modules, "optuna", None)  # as if it were not installed
    monkeypatch.delitem(sys.modules, "tabrun.sweeps.study")
    check(RATE, "hydra/sweeper=optuna needs Optuna: pip install 'optuna>=5'")


@pytest.mark.slow
def test_ctrl_c_keeps_what_has_finished_and_the_same_command_goes_on(
    tmp_path: Path, inside: Callable[..., Any], forking: Path
) -> None:
    words = ["-m", "optimizer.lr=0.3,1e-6", "sweep.max_stack=1", "data=iris", "trainer.max_epochs=150", "folder=sweep"]
    words += ["callbacks.early_stopping.patience=3"]  # stops the first job early; the second improves to the end
    process = subprocess.Popen(
        [forking, "-m", "classify.train", *words],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not (tmp_path / "sweep" / "1" / "checkpoints" / "last.ckpt").exists():
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate()
    assert process.returncode == 130
    assert errors == "interrupted: what has finished is kept, and the same command with its folder= goes on\n"
    first, second = (tmp_path / "sweep" / str(number) for number in (0, 1))
    assert not (second / "metrics.json").exists()
    before = (first / "run.json").stat().st_mtime_ns
    assert inside(*words) is None
    assert (first / "run.json").stat().st_mtime_ns == before
    assert json.loads((second / "run.json").read_text())["epochs"] == 150
