"""Evaluate: measure a finished run's best weights, on its own test rows or on another table."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tabrun.cli.errors import Parser, UserError, check_file, checkpoint_file, in_one_line, one_line_errors, visible
from tabrun.runs.build import ensemble
from tabrun.runs.folder import read_metrics, write_json

if TYPE_CHECKING:
    from tabrun.runs.build import Build
    from tabrun.runs.run import Run
    from tabrun.tables.data import TabularData

WIDEST = 40  # characters of a class that are shown


def reproduce(run: Run, data: TabularData) -> dict[str, float]:
    """The metrics of val and test rows, as training measured them; UserError when metrics.json says otherwise.

    Of runs in less than float32 the losses alone are compared: a metric that counts moves by steps.
    """
    file = run.folder / "metrics.json"
    if not file.exists():
        raise UserError(f"{run.folder} is no finished run: it has no metrics.json")
    exact = exactly(run)
    found = run.measure(data, "val") | run.measure(data, "test")
    recorded = read_metrics(run.folder, *(name for name in found if name.startswith("val/")))
    if strange := recorded.keys() - found.keys():
        raise UserError(f"{file} holds {strange.pop()}, which this run does not measure: train again")
    for name, value in recorded.items():
        compared = exact or name.endswith("/loss")
        if compared and not math.isclose(found[name], value, rel_tol=0, abs_tol=1e-6 if exact else 1e-2):
            raise UserError(f"{name} is {found[name]:.7f} now, but {file} says {value:.7f}")
    return found


def exactly(run: Run) -> bool:
    """Whether what was measured in training is measured again here to all digits."""
    return run.config["trainer"]["precision"] in ("32-true", "64-true") and run.record["device"] == "cpu"


def evaluate(run: Run, table: str | None, threshold: float | None, calibrate: bool) -> dict[str, Any]:
    """The whole evaluation as plain values; UserError: a table changed, or lacks a column. Rows of weight 0: out."""
    import torch

    from tabrun.runs.predictor import decide
    from tabrun.tables.schema import take
    from tabrun.verbs.baselines import baselines, hard
    from tabrun.verbs.measures import by_class, fit_temperature, measure, wilson

    torch.set_num_threads(run.record["threads"])
    data, classifier, names = run.data(), run.classifier(), list(run.schema.classes)
    result: dict[str, Any] = {"run": str(run.folder), "table": table or data.path, "classes": names}
    if table is None:
        result["metrics"] = reproduce(run, data)
        rows, labels, *weights = data.part("test")
    else:
        rows, labels, *weights = run.labelled(table)
    if weights:
        counted = weights[0].nonzero()[:, 0]
        rows, labels, weights = take(rows, counted), labels[counted], [weights[0][counted]]
    scores, truth = classifier(rows), hard(labels)
    shares = {"sample_weight": weights[0].numpy() if weights else None}
    result |= {"rows": len(truth), "threshold": threshold} | ({"weight": data.weight} if weights else {})

    def report(probabilities: Any) -> dict[str, float | None]:
        return measure(truth, probabilities.numpy(), decide(probabilities, threshold).numpy(), **shares)

    result["measures"] = {"this run": report(scores.double().softmax(-1))}
    if not weights:
        result["accuracy_interval"] = wilson(float(result["measures"]["this run"]["accuracy"] or 0.0), len(truth))
    for name, model in baselines(data).items():
        result["measures"][name] = report(torch.from_numpy(model(rows)))
    if calibrate:
        _, *scored = map(torch.cat, zip(*run.scored(data, "val"), strict=True))
        result |= {"temperature": fit_temperature(*scored), "fitted_on": fitted_on(run)}
        result["measures"]["calibrated"] = report((scores.double() / result["temperature"]).softmax(-1))
    predictions = decide(scores.softmax(-1), threshold).numpy()
    return result | by_class(truth, predictions, names, **shares)


def fitted_on(run: Run) -> str:
    """What a temperature was fitted on; that of the members of an ensemble of folds is not their mean's."""
    folds = ensemble(run.config)["folds"]
    return "out-of-fold rows, for one member: the mean's is lower, mostly by 3 to 10 %" if folds else "validation rows"


def show(result: dict[str, Any]) -> str:
    """The evaluation as text for a terminal."""
    from tabrun.reading.values import aligned

    names = [in_one_line(name) for name in result["classes"]]
    names = [name if len(name) <= WIDEST else f"{name[: WIDEST - 3]}..." for name in names]
    per_class = [(name, *row.values()) for name, row in zip(names, result["per_class"].values(), strict=True)]
    confusion = [(name, *row) for name, row in zip(names, result["confusion"], strict=True)]
    models = result["measures"]
    measures = [(name, *(models[model][name] for model in models)) for name in models["this run"]]
    tables = [
        aligned([("class", "precision", "recall", "f1", "support"), *per_class]),
        aligned([("true, predicted:", *names), *confusion]),
        aligned([("", *models), *measures]),
    ]
    if "accuracy_interval" in result:
        low, high = result["accuracy_interval"]
        rare = min(row["support"] for row in result["per_class"].values()) * 20 < result["rows"]
        few = "; a class has less than 5 % of the rows: average_precision says more" if rare else ""
        tables.append(f"accuracy, 95 % interval: {low:.4f} to {high:.4f}{few}")
    if "temperature" in result:
        tables += [
            f"temperature {result['temperature']:.4f}, fitted on the {result['fitted_on']}: predict --temperature"
        ]
    how = f", by the weights in {result['weight']}, but calibration_error" if "weight" in result else ""
    return "\n\n".join([f"{result['rows']} rows of {result['table']}{how}", *tables])


def main(build: Build) -> None:
    parser = Parser(prog=f"python -m {build.__package__}.evaluate", description=__doc__.split("\n")[0])
    parser.add_argument("run", help="a run's folder")
    parser.add_argument("table", nargs="?", help="a table with the target (default: the run's test rows)")
    parser.add_argument("--threshold", type=float, help="two classes: the second from this probability upwards (0.5)")
    parser.add_argument("--calibrate", action="store_true", help="fit a temperature on the validation rows")
    parser.add_argument("--trust", action="store_true", help="call what the run names and conf/ does not")
    words = parser.parse_args()
    with one_line_errors():
        if not 0 <= (words.threshold or 0.0) <= 1:
            raise UserError(f"--threshold {words.threshold} is not from 0 to 1")
        file = checkpoint_file(words.run)
        if words.table is not None:
            check_file(words.table)
        from tabrun.runs.run import Run, describe

        run = Run.open(file, build, trust=words.trust)
        result = evaluate(run, words.table, words.threshold, words.calibrate)
        print(visible(show(result)))
        if "metrics" in result:
            file, exact = run.folder / "metrics.json", exactly(run)
            equal = f"equal to {file} to 1e-6" if exact else f"the losses are equal to those in {file} to 0.01"
            print(visible(f"\n{describe(result['metrics'])}\n{equal}"))
        name = "evaluation" if words.table is None else f"evaluation-{Path(words.table).stem}"
        write_json(run.folder / f"{name}.json", result)
