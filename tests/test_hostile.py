"""Files that somebody else wrote: nothing in them is ever run, and broken ones are named in one line."""

import contextlib
import json
import os
import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from conftest import ROOT, configure

from classify import errors, evaluate, export, load, predict
from classify.again import continued
from classify.run import Run
from classify.train import train
from classify.trust import check_targets, shipped


@pytest.fixture
def forged(finished: Path, tmp_path: Path) -> Callable[..., Path]:
    """A copy of the finished run whose best.ckpt says something else."""

    def forge(change: Callable[[dict[str, Any]], Any]) -> Path:
        copy = tmp_path / "forged"
        shutil.copytree(finished, copy, dirs_exist_ok=True)
        content = torch.load(finished / "checkpoints" / "best.ckpt", weights_only=True)
        change(content)
        torch.save(content, copy / "checkpoints" / "best.ckpt")
        return copy

    return forge


class Bomb:
    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.file),)


def test_a_pickle_bomb_does_not_go_off(forged: Callable[..., Path], tmp_path: Path) -> None:
    run = forged(lambda content: content.update(bomb=Bomb(tmp_path / "pwned")))
    torch.save(Bomb(tmp_path / "pwned"), tmp_path / "old.ckpt", _use_new_zipfile_serialization=False)
    for path in (run, tmp_path / "old.ckpt"):
        with pytest.raises(ValueError, match="not a whole checkpoint"):
            load(path)
    assert not (tmp_path / "pwned").exists()
    source = "".join(file.read_text() for file in (ROOT / "src").rglob("*.py"))
    assert re.findall(r"[^.]torch\.load\(.*", source) == re.findall(r"[^.]torch\.load\(.*weights_only=True\)", source)


def attacks(file: Path) -> dict[str, Callable[[dict[str, Any]], Any]]:
    """Configs that make a folder, if they are instantiated as they are."""
    call = {"_target_": "os.mkdir", "path": str(file)}
    text = f"${{oc.create:'{{_target_: os.mkdir, path: {file}}}'}}"
    return {
        "a value": lambda content: content["config"]["data"].update(seed=call),
        "in a list": lambda content: content["config"]["data"]["columns"].update(numbers=["x", [call]]),
        "positional": lambda content: content["config"]["data"]["split"].update(_args_=[{**call, "_convert_": "all"}]),
        "interpolated": lambda content: content["config"]["data"].update(id=text),
        "a metric": lambda content: content["config"]["metrics"]["f1"].update(average=call),
        "a partial": lambda content: content["config"]["metrics"]["f1"].update(average={**call, "_partial_": True}),
    }


