"""Rates: the learning-rate range test, many rates side by side over a few epochs."""

import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from tabrun.cli.errors import UserError
from tabrun.runs.build import Build
from tabrun.runs.folder import write_whole

log = logging.getLogger(__name__)

SHOWN = 22  # lines of the table on the terminal


def log_spaced(least: float, most: float, number: int) -> str:
    """So many numbers in even steps of their logarithm, as Hydra takes several values of a key."""
    numbers = all(isinstance(n, int | float) and n > 0 for n in (least, most, number))
    if not (numbers and isinstance(number, int)):
        raise UserError(f"sweep.rates from {least} to {most}, {number} of them: say three numbers above 0")
    steps = [i / max(number - 1, 1) for i in range(number)]
    return ",".join(f"{math.exp((1 - i) * math.log(least) + i * math.log(most)):.4g}" for i in steps)


def suggested(losses: Sequence[float]) -> int:
    """Which rate to train with, of rates in rising order: the least that comes within 2 % of the way down.

    losses: after a few epochs; not finite where the training diverged.
    L. Smith (2017, arXiv:1506.01186) raises the rate within one run and takes it shortly before the loss rises. Here
    each rate has a run of its own, so the loss has a valley. Its floor is flat, and its far side steep: the near end of
    the floor trains as well in a few epochs and is safer in many. Losses are means of three neighbours against noise.
    """
    finite = [loss if math.isfinite(loss) else math.inf for loss in losses]
    around = [finite[max(i - 1, 0) : i + 2] for i in range(len(finite))]
    smooth = [sum(part) / len(part) for part in around]
    smooth = smooth if min(smooth) < math.inf else finite
    lowest = smooth.index(min(smooth))
    down = smooth[: lowest + 1]
    enough = down[-1] + 0.02 * (max(loss for loss in down if loss < math.inf) - down[-1])
    return next(i for i, loss in enumerate(down) if loss <= enough)


def report(folder: Path, jobs: Mapping[int, list[str]], build: Build) -> None:
    """Shows the loss that each job's rate has reached, and which rate to take; writes sweep.csv."""
    import polars as pl

    from tabrun.reading.values import aligned
    from tabrun.sweeps.summary import finished, texts

    runs, rows = finished(folder, jobs, build), []
    for number, words in jobs.items():
        file = folder / str(number) / "log" / "metrics.csv"
        loss = pl.read_csv(file)["val/loss"][-1] if number in runs else math.nan
        rows.append((float(texts(words)["optimizer.lr"]), loss))
    rows, header = sorted(rows), ["optimizer.lr", "val/loss"]
    write_whole(folder / "sweep.csv", pl.DataFrame(rows, header, orient="row").write_csv().encode())
    if not any(math.isfinite(loss) for _, loss in rows):
        return  # the launcher says what the first failed with
    choice, step = suggested([loss for _, loss in rows]), math.ceil(len(rows) / SHOWN)
    cells = [
        (f"{rate:.3g}", f"{loss:.4g}" if math.isfinite(loss) else "diverged", "<" if i == choice else " ")
        for i, (rate, loss) in enumerate(rows)
        if (i - choice) % step == 0
    ]
    log.info("\n%s", aligned([[*header, " "], *cells]))
    if choice in (0, len(rows) - 1):
        log.info("the best rate is the last that was tried: widen sweep.rates")
    log.info("\nsuggested: optimizer.lr=%.2g\n%s", rows[choice][0], folder)
