"""How a net sees numbers: against plain loops and numpy, alone and in a stack, in checkpoints and exported files."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from conftest import configure
from handed import CONF, check_values, open_run, planned, set_up, train, train_as_one
from hydra import compose, initialize_config_dir

from classify.nets import Encode
from classify.numbers import Periodic, Piecewise, centers_and_widths, clipped
from tabrun.stack.ways import Batched
from tabrun.tables.columns import Columns, Number
from tabrun.tables.schema import Schema
from tabrun.tables.split import suitable_batch
from tabrun.verbs.export import export

UNDONE = ["loss.label_smoothing=0.1", "loss.undo_smoothing=true"]
OPTIONS: dict[str, list[str]] = {
    "robust": ["encode.scale=robust"],
    "periodic": ["encode=periodic"],
    "piecewise": ["encode=piecewise", "encode.bins=5"],
    "a learned scale": ["encode.scale_layer=true"],
    "all": ["encode=periodic", "data.columns.missing_indicators=true", *UNDONE],
}


def fit(frame: pl.DataFrame, **columns: Any) -> Schema:
    """The schema of a frame whose every row trains."""
    return Schema.fit(frame, "label", np.arange(len(frame)), Columns(**columns), [])


def table(rows: int = 200) -> pl.DataFrame:
    """Numbers of all sorts, one with gaps, a category of many values and one of few."""
    random = np.random.default_rng(0)
    long_tailed, x = random.standard_cauchy(rows), random.normal(5, 3, rows)
    return pl.DataFrame(
        {
            "long_tailed": long_tailed,
            "x": pl.Series(np.where(random.random(rows) < 0.2, np.nan, x)).fill_nan(None),
            "flag": (random.random(rows) < 0.1).astype(float),
            "year": 2000.0 + random.integers(0, 20, rows),
            "city": random.choice([f"c{i}" for i in range(20)], rows),
            "plan": random.choice(["a", "b"], rows),
            "label": np.where(x + random.normal(size=rows) > 5, "yes", "no"),
        }
    )


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    table().write_parquet(tmp_path / "table.parquet")
    words = ["data=parquet", f"data.path={tmp_path / 'table.parquet'}", "data.target=label", "test=false"]
    words += ["encode=standard", "optimizer=adamw", "model=mlp", "data.batch_size=32", "data.columns.max_one_hot=5"]
    return [*words, "trainer.max_epochs=2"]


def test_quantiles_are_numpys() -> None:
    values = np.random.default_rng(0).normal(5, 3, 1001).astype(np.float32)
    schema = fit(pl.DataFrame({"x": values, "label": ["a", *["b"] * 1000]}))
    expected = np.quantile(values.astype(np.float64), np.linspace(0, 1, 33))
    assert schema.numbers[0].quantiles == pytest.approx(expected, rel=1e-12)
    assert Schema.from_plain(schema.plain()) == schema
    older = schema.plain()
    older["numbers"] = tuple({k: v for k, v in number.items() if k != "quantiles"} for number in older["numbers"])
    assert Schema.from_plain(older).numbers[0].quantiles == ()
    with pytest.raises(ValueError, match="older one, without quantiles of x"):
        Encode.of(Schema.from_plain(older), scale="robust")
    for wrong in ((1.0,), (math.nan,) * 33, (2.0, *[1.0] * 32)):
        with pytest.raises(ValueError, match="not 33 finite numbers that rise"):
            Number("x", 0.0, 1.0, quantiles=wrong)


def test_robust_is_median_and_interquartile_range_or_its_deviation_and_a_smooth_clip() -> None:
    frame = table().select("long_tailed", "flag", "label").with_columns(gone=pl.lit(None, pl.Float64))
    schema = fit(frame, missing_indicators=True)
    encoded = Encode.of(schema, scale="robust")(schema.rows(frame)).numpy()
    for i, name in enumerate(("long_tailed", "flag")):
        values = frame[name].to_numpy()
        low, middle, high = np.quantile(values, (0.25, 0.5, 0.75))
        x = (values - middle) / ((high - low) or values.std())
        assert encoded[:, i] == pytest.approx(x / np.sqrt(1 + (x / 3) ** 2), abs=1e-5)
    assert not encoded[:, 2].any()
    assert encoded[:, 3].all()
    assert centers_and_widths(schema.numbers, "robust")[1][2] == 1.0
    far = clipped(torch.tensor([-3e38, -1e5, 0.0, 1e5, 3e38]))
    assert far.tolist() == pytest.approx([-3, -3, 0, 3, 3], abs=1e-4)


def test_periodic_is_a_loop_over_columns() -> None:
    layer, x = Periodic(numbers=3, frequencies=4, outputs=2, std=0.5), torch.randn(5, 3)
    found = layer(x)
    for column in range(3):
        angles = 2 * math.pi * x[:, column, None] * layer.frequencies[column] + layer.phases[column]
        expected = torch.cos(angles) @ layer.weight[column].T + layer.bias[column]
        torch.testing.assert_close(found[:, 2 * column : 2 * column + 2], expected)
    assert Periodic(500, 50, 1, std=0.1).frequencies.std().item() == pytest.approx(0.1, rel=0.05)


def test_piecewise_is_a_loop_over_columns_and_bins() -> None:
    borders = [[0.0, 1.0, 3.0, 4.0], [0.0, 0.0, 0.0, 1.0], [2.0, 2.0, 2.0, 2.0]]
    x = torch.tensor([[-1.0, -1.0, 1.0], [0.5, 0.25, 2.0], [3.5, 1.0, 3.0], [9.0, 2.0, 2.0]])
    found = Piecewise(torch.tensor(borders))(x).view(4, 3, 3).tolist()
    for row in range(4):
        for column, own in enumerate(borders):
            filled = [t for t in range(3) if own[t + 1] > own[t]]
            for t in range(3):
                expected = 0.0
                if t in filled:
                    expected = (x[row, column].item() - own[t]) / (own[t + 1] - own[t])
                    expected = expected if t == filled[0] else max(expected, 0.0)
                    expected = expected if t == filled[-1] else min(expected, 1.0)
                assert found[row][column][t] == pytest.approx(expected)


STACKS = [(option, vary) for option in OPTIONS for vary in ("optimizer.lr", "seed", "data.fold")]


@pytest.mark.parametrize(
    ("option", "vary"),
    [pytest.param(*one, marks=[] if "all" in one or "seed" in one else pytest.mark.slow) for one in STACKS],
)
def test_a_stack_is_computed_layer_by_layer_and_equals_the_runs_alone(
    option: str, vary: str, words: list[str], tmp_path: Path
) -> None:
    values = ["0.001", "0.01", "0.03"] if vary == "optimizer.lr" else ["0", "1", "2"]
    folds = ["data.num_folds=4"] if vary == "data.fold" else []
    words = [*words, *OPTIONS[option], *folds, "trainer.precision=64-true"]
    configs = [configure(tmp_path / f"stacked{i}", *words, f"{vary}={value}") for i, value in enumerate(values)]
    assert [(len(numbers), way) for numbers, way in planned(configs).parts] == [(3, Batched)]
    train_as_one(configs)
    for i, value in enumerate(values):
        train(configure(tmp_path / f"alone{i}", *words, f"{vary}={value}"))
        one, other = (open_run(tmp_path / f"{folder}{i}", "last").weights for folder in ("stacked", "alone"))
        assert one.keys() == other.keys()
        assert all((one[key] - other[key]).norm() <= 1e-9 * other[key].norm() for key in one)


@pytest.mark.parametrize("option", ["all", *(pytest.param(name, marks=pytest.mark.slow) for name in [*OPTIONS][:-1])])
def test_an_exported_file_equals_the_net(option: str, words: list[str], tmp_path: Path) -> None:
    train(configure(tmp_path / "run", *words, *OPTIONS[option]))
    for kind in ("onnx", "torch"):
        assert export(open_run(tmp_path / "run"), kind)[1] <= 1e-5


def test_an_embedding_of_no_numbers_is_none(tmp_path: Path) -> None:
    frame = table().select("plan", "city", "label")
    schema = fit(frame)
    encode = Encode.of(schema, scale="robust", embed="periodic")
    assert encode(schema.rows(frame)).shape == (200, encode.out_features)


def test_no_random_number_is_drawn_and_nothing_is_learned_by_default() -> None:
    before = torch.get_rng_state()
    assert not [*Encode.of(fit(table().select("x", "label"))).parameters()]
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    ("rows", "batch"), [(10, 32), (1000, 32), (3000, 128), (40000, 256), (10**5, 512), (10**8, 1024)]
)
def test_a_batch_by_the_number_of_rows(rows: int, batch: int) -> None:
    assert suitable_batch(rows) == batch


def test_an_own_table_is_read_with_more_care_and_each_choice_may_be_another(tmp_path: Path) -> None:
    table().write_parquet(tmp_path / "table.parquet")
    own = ["data=parquet", f"data.path={tmp_path / 'table.parquet'}", "data.target=label"]
    config, shipped = configure(tmp_path, *own), configure(tmp_path)
    assert (config["encode"]["embed"], shipped["encode"]["embed"]) == ("periodic", None)
    assert set_up(config).batch_size == 32
    other = configure(tmp_path, *own, "encode=standard", "model=linear", "optimizer=sgd", "data.batch_size=8")
    assert {key: other[key] for key in ("encode", "optimizer")} == {
        key: shipped[key] for key in ("encode", "optimizer")
    }
    assert set_up(other).batch_size == 8
    with initialize_config_dir(str(CONF), version_base="1.3"):
        for words in ([*own, "encode.embed=null"], ["data.batch_size=null"]):
            cfg = compose("config", words, return_hydra_config=True)
            check_values(cfg, cfg.hydra.runtime.choices)
