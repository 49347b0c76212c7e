"""Classifier: its loss and metrics against scikit-learn and closed forms; schedules, callbacks, precision."""

import csv
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from conftest import configure
from handed import open_run, set_up, train, train_as_one, trainer_of
from sklearn.metrics import accuracy_score, f1_score, log_loss, roc_auc_score
from torch import nn

from classify import build
from classify.classifier import Classifier
from classify.schedules import coslog4, flat_cosine
from tabrun.tables.columns import Number
from tabrun.tables.schema import Schema
from tabrun.training import pace
from tabrun.training.chunks import chunk_size


def handed(*words: str) -> int:
    """How many mini-batches the Trainer of this config would be handed as one."""
    config = configure("unused", *words)
    data = set_up(config)
    assert data.schema
    return chunk_size(build.classifier(config, data.schema), data, trainer_of(config, {}), config["speed"]["chunk"])[0]


def schema(num_classes: int) -> Schema:
    classes = tuple("abcd"[:num_classes])
    return Schema("label", classes, tuple(range(1, num_classes + 1)), (Number("x", 0.0, 1.0), Number("y", 0.0, 1.0)))


@pytest.mark.parametrize("num_classes", [2, 4])
def test_metrics_are_scikit_learns(num_classes: int) -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(300, num_classes, generator=generator)
    labels = torch.randint(num_classes, (300,), generator=generator)
    measures = build.measures(configure("unused"), schema(num_classes))
    for batch in torch.arange(300).split(77):
        measures.update(scores[batch], labels[batch])
    found = {name: value.item() for name, value in measures.compute("val").items()}
    probabilities = scores.double().softmax(-1).numpy()
    ranked = probabilities[:, 1] if num_classes == 2 else probabilities
    confidence, right = probabilities.max(1), probabilities.argmax(1) == labels.numpy()
    bins = [(confidence > low / 15) & (confidence <= (low + 1) / 15) for low in range(15)]
    expected = {
        "val/loss": log_loss(labels, probabilities),
        "val/accuracy": accuracy_score(labels, probabilities.argmax(1)),
        "val/f1": f1_score(labels, probabilities.argmax(1), average="macro"),
        "val/auroc": roc_auc_score(labels, ranked, multi_class="ovr"),
        "val/calibration_error": sum(abs(right[b].sum() - confidence[b].sum()) for b in bins) / 300,
    }
    assert found == pytest.approx(expected, abs=1e-6)
    assert measures.loss.update_count == 0  # compute starts anew


@pytest.mark.filterwarnings("ignore:You are trying to `self.log")
def test_one_hot_soft_and_index_labels() -> None:
    classifier = Classifier(nn.Identity(), partial(torch.optim.SGD, lr=0.1))
    scores, labels = torch.randn(8, 3), torch.randint(3, (8,))
    one_hot = F.one_hot(labels, 3).float()
    torch.testing.assert_close(
        classifier.training_step((scores, labels), 0), classifier.training_step((scores, one_hot), 0)
    )
    soft = one_hot * 0.9 + 0.1 / 3
    by_hand = -(soft * scores.log_softmax(-1)).sum(-1).mean()
    torch.testing.assert_close(classifier.training_step((scores, soft), 0), by_hand)
    classifier.validation_step((scores, soft), 0)
    torch.testing.assert_close(classifier.measures.compute("val")["val/loss"], by_hand)


def test_label_smoothing_and_class_weights() -> None:
    config = configure("unused", "loss.label_smoothing=0.2", "loss.class_weights=balanced")
    loss = build.loss(config, schema(3))
    assert loss.weight is not None
    assert loss.weight.tolist() == pytest.approx([6 / 3, 6 / 6, 6 / 9])
    plain = build.loss(configure("unused", "loss.label_smoothing=0.2"), schema(3))
    scores, labels = torch.randn(5, 3), torch.tensor([0, 1, 2, 0, 1])
    smooth = F.one_hot(labels, 3) * 0.8 + 0.2 / 3
    torch.testing.assert_close(plain(scores, labels), -(smooth * scores.log_softmax(-1)).sum(-1).mean())
    with pytest.raises(ValueError, match="one number for each of"):
        build.loss(configure("unused", "loss.class_weights=[1,2]"), schema(3))


