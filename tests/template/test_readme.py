"""The README is true: its commands run, in order, in a copy of the tree, and its statements hold."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import ROOT

README = (ROOT / "README.md").read_text()


SHORT = {  # commands that the text names: what makes each short
    "make sweep": "ARGS='trainer.max_epochs=1 folder=outputs/a'",
    "make cv": "ARGS='trainer.max_epochs=1 folder=outputs/b'",
    "make lr": "ARGS='sweep.rates.number=3 folder=outputs/c'",
    "python -m classify.train debug=lr_range data=wine": "sweep.rates.number=3 folder=outputs/d",
    'make train ARGS="data=wine"': "",
    "python -m classify.train": "data=iris trainer.max_epochs=1 folder=outputs/e",
    "python -m classify.train rerun=RUN": "",
    "python -m classify.train resume=RUN": "trainer.max_epochs=101",
    "python -m classify.train init_from=RUN": "data=csv data.path=churn.csv data.target=churned data.id=customer",
    "python -m classify.train --help": "",
    "python -m classify.evaluate RUN [TABLE]": "",
    "python -m classify.predict RUN TABLE [-o OUT]": "",
    "python -m classify.export RUN": "--format torch",
    "python scripts/baseline.py": "",
    "python scripts/benchmark.py steps": "--rows 64 --repeats 1 --nets SEED --without 'ours, compiled'",
    "python scripts/benchmark.py sweep": "--rows 64 --repeats 1 --nets SEED --epochs 1 --without joblib",
    "python scripts/benchmark.py tables": "--rows 1000 --repeats 1",
    "python scripts/benchmark.py scaling": "--rows 1000 --repeats 1",
    "python scripts/benchmark.py start": "--repeats 1 --without 'import lightning' 'sixteen of them' 'a default run'",
    'python -m classify.train -m hydra/sweeper=optuna optimizer.lr="tag(log,interval(0.001,1))" sweep.trials=32': (
        "sweep.trials=3 trainer.max_epochs=1 folder=outputs/f"
    ),
}
ELSEWHERE = {  # where the others run
    **dict.fromkeys(("make test", "make lint", "make install", "make"), "the project's own check; below"),
    **{"make train": "in a block above", "make rename NAME=churn": "test_rename.py", "make bench": "steps, here"},
    "make kill-test": "test_resume.py, with fewer runs",
}


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The tree, without the .venv that make would build, and without make building it."""
    copy = tmp_path / "copy"
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".venv", "outputs", ".*_cache", "__pycache__"))
    (copy / ".venv" / "bin").mkdir(parents=True)
    (copy / ".venv" / "bin" / "activate").write_text(f"PATH={copy / '.venv' / 'bin'}:$PATH\n")
    (copy / ".venv" / "installed").touch()
    return copy


def test_every_command_runs(copy: Path, forking: Path) -> None:
    (copy / ".venv" / "bin" / "python").symlink_to(forking)
    blocks = re.findall(r"```(bash|python)\n(.*?)```", README, flags=re.S)
    script = ""
    for language, block in blocks:
        script += block if language == "bash" else f"python - <<'END'\n{block}END\n"
    environment = os.environ | {"MAKEFLAGS": "--no-print-directory"}
    done = subprocess.run(["bash", "-ec", script], cwd=copy, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert script.count("python -m") == len(re.findall("^python -m", README, flags=re.M)) > 5
    assert (copy / "predictions.csv").read_text().count("\n") == 501
    assert (copy / "outputs" / "churn" / "model.onnx").exists()
    assert "equal to outputs/churn/metrics.json to 1e-6" in done.stdout
    printed = done.stdout.splitlines()
    shown = README.split("prints\n\n```\n")[1].split("\n```")[0].splitlines()
    assert [re.sub(r"\d", "0", line) for line in printed[: len(shown)]] == [re.sub(r"\d", "0", line) for line in shown]
    mlp, line = [float(row.split()[5]) for row in printed if " finished " in row][-2:]  # experiment=nonlinearity
    assert mlp > line + 0.05
    for command, short in SHORT.items():
        given = command.replace("[TABLE]", "churn.csv").replace("TABLE [-o OUT]", "new.csv")
        script = f". .venv/bin/activate; {given.replace('RUN', 'outputs/churn')} {short}"
        done = subprocess.run(["bash", "-ec", script], cwd=copy, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, (command, done.stderr)


def test_no_command_is_left_out() -> None:
    named = set(re.findall(r"`((?:make|python) [^`]+|make)`", README)) | set(
        re.findall(r"^    (python .*)", README, re.M)
    )
    assert named == SHORT.keys() | ELSEWHERE.keys()


def test_every_make_target_is_listed(copy: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(), flags=re.M))
    listed = subprocess.run(["make"], cwd=copy, capture_output=True, text=True, check=True).stdout
    assert set(re.findall(r"^make (\S+)", listed, flags=re.M)) == targets
    for target in targets | set(re.findall(r"`make ([\w-]+)", README)):
        subprocess.run(["make", "-n", target, "NAME=churn"], cwd=copy, capture_output=True, check=True)


def test_its_links_files_and_size_are_true() -> None:
    for link in re.findall(r"\]\(([^)]+)\)", README):
        assert (ROOT / link).exists(), link
    sources = [path for path in (ROOT / "src").rglob("*.py") if path.name != "__init__.py"]
    lines = {path.name: len(path.read_text().splitlines()) for path in sources}
    for name in lines:
        assert re.search(rf"[`/]{name}`", README), name
    stated = re.search(r"([\d,]+) lines of core and ([\d,]+) beyond", README).groups()  # type: ignore[union-attr]
    core = README[README.index("| the core") : README.index("| beyond it")]
    counted = [0, 0]
    for name, number in lines.items():
        counted[f"`{name}`" not in core] += number
    assert counted == pytest.approx([int(number.replace(",", "")) for number in stated], rel=0.05)
    assert max(lines.values()) <= 200


def test_it_names_every_choice() -> None:
    for group in ("data", "model", "optimizer", "scheduler", "trainer", "logger", "debug"):
        named = re.search(rf"`{group}=([\w|\n]+)`", README)[1].replace("\n", "").split("|")  # type: ignore[index]
        assert sorted(named) == sorted(path.stem for path in (ROOT / "conf" / group).glob("*.yaml")), group
