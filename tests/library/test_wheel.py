"""An installed wheel trains and is loaded from anywhere, and what `load` needs is there on every system."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from trees import environment, tree

from classify import build
from tabrun.runs.build import conf

TEMPLATE = Path(build.__file__).parent.name
LOAD = f"""
import {TEMPLATE}, tabrun
from {TEMPLATE} import build
from tabrun import from_sklearn
from tabrun.runs.build import conf
frame = from_sklearn("breast_cancer", "diagnosis").drop("diagnosis")
print(*set({TEMPLATE}.load("run").predict(frame)))
print({TEMPLATE}.__file__, tabrun.__file__, conf(build) / "config.yaml")
"""


def call(cwd: Path, path: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *words]
    return subprocess.run(command, cwd=cwd, env=environment(path), capture_output=True, text=True, check=False)


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """Where a wheel of the working tree is installed."""
    pytest.importorskip("hatchling")
    pip, offline = [sys.executable, "-m", "pip", "--disable-pip-version-check"], ["--no-deps", "--no-index", "--quiet"]
    source = tree(tmp_path / "source")
    words = ["wheel", str(source), *offline, "--no-build-isolation", "--wheel-dir", str(tmp_path)]
    subprocess.run([*pip, *words], check=True, env=os.environ | {"PYTHONPATH": ""})
    wheel = next(tmp_path.glob("*.whl"))
    subprocess.run([*pip, "install", *offline, "--target", str(tmp_path / "installed"), str(wheel)], check=True)
    return tmp_path / "installed"


@pytest.mark.slow
def test_a_wheel_trains_and_is_loaded_from_another_folder(installed: Path, tmp_path: Path) -> None:
    packages = {path.name for path in installed.iterdir() if path.suffix != ".dist-info"}
    assert packages == {TEMPLATE, "tabrun", "hydra_plugins"}
    (elsewhere := tmp_path / "elsewhere").mkdir()
    done = call(elsewhere, installed, "-m", f"{TEMPLATE}.train", "debug=fast", "folder=run")
    assert (done.returncode, done.stderr) == (0, "")
    loaded = call(elsewhere, installed, "-c", LOAD)
    assert (loaded.returncode, loaded.stderr) == (0, "")
    classes, files = loaded.stdout.splitlines()
    assert set(classes.split()) <= {"malignant", "benign"}
    assert all(Path(file).is_file() and Path(file).is_relative_to(installed) for file in files.split())


def test_an_editable_install_finds_conf_at_the_top_of_the_tree() -> None:
    assert conf(build) == ROOT / "conf"
    assert (conf(build) / "config.yaml").is_file()


@pytest.mark.slow
def test_what_load_needs_is_there_without_fcntl(tmp_path: Path) -> None:
    """As on Windows."""
    code = f"import sys; sys.modules['fcntl'] = None; import tabrun.runs.run, tabrun.runs.folder, {TEMPLATE}"
    done = call(tmp_path, ROOT / "src", "-c", f"{code}; {TEMPLATE}.load('nowhere')")
    assert done.stderr.splitlines()[-1].startswith("tabrun.cli.errors.UserError: there is no checkpoint")
    locked = "from pathlib import Path; from tabrun.runs.folder import lock; lock(Path('run'))"
    done = call(tmp_path, ROOT / "src", "-c", f"{code}; {locked}")
    assert "fcntl" not in done.stderr
