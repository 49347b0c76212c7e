"""Files that somebody else wrote: nothing in them is ever run, and broken ones are named in one line."""

import contextlib
import json
import logging
import os
import re
import shutil
import zipfile
from collections.abc import Callable
from functools import reduce
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from conftest import ROOT, configure
from handed import check_targets, compared, continued, open_run, shipped, train

from classify import build, load
from tabrun.cli import errors
from tabrun.cli.errors import UserError
from tabrun.cli.roles import CALLBACK, DATA, MODULE
from tabrun.runs.folder import read_metrics
from tabrun.runs.trust import recorded
from tabrun.verbs import evaluate, export, predict

TEMPLATE = build.__name__.partition(".")[0]
STRANGERS = (  # none is a class of nn.Module in the package or torch.nn, or a function that says it gives one
    *("os.system", "builtins.eval", "torch.nn", "torch.nn.modules.module.register_module_forward_hook"),
    *("torch.nn.utils.clip_grad_norm_", "torch.nn.utils.parametrize.ParametrizationList", "torch.nn.functional.relu"),
    *(
        "torch.nn.Module.to",
        "torch.nn.modules.Linear",
        "torch.nn.Module.__init__",
        "torch.nn..Linear",
        "torch.jit.load",
    ),
    *(
        f"{TEMPLATE}.{name}"
        for name in ("build.trainer", "build.net", "build.OrderedDict", "load", "nets.nn.Linear", "nets.F")
    ),
    *(f"{TEMPLATE}.{name}" for name in ("nets.torch.os.system", "nets.torch.load", "nets.Encode.of", "heads.HEADS")),
    *(f"{TEMPLATE}.{name}" for name in ("nope", "nets.nope", "nope.nope", "classifier.Schedule", "nets.Sequence")),
    *(
        "hydra.utils.get_class",
        "lightning.Trainer",
        "this.imports",
        f"{TEMPLATE}x.nets.mlp",
        f".{TEMPLATE}.nets.mlp",
        "",
    ),
)


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
            verb(open_run(run))
    assert len(load(run).classes_) == 2  # needs neither
    assert not pwned.exists()
    if name != "a partial":
        with contextlib.suppress(Exception):  # whatever a folder does not fit
            work[0](open_run(run, trust=True))
        assert pwned.exists()  # the attack is a real one


def test_nor_by_a_run_that_goes_on_or_is_repeated(forged: Callable[..., Path], tmp_path: Path) -> None:
    call = {"_target_": "os.mkdir", "path": str(tmp_path / "pwned")}
    run = forged(lambda content: content["config"]["callbacks"].update(early_stopping=call))
    shutil.copy(run / "checkpoints" / "best.ckpt", run / "checkpoints" / "last.ckpt")
    for _ in ("as the checkpoint says", "as .hydra says, where there is none"):
        with pytest.raises(ValueError, match=r"would call 'os.mkdir'.*trust=true"):
            continued(configure(run), [], False)
        assert continued(configure(run), [], True)[0]["callbacks"]["early_stopping"] == call
        for name in ("last", "previous"):
            (run / "checkpoints" / f"{name}.ckpt").unlink(missing_ok=True)
        (run / ".hydra" / "config.json").write_text(json.dumps(open_run(run).config))
    with pytest.raises(ValueError, match="would call"):
        open_run(run).trusted()  # as rerun= asks


