"""Heads, nets, schema and batches, each against a closed form or scikit-learn."""

import ast
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from sklearn.preprocessing import StandardScaler
from sklearn.utils.class_weight import compute_class_weight

from classify import build
from classify.heads import Sigmoid, Softmax, head_for
from classify.nets import Encode, activation_layer, mlp
from tabrun.tables import sources as tables
from tabrun.tables.columns import Columns
from tabrun.tables.data import Batches, TabularData
from tabrun.tables.schema import Schema
from tabrun.tables.split import Split

SOURCE = Path(build.__file__).parent


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


def test_schema_leaves_out_constant_columns_and_survives_plain_values() -> None:
    frame = pl.DataFrame({"a": [1.0, 2.0, 3.0], "b": [1, 1, 1], "label": ["no", "yes", "no"]})
    schema = fit(frame)
    assert [number.name for number in schema.numbers] == ["a"]
    assert (schema.classes, schema.class_counts) == (("no", "yes"), (2, 1))
    assert schema.labels(frame).tolist() == [0, 1, 0]
    assert Schema.from_plain(schema.plain()) == schema


def test_balanced_weights_are_scikit_learns() -> None:
    labels = ["a"] * 10 + ["b"] * 3 + ["c"] * 7
    schema = fit(pl.DataFrame({"x": range(20), "label": labels}))
    expected = compute_class_weight("balanced", classes=np.array(["a", "b", "c"]), y=labels)
    assert schema.balanced_weights() == pytest.approx(expected)


def batches(seed: int | None, process: int = 0, num_processes: int = 1, rows: int = 10) -> Batches:
    table = torch.arange(100)
    made = Batches(table[:, None].float(), table, torch.arange(50, 50 + rows), batch_size=4, seed=seed)
    made.process, made.num_processes = process, num_processes
    return made


def test_every_row_comes_once_an_epoch_with_its_own_label() -> None:
    for seed in (None, 0):
        epoch = list(batches(seed))
        assert [len(labels) for _, labels in epoch] == [4, 4, 2]
        assert all(torch.equal(rows[:, 0].long(), labels) for rows, labels in epoch)
        assert sorted(torch.cat([labels for _, labels in epoch]).tolist()) == list(range(50, 60))


def test_the_order_depends_on_seed_and_epoch_alone() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        made = batches(seed, rows=50)
        made.epoch = lambda: epoch
        return made.order().tolist()

    assert order(0, 3) == order(0, 3)
    assert len({tuple(order(seed, epoch)) for seed in (0, 1) for epoch in (0, 1)}) == 4


@pytest.mark.parametrize("rows", [8, 9, 10, 11])
def test_processes_share_an_epoch(rows: int) -> None:
    for seed in (None, 0):
        shares = [batches(seed, process, 3, rows) for process in range(3)]
        seen = [torch.cat([labels for _, labels in share]).tolist() for share in shares]
        assert [len(share) for share in shares] == [len(list(share)) for share in shares]
        assert {row for share in seen for row in share} == set(range(50, 50 + rows))
        if seed is not None:  # or the processes would wait for one another
            assert len({len(share) for share in seen}) == 1
        else:  # or a row would count twice in a metric
            assert sum(map(len, seen)) == rows


def iris(**split: Any) -> TabularData:
    data = TabularData("iris", tables.from_sklearn, "species", Split(**split), Columns())
    data.setup()
    return data


def test_a_table_that_has_moved_gives_its_batches_there() -> None:
    data = iris()
    data.to(torch.device("meta"))
    rows, labels = next(iter(data.train_dataloader()))
    assert (rows.device.type, labels.device.type, rows.shape) == ("meta", "meta", (32, 4))


def test_a_table_that_a_gpu_has_no_room_for_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    data = iris()
    size = data.rows.nbytes + data.labels.nbytes  # type: ignore[union-attr]
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2 * size - 1, 80 * 2**30))
    data.to(torch.device("cuda"))
    assert next(iter(data.train_dataloader()))[0].device.type == "cpu"


def test_the_split_is_stratified_seeded_and_complete() -> None:
    data, again, other = iris(), iris(), iris(seed=1)
    everything = torch.cat(list(data.index.values()))
    assert sorted(everything.tolist()) == list(range(150))
    assert {name: len(index) for name, index in data.index.items()} == {"train": 90, "val": 30, "test": 30}
    for index in data.index.values():
        assert torch.bincount(data.labels[index]).unique().numel() == 1
    assert all(torch.equal(data.index[name], again.index[name]) for name in data.index)
    assert data.sha256 == again.sha256 != other.sha256


