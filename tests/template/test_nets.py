"""Heads, nets and the first layer, each against a closed form or scikit-learn."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from sklearn.preprocessing import StandardScaler

from classify import build
from classify.heads import Sigmoid, Softmax, head_for
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