def test_what_may_be_called() -> None:
    fine = {*shipped(), "torchmetrics.classification.MulticlassPrecision", "torch.optim.RMSprop"}
    fine |= {
        "torch.optim.lr_scheduler.StepLR",
        "lightning.pytorch.callbacks.Timer",
        "tabrun.read_parquet",
    }
    fine |= {"torch.nn.Tanh", f"{TEMPLATE}.heads.Softmax", f"{TEMPLATE}.nets.mlp"}
    assert {"tabrun.TabularData", "lightning.Trainer"} <= shipped()
    for target in fine:
        check_targets([{"a": {"_target_": target}}], "run")
    wrong = {
        "os.system",
        "builtins.eval",
        "tabrun.reading.sources.Path",
        "tabrun.runs.folder.clear",
        "tabrun.cli.check.Guard",
    }
    wrong |= {*STRANGERS} - shipped()
    wrong |= {"torch.nn.Parameter", "torch.nn.init.ones_", "lightning.pytorch.callbacks.math.exp"}
    wrong |= {"torch.load", "torch.optim.lr_scheduler.partial", "torch.optim.lr_scheduler.warnings.warn", "lightning.x"}
    wrong |= {"lightning.seed_everything", "classify.nets.torch.load", "torch.optim", "", "hydra.utils.instantiate"}
    for value in (*wrong, 1, None, ["os.system"]):
        with pytest.raises(ValueError, match="would call"):
            check_targets({"a": ({"_target_": value},)}, "run")


@pytest.mark.slow
@pytest.mark.parametrize("key", ["model", "loss", "data", "callbacks.early_stopping"])
def test_a_role_is_played_by_its_own(key: str, forged: Callable[..., Path], tmp_path: Path) -> None:
    """In the place of each, whatever else there is, and what plays another role."""
    others = {"model": MODULE, "data": DATA, "callbacks.early_stopping": CALLBACK}
    of_other_roles = {
        MODULE: "torch.nn.Tanh",
        DATA: "tabrun.TabularData",
        CALLBACK: "lightning.pytorch.callbacks.Timer",
    }
    role = others.get(key, MODULE)
    for target in (
        *STRANGERS,
        *(name for other, name in of_other_roles.items() if other != role),
        1,
        None,
        ["os.system"],
    ):
        run = forged(at(f"config/{key.replace('.', '/')}/_target_", target))
        if key == "model":
            with pytest.raises(UserError, match=r"model._target_=.* is no nn.Module"):
                load(run)
        if key in ("model", "loss"):
            with pytest.raises(UserError, match=f"{key}._target_=.* is no nn.Module"):
                getattr(build, "net" if key == "model" else key)(open_run(run).config, open_run(run).schema)
        shutil.copy(run / "checkpoints" / "best.ckpt", run / "checkpoints" / "last.ckpt")
        with pytest.raises(UserError, match=r"would call|is no |_target_|schema cannot"):
            continued(configure(run), [], False)


def test_nothing_is_imported_to_find_out(forged: Callable[..., Path], tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "strange.py").write_text("import pathlib\npathlib.Path(__file__).with_name('pwned').touch()\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    for target in ("strange.Net", "strange", "torch.nn.strange.Net"):
        run = forged(at("config/model/_target_", target))
        with pytest.raises(UserError, match=r"is no nn\.Module"):
            load(run)
        with pytest.raises(UserError, match="would call"):
            open_run(run).trusted()
    assert not (tmp_path / "pwned").exists()


def test_what_plays_a_role_stands_in_its_place(forged: Callable[..., Path]) -> None:
    for key, target in (("metrics/f1", "torch.nn.Tanh"), ("optimizer", "lightning.pytorch.callbacks.Timer")):
        run = forged(at(f"config/{key}/_target_", target))
        with pytest.raises(UserError, match=f"would call '{target}' as {key.replace('/', '.')}"):
            open_run(run).trusted()


@pytest.mark.parametrize("name", ["Linear", "Bilinear"])
def test_a_layer_of_a_million_million_weights_is_not_made(name: str, forged: Callable[..., Path]) -> None:
    model = {"_target_": f"torch.nn.{name}"}
    wide = {"in1_features": 10**6, "in2_features": 10**6} if name == "Bilinear" else {"dtype": 10**12}
    with pytest.raises(UserError, match="model: "):
        load(forged(at("config/model", model | wide)))
    run = forged(at("config/loss", {"_target_": "torch.nn.Embedding", "num_embeddings": 10**12, "embedding_dim": 1}))
    with pytest.raises(UserError, match="loss: 1,000,000,000,000 weights are too many"):
        build.loss(open_run(run).config, open_run(run).schema, most=10**9)


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
    "a model": (lambda content: content["config"]["model"].update(_target_="os.system"), "is no nn.Module"),
    "sizes": (lambda content: content["config"]["model"].update(hidden=[3]), "weights do not fit its config"),
}


