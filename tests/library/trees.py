"""Copies of the working tree that a test may change, and commands that are run in them."""

import json
import os
import subprocess
import sys
from pathlib import Path

from conftest import ROOT

FORKED = ROOT / "tests" / "forked.py"


def environment(*paths: Path) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": os.pathsep.join(map(str, paths)), "OMP_NUM_THREADS": "1"}


def run(copy: Path, *words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Runs `python words` in a copy, with the packages that are there."""
    command, own = [sys.executable, *words], environment(copy / "src")
    return subprocess.run(command, cwd=cwd or copy, env=own, capture_output=True, text=True, check=False)


def git(copy: Path, *words: str) -> str:
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.com"]
    return subprocess.run(["git", *identity, *words], cwd=copy, capture_output=True, text=True, check=False).stdout


def commit(copy: Path) -> None:
    git(copy, "add", "-A")
    git(copy, "commit", "-qm", "as it is")


def tree(folder: Path, *under: str) -> Path:
    """A copy of the working tree's files, or of those in these folders, as a clean repository of its own."""
    names = git(ROOT, "ls-files", "-co", "--exclude-standard").splitlines()
    for name in names or [str(path.relative_to(ROOT)) for path in ROOT.rglob("*") if path.is_file()]:
        if (ROOT / name).is_file() and (not under or name.startswith(under)):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes((ROOT / name).read_bytes())
    git(folder, "init", "-q")
    commit(folder)
    return folder


def forked(cases: list[list[str]], cwd: Path, *paths: Path) -> list[tuple[int, str, str]]:
    """(Exit code, stdout, stderr) of `python -m` for each case, forked from a process with imports from `paths`."""
    script, own = [sys.executable, str(FORKED), "heavy", "60"], environment(*paths)
    text = json.dumps(cases)
    done = subprocess.run(script, cwd=cwd, env=own, input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [(code, out, error) for code, out, error, _ in json.loads(done.stdout)]
