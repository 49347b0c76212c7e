"""Folders: whoever comes first has one, and a process that has died has none."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

from classify import folder

# twenty processes that take a folder at the same moment, each with its own name by the clock, or all the same one
RUSH = """
import json, os, sys, time
from pathlib import Path
from hydra import compose, initialize_config_dir
from classify import check, keys, folder
with initialize_config_dir(str(keys.CONF), version_base="1.3"):
    config = compose("config")
start = time.time() + 0.3
for _ in range(20):
    if os.fork() == 0:
        time.sleep(start - time.time())
        own = sys.argv[1] if len(sys.argv) > 1 else config.folder
        try:
            folder.claim(Path(own))
            line = ["has", own, os.getpid()]
        except ValueError as error:
            line = ["not", own, str(error)]
        os.write(1, (json.dumps(line) + "\\n").encode())
        time.sleep(0.5)
        os._exit(0)
for _ in range(20):
    os.wait()
assert "torch" not in sys.modules and "lightning" not in sys.modules
"""


def rush(cwd: Path, *words: str) -> list[list[str]]:
    done = subprocess.run([sys.executable, "-c", RUSH, *words], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_twenty_runs_at_once_get_twenty_folders(tmp_path: Path) -> None:
    outcomes = rush(tmp_path)
    taken = [own for word, own, _ in outcomes if word == "has"]
    assert len(outcomes) == 20
    assert len(taken) == len(set(taken)) == len({own for _, own, _ in outcomes})  # the clock tells microseconds
    assert len(taken) > 15
    assert all((tmp_path / own).is_dir() for own in taken)


def test_one_of_twenty_has_a_folder_and_the_others_are_told_which(tmp_path: Path) -> None:
    outcomes = rush(tmp_path, "same")
    assert Counter(word for word, *_ in outcomes) == {"has": 1, "not": 19}
    winner = next(process for word, _, process in outcomes if word == "has")
    assert {text for word, _, text in outcomes if word == "not"} == {
        f"folder=same is being written by process {winner}: wait for it, or name another folder"
    }
    folder.lock(tmp_path / "same")  # that process is gone, and so is its lock
    assert (tmp_path / "same" / folder.LOCK).read_text() == f"{os.getpid()}\n"
    folder.lock(tmp_path / "same")  # once more is no matter