@pytest.mark.parametrize("name", STRANGE)
def test_checkpoints_of_other_content(name: str, forged: Callable[..., Path]) -> None:
    change, text = STRANGE[name]
    with pytest.raises(ValueError, match=text):
        load(forged(change)).schema.kinds  # noqa: B018


def test_nothing_in_a_checkpoint_is_interpolated_where_it_is_not_used(forged: Callable[..., Path]) -> None:
    run = forged(lambda content: content["config"]["loss"].update(label_smoothing="${oc.env:HOME}"))
    with pytest.raises(ValueError, match=r"holds .* to be interpolated"):
        open_run(run).trusted()


def test_a_checkpoint_of_another_format_is_told(forged: Callable[..., Path]) -> None:
    for change, found in ((lambda content: content.update(format=2), 2), (lambda content: content.pop("format"), 1)):
        with pytest.raises(ValueError, match=f"has format {found}, and this version reads 4"):
            load(forged(change))


def test_a_class_with_a_name_of_a_megabyte(forged: Callable[..., Path], finished: Path) -> None:
    long = "x" * 2**20
    rows = open_run(finished).data().rows
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
    run = open_run(tmp_path / "run")
    with predict.whole_file(str(folder / ".." / "-out\n.csv")) as part:
        pl.concat(predict.predict(run, str(file))).write_csv(part)
    found = pl.read_csv(folder.parent / "-out\n.csv", infer_schema=False)
    assert found["id"].to_list() == frame["id"].to_list()
    assert sorted(path.name for path in folder.parent.iterdir()) == ["-out\n.csv", "-x"]


JSON_CONFIGS: dict[str, tuple[str, str]] = {  # instead of "id": null in .hydra/config.json, another; what is said
    "a resolver": ('"id": "${oc.env:HOME}"', "to be interpolated"),
    "makes a config": ('"id": "${oc.create:\'{_target_: os.mkdir}\'}"', "to be interpolated"),
    "refers to another key": ('"id": "${data.seed}"', "to be interpolated"),
    "calls": ('"id": {"_target_": "os.mkdir", "path": "pwned"}', "would call 'os.mkdir'"),
    "a metric's class": ('"id": null', "would call 'os.mkdir'"),
    "deep": ('"id": ' + "[" * 20_000 + "]" * 20_000, "is not whole JSON"),
    "less deep": ('"id": ' + "[" * 900 + "]" * 900, "without an end"),
    "long": ('"id": "' + "x" * 2**24 + '"', "is not whole JSON"),
    "writes elsewhere": ('"id": null', "logger.csv.folder=../../log, not into its folder"),
    "another type": ('"id": null, "batch_size": "none"', "data.batch_size=none is not a whole number"),
    "a number without an end": ('"id": null, "batch_size": 1' + "0" * 5000, "is not whole JSON"),
    "lacks a key": ('"idd": null', "data.id cannot be left out"),
    "a list": ("", "is not whole JSON"),
}


