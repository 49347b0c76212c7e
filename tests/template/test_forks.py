"""What a fork edits is what trains: in a sweep as alone, or alone and said why. Each is a class of own/forks.py."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from conftest import configure
from handed import open_run, planned, train, train_as_one

from classify import build, classifier

pytestmark = pytest.mark.usefixtures("own")

RATES = ["optimizer.lr=0.01", "optimizer.lr=0.05", "optimizer.lr=0.2"]
OWN = f"{build.__package__}.forks"


def node(name: str, **arguments: Any) -> dict[str, Any]:
    return {"_target_": f"{OWN}.{name}", **arguments}


def schedule(name: str, interval: str) -> dict[str, Any]:
    make = node(name) | {"_partial_": True}
    return {
        "_target_": f"{build.__package__}.classifier.Schedule",
        **{"make": make, "interval": interval, "total": None, "monitor": None},
    }


# the edit: the Classifier's name, or words of the command line, or nodes of the config at a key
EQUAL: dict[str, Any] = {
    "as shipped": "Classifier",
    "an L1 penalty": "Penalised",
    "a doubled loss": "Doubled",
    "a mixup that draws nothing": "Mirrored",
    "an own validation_step": "OwnValidation",
    "two parameter groups": "Groups",
    "a frozen layer": "Frozen",
    "another beta2": ["optimizer=adam", "optimizer.betas=[0.9,0.9]"],
    "a focal loss": {"loss": node("Focal", gamma=1.5)},
    "a loss of torch": {"loss": {"_target_": "torch.nn.MultiMarginLoss", "margin": 0.5}},
    "a residual class": {"model": node("Residual")},
    "a Linear that scales its weight": {"model": node("scaled")},
    "LayerNorm": {"model": node("layer_norm")},
    "dropout of nothing": {"model": node("dropping", drop=0.0)},
    "a layer that is there twice": {"model": node("shared_layer")},
    "tied weights": {"model": node("tied_weights")},
    "an own optimizer": {"optimizer": node("Signed", lr=0.01) | {"_partial_": True}},
    "an own schedule": {"scheduler": schedule("Halved", "epoch")},
    "a schedule that moves the decay": {"scheduler": schedule("DecayGrows", "step")},
}
RANDOM = "its training_step draws random numbers: see sweep.stack_dropout"
ALONE: dict[str, tuple[Any, str]] = {
    "mixup": ("Mixup", RANDOM),
    "functional dropout, called drop": ({"model": node("dropping", drop=0.5)}, RANDOM),
    "BatchNorm": ({"model": node("batch_norm")}, "its training_step leaves net.body.1.running_mean changed"),
    "a step that changes at epoch 2": ("LaterDoubled", "its training_step reads trainer"),
    "one that counts up to there": ("LaterByCount", "its training_step leaves count changed"),
    "a step that reads batch_idx": ("Alternating", "its training_step reads batch_idx"),
    "self.log": ("Logging", "its training_step logs"),
    "a step that raises": ("Raising", "its training_step raises ValueError"),
    "an epoch hook": ("EpochHook", "EpochHook.on_train_epoch_start is not played in a stack"),
    "an own optimizer": (
        {"optimizer": node("Relative", lr=0.01) | {"_partial_": True}},
        "Relative or its schedule steps net.body.0.weight otherwise",
    ),
    "gradient clipping": (["trainer.gradient_clip_val=1.0"], "trainer.gradient_clip_val=1.0 is of single ones"),
    "an EarlyStopping of its own": (
        {"callbacks": {"early_stopping": node("Patient", monitor="val/loss", patience=3)}},
        "Patient.on_train_epoch_end is not played in a stack",
    ),
}


def edited(folder: Path, edit: Any, rate: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    words = [*edit, rate] if isinstance(edit, list) else [rate]
    common = ["data=iris", "trainer.precision=64-true", "trainer.max_epochs=4", "test=false"]
    config = configure(folder, *common, *words)
    if isinstance(edit, str):
        monkeypatch.setattr(classifier, "Classifier", getattr(__import__(OWN, fromlist=[edit]), edit))
    for key, value in edit.items() if isinstance(edit, dict) else ():
        rated = {"lr": config["optimizer"]["lr"]} if key == "optimizer" else {}
        config[key] = config[key] | value if key == "callbacks" else value | rated
    return config


@pytest.mark.parametrize("name", EQUAL)
def test_what_a_fork_edits_is_what_its_sweep_trains(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    edit = EQUAL[name]
    train_as_one([edited(tmp_path / f"stacked{i}", edit, rate, monkeypatch) for i, rate in enumerate(RATES)])
    for i, rate in enumerate(RATES):
        train(edited(tmp_path / f"alone{i}", edit, rate, monkeypatch))
        for kind in ("best", "last"):
            one, other = (open_run(tmp_path / f"{folder}{i}", kind).weights for folder in ("stacked", "alone"))
            assert one.keys() == other.keys()
            assert all((one[key] - other[key]).norm() <= 1e-9 * other[key].norm() for key in one), name
        logs = [pl.read_csv(tmp_path / f"{folder}{i}" / "log" / "metrics.csv") for folder in ("stacked", "alone")]
        assert logs[0].columns == logs[1].columns
        assert logs[0].to_numpy() == pytest.approx(logs[1].to_numpy(), abs=1e-6)


@pytest.mark.parametrize("name", ALONE)
def test_what_a_stack_does_not_train_as_it_is_trains_alone_and_is_said_why(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    edit, reason = ALONE[name]
    before = torch.get_rng_state()
    found = planned([edited(tmp_path / f"{i}", edit, rate, monkeypatch) for i, rate in enumerate(RATES)])
    assert not found.parts
    assert f"3 alone (jobs 0, 1, 2: {reason})" in str(found)
    torch.set_rng_state(before)
    config = edited(tmp_path / "run", edit, RATES[0], monkeypatch)
    if name == "a step that raises":
        with pytest.raises(ValueError, match="as a fork may write it"):
            train(config)
    else:
        assert train(config)["val/loss"] > 0
