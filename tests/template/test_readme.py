"""README and docs/ are true: their commands run, in order, in a copy of the tree, and their statements hold."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

import tabrun
from classify import build

README = (ROOT / "README.md").read_text()
DOCS = {path.name: path.read_text() for path in sorted((ROOT / "docs").glob("*.md"))}
PAGES = "\n".join([README, *DOCS.values()])
CHANGELOG = "src/tabrun/CHANGELOG.md"
OWN_TREE = "fork.md"  # its blocks change the tree, so they run in one of their own
PACKAGE = Path(str(build.__file__)).parent

SHORT = {  # commands that the text names: what makes each short
    "make sweep": "ARGS='trainer.max_epochs=1 folder=outputs/a'",
    "make strong": "ARGS='data=iris trainer.max_epochs=1 folder=outputs/g'",
    "make cv": "ARGS='trainer.max_epochs=1 folder=outputs/b'",
    "make lr": "ARGS='sweep.rates.number=3 folder=outputs/c'",
    "python -m classify.train debug=lr_range data=wine": "sweep.rates.number=3 folder=outputs/d",
    'make train ARGS="data=wine"': "",
    "python -m classify.train": "data=iris trainer.max_epochs=1 folder=outputs/e",
    "python -m classify.train rerun=RUN": "",
    "python -m classify.train resume=RUN": "trainer.max_epochs=101",
    "python -m classify.train init_from=RUN": "data=csv data.path=churn.csv data.target=churned data.id=customer",
    "python -m classify.train --help": "",
    "python -m classify.evaluate RUN [TABLE]": "--threshold 0.3 --calibrate",
    "python -m classify.predict RUN TABLE [-o OUT]": "",
    "python -m classify.export RUN": "--format torch",
    "python -m classify.runs [FOLDER] [WORDS]": "",
    "python -m classify.ensemble SWEEP": "",
    "python scripts/baseline.py": "",
    "python scripts/benchmark.py steps": "--rows 64 --repeats 1 --nets SEED --without 'ours, compiled'",
    "python scripts/benchmark.py sweep": "--rows 64 --repeats 1 --nets SEED --epochs 1 --without joblib",
    "python scripts/benchmark.py tables": "--rows 1000 --repeats 1",
    "python scripts/benchmark.py scaling": "--rows 1000 --repeats 1",
    "python scripts/benchmark.py accuracy FOLDER": "--splits 1 --only default --reference 'logistic regression'",
    "python scripts/benchmark.py start": "--repeats 1 --without 'import lightning' 'sixteen of them' 'a default run'",
    'python -m classify.train -m hydra/sweeper=optuna optimizer.lr="tag(log,interval(0.001,1))" sweep.trials=32': (
        "sweep.trials=3 trainer.max_epochs=1 folder=outputs/f"
    ),
}
ELSEWHERE = {  # where the others run
    **dict.fromkeys(
        ("make test", 'make test ARGS="-m slow"', "make lint", "make install", "make"), "the project's own check; below"
    ),
    **dict.fromkeys(("make train", "python -m classify.evaluate RUN"), "in a block"),
    **{"make rename NAME=churn": "test_rename.py", "make bench": "steps, here", "make accuracy": "accuracy, here"},
    "make kill-test": "test_resume.py, with fewer runs",
}


def script_of(page: str) -> str:
    """The bash and python blocks of a page, in order, as one script; blocks of other languages are not run."""
    blocks = re.findall(r"```(bash|python)\n(.*?)```", page, flags=re.S)
    return "".join(block if kind == "bash" else f"python - <<'END'\n{block}END\n" for kind, block in blocks)


def files_of(page: str) -> list[tuple[str, str]]:
    """The blocks of a page that are files, as (path, text): their first line is the path in a comment."""
    return re.findall(r"```(?:py|yaml)\n# (\S+)\n(.*?)```", page, flags=re.S)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The tree, without the .venv that make would build, and without make building it."""
    copy = tmp_path / "copy"
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".venv", "outputs", ".*_cache", "__pycache__"))
    (copy / ".venv" / "bin").mkdir(parents=True)
    (copy / ".venv" / "bin" / "activate").write_text(f"PATH={copy / '.venv' / 'bin'}:$PATH\n")
    (copy / ".venv" / "installed").touch()
    return copy


