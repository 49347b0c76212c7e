"""Predict: the classes of a file's rows; of CSV and Parquet of any length, in bounded memory."""

from __future__ import annotations

import logging
import os
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tabrun.cli.errors import Parser, UserError, check_file, checkpoint_file, in_one_line, one_line_errors
from tabrun.runs.folder import put

if TYPE_CHECKING:
    import polars as pl
    from tqdm import tqdm

    from tabrun.runs.build import Build
    from tabrun.runs.run import Run

log = logging.getLogger(__name__)


def predict(
    run: Run, table: str, threshold: float | None = None, temperature: float = 1.0, keep: Sequence[str] = ()
) -> Iterator[pl.DataFrame]:
    """For each batch of rows: ids, probability_<class>, prediction; UserError for a table unlike the run's."""
    import polars as pl

    from tabrun.reading.reader import in_file
    from tabrun.reading.values import columns_of, known, numbered
    from tabrun.runs.predictor import decide

    classifier, schema, data = run.classifier(), run.schema, run.config["data"]
    ids, num_rows, unseen = columns_of(data["id"]), 0, Counter[str]()
    kept = [*dict.fromkeys([*ids, *keep])]
    shown = [f"probability_{name}" for name in schema.classes]
    if taken := {"prediction", *shown}.intersection(keep):
        raise UserError(f"--keep {min(taken)}: predictions have a column of this name of their own")
    expected = {*ids, *columns_of(schema.target), *data["columns"]["ignore"], *schema.feature_names, data.get("weight")}
    expected |= {data["split"].get(key) for key in ("column", "group", "time")}
    for batch in run.table(table).batches():
        with in_file(table), numbered(range(num_rows, num_rows + len(batch))):
            rows = schema.rows(batch)
            probabilities = classifier.probabilities(rows, temperature)
            unseen.update(schema.unseen(batch, rows))
            known(batch, ids, ": data.id names it")
            known(batch, kept, ": --keep names it")
        extra = [name for name in batch.columns if name not in expected]
        if extra and not num_rows:
            log.warning("columns that training left out are ignored: %s", in_one_line(", ".join(extra)))
        num_rows += len(batch)
        shares = map(pl.Series, shown, probabilities.T.numpy())
        decided = pl.Series("prediction", schema.classes)[decide(probabilities, threshold).numpy()]
        yield pl.DataFrame([*batch.select(kept), *shares, decided])
    if not num_rows:
        raise UserError(f"{table} has no rows to predict")
    if found := [f"{count} in {name}" for name, count in unseen.items() if count]:
        log.warning("values that training never saw: %s", in_one_line(", ".join(found)))


def is_pipe(out: str) -> bool:
    """Whether `out` is written as it comes; UserError when it cannot be written at all."""
    target = Path(out).resolve()
    if not target.parent.is_dir():
        raise UserError(f"--out {out}: there is no folder {target.parent}")
    pipe = out == "-" or (target.exists() and not target.is_file())
    if target.is_dir() or (not pipe and target.suffix.lower() not in ("", ".csv", ".parquet", ".pq")):
        raise UserError(f"--out {out}: name a .csv or a .parquet file")
    return pipe


def write(batches: Iterator[pl.DataFrame], part: Path, parquet: bool, bar: tqdm) -> None:
    """Writes to `part` batch by batch: CSV, or Parquet, of pieces beside it; UserError: CSV cannot hold an id."""
    import polars as pl

    pieces = []
    with part.open("wb") as sink:
        for number, batch in enumerate(batches):
            try:
                if parquet:
                    pieces.append(part.with_name(f"{number}.parquet"))
                    batch.write_parquet(pieces[-1])
                else:
                    batch.write_csv(sink, include_header=number == 0)
            except pl.exceptions.PolarsError as error:
                raise UserError(f"{str(error).splitlines()[0]}: name a .parquet file with --out") from error
            bar.update(len(batch))
    if parquet:
        pl.scan_parquet(pieces, glob=False).sink_parquet(part)


@contextmanager
def whole_file(out: str) -> Iterator[Path]:
    """A file, in a folder beside `out`, to write to: it becomes `out`, or goes to a pipe, when nothing went wrong."""
    target, pipe = Path(out).resolve(), is_pipe(out)  # a link stays a link
    with tempfile.TemporaryDirectory(prefix=".predictions-", dir=None if pipe else target.parent) as folder:
        part = Path(folder) / "part"
        yield part
        if pipe:
            with part.open("rb") as file, sys.stdout.buffer if out == "-" else target.open("wb") as sink:
                shutil.copyfileobj(file, sink)
        else:
            put(part, target)


@contextmanager
def on_disk(table: str) -> Iterator[str]:
    """The table's path; what comes through a pipe is put into a file first, as memory has a bound."""
    if table != "-" and not Path(table).is_fifo():
        yield table
        return
    with tempfile.NamedTemporaryFile() as file:
        with sys.stdin.buffer if table == "-" else open(table, "rb") as pipe:
            shutil.copyfileobj(pipe, file)
        file.flush()
        try:
            yield file.name
        except UserError as error:
            name = "standard input" if table == "-" else table
            raise UserError(str(error).replace(file.name, name)) from error


def main(build: Build) -> None:
    parser = Parser(prog=f"python -m {build.__package__}.predict", description=__doc__.split("\n")[0])
    parser.add_argument("run", help="a run's folder, or a checkpoint")
    parser.add_argument("table", help="a file as training reads it; - reads CSV from a pipe")
    parser.add_argument("-o", "--out", default="-", help="a .csv or .parquet file; - writes CSV to a pipe (default)")
    parser.add_argument("--threshold", type=float, help="two classes: the second from this probability upwards (0.5)")
    parser.add_argument("--keep", nargs="+", default=[], metavar="COLUMN", help="columns that predictions carry too")
    parser.add_argument("--temperature", type=float, default=1.0, help="as evaluate --calibrate found it (1)")
    words = parser.parse_args()
    with one_line_errors():
        if not words.temperature > 0 or not 0 <= (words.threshold or 0.0) <= 1:
            raise UserError("--temperature must be above 0 and --threshold from 0 to 1")
        file = checkpoint_file(words.run)
        if words.table != "-" and not Path(words.table).is_fifo():
            check_file(words.table)
        is_pipe(words.out)
        import torch
        from tqdm import tqdm

        from tabrun.runs.run import Run

        torch.set_num_threads(os.cpu_count() or 1)
        run = Run.open(file, build)
        for path in (words.table, str(run.config["data"].get("path"))):
            if os.path.isfile(words.out) and os.path.exists(path) and os.path.samefile(words.out, path):
                raise UserError(f"--out {words.out} is the table itself, or the one of the run: name another file")
        with (
            on_disk(words.table) as table,
            whole_file(words.out) as part,
            tqdm(unit=" rows", unit_scale=True, disable=not sys.stderr.isatty()) as bar,
        ):
            batches = predict(run, table, words.threshold, words.temperature, words.keep)
            write(batches, part, Path(words.out).suffix.lower() in (".parquet", ".pq"), bar)
