"""What a fork names by `_target_`: a net, a loss, a table of its own, trained and read back by a new `load`."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
import torch.nn.functional as F
from conftest import configure
from handed import continued, open_run, set_up, train
from torch import nn

from classify import build, load
from tabrun.cli.errors import UserError
from tabrun.verbs.evaluate import evaluate

pytestmark = pytest.mark.usefixtures("own")

PACKAGE = str(build.__package__)


def table(folder: Path) -> list[str]:
    """Words for a table of a number, which is sometimes missing, and two texts."""
    rows = {"x": [None if i % 11 == 5 else float(i % 7) for i in range(90)], "t": ["a", "b", "c"] * 30}
    frame = pl.DataFrame(rows | {"u": ["p", "q"] * 45, "y": ["no" if i % 3 else "yes" for i in range(90)]})
    frame.write_csv(folder / "table.csv")
    return ["data=csv", f"data.path={folder / 'table.csv'}", "data.target=y"]


def replaced(folder: Path, key: str, node: dict[str, Any], *words: str) -> dict[str, Any]:
    """A config of one epoch with another node at a key."""
    return configure(folder / "run", *(words or ["data=iris"]), "trainer.max_epochs=1") | {key: node}


MODELS: dict[str, dict[str, Any]] = {
    "a class in another file": {"_target_": f"{PACKAGE}.opened.Residual", "depth": 3},
    "a function in another file": {"_target_": f"{PACKAGE}.opened.residual"},
    "with columns of its own": {"_target_": f"{PACKAGE}.opened.OwnColumns", "width": 4},
    "with the schema, of encoded rows": {"_target_": f"{PACKAGE}.opened.Both"},
    "a layer of torch": {"_target_": "torch.nn.Linear", "bias": False},
}


@pytest.mark.parametrize("kind", ["iris", "mixed"])
@pytest.mark.parametrize("name", MODELS)
def test_a_model_trains_and_is_read_back(name: str, kind: str, tmp_path: Path) -> None:
    config = replaced(tmp_path, "model", MODELS[name], *(table(tmp_path) if kind == "mixed" else ["data=iris"]))
    train(config)
    run = open_run(tmp_path / "run")
    result = evaluate(run, None, None, False)  # equal to what training has measured, or it would say so
    data, classifier = run.data(), load(tmp_path / "run")
    assert result["metrics"]["test/loss"] > 0
    assert classifier.predict_proba(data.rows).shape == (len(data.labels), len(run.schema.classes))
    assert isinstance(classifier.net.encode, nn.Identity) == (name == "with columns of its own")
    assert continued(config, [], False)[0]["model"] == MODELS[name]


def test_a_model_has_what_it_asks_for() -> None:
    schema = open_schema()
    net: Any = build.net(replaced(Path("unused"), "model", MODELS["with the schema, of encoded rows"]), schema)
    assert net.body.names == schema.feature_names
    assert net.body.last.in_features == net.encode.out_features == 4


def open_schema() -> Any:
    return set_up(configure("unused", "data=iris")).schema


@pytest.mark.parametrize("name", ["Focal", "focal"])
def test_a_focal_loss_is_the_formula(name: str, tmp_path: Path) -> None:
    config = replaced(tmp_path, "loss", {"_target_": f"{PACKAGE}.opened.{name}", "gamma": 1.5})
    scores = torch.randn(20, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(20) % 3
    shares = scores.softmax(-1)[torch.arange(20), labels]
    expected = sum(-((1 - p) ** 1.5) * p.log() for p in shares) / 20
    torch.testing.assert_close(build.loss(config, open_schema())(scores, labels), expected)
    train(config)
    assert evaluate(open_run(tmp_path / "run"), None, None, False)["metrics"]["test/loss"] > 0
    assert load(tmp_path / "run").net.body
    assert continued(config, [], False)[0]["loss"]["gamma"] == 1.5


def test_class_weights_are_the_argument_weight_of_any_loss() -> None:
    schema = open_schema()
    node = {"_target_": f"{PACKAGE}.opened.Focal", "class_weights": "balanced"}
    loss: Any = build.loss(replaced(Path("unused"), "loss", node), schema)
    assert loss.weight.tolist() == pytest.approx(schema.balanced_weights())
    shipped: Any = build.loss(configure("unused", "data=iris", "loss.class_weights=[1,2,3]"), schema)
    assert shipped.weight.tolist() == [1, 2, 3]
    node = {"_target_": f"{PACKAGE}.opened.focal", "gamma": 1.0, "class_weights": "balanced"}
    with pytest.raises(UserError, match=r"loss.class_weights=balanced: focal takes no weight: say null"):
        build.loss(replaced(Path("unused"), "loss", node), schema)


def test_a_loss_of_torch(tmp_path: Path) -> None:
    node = {"_target_": "torch.nn.MultiMarginLoss", "margin": 0.5}
    loss = build.loss(replaced(Path("unused"), "loss", node), open_schema())
    scores, labels = torch.randn(5, 3), torch.arange(5) % 3
    assert loss(scores, labels) == F.multi_margin_loss(scores, labels, margin=0.5)


def test_a_table_of_ones_own(tmp_path: Path) -> None:
    config = replaced(tmp_path, "head", "auto")  # type: ignore[arg-type]
    config["data"] |= {"_target_": f"{PACKAGE}.opened.Thinned", "every": 2}
    train(config)
    run = open_run(tmp_path / "run")
    assert len(run.data().labels) == 75
    assert evaluate(run, None, None, False)["rows"] < 20
    assert load(tmp_path / "run").predict(run.data().rows).shape == (75,)
    assert continued(config, [], False)[0]["data"]["every"] == 2


WRONG = {  # at a key, a node: what is said of it
    "no such class": (
        "model",
        {"_target_": f"{PACKAGE}.opened.Nope"},
        r"Nope is no nn.Module, as .*opened has no Nope: name",
    ),
    "no such file": ("model", {"_target_": f"{PACKAGE}.nope.Net"}, r"model._target_=.*Net is no nn.Module"),
    "no class of torch": ("model", {"_target_": "torch.nn.Nope"}, r"name a class of \w+, or a function of it that"),
    "another package": ("model", {"_target_": "json.loads"}, r"json.loads is no nn.Module"),
    "unannotated": ("model", {"_target_": f"{PACKAGE}.opened.untold"}, r"a function of it that says -> nn.Module"),
    "no module": ("model", {"_target_": f"{PACKAGE}.opened.three"}, r"opened.three is no nn.Module"),
    "no target": ("model", {"depth": 3}, r"model._target_=None is no nn.Module"),
    "not taken": ("model", {"_target_": f"{PACKAGE}.opened.Residual", "dept": 3}, r"model: Residual .*argument 'dept'"),
    "no scores": ("model", {"_target_": "torch.nn.Tanh"}, r"model: Tanh.* got an unexpected .*'in_features'"),
    "lacks": ("model", {"_target_": "torch.nn.Bilinear"}, r"model: Bilinear missing a required .*'in1_features'"),
    "torch's own words": ("model", {"_target_": "torch.nn.Linear", "dtype": "x"}, r"^model: "),
    "sizes": ("model", {"_target_": "torch.nn.Linear", "in_features": 3}, r"model.in_features: the data says it"),
    "a device": ("model", {"_target_": "torch.nn.Linear", "device": "cpu"}, r"model.device: trainer.accelerator says"),
    "no loss": ("loss", {"_target_": f"{PACKAGE}.opened.Nope"}, r"loss._target_=.*Nope is no nn.Module"),
    "no argument": ("loss", {"_target_": f"{PACKAGE}.opened.Focal", "gama": 1}, r"loss: Focal .* argument 'gama'"),
    "no value": ("loss", {"_target_": "torch.nn.MultiMarginLoss", "p": 3}, r"loss: only p == 1 and p == 2 supported"),
    "no table": ("data", {"_target_": f"{PACKAGE}.opened.Focal"}, r"data._target_=.* is no tabrun.TabularData"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_said_with_its_key(name: str) -> None:
    key, node, text = WRONG[name]
    config = configure("unused", "data=iris")
    made = {"model": build.net, "loss": build.loss, "data": lambda config, schema: build.data(config)}[key]
    with pytest.raises(UserError, match=text):
        made(config | {key: config["data"] | node if key == "data" else node}, open_schema())
