"""`make rename`: a renamed copy trains, and names that cannot be are refused."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from classify import build

OLD = Path(build.__file__).parent.name  # these tests hold after a rename too
NEW = "leads" if OLD == "churn" else "churn"
WORDS = f"path: {OLD}.csv\ntarget: {OLD}\nnote: to {OLD}.train, or to read {OLD}/data\n"


def run(copy: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(copy / "src"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *words]
    return subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, check=False)


def git(copy: Path, *words: str) -> str:
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.com"]
    return subprocess.run(["git", *identity, *words], cwd=copy, capture_output=True, text=True).stdout


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The working tree's files, as a clean repository of their own."""
    copy = tmp_path / "copy"
    names = git(ROOT, "ls-files", "-co", "--exclude-standard").splitlines()
    for name in names or [str(path.relative_to(ROOT)) for path in ROOT.rglob("*") if path.is_file()]:
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_bytes((ROOT / name).read_bytes())
    (copy / "conf" / "data" / "words.yaml").write_text(WORDS)
    git(copy, "init", "-q")
    git(copy, "add", "-A")
    git(copy, "commit", "-qm", "start")
    return copy


@pytest.mark.slow
def test_a_renamed_copy_trains(copy: Path) -> None:
    done = run(copy, "scripts/rename.py", NEW)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in (copy / "src").iterdir()} == {NEW, "tabrun", "hydra_plugins"}
    assert (copy / "conf" / "data" / "words.yaml").read_text() == WORDS
    assert f'name = "{NEW}"' in (copy / "pyproject.toml").read_text()
    assert (copy / "README.md").read_text().startswith(f"# {NEW}\n")
    meant = rf"\b{OLD}\.(train|evaluate|nets|data|callbacks|check)|src/{OLD}|import {OLD}|from {OLD}"
    assert git(copy, "grep", "-nE", meant, "--", ":!conf/data/words.yaml") == ""
    (copy / "conf" / "data" / "words.yaml").unlink()
    trained = run(copy, "-m", f"{NEW}.train", "debug=fast", "folder=run")
    assert (trained.returncode, trained.stderr) == (0, "")  # no warnings, no tips, no progress bar off a terminal


def test_names_that_are_refused(copy: Path) -> None:
    wrong = {"1a": "identifier", "a-b": "identifier", "class": "Python's own", "torch": "installed"}
    for name, text in (
        wrong | {"json": "installed", "conf": "a folder here", "train": "own modules", OLD: "already"}
    ).items():
        done = run(copy, "scripts/rename.py", name)
        assert (done.returncode, done.stdout) == (1, "")
        assert text in done.stderr
        assert done.stderr.count("\n") == 1
    (copy / "README.md").write_text("changed")
    assert "uncommitted changes" in run(copy, "scripts/rename.py", NEW).stderr
    assert (copy / "src" / OLD).exists()
