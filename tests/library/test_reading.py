"""Any table that people have: read as pandas or a plain reading of the same values does, or said."""

import gzip
import json
import logging
import math
import sqlite3
import zipfile
from dataclasses import replace
from datetime import date, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pytest
import zstandard
from conftest import configure
from handed import open_run, set_up, train
from workbook import write_workbook

import tabrun
from tabrun import Columns, Split, TabularData
from tabrun.cli.errors import UserError
from tabrun.reading.csv_file import texts_of
from tabrun.reading.formats import NAMES, as_told, read

ROWS = 60


def table(path: object, read: Any = tabrun.read_csv, target: Any = "y", **columns: Any) -> TabularData:
    return TabularData(str(path), read, target, Split(), Columns(**columns))


def frame_of(path: object, **options: Any) -> pl.DataFrame:
    """The table's columns as they are learned from."""
    return table(path, **options).labelled()[0]


def written(folder: Path, values: list[str], *, quote: bool = True, separator: str = ",") -> Path:
    """A CSV file with these texts, again and again, as column x, and classes as y."""
    file = folder / "table.csv"
    cells = [values[i % len(values)] for i in range(ROWS)]
    cells = [f'"{cell}"' if quote else cell for cell in cells]
    file.write_text(f"x{separator}y\n" + "".join(f"{cell}{separator}{'ab'[i % 2]}\n" for i, cell in enumerate(cells)))
    return file


AS_WRITTEN: dict[str, tuple[list[str], list[Any]]] = {
    "blanks around": ([" 39", " 50 ", "1"], [39, 50, 1]),
    "a decimal comma": (["1,5", "-0,25", "12,0"], [1.5, -0.25, 12.0]),
    "thousands, a decimal comma": (["1.234,5", "12.345.678,25", "3"], [1234.5, 12345678.25, 3.0]),
    "thousands, a decimal point": (["1,234.5", "12,345,678.25", "3"], [1234.5, 12345678.25, 3.0]),
    "thousands of commas alone": (["1,234", "12,345", "999"], [1234.0, 12345.0, 999.0]),
    "thousands of blanks": (["1 234,5", "12 345", "3,25"], [1234.5, 12345.0, 3.25]),
    "thousands of quotes": (["1'234.5", "12'345.0", "3.25"], [1234.5, 12345.0, 3.25]),
    "dollars": (["$1,169.00", "$5.00", "-$3.50"], [1169.0, 5.0, -3.5]),
    "euros": (["1.169,00 €", "5,00 €", "-3,50 €"], [1169.0, 5.0, -3.5]),
    "codes of currencies": (["EUR 5.25", "EUR 1,000", "3 EUR"], [5.25, 1000.0, 3.0]),
    "percent": (["22.0%", "7.5 %", "100%"], [0.22, 0.075, 1.0]),
    "parentheses": (["(5.5)", "7.25", "(1,000)"], [-5.5, 7.25, -1000.0]),
    "a typographic minus": (["\u22125.5", "7.25"], [-5.5, 7.25]),
    "exponents": (["1e3", "$2", "2.5E-2"], [1000.0, 2.0, 0.025]),
    "Y and N": (["Y", "N"], [True, False]),
    "yes and no": (["Yes", "no", "YES"], [True, False, True]),
    "true and false": (["TRUE", "False"], [True, False]),
    "0 and 1 as text": ([" 0", " 1"], [0, 1]),
    "d.m.Y": (["3.4.2020", "13.12.2021"], [date(2020, 4, 3), date(2021, 12, 13)]),
    "d/m/Y": (["03/04/2020", "31/12/2021"], [date(2020, 4, 3), date(2021, 12, 31)]),
    "m/d/Y": (["03/04/2020", "12/31/2021"], [date(2020, 3, 4), date(2021, 12, 31)]),
    "m/d/Y with times": (
        ["3/4/2020 10:30", "12/31/2021 23:59"],
        [datetime(2020, 3, 4, 10, 30), datetime(2021, 12, 31, 23, 59)],
    ),
    "half a day": (
        ["3/14/2020 10:30 PM", "12/31/2021 1:05 AM"],
        [datetime(2020, 3, 14, 22, 30), datetime(2021, 12, 31, 1, 5)],
    ),
    "ISO": (["2020-04-03", "2021-12-31"], [date(2020, 4, 3), date(2021, 12, 31)]),
    "ISO with zones": (
        ["2020-04-03T10:00:00+02:00", "2021-12-31T23:30:00Z"],
        [datetime(2020, 4, 3, 8), datetime(2021, 12, 31, 23, 30)],
    ),
    "words of months": (["3 Apr 2020", "31 Dec 2021"], [date(2020, 4, 3), date(2021, 12, 31)]),
    "marks among numbers": (["1.5", "-", "n/a", "#N/A", ".", "None", "2.5"], [1.5, None, None, None, None, None, 2.5]),
    "marks among dates": (["3.4.2020", "-", "13.12.2021"], [date(2020, 4, 3), None, date(2021, 12, 13)]),
    "codes stay text": (["007", "012", "123"], ["007", "012", "123"]),
    "texts stay text": (["red", " green", "1x"], ["red", "green", "1x"]),
    "one letter stays text": (["Y", "N", "U"], ["Y", "N", "U"]),
}