@pytest.mark.parametrize("name", JSON_CONFIGS)
def test_no_config_of_somebody_elses_runs_anything(
    name: str, finished: Path, inside: Callable[..., Any], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run, ignore=shutil.ignore_patterns("checkpoints", "metrics.json", ".lock"))
    new, said = JSON_CONFIGS[name]
    config = json.loads((run / ".hydra" / "config.json").read_text())
    del config["data"]["batch_size"]
    text = json.dumps(config)
    assert text.count('"id": null') == 1
    text = text.replace('"id": null', new if "batch_size" in new else f'{new}, "batch_size": 32') if new else "[1]"
    if "metric" in name:
        text = text.replace("torchmetrics.classification.MulticlassAccuracy", "os.mkdir")
    if "elsewhere" in name:
        text = text.replace(f'"{config["folder"]}/log"', '"../../log"')
    (run / ".hydra" / "config.json").write_text(text)
    assert re.search(said, str(inside("resume=run")))
    assert not (tmp_path / "pwned").exists()
    assert not (tmp_path / "log").exists()


def test_every_damage_of_a_checkpoint_is_noticed(finished: Path, tmp_path: Path) -> None:
    """A bit or a byte that is another, a cut, something added: one line, or the very same predictions."""
    whole, rows = (finished / "checkpoints" / "best.ckpt").read_bytes(), torch.randn(9, 30)
    expected, file, noticed = load(finished).predict_proba(rows), tmp_path / "x.ckpt", []
    starts = [
        place
        for mark in (b"PK\3\4", b"PK\1\2", b"PK\5\6")
        for place in range(len(whole))
        if whole.startswith(mark, place)
    ]
    places = {*range(0, len(whole), 97), *(start + i for start in starts[::4] for i in range(0, 46, 3))}
    changes = [(i, whole[:i] + bytes([whole[i] ^ (1 << i % 8)]) + whole[i + 1 :]) for i in places if i < len(whole)]
    folders = [start + 38 for start in starts if whole.startswith(b"PK\1\2", start)]  # marked so, torch reads nothing
    changes += [(i, whole[:i] + b"\x10" + whole[i + 1 :]) for i in folders]
    changes += [(-1, whole[:-i]) for i in (1, 30, 5000)] + [(-2, whole + b"x"), (-3, b"x" + whole)]
    for place, damaged in changes:
        file.write_bytes(damaged)
        try:
            assert (load(file).predict_proba(rows) == expected).all(), place
        except ValueError as error:
            noticed.append(str(error))
    assert len(noticed) > len(changes) / 2
    assert all("is not a whole checkpoint" in said for said in noticed)


def test_what_unpacks_to_more_than_it_is(finished: Path, tmp_path: Path) -> None:
    packed = zipfile.ZipFile(tmp_path / "packed.ckpt", "w", zipfile.ZIP_DEFLATED)
    with zipfile.ZipFile(finished / "checkpoints" / "best.ckpt") as old, packed as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    with pytest.raises(ValueError, match="not a whole checkpoint"):
        load(tmp_path / "packed.ckpt")


def at(key: str, value: Any) -> Callable[[dict[str, Any]], Any]:
    """Sets a value of a checkpoint, by its key."""
    *path, last = [int(part) if part.isdigit() else part for part in key.split("/")]
    return lambda content: reduce(lambda node, part: node[part], path, content).update({last: value})


def weight(change: Callable[[Any], Any]) -> Callable[[dict[str, Any]], Any]:
    name = "net.body.0.weight"
    return lambda content: content["state_dict"].update({name: change(content["state_dict"][name])})