@pytest.mark.parametrize("name", attacks(Path()))
def test_nothing_that_a_checkpoint_names_is_called(
    name: str, forged: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pwned = tmp_path / "pwned"
    run = forged(attacks(pwned)[name])
    work = [lambda run: evaluate.evaluate(run, None, None, False)]
    if "metric" not in name and "partial" not in name:  # these are not built
        work.append(lambda run: export.export(run, "torch"))
    for verb in work:
        with pytest.raises(ValueError, match=r"os.mkdir.*say --trust"):
            verb(Run.open(run))
    assert len(load(run).classes_) == 2  # needs neither
    assert not pwned.exists()
    if name != "a partial":
        with contextlib.suppress(Exception):  # whatever a folder does not fit
            work[0](Run.open(run, trust=True))
        assert pwned.exists()  # the attack is a real one


def test_nor_by_a_run_that_goes_on_or_is_repeated(forged: Callable[..., Path], tmp_path: Path) -> None:
    call = {"_target_": "os.mkdir", "path": str(tmp_path / "pwned")}
    run = forged(lambda content: content["config"]["callbacks"].update(early_stopping=call))
    shutil.copy(run / "checkpoints" / "best.ckpt", run / "checkpoints" / "last.ckpt")
    for _ in ("as the checkpoint says", "as .hydra says, where there is none"):
        with pytest.raises(ValueError, match=r"would call 'os.mkdir'.*trust=true"):
            continued(configure(run), [], False)
        assert continued(configure(run), [], True)["callbacks"]["early_stopping"] == call
        (run / "checkpoints" / "last.ckpt").unlink(missing_ok=True)
        (run / ".hydra" / "config.yaml").write_text(json.dumps(Run.open(run).config))
    with pytest.raises(ValueError, match="would call"):
        Run.open(run).trusted(*Run.open(run).config)  # as rerun= asks


def test_what_may_be_called() -> None:
    fine = {*shipped(), "torchmetrics.classification.MulticlassPrecision", "torch.optim.RMSprop"}
    fine |= {"torch.optim.lr_scheduler.StepLR", "lightning.pytorch.callbacks.Timer", "classify.tables.read_parquet"}
    assert {"classify.data.TabularData", "lightning.Trainer"} <= shipped()
    for target in fine:
        check_targets([{"a": {"_target_": target}}], "run")
    wrong = {"os.system", "builtins.eval", "classify.tables.Path", "classify.folder.release", "classify.check.Guard"}
    wrong |= {"torch.load", "torch.optim.lr_scheduler.partial", "torch.optim.lr_scheduler.warnings.warn", "lightning.x"}
    wrong |= {"lightning.seed_everything", "classify.nets.torch.load", "torch.optim", "", "hydra.utils.instantiate"}
    for value in (*wrong, 1, None, ["os.system"]):
        with pytest.raises(ValueError, match="would call"):
            check_targets({"a": ({"_target_": value},)}, "run")


def test_cut_and_empty_files(finished: Path, tmp_path: Path) -> None:
    whole = (finished / "checkpoints" / "best.ckpt").read_bytes()
    file = tmp_path / "cut.ckpt"
    for tenth in range(10):
        file.write_bytes(whole[: len(whole) * tenth // 10])
        with pytest.raises(ValueError, match=r"cut.ckpt is not a whole checkpoint"):
            load(file)
    zipfile.ZipFile(file, "w").close()
    with pytest.raises(ValueError, match=r"cut.ckpt is not a whole checkpoint"):
        load(file)


STRANGE: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "no schema": (lambda content: content.pop("schema"), "not a checkpoint of this project"),
    "a list for a schema": (lambda content: content.update(schema=[]), "not a checkpoint of this project"),
    "an unknown field": (lambda content: content["schema"].update(numbers=[{"x": 1}]), "not a checkpoint of this"),
    "a kind": (lambda content: content["schema"]["numbers"][0].update(kind="read_csv"), "'read_csv' is no type of"),
    "a date's part": (
        lambda content: content["schema"].update(
            categories=[
                {
                    "name": "x",
                    "values": [],
                    "has_missing": False,
                    "embedded": False,
                    "kind": "Date",
                    "part": "__class__",
                }
            ]
        ),
        "not month, weekday or hour",
    ),
    "a model": (lambda content: content["config"]["model"].update(_target_="os.system"), "no function in"),
    "sizes": (lambda content: content["config"]["model"].update(hidden=[3]), "weights do not fit its config"),
}


@pytest.mark.parametrize("name", STRANGE)
def test_checkpoints_of_other_content(name: str, forged: Callable[..., Path]) -> None:
    change, text = STRANGE[name]
    with pytest.raises(ValueError, match=text):
        load(forged(change)).schema.kinds  # noqa: B018


def test_a_class_with_a_name_of_a_megabyte(forged: Callable[..., Path], finished: Path) -> None:
    long = "x" * 2**20
    rows = Run.open(finished).data().rows
    assert set(load(forged(lambda content: content["schema"].update(classes=["benign", long]))).predict(rows)) == {
        *("benign", long)
    }
    row = dict.fromkeys(("precision", "recall", "f1", "support"), 1.0)
    result = {"rows": 2, "table": "x.csv", "classes": ["benign", long], "per_class": {"benign": row, long: row}}
    result |= {"confusion": [[1, 0], [0, 1]], "measures": {"this run": {"accuracy": 1.0}}}
    assert len(evaluate.show(result)) < 10_000
    assert len(errors.in_one_line(f"no class {long}: say another")) < 2000


def test_odd_file_names_and_cells_are_kept_as_they_are(tmp_path: Path) -> None:
    """Ids come back to the letter: a spreadsheet may take =1+1 for a formula, so open predictions as text there."""
    ids = ["=1+1", "@cmd", "+1", "-1", "a,b", 'say "so"', "two\nlines", " spaces ", "NA", "007", "1e5", "é", "'"]
    frame = pl.DataFrame({"id": ids * 5, "x": range(65), "y": ["a", "b", "a", "b", "a"] * 13})
    folder = tmp_path / "odd\nfolder" / "-x"
    folder.mkdir(parents=True)
    (file := folder / "=1+1 'quoted'.csv").write_text(frame.write_csv())
    words = ["data=csv", "data.id=id", "data.target=y", "trainer.max_epochs=1"]
    config = configure(tmp_path / "run", *words, "data.path=table")
    config["data"]["path"] = str(file)
    train(config)
    run = Run.open(tmp_path / "run")
    with predict.whole_file(str(folder / ".." / "-out\n.csv")) as part:
        pl.concat(predict.predict(run, str(file))).write_csv(part)
    found = pl.read_csv(folder.parent / "-out\n.csv", infer_schema=False)
    assert found["id"].to_list() == frame["id"].to_list()
    assert sorted(path.name for path in folder.parent.iterdir()) == ["-out\n.csv", "-x"]
