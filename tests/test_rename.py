"""`make rename`: a renamed copy trains, and names that cannot be are refused."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT


def rename(copy: Path, name: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "scripts/rename.py", name]
    return subprocess.run(words, cwd=copy, capture_output=True, text=True, check=False)


def git(copy: Path, *words: str) -> None:
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.com"]
    subprocess.run(["git", *identity, *words], cwd=copy, check=True, capture_output=True)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The working tree's files, as a clean repository of their own."""
    copy = tmp_path / "copy"
    files = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True)
    names = files.stdout.splitlines() or [str(p.relative_to(ROOT)) for p in ROOT.rglob("*") if p.is_file()]
    for name in names:
        if (ROOT / name).exists():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_bytes((ROOT / name).read_bytes())
    (copy / "conf" / "data" / "words.yaml").write_text(
        "path: classify.csv\ntarget: classify\nnote: to classify.train\n"
    )
    git(copy, "init", "-q")
    git(copy, "add", "-A")
    git(copy, "commit", "-qm", "start")
    return copy


def test_a_renamed_copy_trains(copy: Path) -> None:
    done = rename(copy, "churn")
    assert done.returncode == 0, done.stderr
    assert (copy / "src" / "churn" / "train.py").exists()
    assert not (copy / "src" / "classify").exists()
    assert (copy / "conf" / "data" / "words.yaml").read_text().count("classify") == 3
    assert 'name = "churn"' in (copy / "pyproject.toml").read_text()
    meant = subprocess.run(
        ["git", "grep", "-nE", r"classify\.(train|nets|data|callbacks)|src/classify|import classify"],
        cwd=copy,
        capture_output=True,
        text=True,
    )
    left = [
        line
        for line in meant.stdout.splitlines()
        if not line.startswith(("conf/data/words", "scripts/rename", "tests/test_rename"))
    ]
    assert left == []
    environment = os.environ | {"PYTHONPATH": str(copy / "src"), "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-m", "churn.train", "debug=fast", "folder=run"]
    trained = subprocess.run(words, cwd=copy, env=environment, capture_output=True, text=True, check=False)
    assert trained.returncode == 0, trained.stderr
    words = [sys.executable, "-m", "pytest", "tests/test_parts.py"]
    tested = subprocess.run(words, cwd=copy, env=environment, capture_output=True, text=True, check=False)
    assert tested.returncode == 0, tested.stdout


def test_names_that_are_refused(copy: Path) -> None:
    for name, text in {
        "1a": "identifier",
        "a-b": "identifier",
        "class": "Python's own",
        "torch": "installed",
        "json": "installed",
        "conf": "installed",
        "classify": "already",
    }.items():
        done = rename(copy, name)
        assert (done.returncode, done.stdout) == (1, "")
        assert text in done.stderr
        assert done.stderr.count("\n") == 1
    (copy / "README.md").write_text("changed")
    assert "uncommitted changes" in rename(copy, "churn").stderr