NESTED: Any = reduce(lambda inner, _: [inner] * 10, range(30), "x")
CATEGORY = {"name": "x", "values": (1, 2), "has_missing": False, "embedded": False, "kind": "String", "part": None}
FORGED: dict[str, Callable[[dict[str, Any]], Any]] = {  # none of it is read
    "an epoch of NaN": at("epoch", float("nan")),
    "an epoch below 0": at("epoch", -1),
    "an endless epoch": at("epoch", 10**30),
    "negative counts": at("schema/class_counts", (-1, 3)),
    "counts of NaN": at("schema/class_counts", (float("nan"), 3)),
    "a count that is no float": at("schema/class_counts", (10**400, 3)),
    "too few counts": at("schema/class_counts", (3,)),
    "classes that are no texts": at("schema/classes", (1, 2)),
    "a class twice": at("schema/classes", ("a", "a")),
    "one class": at("schema/classes", ("a",)),
    "a text of classes": at("schema/classes", "ab"),
    "a std of NaN": at("schema/numbers/0/std", float("nan")),
    "a negative std": at("schema/numbers/0/std", -1.0),
    "a std in text": at("schema/numbers/0/std", "1"),
    "an endless mean": at("schema/numbers/0/mean", float("inf")),
    "a column's name": at("schema/numbers/0/name", 3),
    "a kind with parts": at("schema/numbers/0/kind", "List"),
    "no columns": at("schema/numbers", ()),
    "values that are no texts": at("schema/categories", (CATEGORY,)),
    "a value twice": at("schema/categories", ({**CATEGORY, "values": ("a", "a")},)),
    "another target": at("schema/target", ("a", "b")),
    "data": at("config/data", 5),
    "split": at("config/data/split", "x"),
    "an id": at("config/data/id", {}),
    "an id twice": at("config/data/id", ["a", "a"]),
    "what is ignored": at("config/data/columns/ignore", 3),
    "separator": at("config/data/read/separator", 5),
    "negative threads": at("record/threads", -1),
    "a thousand million threads": at("record/threads", 10**9),
    "record": at("record", None),
    "packages": at("record/packages", []),
    "lists of lists": at("config/x", NESTED),
    "classes of lists": at("schema/classes", NESTED),
    "a tensor": at("config/x", torch.ones(3)),
    "bytes": at("config/x", b"x"),
    "sparse weights": weight(lambda value: value.to_sparse()),
    "weights that are nowhere": weight(lambda value: value.to("meta")),
    "weights without an end": weight(lambda value: torch.ones(1).expand(10**6, 10**6)),
    "weights in text": weight(lambda value: "x"),
    "optimizer": at("optimizer_states", 5),
    "callbacks": at("callbacks/Checkpoints", {"best": "x", "train_loss": 1.0}),
    "log": at("log", {"size": "x", "columns": []}),
    "random numbers": at("rng", 5),
}
MISFITS: dict[str, Callable[[dict[str, Any]], Any]] = {  # read, but no net comes of it
    "frequencies": at("config/encode", {"embed": "periodic", "frequencies": 10**12}),
    "bins": at("config/encode", {"embed": "piecewise", "bins": 10**12}),
    "whole numbers": weight(lambda value: value.int()),
    "complex numbers": weight(lambda value: value + 0j),
    "no head": at("config/head", "x"),
    "a head of another type": at("config/head", 3),
    "a model that is none": at("config/model", 5),
    "a text for a model": at("config/model", "abc"),
    "a device": at("config/model/device", "cpu"),
    "sizes of its own": at("config/model/in_features", 10**12),
    "hidden": at("config/model/hidden", "x"),
    "a negative width": at("config/model/hidden", [-5]),
    "a width of 0.5": at("config/model/hidden", [0.5]),
    "wide": at("config/model/hidden", [100_000, 100_000]),
    "wider": at("config/model/hidden", [10**12, 10**12]),
    "activation": at("config/model/activation", 5),
    "dropout": at("config/model/dropout", "x"),
}
UNBUILT: dict[str, Callable[[dict[str, Any]], Any]] = {  # a net, but no run
    "batch_size": at("config/data/batch_size", 0),
    "a batch_size in text": at("config/data/batch_size", "x"),
    "fraction": at("config/data/split/test_fraction", float("nan")),
    "folds": at("config/data/num_folds", "x"),
    "key": at("config/data/nope", 5),
    "callback": at("config/callbacks/early_stopping", 5),
    "a callback of nothing": at("config/callbacks/early_stopping", {"a": 1}),
    "a metric's name": at("config/metrics/a.b", {"_target_": "torchmetrics.classification.MulticlassAccuracy"}),
    "optimizer": at("config/optimizer", 5),
    "metrics": at("config/metrics", 5),
    "loss": at("config/loss", 5),
    "lr": at("config/optimizer/lr", "x"),
    "scheduler": at("config/scheduler", {"a": 1}),
    "epochs": at("config/trainer/max_epochs", "x"),
    "no seed": lambda content: content["config"].pop("seed"),
    "monitor": at("config/monitor", "val/nope"),
}


