"""Heads, nets and the first layer, each against a closed form or scikit-learn."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from sklearn.preprocessing import StandardScaler

from classify import build
from classify.heads import Sigmoid, Softmax, head_for, undone, unsmoothed
from classify.nets import Encode, activation_layer, mlp
from tabrun.tables.columns import Columns
from tabrun.tables.schema import Schema


def test_heads_by_name() -> None:
    assert head_for("auto", 2) is Sigmoid
    assert head_for("auto", 3) is Softmax
    assert head_for("softmax", 2) is Softmax
    with pytest.raises(ValueError, match="sigmoid or softmax"):
        head_for("tanh", 2)
    with pytest.raises(ValueError, match="the data has 3"):
        Sigmoid.in_features(3)


def test_heads_give_scores_of_at_least_float32() -> None:
    for head, width in ((Sigmoid(), 1), (Softmax(), 2)):
        assert head(torch.ones(3, width, dtype=torch.bfloat16)).dtype == torch.float32
        assert head(torch.ones(3, width, dtype=torch.float64)).dtype == torch.float64
        assert head(torch.ones(3, width)).shape == (3, 2)


@pytest.mark.parametrize("smoothing", [0.01, 0.1])
@pytest.mark.parametrize("classes", [2, 5])
def test_smoothing_is_undone_by_its_definition(smoothing: float, classes: int) -> None:
    p = (8 * torch.rand(1000, classes, dtype=torch.float64)).softmax(-1)
    q = (1 - smoothing) * p + smoothing / classes
    found = unsmoothed(q.log() + 7, smoothing).softmax(-1)
    small = p.amin(-1) < smoothing / classes
    assert 50 < small.sum() < 950
    assert (found - p)[~small].abs().max() < 1e-3 * smoothing  # where it is as good as a clip
    assert (found - p)[small].abs().max() < 0.1 * smoothing
    surer = torch.linspace(-12, 12, 200)  # beyond what smoothed labels ever say
    ranked = unsmoothed(Sigmoid()(surer[:, None]), smoothing)
    assert ((ranked[:, 1] - ranked[:, 0]).diff() > 0).all()


def test_what_is_undone_is_what_the_loss_says() -> None:
    assert undone({"label_smoothing": 0.1, "undo_smoothing": True}) == 0.1
    for loss in (None, [], {}, {"label_smoothing": 0.1}, {"undo_smoothing": True}, {"undo_smoothing": [0]}):
        assert undone(loss) == 0
    assert undone({"label_smoothing": 1e-40, "undo_smoothing": True}) == 0
    for smoothing in (1, 1.0, "0.1", None, [0.1], np.nan, True):
        with pytest.raises(ValueError, match=r"undo_smoothing is for loss.label_smoothing from 0 to below 1, not "):
            undone({"label_smoothing": smoothing, "undo_smoothing": True})


def test_smoothing_is_undone_in_evaluation_alone() -> None:
    """Logistic regression on one flag, of smoothed labels: what it says of each value is how often they were 1."""
    shares, flag = torch.tensor([0.2, 0.9]), torch.arange(2).repeat_interleave(100)
    labels = (torch.arange(100) < 100 * shares[:, None]).long().flatten()
    net = torch.nn.Sequential(torch.nn.Embedding(2, 1), Sigmoid(smoothing=0.1))
    optimizer = torch.optim.LBFGS(net.parameters(), max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(net(flag), labels, label_smoothing=0.1)
        loss.backward()
        return loss

    optimizer.step(closure)
    found = [net.train(mode)(torch.arange(2)).softmax(-1)[:, 1] for mode in (True, False)]
    torch.testing.assert_close(found[0], 0.9 * shares + 0.05, atol=1e-3, rtol=0)
    torch.testing.assert_close(found[1], shares, atol=1e-3, rtol=0)


def test_mlp_has_the_widths_activations_and_dropout_it_was_asked_for() -> None:
    net = mlp(5, 2, hidden=[7, 3], activation="Tanh", dropout=0.5)
    assert [type(layer).__name__ for layer in net] == ["Linear", "Tanh", "Dropout"] * 2 + ["Linear"]
    assert net(torch.ones(4, 5)).shape == (4, 2)
    assert len(mlp(5, 2, hidden=[])) == 1


def test_unknown_activation() -> None:
    with pytest.raises(ValueError, match=r"model.activation=Rello"):
        activation_layer("Rello")


def fit(frame: pl.DataFrame, **columns: object) -> Schema:
    """The schema of a frame whose every row trains."""
    return Schema.fit(frame, "label", np.arange(len(frame)), Columns(**columns), [])  # type: ignore[arg-type]


def test_encode_standardises_as_scikit_learn_does() -> None:
    values = np.random.default_rng(0).normal(5, 3, (50, 4))
    frame = pl.DataFrame(values, schema=list("abcd")).with_columns(pl.Series("label", ["x", "y"] * 25))
    schema = fit(frame)
    encode = Encode([n.mean for n in schema.numbers], [n.std for n in schema.numbers])
    expected = StandardScaler().fit_transform(values)
    encoded = encode(schema.rows(frame)).double()
    torch.testing.assert_close(encoded, torch.from_numpy(expected), atol=1e-5, rtol=1e-5)
    assert encode(torch.full((1, 4), torch.nan)).tolist() == [[0, 0, 0, 0]]


def test_only_build_instantiates() -> None:
    sources = Path(build.__file__).parents[1].rglob("*.py")
    assert [file.name for file in sources if "instantiate\n" in file.read_text()] == ["make.py"]