@pytest.mark.parametrize("name", AS_WRITTEN)
def test_a_column_is_read_as_it_is_meant(name: str, tmp_path: Path) -> None:
    texts, values = AS_WRITTEN[name]
    found = frame_of(written(tmp_path, texts))["x"].to_list()
    assert found == [pytest.approx(v) if isinstance(v, float) else v for v in (values * ROWS)[:ROWS]]


def test_numbers_are_read_as_pandas_reads_them(tmp_path: Path) -> None:
    texts = ["1.234,50", "-17,25", "1.000.000,125", "3"]
    file = written(tmp_path, texts, quote=False, separator=";")
    expected = pd.read_csv(file, sep=";", decimal=",", thousands=".")
    assert frame_of(file)["x"].to_list() == expected["x"].to_list()
    points = written(tmp_path, ["1,234.50", "-17.25", "1,000,000.125", "3"])
    assert frame_of(points)["x"].to_list() == pd.read_csv(points, thousands=",")["x"].to_list()


@pytest.mark.parametrize(
    ("style", "texts"),
    [("%d/%m/%Y", ["25/01/2020", "02/03/2021"]), ("%m/%d/%Y %H:%M", ["01/25/2020 7:05", "2/3/2021 17:45"])],
)
def test_dates_are_read_as_pandas_reads_them(style: str, texts: list[str], tmp_path: Path) -> None:
    file = written(tmp_path, texts)
    expected = pd.to_datetime(pd.read_csv(file)["x"], format=style)
    assert frame_of(file)["x"].cast(pl.Datetime("us")).to_list() == expected.dt.to_pydatetime().tolist()


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_the_separator_is_told(separator: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = written(tmp_path, ["1.5", "2"], quote=False, separator=separator)
    with caplog.at_level(logging.INFO):
        frame = frame_of(file)
    assert frame.columns == ["x", "y"]
    assert ("separated by" in caplog.text) == (separator != ",")
    train(configure(tmp_path / "run", "data=csv", f"data.path={file}", "data.target=y", "trainer.max_epochs=1"))
    other = written(tmp_path, ["1.5", "2"], quote=False, separator="|")
    assert next(open_run(tmp_path / "run").table(str(other)).batches()).columns == ["x", "y"]  # it has its own


def test_a_file_without_a_header(tmp_path: Path) -> None:
    file = tmp_path / "table.csv"
    file.write_text("".join(f"{i},{i * 0.5},{'ab'[i % 2]}\n" for i in range(ROWS)))
    with pytest.raises(UserError, match=r"its first row, 0, 0.0, a, looks like .* say data.read.header=false"):
        frame_of(file)
    bare = pd.read_csv(file, header=None)
    data = table(file, lambda **words: tabrun.read_csv(header=False, **words), target="-1")
    frame = data.labelled()[0]
    assert (frame.columns, data.target) == (["c0", "c1", "c2"], "c2")
    assert frame["c1"].to_list() == bare[1].to_list()
    words = ["data=csv", f"data.path={file}", "data.target=-1", "data.read.header=false", "trainer.max_epochs=1"]
    train(configure(tmp_path / "run", *words))
    run = open_run(tmp_path / "run")
    assert run.schema.target == "c2"
    assert len(run.table(str(file)).frame()) == ROWS


def test_texts_without_a_header_and_years_as_names(tmp_path: Path) -> None:
    (tmp_path / "texts.csv").write_text("red,a\n" + "green,b\nred,a\n" * 20)
    with pytest.raises(UserError, match="looks like the rows below"):
        frame_of(tmp_path / "texts.csv")
    (tmp_path / "years.csv").write_text("2019,2020,2021\n" + "1.5,2.5,0\n2,3,1\n" * 20)
    years = tmp_path / "years.csv"
    with pytest.raises(UserError, match=r"data.read.header=false, or true"):
        frame_of(years)
    said = lambda **words: tabrun.read_csv(header=True, **words)  # noqa: E731
    assert frame_of(years, read=said, target="2021").columns == ["2019", "2020", "2021"]


def test_packed_files_are_unpacked(tmp_path: Path) -> None:
    plain = written(tmp_path, ["1.5", "2", "7"])
    text, expected = plain.read_bytes(), frame_of(plain)
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(text))
    (tmp_path / "b.csv.zst").write_bytes(zstandard.ZstdCompressor().compress(text))
    with zipfile.ZipFile(tmp_path / "c.zip", "w") as archive:
        archive.writestr("table.csv", text)
    (tmp_path / "named_otherwise.csv").write_bytes(gzip.compress(text))  # told by its content
    for name in ("a.csv.gz", "b.csv.zst", "c.zip", "named_otherwise.csv"):
        assert frame_of(tmp_path / name).equals(expected), name


