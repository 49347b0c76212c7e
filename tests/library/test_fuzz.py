"""Random commands, tables and checkpoints: each ends well, or with one line that says what is wrong; none hangs.

PYTHONPATH=tests python tests/library/test_fuzz.py --seconds 600 --seed 7    # longer; prints what did not hold
"""

import argparse
import datetime
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import polars as pl
import pytest
from handed import CONF
from hydra import compose, initialize_config_dir

from tabrun.cli.keys import leaves, plain
from tabrun.runs.folder import claim, unlock

LIMIT = 60  # seconds for a case, which takes less than one
ROWS = 60
ODD = [
    *("0", "-1", "1", "2.5", "1e-320", "1e30", "nan", "inf", "-inf", "null", "''", "[]", "{}", "true", "abc"),
    *("9999999999999999999999", "-9223372036854775808", "é", "名前", "'a b'", "'\"'", '"it\'s"', "[1,2]", "[a,null]"),
    *("{a:1}", "[[]]", "[{}]", "'%'", "'*'", "'${seed}'", "'${nope}'", "'\\n'", "x" * 300, "'../..'", "'a::b'", "~/x"),
]
TOO_MUCH = {  # keys that may ask for hours, other machines, or more than one process
    *("trainer.max_epochs", "trainer.num_nodes", "trainer.devices", "trainer.strategy", "model.hidden"),
    *("sweep.trials", "speed.compile", "trainer.accelerator", "trainer.profiler"),
}
SMALL = ["trainer.max_epochs=1", "trainer.accelerator=cpu"]


def good(rows: int = ROWS) -> pl.DataFrame:
    """Numbers, texts, dates, booleans and a target."""
    day = datetime.date(2024, 1, 1)
    return pl.DataFrame(
        {
            "id": [f"r{i}" for i in range(rows)],
            "x": [i % 7 / 3 for i in range(rows)],
            "n": [i % 5 for i in range(rows)],
            "t": [("one", "two, or", 'th"ree')[i % 3] for i in range(rows)],
            "d": [day + datetime.timedelta(i % 28) for i in range(rows)],
            "b": [i % 3 == 0 for i in range(rows)],
            "y": ["ab"[i % 2] for i in range(rows)],
        }
    )


# What is tried: each gives the words of a command, having written the files that it names


def command(draw: random.Random, folder: Path) -> list[str]:
    """Keys of the config with values that nobody wants."""
    if draw.random() < 0.2:
        verb, *more = draw.choice([["evaluate"], ["predict", "good.csv"], ["export"], ["evaluate", "good.csv"]])
        options = ["--threshold", "--temperature", "--out", "-o", "--calibrate", "--format", "--nope", "--trust"]
        return [f"classify.{verb}", "run", *more, draw.choice(options), draw.choice(ODD).strip("'")]
    keys = [key for key, _ in shipped() if key not in TOO_MUCH and not key.startswith("hydra")]
    words = [
        f"{draw.choice(['', '', '', '', '+', '++'])}{draw.choice(keys)}={draw.choice(ODD)}"
        for _ in range(draw.randint(1, 2))
    ]
    if draw.random() < 0.1:
        words.append(f"~{draw.choice(keys)}")
    return ["classify.train", f"data={draw.choice(['iris', 'moons', 'wine'])}", *SMALL, *words]


def shipped() -> list[tuple[str, object]]:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return list(leaves(plain(compose("config", ["optimizer=adamw", "scheduler=one_cycle"]))))


def flipped(draw: random.Random, content: bytes) -> bytes:
    changed = bytearray(content)
    for _ in range(draw.randint(1, 8)):
        changed[draw.randrange(len(changed))] = draw.randrange(256)
    return bytes(changed)


def cut(draw: random.Random, content: bytes) -> bytes:
    at, size = draw.randrange(len(content)), draw.choice([1, 10, 1000, len(content)])
    return content[:at] + content[at + size :]


def inserted(draw: random.Random, content: bytes) -> bytes:
    at = draw.randrange(len(content))
    odd = [
        b'"',
        b"\0",
        b"\n",
        b"\r\n",
        b",",
        b"x" * 100_000,
        b"\xff\xfe",
        b"\xef\xbb\xbf",
        b"=1+1",
        b"1e999",
        b'""',
        b"'",
    ]
    return content[:at] + draw.choice(odd) * draw.choice([1, 1, 2, 1000]) + content[at:]


def other_header(draw: random.Random, content: bytes) -> bytes:
    names = ["", " ", "x", "y", "y ", "prediction", "probability_a", "a::b", '"q""q"', "é" * 100, "1", "null", "d", "t"]
    rows = content.partition(b"\n")[2]
    return ",".join([*draw.choices(names, k=draw.choice([6, 6, 5, 7])), "y"]).encode() + b"\n" + rows


