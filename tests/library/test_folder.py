"""Folders: whoever comes first has one, and a process that has died has none."""

import errno
import fcntl
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tabrun.cli.errors import errors_that_end
from tabrun.runs import folder

# twenty processes that take a folder at the same moment, each with its own name by the clock, or all the same one
RUSH = """
import json, os, sys, time
from pathlib import Path
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from classify import build
from tabrun.cli import check
from tabrun.runs import folder
from tabrun.runs.build import conf
with initialize_config_dir(str(conf(build)), version_base="1.3"):
    config = compose("config")
start = time.time() + 0.3
for _ in range(20):
    if os.fork() == 0:
        time.sleep(start - time.time())
        OmegaConf.clear_cache(config)  # of the time
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


def test_one_of_twenty_has_a_folder_and_the_others_are_told(tmp_path: Path) -> None:
    outcomes = rush(tmp_path, "same")
    assert Counter(word for word, *_ in outcomes) == {"has": 1, "not": 19}
    assert {text for word, _, text in outcomes if word == "not"} == {
        "folder=same is being written by another process: wait for it, or name another folder"
    }
    folder.lock(tmp_path / "same")  # that process is gone, and so is its lock
    folder.lock(tmp_path / "same")  # once more is no matter


def test_what_a_mistake_has_left_is_written_over_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "log").mkdir()
    (tmp_path / "optuna.db").touch()
    with pytest.raises(ValueError, match="holds files already"):
        folder.claim(tmp_path)  # it has no lock, so that no run has made it
    folder.claim(own := tmp_path / "a" / "b")
    (own / "log").mkdir()
    (own / "train.log").touch()
    folder.claim(own)
    assert [path.name for path in own.iterdir()] == [folder.LOCK]
    (own / "checkpoints").mkdir()
    with pytest.raises(ValueError, match="holds files already"):
        folder.claim(own)


def test_a_file_is_written_beside_and_never_through_a_link(tmp_path: Path) -> None:
    (outside := tmp_path / "outside").write_text("kept")
    (own := tmp_path / "own").symlink_to(outside)
    with folder.whole(own) as one, folder.whole(own) as other:  # two writers have a part each
        one.write(b"one")
        other.write(b"other")
    assert own.read_text() == "one"
    assert outside.read_text() == "kept"
    with pytest.raises(TypeError), folder.whole(own) as file:
        file.writelines([b"half", 2])
    assert own.read_text() == "one"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["outside", "own"]


def test_nothing_is_written_in_a_folder_that_was_taken_away(tmp_path: Path) -> None:
    folder.claim(own := tmp_path / "own")
    folder.write_whole(own / "x", b"1")
    (own / folder.LOCK).unlink()
    (own / folder.LOCK).touch()  # as of a process that came after it was removed
    with pytest.raises(ValueError, match=r"folder=.*own was taken away while it was written"):
        folder.write_whole(own / "x", b"2")
    assert (own / "x").read_bytes() == b"1"
    folder.unlock(own)


def test_an_error_in_a_callback_of_hydra_ends_the_process(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop, errors_that_end():
        {}["x"]
    assert stop.value.code == 1
    assert "KeyError: 'x'" in capsys.readouterr().err


def test_a_disk_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refused)
    with pytest.raises(ValueError, match=r"cannot be locked .*No locks available.*: name a folder on another disk"):
        folder.lock(tmp_path / "x")