@pytest.mark.parametrize(
    ("encoding", "said"), [("utf-8-sig", None), ("utf-16", None), ("cp1252", "cp1252"), ("latin-1", "latin-1")]
)
def test_encodings(encoding: str, said: str | None, tmp_path: Path) -> None:
    file = tmp_path / "table.csv"
    file.write_bytes(written(tmp_path, ["Zürich", "Genève", "Bern"]).read_text().encode(encoding))
    found = frame_of(file, read=lambda **words: tabrun.read_csv(encoding=said, **words))
    assert found["x"].to_list()[:3] == ["Zürich", "Genève", "Bern"]
    if said:
        with pytest.raises(UserError, match=r"row 1: not UTF-8 text .*: say data.read.encoding=cp1252"):
            frame_of(file)


def test_several_files_of_one_table(tmp_path: Path) -> None:
    parts = [tmp_path / "parts" / f"{i}.csv" for i in range(3)]
    parts[0].parent.mkdir()
    for i, part in enumerate(parts):
        part.write_text("x,y\n" + f"{i}.5,a\n{i},b\n" * 10)
    expected = pd.concat([pd.read_csv(part) for part in parts])["x"].to_list()
    for path in (tmp_path / "parts", f"{tmp_path}/parts/*.csv", [str(part) for part in parts]):
        data = TabularData(path if isinstance(path, list) else str(path), tabrun.read_csv, "y", Split(), Columns())
        assert data.labelled()[0]["x"].to_list() == expected
    listed = f"data.path=[{','.join(map(str, parts))}]"
    train(configure(tmp_path / "run", "data=csv", listed, "data.target=y", "trainer.max_epochs=1"))
    assert len(open_run(tmp_path / "run").data().labels) == 60
    parts[2].write_text("x,z\n1,a\n")
    with pytest.raises(UserError, match=r"2.csv: its columns are not those of the files before it: y, z"):
        frame_of(tmp_path / "parts")


