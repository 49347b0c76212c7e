"""Ensemble: the runs of a sweep that are best together, as one run in a folder of its own."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tabrun.cli.errors import Parser, UserError, one_line_errors, shown, visible
from tabrun.runs.build import MOST_MEMBERS, Build, ensemble
from tabrun.runs.folder import STARTED, claim, read_metrics, write_json

if TYPE_CHECKING:
    from tabrun.runs.run import Run


def selected(probabilities: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """How often each model is taken into the mean that has the least log loss, (models,).

    The one that lowers it most is added again and again, and of all those means the best is kept (Caruana et al. 2004,
    "Ensemble selection from libraries of models", with replacement). probabilities: (models, rows, classes); labels:
    class indices (rows,), or probabilities (rows, classes); weights: of the rows.
    """
    one_hot = np.eye(probabilities.shape[2])[labels] if labels.ndim == 1 else labels
    counts, total = np.zeros(len(probabilities), int), np.zeros_like(probabilities[0])
    best, found = np.inf, counts
    for number in range(1, MOST_MEMBERS + 1):  # rounds
        means = (total + probabilities) / number  # with each of them
        each = -(one_hot * np.log(means.clip(1e-12))).sum(-1)
        losses = np.average(each, axis=1, weights=weights)
        winner = losses.argmin()
        counts, total = counts + (np.arange(len(counts)) == winner), total + probabilities[winner]
        if losses[winner] < best - 1e-9:
            best, found = losses[winner], counts
    return found


def runs_of(sweep: Path, build: Build, trust: bool) -> dict[str, Run]:
    """The finished jobs of a sweep, by number; UserError where they cannot be one classifier."""
    from tabrun.runs.run import Run

    if not (sweep / "sweep.json").is_file():
        raise UserError(f"{sweep} is no sweep: name the folder that train -m wrote")
    there = [file.parent for file in sweep.glob("*/metrics.json") if file.parent.name.isdecimal()]
    folders = sorted(there, key=lambda one: int(one.name))
    if not folders:
        raise UserError(f"{sweep} has no finished job: see the error.txt of its jobs, or give the same command again")
    found = {folder.name: Run.open(folder, build, trust=trust) for folder in folders}
    for run in found.values():
        run.trusted()  # before anything is written
    first, *others = found.values()
    if ensemble(first.config)["folds"]:
        raise UserError(f"{sweep} is of ensembles of folds, each of which is a mean already: take the best of them")
    for other in others:
        if other.schema.classes != first.schema.classes:
            what = f"other classes ({', '.join(other.schema.classes)})"
        elif other.schema != first.schema:
            what = "other columns, or other statistics of them"
        elif other.record["data_sha256"] != first.record["data_sha256"]:
            what = "other rows, or another split of them"
        else:
            continue
        raise UserError(f"{other.folder} has {what} than {first.folder}: an ensemble's members have the same")
    return found


def make(build: Build, sweep: Path, folder: Path, trust: bool = False) -> str:
    """Writes the ensemble's folder, and says what it is made of; its metrics are measured as a run's are."""
    import torch

    from tabrun.runs.checkpoint_file import ENDED, Member, alias, write_checkpoint
    from tabrun.runs.run import Run, describe

    runs = runs_of(sweep, build, trust)
    first = next(iter(runs.values()))
    torch.set_num_threads(first.record["threads"])
    data = first.data()
    scored = {name: tuple(map(torch.cat, zip(*run.scored(data, "val"), strict=True))) for name, run in runs.items()}
    _, _, labels, *weights = scored[next(iter(runs))]
    probabilities = np.stack([scores.double().softmax(-1).numpy() for _, scores, *_ in scored.values()])
    counts = selected(probabilities, labels.numpy(), *(own.numpy() for own in weights))
    chosen = {name: float(count / counts.sum()) for name, count in zip(runs, counts, strict=True) if count}
    members = [asdict(Member(name, share, runs[name].config)) for name, share in chosen.items()]
    claim(folder)
    config = first.config | {"folder": str(folder.absolute()), "test": True, "ensemble": ensemble({})}
    weights_of = (
        (f"nets.{i}.{key}", value) for i, name in enumerate(chosen) for key, value in runs[name].weights.items()
    )
    content = {
        "state_dict": {f"net.{key}": value for key, value in weights_of},
        "epoch": max(runs[name].num_epochs for name in chosen) - 1,
        **ENDED,
        **{"config": config, "schema": first.schema.plain(), "record": first.record, "members": members},
    }
    write_checkpoint(content, folder / "checkpoints" / "last.ckpt")
    alias(folder / "checkpoints" / "last.ckpt", folder / "checkpoints" / "best.ckpt")
    (folder / STARTED).parent.mkdir()
    write_json(folder / STARTED, config)
    run = Run.open(folder, build, trust=trust)
    metrics = run.measure(data, "val") | run.measure(data, "test")
    write_json(folder / "run.json", first.record | {"sweep": str(sweep), "members": chosen})
    write_json(folder / "metrics.json", metrics)
    shares = ", ".join(f"job {name} {share:.2f}" for name, share in chosen.items())
    losses = [read_metrics(own.folder, "val/loss")["val/loss"] for own in runs.values()]
    best = f"the best of them alone has val/loss {min(losses):.4f}"
    return f"ensemble of {len(chosen)} of {len(runs)} jobs: {shares}; {best}\n{describe(metrics)}\n{shown(folder)}"


def main(build: Build) -> None:
    parser = Parser(prog=f"python -m {build.__package__}.ensemble", description=__doc__)
    parser.add_argument("sweep", help="the folder that a sweep or a search wrote")
    parser.add_argument("-o", "--output", help="a new folder (default: SWEEP-ensemble)")
    parser.add_argument("--trust", action="store_true", help="call what the runs name and conf/ does not")
    words = parser.parse_args()
    with one_line_errors():
        sweep = Path(words.sweep)
        print(visible(make(build, sweep, Path(words.output or f"{sweep}-ensemble"), words.trust)))
