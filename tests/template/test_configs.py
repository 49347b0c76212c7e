"""Every YAML under conf/ composes and builds, and runs where a run is cheap."""

import sqlite3
from contextlib import closing
from pathlib import Path

import polars as pl
import pytest
import torch
from conftest import ROOT, configure
from handed import CONF, check_values, set_up, train, trainer_of
from hydra import compose, initialize_config_dir
from workbook import write_workbook

from classify import build
from tabrun.reading import sources as tables

GROUPS = sorted(path.name for path in CONF.iterdir() if path.is_dir())
FILES = [f"{group}={path.stem}" for group in GROUPS for path in sorted((CONF / group).glob("*.yaml"))]

NEEDED = dict.fromkeys(["data=csv", "data=parquet", "data=excel"], ("data.path=README.md", "data.target=species"))
NEEDED["data=sql"] = ("data.path=sqlite:///iris", "data.target=species", "data.read.query=table")


def test_every_group_is_covered() -> None:
    assert len(FILES) + 1 == len(list(CONF.rglob("*.yaml")))


@pytest.mark.parametrize("choice", FILES)
def test_composes_checks_and_builds(choice: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("config", [choice, f"folder={tmp_path}", *NEEDED.get(choice, ())], return_hydra_config=True)
        check_values(cfg, cfg.hydra.runtime.choices)
    if choice in NEEDED:
        path, iris = tmp_path / "iris", tables.from_sklearn("iris", "species")
        if choice == "data=sql":
            with closing(sqlite3.connect(path)) as base, base:
                base.execute(f"create table iris ({', '.join(map(repr, iris.columns))})")
                base.executemany("insert into iris values (?, ?, ?, ?, ?)", iris.rows())
            words = [f"data.path=sqlite:///{path}", "data.read.query='select * from iris'"]
        else:
            write = {"data=csv": pl.DataFrame.write_csv, "data=parquet": pl.DataFrame.write_parquet}
            write.get(choice, write_workbook)(iris, path)
            words = [f"data.path={path}"]
        config = configure(tmp_path, choice, *words, "data.target=species")
    else:
        config = configure(tmp_path, choice)
    if choice == "trainer=gpu" and not torch.cuda.is_available():
        with pytest.raises(Exception, match="gpu"):
            trainer_of(config, {})
        return
    data = set_up(config)
    classifier = build.classifier(config, data.schema)
    rows, labels = next(iter(data.train_dataloader()))
    assert classifier(rows).shape == (len(labels), data.schema.num_classes)
    assert trainer_of(config, {}).max_epochs == config["trainer"]["max_epochs"]


def test_the_target_may_be_several_columns() -> None:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        words = ["data=csv", "data.path=README.md", "data.target=[no,yes]"]
        cfg = compose("config", words, return_hydra_config=True)
        check_values(cfg, cfg.hydra.runtime.choices)


@pytest.mark.parametrize("choice", ["logger=tensorboard", "optimizer=adamw", "optimizer=adam", "head=softmax"])
def test_trains(choice: str, tmp_path: Path) -> None:
    assert "test/accuracy" in train(configure(tmp_path, choice, "debug=fast"))
    if choice.startswith("logger"):
        assert list((tmp_path / "tensorboard").glob("events.*"))


@pytest.mark.parametrize(("table", "columns", "classes"), [("breast_cancer", 30, 2), ("iris", 4, 3), ("wine", 13, 3)])
def test_shipped_tables(table: str, columns: int, classes: int, tmp_path: Path) -> None:
    schema = set_up(configure(tmp_path, f"data={table}")).schema
    assert schema is not None
    assert (len(schema.numbers), schema.num_classes) == (columns, classes)


def test_digits_drops_the_pixels_that_are_always_white(tmp_path: Path) -> None:
    schema = set_up(configure(tmp_path, "data=digits")).schema
    assert schema is not None
    assert 50 < len(schema.numbers) < 64
    assert schema.classes == tuple("0123456789")


def test_no_key_goes_unread() -> None:
    """Every top-level key of config.yaml is named in the source or in another YAML."""
    source = "".join(path.read_text() for path in (ROOT / "src").rglob("*.py"))
    config = configure("unused")
    unread = [key for key in config if f'"{key}"' not in source and f".{key}" not in source]
    assert unread == []