def test_other_kinds_of_files(tmp_path: Path) -> None:
    frame = pl.DataFrame({"x": [1.5, 2.0, None] * 20, "t": ["a", "b", "c"] * 20, "y": ["n", "p"] * 30})
    frame.write_ipc(tmp_path / "table.arrow")
    frame.write_ndjson(tmp_path / "table.json")
    frame.write_parquet(tmp_path / "table.parquet")
    frame.write_json(tmp_path / "list.json")
    with sqlite3.connect(tmp_path / "shop.db") as base:
        base.execute("create table t (x real, t text, y text)")
        base.executemany("insert into t values (?, ?, ?)", frame.rows())
    base.close()
    write_workbook(frame, tmp_path / "table.xlsx")
    for name in ("table.arrow", "table.json", "list.json", "table.parquet"):
        assert frame_of(tmp_path / name, read=tabrun.read_parquet).equals(frame), name
    assert frame_of(tmp_path / "table.xlsx", read=tabrun.read_excel).equals(frame)
    with pytest.raises(UserError, match=r"table.xlsx is not a Parquet file but Excel: say data=excel"):
        frame_of(tmp_path / "table.xlsx", read=tabrun.read_parquet)
    with pytest.raises(UserError, match=r"table.xlsx is no Excel that can be read: .*2"):
        frame_of(tmp_path / "table.xlsx", read=partial(tabrun.read_excel, sheet=2))
    words = ["data=excel", f"data.path={tmp_path}/table.xlsx", "data.target=y", "data.read.sheet=table"]
    train(configure(tmp_path / "sheet", *words, "trainer.max_epochs=1"))
    assert len(open_run(tmp_path / "sheet").table(str(tmp_path / "table.xlsx")).frame()) == 60
    with pytest.raises(UserError, match=r"no matching sheet .* 'May' \(data.read.sheet=May\)"):  # as the run's own
        replace(open_run(tmp_path / "sheet").table(str(tmp_path / "table.xlsx")), sheet="May").frame()
    query = lambda **words: tabrun.read_sql(query="select * from t", **words)  # noqa: E731
    assert frame_of(f"sqlite:///{tmp_path}/shop.db", read=query).equals(frame)
    words = ["data=sql", f"data.path=sqlite:///{tmp_path}/shop.db", "data.target=y", "trainer.max_epochs=1"]
    train(configure(tmp_path / "run", *words, "data.read.query='select * from t'"))
    run = open_run(tmp_path / "run")
    for name in ("table.arrow", "table.json", "table.parquet", "table.xlsx"):
        assert len(run.schema.rows(run.table(str(tmp_path / name)).frame())[0]) == 60, name