def test_the_hash_covers_names_of_classes_and_columns() -> None:
    table = tables.from_sklearn("iris", "species")
    for changed in (
        table.with_columns(pl.col("species").replace("setosa", "a")),
        table.rename({table.columns[0]: "a"}),
    ):
        data = TabularData("iris", lambda path, target, kinds, frame=changed: frame, "species", Split(), Columns())
        data.setup()
        assert torch.equal(data.rows, iris().rows)  # type: ignore[arg-type]
        assert data.sha256 != iris().sha256


def test_statistics_come_from_training_rows_only() -> None:
    table = tables.from_sklearn("iris", "species")
    data = iris()
    first = table.columns[0]
    changed = table.with_row_index("row").with_columns(
        pl.when(pl.col("row").is_in(data.index["train"].tolist())).then(pl.col(first)).otherwise(1e6).alias(first)
    )
    leaky = TabularData("iris", lambda path, target, kinds: changed.drop("row"), "species", Split(), Columns())
    leaky.setup()
    assert leaky.schema == data.schema
    assert leaky.sha256 != data.sha256


def test_imports_go_one_way() -> None:
    """Which of our files each may import, directly or inside a function."""
    allowed = {
        **{name: set() for name in ("heads", "nets", "pace", "values", "keys", "folder", "module")},
        "errors": {"keys"},
        "columns": {"values"},
        "schema": {"columns", "folder", "values"},
        "checkpoint": {"folder", "schema", "values"},
        "csv_faults": {"folder", "values"},
        "csv_file": {"columns", "csv_faults"},
        "tables": {"csv_file", "folder"},
        "trust": {"check", "keys", "nets", "tables"},
        "trained": {"heads", "schema"},
        "baselines": {"data", "nets"},
        "onnx_file": {"columns", "schema", "trained", "values"},
        "split": {"values"},
        "earlier": {"folder"},
        "check": {"earlier", "errors", "folder", "keys"},
        "target": {"values"},
        "data": {"columns", "schema", "split", "target", "values"},
        "quick": {"module"},
        "build": {"columns", "heads", "nets", "pace", "schema", "data", "module", "quick", "callbacks", "earlier"},
        "run": {
            "build",
            "checkpoint",
            "columns",
            "folder",
            "schema",
            "data",
            "tables",
            "target",
            "module",
            "trained",
            "trust",
            "values",
        },
        "__init__": {"run"},
        "callbacks": {"folder"},
        "again": {"build", "checkpoint", "folder", "keys", "run", "trust"},
        "train": {
            "again",
            "build",
            "callbacks",
            "check",
            "checkpoint",
            "earlier",
            "errors",
            "folder",
            "keys",
            "pace",
            "run",
        },
        "evaluate": {"baselines", "errors", "folder", "run", "data", "heads"},
        "predict": {"errors", "folder", "run", "heads", "tables", "values"},
        "export": {"errors", "folder", "run", "schema", "trained", "onnx_file"},
    }
    allowed |= {
        "sweep/__init__": set(),
        "sweep/launcher": {"check", "errors", "folder", "build", "sweep"},
        "sweep/grid": {"sweep"},
        "sweep/plan": {"pace"},
        "sweep/rows": {"data"},
        "sweep/stacked": {"module"},
        "sweep/member": {"callbacks", "data", "folder", "module"},
        "sweep/population": {"data", "quick", "sweep"},
        "sweep/training": {"build", "data", "pace", "run", "sweep"},
        "sweep/summary": {"folder", "run", "sweep"},
        "sweep/winner": {"folder", "keys", "run"},
        "sweep/rates": {"folder", "sweep"},
        "sweep/search": {"build", "folder", "sweep"},
        "sweep/study": {"folder"},
    }
    for file in SOURCE.rglob("*.py"):
        found = set()
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == SOURCE.name:
                inside = (node.module or "").split(".")[1:]
                found |= set(inside[:1]) if inside else {alias.name for alias in node.names}
        name = str(file.relative_to(SOURCE).with_suffix(""))
        assert found <= allowed[name], f"{name} imports {found - allowed[name]}"


def test_only_build_instantiates() -> None:
    assert [file.name for file in SOURCE.rglob("*.py") if "import instantiate" in file.read_text()] == ["build.py"]
