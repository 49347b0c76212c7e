"""Tables that cannot be read as they are: one line that says file, row, column and key, and nothing changed."""

import gzip
import hashlib
import io
import re
import sqlite3
import struct
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from conftest import configure
from handed import train
from workbook import write_workbook

from classify import build
from tabrun.cli.errors import UserError, one_line_errors
from tabrun.verbs import evaluate, predict

ROWS = "".join(f"{i * 7 % 11}.5,{'ab'[i % 2]}\n" for i in range(30))
PLAIN = "x,y\n" + ROWS
SEMI = "x;y\n" + "".join(f"{i % 7},5;{'ab'[i % 2]}\n" for i in range(40))
FRAME = pl.DataFrame({"x": [1.5, 2.0, 2.5] * 10, "y": ["a", "b"] * 15})


def dated(*days: str) -> str:
    return "when,y\n" + "".join(f"{day},{'ab'[i % 2]}\n" for i, day in enumerate(days * 10))


def column(*values: str, more: str = "") -> str:
    """12,000 rows, so that the last is beyond those by which kinds are told; then `more`."""
    rows = "".join(f'"{values[i % len(values)]}",{"ab"[i % 3 % 2]}\n' for i in range(12_000 if more else 40))
    return f"x,y\n{rows}{more}"


def written(write: Callable[[io.BytesIO], object]) -> bytes:
    write(sink := io.BytesIO())
    return sink.getvalue()


def archive(**files: str) -> bytes:
    with zipfile.ZipFile(sink := io.BytesIO(), "w") as made:
        for name, text in files.items():
            made.writestr(name, text)
    return sink.getvalue()


def locked(whole: bytes) -> bytes:
    """The archive with the flags of a file that needs a password."""
    found = bytearray(whole)
    found[6] |= 1
    found[whole.index(b"PK\x01\x02") + 8] |= 1
    return bytes(found)


def database() -> bytes:
    base = sqlite3.connect(":memory:")
    base.execute("create table t (x real, y text)")
    base.executemany("insert into t values (?, ?)", FRAME.rows())
    base.commit()
    whole = base.serialize()
    base.close()
    return whole


def workbook(frame: pl.DataFrame) -> bytes:
    return written(lambda sink: write_workbook(frame, sink))  # type: ignore[arg-type]


def encrypted_workbook() -> bytes:
    """What Excel saves with a password: a compound file of 512-byte sectors with two streams, here without content."""
    none, end = 0xFFFFFFFF, 0xFFFFFFFE
    places = [0xFFFFFFFD, end, *range(3, 10), end, *range(11, 18), end]
    head = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(16) + struct.pack("<5H6x", 62, 3, 0xFFFE, 9, 6)
    head += struct.pack("<9I109I", 0, 1, 1, 0, 4096, end, 0, end, 0, 0, *[none] * 108)
    tree = b""
    for name, kind, left, child, start, size in (
        *(("Root Entry", 5, none, 2, end, 0), ("EncryptionInfo", 2, none, none, 2, 4096)),
        ("EncryptedPackage", 2, 1, none, 10, 4096),
    ):
        raw = f"{name}\0".encode("utf-16-le")
        tree += raw.ljust(64, b"\0") + struct.pack("<HBB3I36xIQ", len(raw), kind, 1, left, none, child, start, size)
    return head + struct.pack("<128I", *places, *[none] * 110) + tree + bytes(128 + 8192)


