"""Evaluate: measure a finished run's best weights again, on its own table and split.

python -m classify.evaluate RUN
"""

import argparse
import json
import math
from pathlib import Path

from classify.check import one_line_errors


def evaluate(folder: Path) -> dict[str, float]:
    """The metrics of the run's best weights on its validation and test rows.

    ValueError: there is no run, its table has changed, or the metrics differ from its metrics.json by over 1e-6.
    """
    import torch

    from classify import build
    from classify.module import Measures
    from classify.run import Run

    run = Run.open(folder)
    torch.set_num_threads(run.record["threads"])
    data, classifier = run.data(), run.classifier()
    measures = Measures(build.metrics(run.config, run.schema))
    found: dict[str, float] = {}
    for split, batches in (("val", data.val_dataloader()), ("test", data.test_dataloader())):
        for rows, labels in batches:
            measures.update(classifier(rows), labels)
        found |= {name: value.item() for name, value in measures.compute(split).items()}
    if (folder / "metrics.json").exists():
        for name, value in json.loads((folder / "metrics.json").read_text()).items():
            if not math.isclose(found[name], value, rel_tol=0, abs_tol=1e-6):
                raise ValueError(f"{name} is {found[name]:.7f} now, but {folder}/metrics.json says {value:.7f}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m classify.evaluate", description=__doc__.split("\n")[0])
    parser.add_argument("run", type=Path, help="a run's folder")
    with one_line_errors():
        from classify.run import describe

        run = parser.parse_args().run
        print(describe(evaluate(run)))
        print(f"equal to {run / 'metrics.json'} to 1e-6")


if __name__ == "__main__":
    main()