def test_names_of_columns_but_for_case_and_blanks(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "table.csv"
    file.write_text("Age , Class\n" + "1,a\n2.5,b\n" * 20)
    words = ["data=csv", f"data.path={file}", "data.target=class", "trainer.max_epochs=1"]
    with caplog.at_level(logging.INFO):
        train(configure(tmp_path / "run", *words))
    assert "taken for the same: 'Class' and 'class'" in caplog.text
    file.write_text("age\n" + "1\n2.5\n" * 5)
    run = open_run(tmp_path / "run")
    assert run.schema.rows(run.table(str(file)).frame()).tolist() == [[1.0], [2.5]] * 5
    file.write_text("Age,Class\n" + "1,a\n2.5,b\n" * 20)
    with pytest.raises(UserError, match=r"there is no column clas: data.target names it \(did you mean 'Class'\?\)"):
        frame_of(file, target="clas")


def test_what_was_read_in_training_is_read_so_again(tmp_path: Path) -> None:
    """A few rows, which alone would be read otherwise."""
    file = tmp_path / "table.csv"
    rows = [
        f'"{i % 7},{i % 10}";{i % 28 + 1:02}/0{i % 9 + 1}/2020;{"YN"[i % 2]};{"ab"[i % 3 % 2]}\n' for i in range(90)
    ]
    file.write_text("price;when;member;y\n" + "".join(rows))
    words = ["data=csv", f"data.path={file}", "data.target=y", "trainer.max_epochs=1"]
    train(configure(tmp_path / "run", *words))
    run = open_run(tmp_path / "run")
    assert dict(run.schema.formats) == {"price": "1.234,5", "when": "d/m/Y", "member": "Y/N"}
    file.write_text("price;when;member\n1,234;01/02/2020;Y\n-;;N\n")
    (price, when, member), missing = run.schema.rows(run.table(str(file)).frame()).double().tolist()
    assert (price, member) == (pytest.approx(1.234), 1.0)
    offset = run.schema.numbers[1].offset
    assert when + offset == pytest.approx(datetime(2020, 2, 1).timestamp(), abs=86400)
    assert math.isnan(missing[0])
    assert math.isnan(missing[1])
    file.write_text("price;when;member\n1.5;01/02/2020;Y\n")
    with pytest.raises(UserError, match=r"table.csv: column price, row 1: '1.5' is not a number written as 1.234,5"):
        run.table(str(file)).frame()


WRONG: dict[str, tuple[str, str]] = {  # a file: what is said of it
    "mixed decimal marks": (
        'x,y\n"1,5",a\n"1.5",b\n"2,5",a\n',
        r"column x, row 2: '1.5', where other rows have 1.234,5",
    ),
    "m/d and d/m": (
        "x,y\n13/01/2020,a\n01/13/2020,b\n14/01/2020,a\n",
        r"column x, row 2: '01/13/2020', where .* d/m/Y",
    ),
    "ambiguous days": (
        "x,y\n01/02/2020,a\n03/04/2020,b\n",
        r"may be d/m/Y or m/d/Y: say data.columns.formats=\{x: d/m/Y\} or",
    ),
    "two headers": (
        "x,y\nkg,class\n" + "1.5,a\n2.5,b\n" * 20,
        r"column x, row 1: 'kg', where the rows below hold .* is it a header\? leave",
    ),
    "a header among rows": (
        "x,y\n" + "1.5,a\n2.5,b\n" * 20 + "x,y\n" + "1,a\n",
        r"table.csv: row 41: the header stands here again",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_told_is_asked(name: str, tmp_path: Path) -> None:
    text, words = WRONG[name]
    (tmp_path / "table.csv").write_text(text)
    with pytest.raises(UserError, match=words) as error, tabrun.reading.reader.in_file(str(tmp_path / "table.csv")):
        frame_of(tmp_path / "table.csv")
    assert "table.csv" in str(error.value)


def test_a_format_that_is_said_is_taken(tmp_path: Path) -> None:
    file = written(tmp_path, ["01/02/2020", "03/04/2020"])
    for format, day in (("d/m/Y", date(2020, 2, 1)), ("m/d/Y", date(2020, 1, 2)), ("text", "01/02/2020")):
        assert frame_of(file, formats={"x": format})["x"][0] == day
    with pytest.raises(UserError, match=r"column x, row 1: '01/02/2020' is not a number written as 1,234.5"):
        frame_of(file, formats={"x": "1,234.5"})
    with pytest.raises(UserError, match=r"data.columns.formats=\{x: dmy\} is none of text"):
        frame_of(file, formats={"x": "dmy"})
    words = ["data=csv", f"data.path={file}", "data.target=y", "data.columns.formats={x: d/m/Y}"]
    assert set_up(configure(tmp_path, *words)).schema.numbers[0].kind == "Date"


def test_every_format_has_a_name_that_it_reads() -> None:
    example = datetime(2021, 12, 31)
    for name in NAMES[1:]:
        if "%" in (style := tabrun.reading.formats.DATES.get(name, "")):
            assert read(pl.Series([example.strftime(style)]), name).to_list() == [example.date()], name
    assert read(pl.Series(["1,234.5"]), "1,234.5").to_list() == read(pl.Series(["1.234,5"]), "1.234,5").to_list()


def test_a_json_line_is_no_csv(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(json.dumps({"x": 1, "y": "a"}) + "\n")
    assert tabrun.read_csv(str(tmp_path / "t.csv")).columns == ["x", "y"]


def test_an_encoding_that_is_none_or_another_is_said(tmp_path: Path) -> None:
    file = written(tmp_path, ["Zürich", "Genève"])
    with pytest.raises(UserError, match=r"data.read.encoding=utf-9 is no encoding: say utf-8"):
        frame_of(file, read=partial(tabrun.read_csv, encoding="utf-9"))
    file.write_bytes(file.read_bytes() + b"x")
    with pytest.raises(UserError, match=r"table.csv is no text in utf-32"):
        frame_of(file, read=partial(tabrun.read_csv, encoding="utf-32"))


@pytest.mark.parametrize("kind", ["gzip", "zstd", "zip"])
def test_a_packed_file_that_is_cut_or_damaged_is_said(kind: str, tmp_path: Path) -> None:
    rows = "x,y\n" + "".join(f"{i * 7919 % 10007},{'ab'[i % 2]}\n" for i in range(60_000))
    file = tmp_path / "table.csv"
    if kind == "zip":
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("table.csv", rows)
    else:
        pack = gzip.compress if kind == "gzip" else zstandard.ZstdCompressor().compress
        file.write_bytes(pack(rows.encode()))
    whole = file.read_bytes()
    half = len(whole) // 2
    for damaged in (whole[:half], whole[:half] + bytes([whole[half] ^ 255]) + whole[half + 1 :]):
        file.write_bytes(damaged)
        with pytest.raises(UserError, match=r"table.csv"):
            frame_of(file)


def test_files_of_one_table_may_have_their_columns_in_another_order(tmp_path: Path) -> None:
    for name, columns in (("a", {"x": [1, 2], "y": ["a", "b"]}), ("b", {"y": ["a"], "x": [3]})):
        pl.DataFrame(columns).write_parquet(tmp_path / f"{name}.parquet")
    assert tabrun.read_parquet(str(tmp_path / "[ab].parquet")).to_dict(as_series=False) == {
        "x": [1, 2, 3],
        "y": ["a", "b", "a"],
    }


def test_what_is_taken_as_missing_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = written(tmp_path, ["1.5", "-", "2.5"])
    words = ["data=csv", f"data.path={file}", "data.target=y", "trainer.max_epochs=1"]
    with caplog.at_level(logging.INFO):
        train(configure(tmp_path / "run", *words))
        list(open_run(tmp_path / "run").table(str(file)).batches())
    assert caplog.text.count("column x: '-' is taken as missing") == 1


def test_a_target_of_quantities_may_have_a_decimal_comma(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    plain, comma = tmp_path / "plain.csv", tmp_path / "comma.csv"
    rows = [(i * 7 % 11, i * 13 % 17 + i / 64) for i in range(ROWS)]
    plain.write_text("x,y\n" + "".join(f"{x},{y}\n" for x, y in rows))
    comma.write_text(plain.read_text().replace(",", ";").replace(".", ","))
    classes = []
    for file in (plain, comma):
        words = ["data=csv", f"data.path={file}", "data.target=y", "data.bins=4", "trainer.max_epochs=1"]
        train(configure(tmp_path / file.stem, *words))
        run = open_run(tmp_path / file.stem)
        classes.append(run.schema.classes)
        assert run.labelled(str(file))[1].tolist() == run.data().labels.tolist()  # as another table too
    assert classes[0] == classes[1]
    assert "read as 1,234.5: y" not in caplog.text  # which is said of nothing plain
    pl.DataFrame({"x": range(ROWS), "y": [0] * 50 + [1, 2, 3, 4, 5] * 2}).write_csv(plain)
    data = set_up(configure(tmp_path, "data=csv", f"data.path={plain}", "data.target=y", "data.bins=4"))
    assert data.schema.classes == ("above 0.0", "up to 0.0")
    assert "data.bins=4 make 2 classes, as many rows share a value" in caplog.text


def test_numbers_as_marks_of_missing_values(tmp_path: Path) -> None:
    file = written(tmp_path, ["1.5", "-999", "-999.0", "2"])
    found = frame_of(file, read=partial(tabrun.read_csv, null_values=[-999]))
    assert found["x"].to_list()[:4] == [1.5, None, None, 2.0]
    words = ["data=csv", f"data.path={file}", "data.target=y", "data.read.null_values=[-999]", "trainer.max_epochs=1"]
    train(configure(tmp_path / "run", *words))
    assert open_run(tmp_path / "run").table(str(file)).frame()["x"].to_list()[:2] == [1.5, None]


def test_a_mark_of_missing_is_one_whatever_stands_beside_it() -> None:
    for other in ("x", " x"):
        frame = pl.DataFrame({"a": ["", other, "NA"], "b": ["NA", "y", "z"]})
        found = as_told(frame, {}, marks=["NA"])
        assert found["a"].to_list() == [None, "x", None]
        assert found["b"].to_list() == [None, "y", "z"]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), None, True])
def test_a_mark_is_text_or_a_number(value: Any) -> None:
    with pytest.raises(UserError, match=r"data.read.null_values: \S+ is neither text nor a number"):
        texts_of([value])
