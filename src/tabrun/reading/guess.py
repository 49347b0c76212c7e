"""Guess: in which format each column of text is, told from its first rows, and said; what cannot be told is asked."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping

import polars as pl

from tabrun.cli.errors import UserError
from tabrun.reading.formats import CODE, MONEY, NAMES, NUMBERS, TRUTHS, ask, read, say, without_marks
from tabrun.reading.values import HEADER, RowError

log = logging.getLogger(__name__)

TWINS = (("d/m/Y", "m/d/Y"), ("d-m-Y", "m-d-Y"), ("d/m/y", "m/d/y"))  # told apart by days above 12
HEAD = 10_000  # rows by which a column is told
MOSTLY = 0.9  # of the values, from which a column would be of a kind but for the rest


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
    check_texts(frame.select(pl.col(pl.String)), frame.schema, given)
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
    for name in [name for name, format in found.items() if format in NUMBERS and name not in given]:
        check_units(without_marks(frame[name]))
    tell(frame.head(HEAD).select([name for name, format in found.items() if format != "text"]), found, given)
    return found


def check_texts(texts: pl.DataFrame, schema: Mapping[str, pl.DataType], given: Collection[str]) -> None:
    """Raises UserError for a header among the rows of these columns, or a column with a format that is no text."""
    for name in given:
        if schema.get(name, pl.String) not in (pl.String, pl.Null):
            raise UserError(f"column {name} holds {schema[name]}, and data.columns.formats is for texts: leave it out")
    names = [pl.col(name).str.strip_chars() == name for name in texts.columns]
    again = texts.select(again=pl.all_horizontal(names))["again"] if len(names) > 1 else pl.Series([False])
    if again.any():
        raise RowError("", again.arg_max(), HEADER)


def tell(frame: pl.DataFrame, found: Mapping[str, str], given: Collection[str]) -> None:
    """Says how columns of text are read, and what is taken as missing there."""
    plain = [c.name for c in frame if c.cast(pl.Float64, strict=False).null_count() == c.null_count()]
    guessed = {name: found[name] for name in frame.columns if name not in {*given, *plain} and found[name] != "Y-m-d"}
    for format in dict.fromkeys(guessed.values()):
        names = [name for name in guessed if guessed[name] == format]
        log.info("read as %s: %s (else say data.columns.formats={%s: text})", format, ", ".join(names), names[0])
    for column in frame:
        marks = column.filter(without_marks(column).is_null() & column.is_not_null()).unique().sort().head(3)
        if len(marks):
            log.info("column %s: %s is taken as missing", column.name, ", ".join(map(repr, marks)))


def check_units(text: pl.Series) -> None:
    """Raises RowError where a column's numbers are in two currencies, or some in percent and others not."""
    unit = text.str.extract(rf"({MONEY}|%)").fill_null("")
    asked = text.is_not_null() & ~text.str.contains(r"^[-+]?0+([.,]0*)?$")  # nothing is nothing in any unit
    if not (unit == "%").any():
        asked &= unit != ""
    counts = unit.alias("unit").filter(asked).value_counts(sort=True)
    if len(counts) > 1:
        usual = counts["unit"][0]
        row = (asked & (unit != usual)).arg_max() or 0
        what = f"{text[row]!r}, where other rows are {f'in {usual}' if usual else 'plain numbers'}"
        raise RowError(text.name, row, f"{what}: {ask(text.name)}")


def fits(text: pl.Series, names: Collection[str]) -> list[str]:
    """The formats that read all texts, the plainest first; UserError where two dates might, or each reads a part."""
    rest = text.drop_nulls()
    lower = set(rest.str.to_lowercase().unique()) if rest.n_unique() < 5 else set()
    if truths := [name for name in TRUTHS if name in names and lower == set(TRUTHS[name])]:
        return truths
    codes = rest.str.contains(CODE).any()
    able = [name for name in names if name not in TRUTHS and not (codes and name in NUMBERS)]
    reads = {name: read(rest, name).is_not_null() for name in able if read(rest.head(50), name).is_not_null().any()}
    found = [name for name, right in reads.items() if right.all()]
    for one, other in TWINS:
        if one in found and other in found:
            raise UserError(f"column {text.name}: {rest[0]!r} may be {one} or {other}: {say(text.name, one, other)}")
    if not found and reads:
        usual = max(reads, key=lambda name: reads[name].sum())
        wrong = rest.filter(~reads[usual])
        if any(read(wrong, name).is_not_null().all() for name in able):
            what = f"{wrong[0]!r}, where other rows have {usual}: {ask(text.name)}"
            raise RowError(text.name, (text == wrong[0]).arg_max(), what)
        if len(wrong) <= (1 - MOSTLY) * len(rest):
            notice(text, wrong)
    return found


def notice(text: pl.Series, wrong: pl.Series) -> None:
    """Says what values keep a column from being numbers or dates; RowError where it is a second header."""
    if len(wrong) == 1 and wrong[0] == text[0]:
        what = f"{wrong[0]!r}, where the rows below hold numbers or dates: is it a header? leave this row out, or "
        raise RowError(text.name, 0, f"{what}data.read.header=false where it is said; else {say(text.name, 'text')}")
    few = ", ".join(wrong.unique().sort().head(3).to_list())
    what = "column %s is text, as %d values such as %s are no number or date: are they to be in data.read.null_values?"
    log.warning(what, text.name, len(wrong), few)
