"""Formats: how people write numbers, dates and truth values in text, and texts as values of a format."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import polars as pl

from tabrun.reading.values import check_rows

MARKS = (  # of a missing value, in a column that else holds numbers, dates or truth values
    *("", "-", "--", ".", "?", "na", "n/a", "nan", "none", "null", "nil", "#n/a", "#na", "#value!", "#div/0!"),
    *("missing", "unknown", "not available"),
)
TRUTHS = {"yes/no": ("yes", "no"), "Y/N": ("y", "n"), "true/false": ("true", "false"), "T/F": ("t", "f")}
NUMBERS = {"1234": r"^[-+]?\d{1,18}$"}
for name, thousands, decimal in (("1,234.5", ",", r"\."), ("1.234,5", r"\.", ",")):
    whole = rf"(?:\d+|\d{{1,3}}(?:[{thousands}' ]\d{{3}})+)"
    NUMBERS[name] = rf"^[-+]?(?:{whole}(?:{decimal}\d*)?|{decimal}\d+)(?:[eE][-+]?\d+)?$"
DATES = {
    **{"Y-m-d": "%Y-%m-%d", "d.m.Y": "%d.%m.%Y", "d/m/Y": "%d/%m/%Y", "m/d/Y": "%m/%d/%Y", "Y/m/d": "%Y/%m/%d"},
    **{"d-m-Y": "%d-%m-%Y", "m-d-Y": "%m-%d-%Y", "d.m.y": "%d.%m.%y", "d/m/y": "%d/%m/%y", "m/d/y": "%m/%d/%y"},
    **{"d b Y": "%d %b %Y", "b d, Y": "%b %d, %Y"},
}
TIMES = ("", " %H:%M", " %H:%M:%S", " %H:%M:%S%.f", " %I:%M %p", " %I:%M:%S %p")
ZONE = r"(?:Z|[-+]\d{2}:?\d{2})$"
MONEY = r"(?:[$€£¥₹]|USD|EUR|GBP|CHF|JPY|CNY|INR|SEK|NOK|DKK|PLN|CAD|AUD)"
CODE = r"^[-+]?0\d"  # a number that begins with 0 is none
NAMES = ("text", *NUMBERS, *DATES, *TRUTHS)


def numbers(text: pl.Series, name: str) -> pl.Series:
    """Texts as numbers of this format, null where they are none; 22 % is 0.22, and (5) is -5."""
    bare = text.str.replace_all("\u2212", "-").str.replace_all("[\u00a0\u202f]", " ")
    negative, percent = bare.str.contains(r"^\(.*\)$"), bare.str.contains(r"%\)?$")
    bare = bare.str.strip_chars("() ").str.replace(rf"^([-+]?)\s*{MONEY}\s*", "${1}")
    bare = bare.str.replace(rf"\s*(?:{MONEY}|%)$", "")
    right = bare.str.contains(NUMBERS[name]) & ~(bare.str.contains("^[-+]") & negative)
    if name == "1234":
        return bare.zip_with(right & ~negative & ~percent, pl.Series([None], dtype=pl.String)).cast(pl.Int64)
    mark = "," if name == "1.234,5" else "."
    bare = bare.str.replace_all(rf"[ '{'.' if mark == ',' else ','}]", "").str.replace(mark, ".", literal=True)
    found = bare.cast(pl.Float64, strict=False)
    found = found.zip_with(~negative, -found)
    found = found.zip_with(~percent, found / 100)
    return found.zip_with(right, pl.Series([None], dtype=pl.Float64))


def dates(text: pl.Series, name: str) -> pl.Series:
    """Texts as dates, or as datetimes where one has a time; with zones they are in UTC."""
    text, found = text.str.replace("T", " ", literal=True), None
    zoned = text.str.contains(ZONE) & text.str.contains(":", literal=True)
    if zoned.any():
        text = text.str.replace("Z$", "+0000")
    for time in TIMES:
        more = text.str.to_datetime(DATES[name] + time, strict=False, time_unit="us")
        if zoned.any() and time:
            with_zone = text.str.to_datetime(DATES[name] + time + "%#z", strict=False, time_unit="us")
            more = more.fill_null(with_zone.dt.convert_time_zone("UTC").dt.replace_time_zone(None))
        found = more if found is None else found.fill_null(more)
        if found.null_count() == text.null_count():
            return found if time else found.cast(pl.Date)
    assert found is not None
    return found


def read(text: pl.Series, name: str) -> pl.Series:
    """Texts in this format as values, null where they are none."""
    if name in TRUTHS:
        yes, no = TRUTHS[name]
        return text.str.to_lowercase().replace_strict({yes: True, no: False}, default=None, return_dtype=pl.Boolean)
    return numbers(text, name) if name in NUMBERS else dates(text, name)


def without_marks(text: pl.Series) -> pl.Series:
    """Texts without blanks around them, null where one says that a value is missing."""
    text = text.str.strip_chars()
    return text.zip_with(~text.str.to_lowercase().is_in(MARKS), pl.Series([None], dtype=pl.String))


def ask(name: str) -> str:
    return f"mend it, name it in data.read.null_values, or {say(name, 'text')}"


def say(name: str, *formats: str) -> str:
    return "say " + " or ".join(f"data.columns.formats={{{name}: {format}}}" for format in formats)


def as_told(
    frame: pl.DataFrame,
    formats: Mapping[str, str],
    verbatim: Collection[str] = (),
    marks: Sequence[str] = (),
    marked: bool = False,
) -> pl.DataFrame:
    """The columns of text as values of their format, the others without blanks; RowError at the first that is none.

    verbatim: columns that stay as they are. marks: texts that are missing values in any column, as MARKS are in one
    with a format. marked: whether texts without blanks around them have been looked at for these, as in a CSV file.
    """
    texts = [name for name, kind in frame.schema.items() if kind == pl.String and name not in verbatim]
    bare = frame.select(pl.col(name).str.strip_chars() for name in texts)
    if not (marked and bare.equals(frame.select(texts))):
        bare = bare.select(pl.when(~pl.col(name).is_in(["", *marks])).then(pl.col(name)) for name in texts)
    frame, made = frame.with_columns(bare.get_columns()), []
    for name in texts:
        format = formats.get(name, "text")
        if format == "text":
            continue
        text = without_marks(frame[name])
        values = read(text, format)
        kind = "a number" if format in NUMBERS else "a date" if format in DATES else "true or false"
        wrong = values.is_null() & text.is_not_null()
        check_rows(frame[name], wrong, f" is not {kind} written as {format}: {ask(name)}")
        made.append(values)
    return frame.with_columns(made)