@pytest.mark.slow
def test_every_command_runs(copy: Path, forking: Path) -> None:
    (copy / ".venv" / "bin" / "python").symlink_to(forking)
    script = "".join(script_of(page) for page in (README, *(DOCS[name] for name in DOCS if name != OWN_TREE)))
    own = {key: value for key, value in os.environ.items() if key != "ARGS"}  # of a make that runs this test
    environment = own | {"MAKEFLAGS": "--no-print-directory"}
    done = subprocess.run(["bash", "-ec", script], cwd=copy, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = len(re.findall("^python -m", PAGES.replace(DOCS[OWN_TREE], ""), flags=re.M))
    assert script.count("python -m") == lines > 5
    assert (copy / "predictions.csv").read_text().count("\n") == 501
    run = copy / "outputs" / "churn"
    assert (run / "model.onnx").exists()
    assert "equal to outputs/churn/metrics.json to 1e-6" in done.stdout
    written = re.search(r"\noutputs/DATE.*?\n(.*?)```", README, flags=re.S)[1]  # type: ignore[index]
    for line in written.splitlines():
        assert (run / line.split()[0]).exists(), line
    printed = done.stdout.splitlines()
    shown = README.split("prints\n\n```\n")[1].split("\n```")[0].splitlines()
    assert [re.sub(r"\d+", "0", line) for line in printed[: len(shown)]] == [
        re.sub(r"\d+", "0", line) for line in shown
    ]
    mlp, line = [float(row.split()[5]) for row in printed if " finished " in row][-2:]  # experiment=nonlinearity
    assert mlp > line + 0.05
    (copy / "tables").mkdir()
    table = (copy / "churn.csv").read_text().replace("churned", "target")
    (copy / "tables" / "churn.csv").write_text(table)
    for command, short in SHORT.items():
        given = command.replace("[FOLDER] [WORDS]", "outputs").replace("[TABLE]", "churn.csv")
        given = given.replace("TABLE [-o OUT]", "new.csv").replace("SWEEP", "outputs/sweep").replace("FOLDER", "tables")
        script = f". .venv/bin/activate; {given.replace('RUN', 'outputs/churn')} {short}"
        done = subprocess.run(["bash", "-ec", script], cwd=copy, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, (command, done.stderr)


@pytest.mark.slow
def test_what_a_fork_adds_runs(copy: Path) -> None:
    page = DOCS[OWN_TREE]
    for name, text in files_of(page):
        path = copy / name
        assert path.exists() == text.startswith("\n"), name  # a file that is there is added to
        path.write_text((path.read_text() if path.exists() else "") + text)
    assert len(files_of(page)) > 5
    for change in re.findall(r"```diff\n(.*?)```", page, flags=re.S):
        subprocess.run(["git", "apply", "-"], cwd=copy, input=change, text=True, check=True, capture_output=True)
    program = copy / ".venv" / "bin" / "python"  # imports done before would be of the tree that was copied
    program.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    program.chmod(0o755)
    path = f"{copy / '.venv' / 'bin'}:{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "PYTHONPATH": str(copy / "src")}
    script = script_of(page)
    done = subprocess.run(["bash", "-ec", script], cwd=copy, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "\nepoch 2\n" in done.stdout
    assert "equal to outputs/mine/metrics.json to 1e-6" in done.stdout
    assert set(re.findall(r"`(2 jobs: .*?)`", page.replace("\n", " "))) == set(
        re.findall("^2 jobs: .*", done.stdout, re.M)
    )


def test_no_command_is_left_out() -> None:
    named = set(re.findall(r"`((?:make|python) [^`]+|make)`", PAGES))
    assert named | set(re.findall(r"^    (python .*)", PAGES, re.M)) == SHORT.keys() | ELSEWHERE.keys()


def test_every_make_target_is_listed(copy: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(), flags=re.M))
    listed = subprocess.run(["make"], cwd=copy, capture_output=True, text=True, check=True).stdout
    assert set(re.findall(r"^make (\S+)", listed, flags=re.M)) == targets
    for target in targets | set(re.findall(r"`make ([\w-]+)", PAGES)):
        subprocess.run(["make", "-n", target, "NAME=churn"], cwd=copy, capture_output=True, check=True)


def test_links_and_files_are_there() -> None:
    pages = {"README.md": README, CHANGELOG: (ROOT / CHANGELOG).read_text()}
    pages |= {f"docs/{name}": text for name, text in DOCS.items()}
    linked = set()
    for page, text in pages.items():
        for link in re.findall(r"\]\(([^)]+)\)", text):
            target = (ROOT / page).parent / link
            assert target.exists(), (page, link)
            linked.add(target.resolve())
    assert linked >= {ROOT / "docs" / name for name in DOCS}
    added = {Path(name).name for name, _ in files_of(DOCS[OWN_TREE])}
    there = {path.name for folder in ("src", "tests", "scripts") for path in (ROOT / folder).rglob("*.py")}
    assert set(re.findall(r"`(?:\w+/)*(\w+\.py)`", PAGES)) <= there | added


def test_the_house_names_every_file_of_the_template_and_every_folder_of_the_library() -> None:
    house = DOCS["house.md"]
    for path in PACKAGE.glob("*.py"):
        assert f"`{path.name}`" in house, path.name
    library = Path(str(tabrun.__file__)).parent
    for path in library.glob("*/__init__.py"):
        assert f"| `{path.parent.name}/` |" in house, path.parent
    protocol = (library / "runs" / "build.py").read_text().split("class Build")[1].split("\n\n\n")[0]
    for name in re.findall(r"^    (?:def )?([a-zA-Z]\w*)[:(]", protocol, re.M):
        assert f"`{name}`" in house, name
    assert tabrun.__version__ in (ROOT / CHANGELOG).read_text()


def test_the_readme_is_short_and_names_every_choice() -> None:
    assert len(README.splitlines()) <= 200
    groups = sorted(path.name for path in (ROOT / "conf").iterdir() if path.is_dir())
    assert len(groups) > 5
    for group in groups:
        named = max(re.findall(rf"`{group}=([\w|\n]+)`", README), key=len).replace("\n", "").split("|")
        assert sorted(named) == sorted(path.stem for path in (ROOT / "conf" / group).glob("*.yaml")), group