@pytest.mark.parametrize("name", [*FORGED, *MISFITS])
def test_forged_values_are_refused(name: str, forged: Callable[..., Path]) -> None:
    def change(content: dict[str, Any]) -> None:
        content["schema"]["numbers"] = list(content["schema"]["numbers"])
        (FORGED | MISFITS)[name](content)

    run = forged(change)
    said = "is not a checkpoint" if name in FORGED else "model|weights|head|dropout|encode"
    with pytest.raises(ValueError, match=said):
        load(run)


@pytest.mark.parametrize("name", UNBUILT)
def test_forged_configs_are_refused(name: str, forged: Callable[..., Path]) -> None:
    run = forged(UNBUILT[name])
    shutil.copy(run / "checkpoints" / "best.ckpt", run / "checkpoints" / "last.ckpt")
    with pytest.raises(ValueError, match=r"."):
        open_run(run).data()
    if name != "key":
        with pytest.raises(ValueError, match=re.escape(str(run))):
            continued(configure(run), [], False)


@pytest.mark.parametrize(
    "name", [".lock", "train.log", "metrics.json", "log/metrics.csv", "checkpoints/best.ckpt", "log"]
)
def test_nothing_is_followed_out_of_a_run(
    name: str, finished: Path, inside: Callable[..., Any], tmp_path: Path
) -> None:
    shutil.copytree(finished, tmp_path / "run")
    (tmp_path / "outside").mkdir()
    target = tmp_path / "outside" / "file"
    target.write_text("mine")
    path = tmp_path / "run" / name
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    path.symlink_to(target.parent if name == "log" else target)
    said = str(inside("resume=run", "trainer.max_epochs=200"))
    assert re.search(f"run/{name} is a link, or no file: take it away", said)
    assert target.read_text() == "mine"
    assert [file.name for file in target.parent.iterdir()] == ["file"]


def test_what_is_written_beside_a_run_is_not_written_through_links(finished: Path, tmp_path: Path) -> None:
    run, target = tmp_path / "run", tmp_path / "mine"
    shutil.copytree(finished, run)
    target.write_text("mine")
    for name in ("part-model.pt2", "model.pt2", "model.pt2.json"):
        (run / name).symlink_to(target)
    export.export(open_run(run), "torch")
    assert target.read_text() == "mine"
    assert not (run / "model.pt2").is_symlink()


@pytest.mark.parametrize(
    ("key", "place"),
    [
        *[("dirpath", place) for place in ("..", "a/../../b", "here", "~/x", "/etc", "local:///etc/x", "memory://x")],
        *[("filename", place) for place in ("../x", "/x", "~/x", "simplecache::local:///x", "$HOME/x")],
    ],
)
def test_a_repeated_run_writes_into_its_folder_alone(key: str, place: str, tmp_path: Path) -> None:
    config = configure(tmp_path / "run")
    own = {"_target_": "lightning.pytorch.callbacks.ModelCheckpoint", "dirpath": str(tmp_path / "run" / "kept")}
    config["callbacks"]["kept"] = own
    assert recorded(config, tmp_path / "new", False)["callbacks"]["kept"]["dirpath"] == str(tmp_path / "new" / "kept")
    own[key] = place
    with pytest.raises(ValueError, match="not into its folder: to trust it, say trust=true"):
        recorded(config, tmp_path / "new", False)
    recorded(config, tmp_path / "new", True)
    moved = configure(tmp_path / "run") | {"trainer": configure("x")["trainer"] | {"default_root_dir": ".."}}
    with pytest.raises(ValueError, match=r"trainer.default_root_dir=\.\."):
        recorded(moved, tmp_path / "new", False)


