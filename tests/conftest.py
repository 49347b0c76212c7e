"""Shared by all tests: configs composed in this process, and real commands run as processes of their own."""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # here and in every process that a test starts, as they share the cores
import operator
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from itertools import compress
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from handed import CONF
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf
from server import client

import hydra_plugins.vectorized  # noqa: F401  (before the fixtures that restore what Hydra knows)
from classify import build
from classify.train import main

ROOT = CONF.parent
Command = Callable[..., subprocess.CompletedProcess[str]]


@cache
def composed(*choices: str) -> Any:
    """The config with these choices of groups; to compose takes 0.1 s."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", list(choices))


def configure(folder: Path | str, *overrides: str) -> dict[str, Any]:
    """A resolved config, as `train` takes it."""
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    chosen = [(CONF / override.key_or_group).is_dir() for override in parsed]
    cfg = composed(*compress(overrides, chosen)).copy()
    for override in compress(parsed, map(operator.not_, chosen)):
        OmegaConf.update(cfg, override.key_or_group, override.value(), force_add=override.is_add())
    cfg.folder = str(folder)
    cfg.mode = "min" if cfg.mode == "auto" else cfg.mode
    return OmegaConf.to_container(cfg, resolve=True)  # type: ignore[return-value]


def run_command(*words: str, cwd: Path, python: Path | str = sys.executable) -> subprocess.CompletedProcess[str]:
    """Runs `python -m words` as its own process."""
    return subprocess.run([python, "-m", *words], cwd=cwd, capture_output=True, text=True, check=False)


@pytest.fixture(scope="session")
def forking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A program that does what `python` does, in processes forked from one that has done the imports."""
    program = tmp_path_factory.mktemp("forking") / "python"
    socket = program.with_name("socket")
    program.write_text(client(str(socket)))
    program.chmod(0o755)
    script = [sys.executable, ROOT / "tests" / "server.py", socket, program]
    with subprocess.Popen(script, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout
        assert server.stdout.readline() == "ready\n"
        yield program
        server.terminate()


@pytest.fixture
def command(tmp_path: Path, forking: Path) -> Command:
    return lambda *words: run_command(*words, cwd=tmp_path, python=forking)


@pytest.fixture
def inside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hydra_restore_singletons: Any
) -> Callable[..., str | int | None]:
    """`python -m classify.train words` in this process, which saves the imports: what it would exit with."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> str | int | None:
        with monkeypatch.context() as changed:
            changed.setattr(sys, "argv", ["train", *words])
            changed.setenv("HYDRA_FULL_ERROR", "1")  # as `main` does, and this undoes it
            try:
                main()
            except SystemExit as stop:
                return stop.code
        return None

    return run


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, worker_id: str, forking: Path) -> Path:
    """The folder of a default run, trained by the real command, once for all of pytest-xdist's workers."""
    base = tmp_path_factory.getbasetemp()
    cwd = (base if worker_id == "master" else base.parent) / "finished"
    with FileLock(f"{cwd}.lock"):
        if not cwd.exists():
            cwd.mkdir()
            done = run_command("classify.train", cwd=cwd, python=forking)
            assert done.returncode == 0, done.stderr
            assert done.stderr == ""  # no warnings, no tips, no progress bar off a terminal
            assert done.stdout.splitlines()[-1].startswith("outputs/")
    return next(cwd.glob("outputs/*/*"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest tests first, so that no worker is left alone with one at the end."""
    longest = ("test_every_command_runs", "test_what_data_net", "test_what_is_said_when")
    items.sort(key=lambda item: not item.name.startswith(longest))


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The files of template/own/ stand in the template's package, as those of a fork would."""
    folder = ROOT / "tests" / "template" / "own"
    package = sys.modules[str(build.__package__)]
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(folder)])
    yield
    for file in folder.glob("*.py"):
        sys.modules.pop(f"{package.__name__}.{file.stem}", None)