PARQUET, ARROW = written(FRAME.write_parquet), written(FRAME.write_ipc)
LINES = "".join(f'{{"x": {i}, "y": "{"ab"[i % 2]}"}}\n' for i in range(30))
FOLDER = "train data=csv data.path=. data.target=y"
SQL, EXCEL = "train data=sql data.path=sqlite:///t.db data.target=y", "train data=excel data.path=t.xlsx data.target=y"
TYPED = "train data=parquet data.target=y"
CSV = "train data=csv data.path=t.csv data.target=y"
Files = str | bytes | dict[str, str | bytes]
CASES: dict[str, tuple[Files, str, str]] = {  # t.csv, or several files; words beside CSV, or all; what is said
    # headers, separators, fields
    "two headers": ("x,y\nkg,class\n" + ROWS, "",
        r"t.csv: column x, row 1: 'kg', where the rows below hold numbers or dates"),
    "header again": (PLAIN + PLAIN, "", r"t.csv: row 31: the header stands here again: leave this row out"),
    "header again, late": (column("1.5", more="x,y\n"), "", r"column x, row 12001: the header stands here again"),
    "header again, texts": ("t,y\nred,a\nblue,b\nt,y\nred,b\n", "data.read.header=true",
        r"row 3: the header stands here"),
    "no header": (ROWS, "",
        r"its first row, 0.5, a, looks like the rows below it, .* say data.read.header=false, or true"),
    "no header, texts": ("red,a\nblue,b\nred,b\nblue,a\nred,a\n", "", r"and stands again in row 4, not like names"),
    "no header, a name": (ROWS, "data.read.header=false",
        r"there is no column y: data.target names it: there are c0, c1"),
    "header denied": (PLAIN, "data.read.header=false data.target=-1",
        r"column c0, row 1: 'x', .* data.read.header=false where"),
    "header=maybe": (PLAIN, "data.read.header=maybe", r"data.read.header=maybe is not true or false"),
    "a title": ("Sales\n" + PLAIN, "",
        r"row 1: 2 fields, where the header has 1 \(Sales\): its first line must name the col"),
    "unquoted": ("x,t,y\n1,red,a\n2,red, dark,b\n", "",
        r"row 2: 4 fields, where the header has 3 \(x, t, y\): ',' within a"),
    "unquoted marks": ("x,z,y\n" + "1,5,2,a\n" * 9, "", r"row 1: 4 fields, where .*: ',' within a text needs quotes"),
    "too few": ("x,t,y\n1,red,a\n2,b\n", "", r"row 2: 2 fields, where the header has 3 \(x, t, y\)$"),
    "odd separator": (PLAIN.replace(",", ":"), "", r"there is one, 'x:y': if it is several, say data.read.separator"),
    "names twice": ("x,x,y\n" + ROWS.replace(",", ",1,"), "",
        r"t.csv has two columns called 'x': give each its own name"),
    # numbers
    "mixed marks": (SEMI + "1.5;a\n", "",
        r"column x, row 41: '1.5', where other rows have 1.234,5: mend it, .*formats=.x: text."),
    "mixed marks, late": (column("1,5", "2,5", more="1.5,a\n"), "",
        r"row 12001: '1.5' is not a number written as 1.234,5"),
    "mixed thousands": (column("1.234,5", "1,234.5"), "", r"column x, row 1: '1.234,5', where other rows have 1,234.5"),
    "percent and not": (column("5%", "7", "0", "9%"), "",
        r"column x, row 2: '7', where other rows are in %: mend it, name it"),
    "two currencies": (column("$5", "€7", "$9"), "", r"column x, row 2: '€7', where other rows are in \$: mend it"),
    "late word": (column("$1,5.5", "$2.5", more="much,a\n").replace("$1,", "$"), "",
        r"x, row 12001: 'much' is not a number writ"),
    "late money": (column("1.5", more="$5,a\n"), "",
        r"column x, row 12001: '\$5' is not a number, as the rows that its kind"),
    "late truth": (column("yes", "no", more="maybe,a\n"), "",
        r"row 12001: 'maybe' is not true or false written as yes/no"),
    # dates
    "m/d and d/m": (dated("13/01/2020", "01/13/2020", "14/01/2020"), "",
        r"when, row 2: '01/13/2020', where .* have d/m/Y"),
    "either": (dated("01/02/2020"), "",
        r"column when: '01/02/2020' may be d/m/Y or m/d/Y: say data.columns.formats=.when: d/m"),
    "either, two digits": (dated("1/2/20"), "", r"column when: '1/2/20' may be d/m/Y or m/d/Y"),
    "late date": (column("3/14/2020", more="14/3/2020,a\n"), "",
        r"x, row 12001: '14/3/2020' is not a date written as m/d/Y"),
    "format of none": (PLAIN, "data.columns.formats={x:d.m.Y}",
        r"column x, row 1: '0.5' is not a date written as d.m.Y"),
    "format of nothing": (PLAIN, "data.columns.formats={xx:text}",
        r"no column xx: data.columns.formats names it .did you mean 'x'"),
    "format unknown": (PLAIN, "data.columns.formats={x:dmy}",
        r"data.columns.formats=.x: dmy. is none of text 1234 1,234.5"),
    "format alone": (PLAIN, "data.columns.formats=text",
        r"data.columns.formats=text is no group of keys, as in .price: text"),
    "format of typed": ({"t.pq": PARQUET}, f"{TYPED} data.path=t.pq data.columns.formats={{x:text}}",
        r"t.pq: column x holds Float64, and data.columns.formats is for texts"),
    # encodings
    "UTF-16": (PLAIN.encode("utf-16-le"), "",
        r"no text, or text in UTF-16 without its mark: say data.read.encoding=utf-16-le"),
    "UTF-16, big": (PLAIN.encode("utf-16-be"), "", r"UTF-16 without its mark: say data.read.encoding=utf-16-be"),
    "latin-1": ((PLAIN + "1,é\n").encode("latin-1"), "",
        r"t.csv: row 31: not UTF-8 .* say data.read.encoding=cp1252, or"),
    "latin-1 header": (("é" + PLAIN).encode("latin-1"), "",
        r"t.csv, header: not UTF-8 .* say data.read.encoding=cp1252, or"),
    "UTF-8 denied": (PLAIN + "1,é\n", "data.read.encoding=cp1252",
        r"t.csv is text in UTF-8: leave out data.read.encoding=cp1252"),
    "not UTF-16": (PLAIN, "data.read.encoding=utf-16",
        r"t.csv is no text in utf-16: .*: say another data.read.encoding"),
    "no encoding": (PLAIN, "data.read.encoding=base64",
        r"data.read.encoding=base64 is no encoding: say utf-8, utf-16, cp1252"),
    "bytes": (b"\x89PNG\r\n\x1a\n\0\0", "", r"t.csv is a file of PNG: unpack it, or save the table as CSV or Parquet"),
    "a web page": ("<!DOCTYPE html>\n<p>404\n", "", r"t.csv is a file of HTML or XML"),
    # packed, and other kinds of files
    "two in a zip": (archive(a=PLAIN, b=PLAIN), "", r"t.csv holds 2 files, not one: a, b: unpack it"),
    "empty zip": (archive(), "", r"t.csv holds no file"),
    "encrypted zip": (locked(archive(a=PLAIN)), "",
        r"t.csv: File 'a' is encrypted, password required for extraction: unpack"),
    "cut gzip": (gzip.compress(PLAIN.encode())[:-9], "", r"t.csv is a damaged gzip file: Compressed file ended before"),
    "Parquet in gzip": (gzip.compress(PARQUET), "", r"t.csv holds a file of Parquet, not CSV: unpack it"),
    "bad zstd": (b"\x28\xb5\x2f\xfd" + b"garbage" * 9, "", r"t.csv is a damaged zstd file"),
    "no zstd": ({"t.zst": "none\n" * 9}, "train data=csv data.path=t.zst data.target=y",
        r"t.zst: .*its first row, none, looks"),
    "damaged Parquet": (PARQUET[:40] + bytes(60) + PARQUET[100:], "",
        r"t.csv is not a Parquet file that can be read: "),
    "cut Arrow": (ARROW[: len(ARROW) // 2], "", r"t.csv is no Arrow that can be read: "),
    "stream of Arrow": (written(FRAME.write_ipc_stream), "", r"t.csv is a file of Arrow's stream: unpack it, or save"),
    "broken line": (LINES + '{"x": 3, "y"\n' + LINES, "",
        r"t.csv: row 31: this line is not JSON: Expecting ':' delimiter"),
    "nested": (re.sub(r": (\d+)", r': {"z": \1}', LINES), "",
        r"t.csv: column x holds Struct.*: leave it out with data.columns"),
    # folders
    "other columns": ({"a.csv": PLAIN, "b.csv": PLAIN.replace("x", "z")}, FOLDER,
        r"b.csv: its columns are not those of .*: x, z"),
    "other kinds": ({"a.pq": PARQUET, "b.pq": written(FRAME.select(pl.all().cast(pl.String)).write_parquet)},
        f"{TYPED} data.path=.", r"b.pq: column x holds String, where the files before it have Float64"),
    "later file": ({"a.csv": SEMI, "b.csv": SEMI + "1.5;a\n"}, FOLDER,
        r"column x, row 81: .*rows are counted through all files"),
    "no CSV": ({"read.me": "x"}, FOLDER, r" is a folder without CSV or Parquet files: name a file"),
    # Excel and SQL
    "encrypted sheet": ({"t.xlsx": encrypted_workbook()}, EXCEL,
        r"t.xlsx is no Excel that can be read: .*password protected"),
    "no sheet": ({"t.xlsx": workbook(FRAME)}, f"{EXCEL} data.read.sheet=2",
        r"no matching sheet .*\(data.read.sheet=2\)"),
    "no such sheet": ({"t.xlsx": workbook(FRAME)}, f"{EXCEL} data.read.sheet=May",
        r"no matching .*\(data.read.sheet=May\)"),
    "sheet 0": ({"t.xlsx": workbook(FRAME)}, f"{EXCEL} data.read.sheet=0",
        r"data.read.sheet=0 is not a sheet's number from 1"),
    "empty sheet": ({"t.xlsx": workbook(pl.DataFrame())}, EXCEL,
        r"t.xlsx is no Excel that can be read: empty Excel sheet"),
    "header alone": ({"t.xlsx": workbook(FRAME.head(0))}, EXCEL, r"t.xlsx has a header and no rows"),
    "no rows": ({"t.db": database()}, f"{SQL} data.read.query='select * from t where x>9'",
        r"query=select .* gives no rows"),
    "syntax": ({"t.db": database()}, f"{SQL} data.read.query='selec x'",
        r"t.db: data.read.query=selec x: .*syntax error"),
    "no table": ({"t.db": database()}, f"{SQL} data.read.query='select * from u'",
        r"query=select .* from u: .*no such table: u"),
    "no query": ({"t.db": database()}, f"{SQL} data.read.query='delete from t'",
        r"query=delete from t is no query for rows"),
    "no database": ({"t.db": "nothing " * 99}, f"{SQL} data.read.query='select * from t'",
        r"t.db: .*file is not a database"),
    "no file": ({}, f"{SQL} data.read.query='select 1'", r"sqlite:///t.db: there is no file t.db"),
    "no URI": ("", "train data=sql data.path=shop data.target=y data.read.query='select 1'",
        r"data.path=shop is not a database's URI, such as sqlite:///"),
    "a database as CSV": (database(), "", r"t.csv is a file of SQLite: say data=sql"),
    # targets
    "text in bins": (PLAIN, "data.bins=4", r"t.csv: column y, row 1: 'a' is not a number, which data.bins=4 needs"),
    "too many bins": ("y,x\n" + ROWS, "data.bins=40", r"column y holds 11 values: data.bins=40 are too many"),
    "a quantity": ("y,x\n" + ROWS, "",
        r"column y, row 1: 0.5: a target is a class, not a quantity: data.bins=4 makes four"),
    "no such class": (PLAIN, "data.positive=c", r"t.csv: data.positive=c is not one of two classes: there are a, b"),
    "three classes": (PLAIN + "1,c\n" * 9, "data.positive=a",
        r"data.positive=a is not one of two classes: there are a, b, c"),
    "rare": (PLAIN + "1,c\n", "",
        r"class c has 1 rows: .* data.rare_classes=drop or merge takes those of fewer than data.rare_b"),
    "all rare": (PLAIN, "data.rare_classes=drop data.rare_below=99",
        r"data.rare_classes=drop leaves no rows: all classes have"),
    "missing": (PLAIN + "1,\n", "",
        r"column y, row 31: the target is missing in 1 rows; data.drop_missing_target=true"),
    "one class": (PLAIN.replace("b", "a"), "", r"t.csv: the training rows hold one class, a: at least 2 are needed"),
    # names of columns
    "ignore": (PLAIN, "data.columns.ignore=[xx]",
        r"no column xx: data.columns.ignore names it .did you mean 'x'.*: there are x, y"),
    "id": (PLAIN, "data.id=xx", r"no column xx: data.id names it .did you mean 'x'"),
    "target": (PLAIN, "data.target=yy", r"t.csv: there is no column yy: data.target names it .did you mean 'y'"),
    "group": (PLAIN, "data.split.group=xx", r"no column xx: data.split.group names it .did you mean 'x'"),
    # predict and evaluate, with a run of x and z
    "lacks": ("z;w\n1;2\n", "predict RUN t.csv",
        r"t.csv: there is no column x: the classifier was trained with it: there are z, w"),
    "keep": ("x,z\n1,2\n", "predict RUN t.csv --keep zz", r"no column zz: --keep names it .did you mean 'z'"),
    "keep prediction": ("x,z,prediction\n1,2,a\n", "predict RUN t.csv --keep prediction",
        r"--keep prediction: predictions have"),
    "out": ("x,z\n1,2\n", "predict RUN t.csv -o t.csv", r"--out t.csv is the table itself, or the one of the run"),
    "other marks": ("x;z\n1,5;2\n", "predict RUN t.csv",
        r"t.csv: column x, row 1: '1,5' is not a number: mend it, or leave it"),
    "header again, predict": ("x,z\n1,2\nx,z\n", "predict RUN t.csv",
        r"t.csv: column x, row 2: the header stands here again"),
    "predict a zip": (archive(a=PLAIN, b=PLAIN), "predict RUN t.csv", r"t.csv holds 2 files, not one: a, b: unpack it"),
    "predict a folder": ({}, "predict RUN .", r"\. is a folder: name a file"),
    "new class": ("x,z,y\n1,2,a\n2,2,q\n", "evaluate RUN t.csv",
        r"column y, row 2: the training rows have no class q, only a, b"),
}  # fmt: skip


WORDS = {  # of the whole command, which checks them before there is a table
    "data.bins=1": r"data.bins=1 is out of range: it must be from 2 to 1000",
    "data.rare_classes=remove": r"data.rare_classes=remove is not one of null, merge, drop",
    "data.path=z*.csv": r"there is no file z\*.csv",
    "data.path=[]": r"data.path names no file",
    "data.columns.ignore=x": r"data.columns.ignore=x is not a list",
    "data.read.sheet=2": r"there is no key data.read.sheet .did you mean data.read.header",
    "data.bins=4": r"t.csv: column y, row 1: 'a' is not a number, which data.bins=4 needs",
    "data.target=z": r"t.csv: there is no column z: data.target names it: there are x, y",
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of x and z."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "t.csv").write_text("x,z,y\n" + "".join(f"{i}.5,{i * 7 % 11},{'ab'[i % 2]}\n" for i in range(30)))
    train(configure(folder / "run", "data=csv", f"data.path={folder}/t.csv", "data.target=y", "trainer.max_epochs=1"))
    return folder / "run"


def hashes(folder: Path) -> dict[Path, str]:
    return {file: hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.rglob("*") if file.is_file()}


def trained(build: Any) -> None:
    """As the command does, without its half a second for composing."""
    with one_line_errors():
        train(configure("run", *sys.argv[1:]))


@pytest.mark.parametrize("name", CASES)
def test_what_cannot_be_read_is_said_in_one_line(
    name: str, tmp_path: Path, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, words, expected = CASES[name]
    monkeypatch.chdir(tmp_path)
    for file, content in (files if isinstance(files, dict) else {"t.csv": files}).items():
        (tmp_path / file).write_bytes(content if isinstance(content, bytes) else content.encode())
    before = hashes(tmp_path)
    words = words if words.startswith(("train", "predict", "evaluate")) else f"{CSV} {words}"
    verb, *rest = re.findall(r"(?:'[^']*'|\S)+", words)
    monkeypatch.setattr(sys, "argv", [verb, *(str(run) if word == "RUN" else word for word in rest)])
    verbs: dict[str, Any] = {"train": trained, "predict": predict.main, "evaluate": evaluate.main}
    with pytest.raises(SystemExit) as stop:
        verbs[verb](build)
    check(stop.value.code, expected)
    assert hashes(tmp_path) == before


@pytest.mark.parametrize("word", WORDS)
def test_the_command_says_it_too(word: str, tmp_path: Path, inside: Callable[..., Any]) -> None:
    (tmp_path / "t.csv").write_text(PLAIN)
    check(inside(*CSV.split()[1:], word, "folder=run"), WORDS[word])
    assert (tmp_path / "t.csv").read_text() == PLAIN
    assert not [*tmp_path.rglob("*.ckpt"), *tmp_path.rglob("metrics.json")]


def check(code: Any, expected: str) -> None:
    assert str(code).startswith("error: "), code
    assert "\n" not in code
    assert re.search(expected, code), code


def test_a_locked_database_is_said(tmp_path: Path) -> None:
    (tmp_path / "t.db").write_bytes(database())
    base = sqlite3.connect(tmp_path / "t.db")
    base.execute("begin exclusive")
    words = f"data.path='sqlite:///{tmp_path}/t.db?timeout=0.1'", "data.read.query='select * from t'"
    with pytest.raises(UserError, match=r"^sqlite:///.*: data.read.query=select \* from t: .*database is locked$"):
        train(configure(tmp_path / "run", "data=sql", "data.target=y", *words))
    base.close()