JSON = [
    "[]",
    "5",
    "null",
    '"x"',
    "[" * 10**5,
    '{"val/loss": "x"}',
    '{"val/loss": null}',
    '{"val/loss": true}',
    '{"x": {}}',
]
JSON += ['{"val/loss": [1]}', "", "{", "\0", '{"val/loss": 1' + "0" * 5000 + ', "x": []}', " " * 2**25, '{"x": 1}']


@pytest.mark.parametrize("text", JSON, ids=[text[:20] for text in JSON])
def test_metrics_of_another_shape(text: str, finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "run")
    (tmp_path / "run" / "metrics.json").write_text(text)
    for work in (
        lambda: read_metrics(tmp_path / "run", "val/loss"),
        lambda: evaluate.reproduce(open_run(tmp_path / "run"), open_run(tmp_path / "run").data()),
    ):
        with pytest.raises(ValueError, match=r"metrics.json (is not|does not hold|lacks)"):
            work()
    if text != '{"x": 1}':
        with pytest.raises(ValueError, match=r"metrics.json"):
            compared(tmp_path / "run", finished)


@pytest.mark.parametrize("text", ["{}", "[1]", "[" * 10**5, "x", "[null]"])
def test_a_sweep_of_another_shape(text: str, inside: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "sweep.json").write_text(text)
    assert re.match(
        r"error: sweep/sweep.json (is not whole JSON|does not hold)", str(inside("-m", "seed=0,1", "folder=sweep"))
    )
    assert (tmp_path / "sweep" / "sweep.json").read_text() == text


def test_a_terminal_obeys_no_name(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, inside: Callable[..., Any]
) -> None:
    red = "\x1b[31mred\x07\u202e"
    row = dict.fromkeys(("precision", "recall", "f1", "support"), 1.0)
    result = {"rows": 2, "table": "x.csv", "classes": ["a\nb", red], "per_class": {"a": row, red: row}}
    result |= {"confusion": [[1, 0], [0, 1]], "measures": {"this run": {"accuracy": 1.0}}}
    assert r"\x1b[31mred\x07\u202e" in evaluate.show(result)
    assert errors.in_one_line(f"no class {red}") == r"no class \x1b[31mred\x07\u202e"
    assert errors.visible("é 漢 \n") == "é 漢 \n"
    record = logging.LogRecord("x", logging.INFO, "x", 1, "columns %s\nand", (red,), None)
    assert errors.Visible("%(message)s").format(record) == "columns \\x1b[31mred\\x07\\u202e\nand"
    pl.DataFrame({red: ["a", "a"] * 20, "x": [*range(20)] * 2, "y": ["a", "b"] * 20}).write_csv(tmp_path / "t.csv")
    assert inside("data=csv", "data.path=t.csv", "data.target=y", "trainer.max_epochs=1", "folder=run") is None
    assert r"left out, as the training rows hold one value there: \x1b[31mred" in capsys.readouterr().out
    assert "\x1b" not in (tmp_path / "run" / "train.log").read_text()


def test_a_run_goes_on_from_another_folder(finished: Path, command: Any, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    pl.DataFrame({"x": [*range(20)] * 2, "y": ["a", "b"] * 20}).write_csv(tmp_path / "t.csv")
    words = ["data=csv", "data.path=t.csv", "data.target=y", "trainer.max_epochs=1"]
    for more in (["folder=before"], ["folder=run", "init_from=before"]):
        assert command("classify.train", *words, *more).returncode == 0
    for name in ("checkpoints", "log"):
        shutil.rmtree(tmp_path / "run" / name)
    (tmp_path / "run" / "metrics.json").unlink()
    config = json.loads((tmp_path / "run" / ".hydra" / "config.json").read_text())
    assert config["init_from"] == f"{tmp_path}/before"
    assert config["data"]["path"] == f"{tmp_path}/t.csv"
