"""Schema, split and batches, against a closed form or scikit-learn."""

from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight

from tabrun.reading import sources as tables
from tabrun.tables.batches import Batches
from tabrun.tables.columns import Columns
from tabrun.tables.data import TabularData
from tabrun.tables.schema import Schema
from tabrun.tables.split import Split


def fit(frame: pl.DataFrame, **columns: object) -> Schema:
    """The schema of a frame whose every row trains."""
    return Schema.fit(frame, "label", np.arange(len(frame)), Columns(**columns), [])  # type: ignore[arg-type]


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