def rows_of_log(folder: Path) -> list[dict[str, str]]:
    with (folder / "log" / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def test_gradient_norms_of_each_layer_are_logged_when_asked(tmp_path: Path) -> None:
    train(configure(tmp_path, "debug=fast", "callbacks.gradient_norms.every_n_steps=1"))
    first = rows_of_log(tmp_path)[0]
    parts = [float(value) for name, value in first.items() if name.startswith("grad_2.0_norm/")]
    assert len(parts) == 4  # weight and bias of two layers
    assert float(first["grad_2.0_norm_total"]) == pytest.approx(sum(part**2 for part in parts) ** 0.5, rel=1e-3)


@pytest.mark.parametrize("words", ["scheduler=one_cycle", "scheduler=reduce_on_plateau", "model.dropout=0.2"])
def test_many_mini_batches_in_one_step_of_the_trainer_change_nothing(words: str, tmp_path: Path) -> None:
    words = [words, "data=digits", "data.split.test_fraction=0.6", "trainer.max_epochs=3"]
    outcomes, rates = [], []
    for number in (1, 5, 64):
        folder = tmp_path / str(number)
        outcomes.append(train(configure(folder, *words, f"speed.chunk={number}")))
        last = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
        rates.append([last["optimizer_states"][0]["param_groups"][0]["lr"], last["global_step"], rows_of_log(folder)])
        outcomes[-1] |= {name: value.tolist() for name, value in last["state_dict"].items()}
    assert outcomes[0] == outcomes[1] == outcomes[2]
    assert rates[0] == rates[1] == rates[2]


@pytest.mark.parametrize(
    ("words", "number"),
    [
        ([], 64),
        (["data.batch_size=1000"], 16),
        (["data.batch_size=20000"], 1),
        (["trainer.gradient_clip_val=1.0"], 1),
        (["debug=fast"], 1),
        (["debug=overfit"], 1),
        (["+trainer.max_steps=10"], 1),
        (["callbacks.gradient_norms.every_n_steps=5"], 1),
        (["callbacks.early_stopping=null"], 64),
        (["+callbacks.rate={_target_: lightning.pytorch.callbacks.LearningRateMonitor}"], 1),
        (["trainer=ddp"], 1),
        (["speed.chunk=7"], 7),
    ],
)
def test_the_trainer_is_handed_many_mini_batches_where_nothing_listens(words: list[str], number: int) -> None:
    assert handed(*words) == number


def last_rate(config: dict[str, Any]) -> float:
    train(config)
    last = torch.load(Path(config["folder"]) / "checkpoints" / "last.ckpt", weights_only=True)
    return last["optimizer_states"][0]["param_groups"][0]["lr"]


def test_schedulers_are_told_the_number_of_steps(tmp_path: Path) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.05)
    by_hand = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.05, total_steps=3 * 11)  # 341 rows in batches of 32
    for _ in range(33):
        optimizer.step()
        by_hand.step()
    for scheduler, expected in (("cosine", 0.0), ("one_cycle", by_hand.get_last_lr()[0])):
        config = configure(tmp_path / scheduler, f"scheduler={scheduler}", "trainer.max_epochs=3")
        assert last_rate(config) == pytest.approx(expected, abs=1e-9)


def test_reduce_on_plateau_watches_the_monitor(tmp_path: Path) -> None:
    """A rate of 0 never improves: the first epoch is the best, each later one is bad, and counts from the next on."""
    overrides = ["scheduler=reduce_on_plateau", "scheduler.make.patience=0", "scheduler.make.eps=0"]
    config = configure(tmp_path, *overrides, "optimizer.lr=1e-30", "trainer.max_epochs=4")
    assert last_rate(config) == pytest.approx(1e-30 * 0.1**2, rel=1e-6)


def test_early_stopping_and_best_checkpoint_follow_the_monitor(tmp_path: Path) -> None:
    config = configure(tmp_path, "trainer.max_epochs=60", "callbacks.early_stopping.patience=3")
    metrics = train(config)
    log = [float(row["val/loss"]) for row in rows_of_log(tmp_path) if row["val/loss"]]
    assert metrics["val/loss"] == pytest.approx(min(log))
    assert len(log) == log.index(min(log)) + 1 + 3


def test_what_needs_each_batch_is_not_given_many() -> None:
    for words in ("trainer.gradient_clip_val=1.0", "trainer.limit_train_batches=3"):
        with pytest.raises(ValueError, match="leave it out"):
            handed("speed.chunk=4", words)


