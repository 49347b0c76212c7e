"""An outsider's LightningModule trains as pasted: alone, mini-batch by mini-batch, as a bare Trainer has it."""

import logging
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from conftest import configure
from handed import continued, open_run, planned, set_up, train

from classify import build

pytestmark = pytest.mark.usefixtures("own")

OWN = f"{build.__package__}.pasted"
WORDS = ["data=iris", "trainer.max_epochs=4", "trainer.precision=64-true", "callbacks.early_stopping=null"]
MODULES = ("Plain", "ByHand", "Closed")


@pytest.fixture(params=MODULES)
def name(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The module that `build` gives."""
    made = getattr(__import__(OWN, fromlist=[request.param]), request.param)

    def classifier(config: Any, schema: Any, measures: Any = None) -> lightning.LightningModule:
        return made(build.net(config, schema)).double()

    monkeypatch.setattr(build, "classifier", classifier)
    return request.param


def test_it_trains_as_a_bare_trainer_trains_it(name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = configure(tmp_path / "run", *WORDS)
    with caplog.at_level(logging.INFO):
        metrics = train(config)
    assert f"each mini-batch is a step of the Trainer: {name}.on_train_batch_end is called for each" in caplog.text
    lightning.seed_everything(0, verbose=False)
    data = set_up(config)
    module: Any = build.classifier(config, data.schema)  # type: ignore[arg-type]
    options = {"enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    torch.set_num_threads(1)
    trainer = lightning.Trainer(max_epochs=4, precision="64-true", accelerator="cpu", logger=False, **options)  # type: ignore[arg-type]
    trainer.fit(module, data)
    assert module.seen[:4] == [0, 1, 2, 0]
    found = open_run(tmp_path / "run", "last").weights
    for key, value in module.net.state_dict().items():
        assert torch.equal(found[key], value), key
    assert {"val/loss", "val/acc", "test/loss"} <= metrics.keys()


def test_it_trains_alone_in_a_sweep_and_goes_on(name: str, tmp_path: Path) -> None:
    found = planned([configure(tmp_path / f"{i}", *WORDS, f"seed={i}") for i in range(2)])
    two = "configure_optimizers gives more than one optimizer and scheduler"
    reason = two if name == "ByHand" else f"{name}.on_train_batch_end is called for each"
    assert str(found) == f"2 alone (jobs 0, 1: {reason})"
    train(configure(tmp_path / "whole", *WORDS, "test=false"))
    train(configure(tmp_path / "half", *WORDS, "test=false", "trainer.max_epochs=2"))
    train(*continued(configure(tmp_path / "half", *WORDS), ["trainer.max_epochs"], True))
    one, other = (open_run(tmp_path / folder, "last").weights for folder in ("whole", "half"))
    assert all(torch.equal(one[key], other[key]) for key in one)