def csv(draw: random.Random, folder: Path) -> list[str]:
    """A CSV file with something odd in it."""
    content = good(draw.choice([0, 1, 2, 10, ROWS, ROWS])).write_csv().encode()
    for change in draw.choices([flipped, cut, inserted, other_header], k=draw.randint(1, 3)):
        content = change(draw, content or b"\n")
    file = folder / f"{draw.randrange(10**9)}.csv"
    file.write_bytes(content)
    return used(draw, file, "csv")


def used(draw: random.Random, file: Path, kind: str) -> list[str]:
    """Trained on, or given to a run that was trained on `good`."""
    verb = draw.choice(["train", "train", "predict", "evaluate"])
    if verb != "train":
        out = ["-o", f"{file.stem}-out.{draw.choice(['csv', 'parquet'])}"] if verb == "predict" else []
        return [f"classify.{verb}", draw.choice(["run", "run-id"]), file.name, *out]
    options = [
        *("data.drop_missing_target=true", "data.id=id", "data.split.time=d", "data.split.group=t", "data.num_folds=2"),
        *(
            "data.columns.date_parts=[month,weekday]",
            "data.columns.missing_indicators=true",
            "data.columns.ignore=[id]",
        ),
        *("data.columns.small_integers=9", "data.columns.categories=[n]", "data.columns.numbers=[t]", "data.target=d"),
        *("data.split.column=t", "data.columns.max_one_hot=1", "data.target=[x,n]", "data.target=b", "data.id=[d,b]"),
    ]
    words = draw.sample(options, draw.randint(0, 3))
    return ["classify.train", f"data={kind}", f"data.path={file.name}", "data.target=y", *SMALL, *words]


KINDS = [
    *(
        pl.Int8,
        pl.Int16,
        pl.Int32,
        pl.Int64,
        pl.Int128,
        pl.UInt8,
        pl.UInt16,
        pl.UInt32,
        pl.UInt64,
        pl.Float32,
        pl.Float64,
    ),
    *(
        pl.Boolean,
        pl.String,
        pl.Categorical,
        pl.Binary,
        pl.Date,
        pl.Time,
        pl.Datetime("ms"),
        pl.Datetime("us"),
        pl.Null,
    ),
    *(pl.Datetime("ns", "Europe/Oslo"), pl.Duration("ms"), pl.Decimal(20, 2), pl.Enum(["a", "b"]), pl.List(pl.Int64)),
    *(pl.List(pl.String), pl.Array(pl.Float32, 2), pl.Struct({"a": pl.Int64, "b": pl.String})),
]


def values(draw: random.Random, kind: pl.DataType, rows: int) -> pl.Series:
    """Few or many values of this kind, some missing, some extreme."""
    simple = [draw.choice([0, 1, 2, 5, 100]) for _ in range(rows)]
    if kind in (pl.List, pl.Array):
        found = pl.Series([[i, i + 1] for i in simple]).cast(kind, strict=False)
    elif kind == pl.Struct:
        found = pl.DataFrame({"a": simple, "b": [str(i) for i in simple]}).to_struct()
    elif kind in (pl.String, pl.Categorical, pl.Binary, pl.Enum):
        texts = draw.choice(
            [["a", "b"], ["", "é", "a\0b", '"'], ["1", "2.0", "x"], ["2024-01-01", "no"], ["true", "false"]]
        )
        texts = ["a", "b"] if kind == pl.Enum else texts
        found = pl.Series([draw.choice(texts) for _ in range(rows)], dtype=pl.String).cast(kind)
    else:
        ends = draw.choice([[], [], [2**31 - 1, -(2**31)], [2**63 - 1, -(2**63)]])
        numbers = pl.Series([draw.choice([i, *ends]) for i in simple], dtype=pl.Int64)
        if kind.is_decimal() or kind in (pl.Boolean, pl.Null, pl.Time):
            numbers = pl.Series(simple)
        if kind == pl.Date:
            numbers = numbers.cast(pl.Int32, strict=False)
        if kind.is_float() and draw.random() < 0.3:
            numbers = numbers.cast(pl.Float64).replace(5, draw.choice([float("nan"), float("inf"), 1e308, 0.5, -0.0]))
        found = numbers.cast(kind, strict=False)
    missing = pl.Series([draw.random() < draw.choice([0, 0, 0.1]) for _ in range(rows)], dtype=pl.Boolean)
    return pl.select(pl.when(~missing).then(found)).to_series()