def test_the_step_of_the_classifier_is_the_one_that_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fork changes Classifier.training_step, and expects to see it."""
    rows: list[int] = []

    def counting(self: Classifier, batch: Any, batch_idx: int) -> torch.Tensor:
        rows.append(len(batch[1]))
        return own(self, batch, batch_idx)

    own = Classifier.training_step
    monkeypatch.setattr(Classifier, "training_step", counting)
    train(configure(tmp_path, "trainer.max_epochs=1"))
    assert rows == [32] + [32] * 10 + [21]  # the first is a look at what a step does, on a copy


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
@pytest.mark.skipif(not shutil.which("c++"), reason="torch.compile needs a C++ compiler")
def test_a_compiled_step_learns_the_same(tmp_path: Path) -> None:
    words = ["data=iris", "trainer.max_epochs=3", "data.batch_size=45"]
    eager = train(configure(tmp_path / "eager", *words))
    torch.compiler.reset()
    torch._dynamo.utils.counters.clear()
    compiled = train(configure(tmp_path / "compiled", *words, "speed.compile=default"))
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1  # the whole step, and all batches have one size
    assert compiled == pytest.approx(eager, abs=1e-4)


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true"])
def test_a_run_in_bfloat16_learns_and_is_read_back(precision: str, tmp_path: Path) -> None:
    metrics = train(configure(tmp_path, "trainer.max_epochs=20", f"trainer.precision={precision}"))
    assert metrics["val/accuracy"] > 0.9
    run = open_run(tmp_path)
    assert run.measure(run.data(), "val")["val/loss"] == pytest.approx(metrics["val/loss"], abs=0.01)


def test_overfit_drives_the_training_loss_to_nothing(tmp_path: Path) -> None:
    train(configure(tmp_path, "debug=overfit"))
    losses = [float(row["train/loss"]) for row in rows_of_log(tmp_path) if row["train/loss"]]
    assert losses[-1] < 0.01 < 0.1 < losses[0]


def test_profile_writes_its_table(tmp_path: Path) -> None:
    train(configure(tmp_path, "debug=profile", "trainer.max_epochs=1"))
    assert "run_training_batch" in (tmp_path / "fit-profile.txt").read_text()


@pytest.mark.parametrize(
    ("monitor", "mode"), [("val/loss", "min"), ("val/accuracy", "max"), ("val/calibration_error", "min")]
)
def test_better_follows_the_metric(monitor: str, mode: str) -> None:
    config = configure("unused", f"monitor={monitor}") | {"mode": "auto"}
    assert build.better(config) == mode
    assert build.better(config | {"mode": "max"}) == "max"


@pytest.mark.parametrize(
    ("words", "threads"), [([], 1), (["model.hidden=[512,512]", "data.batch_size=512"], 3), (["speed.threads=2"], 2)]
)
def test_threads_are_as_many_as_pay(words: list[str], threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    monkeypatch.setattr(pace, "ALL_THREADS", 3)
    config = configure("unused", *words)
    try:
        net = build.net(config, schema(2))
        pace.set_threads(config["speed"]["threads"], config["data"]["batch_size"], net)
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


def test_weight_decay_is_of_weights_alone_where_wanted(tmp_path: Path) -> None:
    common = ["data=iris", "encode=periodic", "encode.scale_layer=true", "optimizer=adamw", "test=false"]
    common += ["trainer.precision=64-true", "trainer.max_epochs=3", "optimizer.decay_biases=false"]
    config = configure(tmp_path, *common)
    module = build.classifier(config, set_up(config).schema)
    names = {id(p): name for name, p in module.net.named_parameters()}
    decayed, others = ([names[id(p)] for p in group["params"]] for group in module.configure_optimizers().param_groups)
    assert decayed == ["encode.embed.weight", "body.0.weight", "body.2.weight"]
    undecayed = ["encode.scale", *(f"encode.embed.{name}" for name in ("frequencies", "phases", "bias"))]
    assert others == [*undecayed, "body.0.bias", "body.2.bias"]

    rates = ["optimizer.lr=0.001", "optimizer.lr=0.01"]
    train_as_one([configure(tmp_path / f"stacked{i}", *common, rate) for i, rate in enumerate(rates)])
    for i, rate in enumerate(rates):
        train(configure(tmp_path / f"alone{i}", *common, rate))
        one, other = (open_run(tmp_path / f"{folder}{i}", "last").weights for folder in ("stacked", "alone"))
        assert all((one[key] - other[key]).norm() <= 1e-9 * other[key].norm() for key in one)


def test_schedules_of_realmlp() -> None:
    def factors(make: Any, total_steps: int) -> list[float]:
        optimizer, found = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=2.0), []
        schedule = make(optimizer, total_steps)
        for _ in range(total_steps + 1):
            found.append(optimizer.param_groups[0]["lr"] / 2)
            optimizer.step()
            schedule.step()
        return found

    waves = factors(coslog4, 15)  # 1 + 15 t is 1, 2, 3, ..., 16
    assert [waves[step] for step in (0, 1, 3, 7, 15)] == pytest.approx([0] * 5, abs=1e-12)
    assert [waves[step] for step in (2, 5, 10)] == pytest.approx([0.9300, 0.9300, 0.9834], abs=1e-3)
    assert factors(flat_cosine, 8) == pytest.approx([1, 1, 1, 1, 1, 0.8536, 0.5, 0.1464, 0], abs=1e-4)
