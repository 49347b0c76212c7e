"""Formats: how people write numbers, dates and truth values in text, told from a column and then held to it."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping

import polars as pl

from tabrun.cli.errors import UserError
from tabrun.reading.values import RowError, check_rows

log = logging.getLogger(__name__)

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
TWINS = (("d/m/Y", "m/d/Y"), ("d-m-Y", "m-d-Y"), ("d/m/y", "m/d/y"))  # told apart by days above 12
TIMES = ("", " %H:%M", " %H:%M:%S", " %H:%M:%S%.f", " %I:%M %p", " %I:%M:%S %p")
ZONE = r"(?:Z|[-+]\d{2}:?\d{2})$"
MONEY = r"(?:[$€£¥₹]|USD|EUR|GBP|CHF|JPY|CNY|INR|SEK|NOK|DKK|PLN|CAD|AUD)"
CODE = r"^[-+]?0\d"  # a number that begins with 0 is none
NAMES = ("text", *NUMBERS, *DATES, *TRUTHS)
HEAD = 10_000  # rows by which a column is told
ASK = "mend it, name it in data.read.null_values, or leave the column text with data.columns.formats"
MOSTLY = 0.9  # of the values, from which a column would be of a kind but for the rest


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


def told(
    frame: pl.DataFrame,
    given: Mapping[str, str],
    skip: Collection[str],
    plain: Collection[str],
    numbers: Collection[str],
) -> dict[str, str]:
    """The format of each column of text that has one, by its first rows; what is guessed is said.

    given: as a person said it. skip: columns that stay text. plain: such as the target, whose 5 % is a name. numbers:
    columns that have to be some. UserError: a column could be read in two ways, or one of its values in none.
    """
    found = {name: format for name, format in given.items() if frame.schema.get(name) == pl.String}
    unsure = []
    for column in frame.head(HEAD).select(pl.col(pl.String)):
        text = without_marks(column)
        if column.name in skip or column.name in found or text.null_count() == len(text):
            continue
        names = [*NUMBERS] if column.name in numbers else ["1234", "Y-m-d"] if column.name in plain else NAMES[1:]
        fitting = fits(text, names)
        if {"1,234.5", "1.234,5"} <= set(fitting) and "1234" not in fitting:
            unsure.append(column.name)
        elif column.name in numbers and not fitting:
            found[column.name] = "1,234.5"
        elif fitting:
            found[column.name] = fitting[0]
    for name in unsure:  # 1,234 is thousands, unless the table has a decimal comma elsewhere
        commas = "1.234,5" in found.values() and "1,234.5" not in found.values()
        dots = frame[name].str.contains(r"\d\.\d{3}").any() and not frame[name].str.contains(",", literal=True).any()
        found[name] = "1.234,5" if commas or dots else "1,234.5"
    guessed = {name: format for name, format in found.items() if name not in given and format not in ("1234", "Y-m-d")}
    for format in dict.fromkeys(guessed.values()):
        names = [name for name in guessed if guessed[name] == format]
        log.info("read as %s: %s (else say data.columns.formats={%s: text})", format, ", ".join(names), names[0])
    for column in frame.head(HEAD).select([name for name, format in found.items() if format != "text"]):
        marks = column.filter(without_marks(column).is_null() & column.is_not_null()).unique().sort().head(3)
        if len(marks):
            log.info("column %s: %s is taken as missing", column.name, ", ".join(map(repr, marks)))
    return found


def fits(text: pl.Series, names: Collection[str]) -> list[str]:
    """The formats that read all texts, the plainest first; UserError where two might, or each reads a part."""
    rest = text.drop_nulls()
    lower = set(rest.str.to_lowercase().unique()) if rest.n_unique() < 5 else set()
    if truths := [name for name in TRUTHS if name in names and lower == set(TRUTHS[name])]:
        return truths
    codes = rest.str.contains(CODE).any()
    able = [name for name in names if name not in TRUTHS and not (codes and name in NUMBERS)]
    reads = {name: read(rest, name).is_not_null() for name in able if read(rest.head(50), name).is_not_null().any()}
    found = [name for name, right in reads.items() if right.all()]
    for one, other in (("1,234.5", "1.234,5"), *TWINS):
        if one not in reads or other not in reads or (one in NUMBERS and "1234" in found):
            continue
        if one not in found and other not in found and (reads[one] | reads[other]).all():
            wrong = reads[one] if reads[one].sum() < reads[other].sum() else reads[other]
            value = rest.filter(wrong)[0]
            usual = other if reads[one].sum() < reads[other].sum() else one
            raise RowError(
                text.name, (text == value).arg_max() or 0, f"{value!r}, where other rows have {usual}: {ASK}"
            )
        if one in found and other in found and one not in NUMBERS:
            raise UserError(f"column {text.name}: {rest[0]!r} may be {one} or {other}: {say(text.name, one, other)}")
    if not found and reads:
        notice(text, max(reads.values(), key=pl.Series.sum), rest)
    return found


def say(name: str, *formats: str) -> str:
    return "say " + " or ".join(f"data.columns.formats={{{name}: {format}}}" for format in formats)


def notice(text: pl.Series, right: pl.Series, rest: pl.Series) -> None:
    """Says what keeps a column from being numbers or dates; RowError for a second header, or one among the rows."""
    wrong = rest.filter(~right)
    if right.sum() < MOSTLY * len(right):
        return
    row = (text == wrong[0]).arg_max() or 0
    if text.name in wrong.to_list():
        raise RowError(text.name, (text == text.name).arg_max(), "the header stands here again: leave this row out")
    if row == 0 and len(wrong) == 1:
        raise RowError(text.name, 0, f"{wrong[0]!r}, where the rows below hold numbers or dates: a second header?")
    few = ", ".join(wrong.unique().sort().head(3).to_list())
    what = "column %s is text, as %d values such as %s are no number or date: are they to be in data.read.null_values?"
    log.warning(what, text.name, len(wrong), few)


def as_told(frame: pl.DataFrame, formats: Mapping[str, str], verbatim: Collection[str] = ()) -> pl.DataFrame:
    """The columns of text as values of their format, the others without blanks; RowError at the first that is none."""
    made = []
    for column in frame.select(pl.col(pl.String)):
        name, format = column.name, formats.get(column.name, "text")
        if format == "text":
            made += [] if name in verbatim else [column.str.strip_chars()]
            continue
        text = without_marks(column)
        values = read(text, format)
        kind = "a number" if format in NUMBERS else "a date" if format in DATES else "true or false"
        check_rows(column, values.is_null() & text.is_not_null(), f" is not {kind} written as {format}: {ASK}")
        made.append(values)
    return frame.with_columns(made)