def parquet(draw: random.Random, folder: Path) -> list[str]:
    """A Parquet file with columns of any kind, or with other bytes than it was written with."""
    frame = good()
    for name in draw.sample(frame.columns, draw.randint(0, 3)):
        frame = frame.with_columns(values(draw, draw.choice(KINDS), len(frame)).alias(name))
    file = folder / f"{draw.randrange(10**9)}.parquet"
    frame.write_parquet(file, compression=draw.choice(["uncompressed", "zstd", "snappy"]))
    if draw.random() < 0.5:
        file.write_bytes(draw.choice([flipped, flipped, cut, inserted])(draw, file.read_bytes()))
    return used(draw, file, "parquet")


def checkpoint(draw: random.Random, folder: Path) -> list[str]:
    """A run whose files are damaged."""
    run = folder / f"damaged{draw.randrange(10**9)}"
    shutil.copytree(folder / draw.choice(["run", "run-id"]), run)
    names = ["checkpoints/best.ckpt", "checkpoints/last.ckpt", "run.json", ".hydra/config.json"]
    for name in draw.sample(names, draw.choice([1, 1, 2])):
        change = draw.choice([flipped, flipped, cut, inserted])
        (run / name).write_bytes(change(draw, (run / name).read_bytes()))
    return draw.choice(
        [
            ["classify.evaluate", run.name],
            ["classify.predict", run.name, "good.csv"],
            ["classify.export", run.name, "--format", "torch"],
            ["classify.train", f"resume={run.name}", "trainer.max_epochs=2"],
            ["classify.train", f"rerun={run.name}"],
            [
                "classify.train",
                f"init_from={run.name}",
                "data=parquet",
                "data.path=good.parquet",
                "data.target=y",
                *SMALL,
            ],
        ]
    )


TRIED: list[Callable[[random.Random, Path], list[str]]] = [command, csv, parquet, checkpoint]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def prepared(folder: Path, python: Path | str) -> None:
    """The good table and two runs that were trained on it."""
    good().write_csv(folder / "good.csv")
    good().write_parquet(folder / "good.parquet")
    train = ["classify.train", "data=csv", "data.path=good.csv", "data.target=y", *SMALL]
    outcomes = run([[*train, "folder=run"], [*train, "data.id=id", "folder=run-id"]], folder, python)
    assert [outcome[0] for outcome in outcomes] == [0, 0], outcomes


def run(cases: list[list[str]], folder: Path, python: Path | str) -> list[list]:
    script = [python, str(CONF.parent / "tests" / "forked.py"), "heavy", str(LIMIT)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "80"}
    done = subprocess.run(script, cwd=folder, env=environment, input=json.dumps(cases), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def broken(seeds: range, tried: list[Callable], folder: Path, python: Path | str) -> Iterator[str]:
    """What did not hold, of a case for each seed."""
    cases = []
    for seed in seeds:
        draw = random.Random(seed)
        words = tried[seed % len(tried)](draw, folder)
        if words[0] == "classify.train" and not re.search("folder=|resume=", " ".join(words)):
            words.append(f"folder=new{seed}")
        cases.append(words)
    before = contents(folder)
    for seed, words, (code, _, err, _) in zip(seeds, cases, run(cases, folder, python), strict=True):
        one_line = code in (1, 2) and re.fullmatch(r"error: .+", "\n".join(said(err)))
        if not (code == 0 or one_line):
            yield f"seed {seed}: {' '.join(words)}\ncode {code}\n{err[-3000:]}"
        made = folder / f"new{seed}"
        if code and made.exists() and not (made / "checkpoints").exists():
            claim(made)  # what a mistake leaves may be named again
            unlock(made)
    after = contents(folder)
    for name in before:
        if after.get(name) != before[name] and not name.startswith("damaged"):
            yield f"seeds {seeds}: {name} was changed"


def said(err: str) -> list[str]:
    """The lines of stderr but for warnings that a good command has too."""
    return [line for line in err.splitlines() if not line.startswith("columns that training left out are ignored")]


@pytest.mark.slow
def test_what_nobody_meant(tmp_path: Path, forking: Path) -> None:
    prepared(tmp_path, forking)
    wrong = list(broken(range(40), TRIED, tmp_path, forking))
    assert not wrong, "\n\n".join(wrong)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=[tried.__name__ for tried in TRIED])
    words = parser.parse_args()
    tried = [one for one in TRIED if words.only in (None, one.__name__)]
    end, seed, wrong = time.monotonic() + words.seconds, 10**6 * words.seed, 0
    while time.monotonic() < end:
        with tempfile.TemporaryDirectory() as base:
            prepared(Path(base), sys.executable)
            for text in broken(range(seed, seed + 200), tried, Path(base), sys.executable):
                wrong += 1
                print(text, end="\n\n", flush=True)
        seed += 200
    print(f"{seed - 10**6 * words.seed} cases, {wrong} did not hold")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
