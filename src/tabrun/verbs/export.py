"""Export: a finished run as one file that needs none of this code."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tabrun.cli.errors import Parser, UserError, checkpoint_file, one_line_errors
from tabrun.runs.folder import put, write_json

if TYPE_CHECKING:
    from tabrun.runs.build import Build
    from tabrun.runs.run import Run

CHECKED_ROWS = 1000
TOLERANCE = 1e-5


def export(run: Run, kind: str) -> tuple[Path, float]:
    """Writes the model and its columns beside the run's files; gives the file and how far off it is, 1e-5 at most."""
    import torch

    classifier, schema = run.classifier(), run.schema
    if wrong := {"", "probabilities"} & set(schema.feature_names):
        raise UserError(f"a column is called {wrong.pop()!r}: this name is taken in the exported model")
    frame = run.data().labelled()[0].head(CHECKED_ROWS)
    rows = schema.rows(frame)
    expected = classifier(rows).softmax(-1)
    file = run.folder / ("model.onnx" if kind == "onnx" else "model.pt2")
    with tempfile.TemporaryDirectory(".part", ".", run.folder) as beside:
        part = Path(beside) / file.name
        if kind == "onnx":
            import onnxruntime

            from tabrun.verbs.onnx_file import raw_inputs, to_onnx

            to_onnx(classifier, rows, part)
            session = onnxruntime.InferenceSession(part, providers=["CPUExecutionProvider"])
            found = torch.from_numpy(session.run(None, raw_inputs(schema, frame))[0])
        else:
            dynamic: Any = {0: torch.export.Dim.DYNAMIC}
            shapes = (tuple(dynamic for _ in rows),) if isinstance(rows, tuple) else (dynamic,)
            torch.export.save(torch.export.export(classifier.net, (rows,), dynamic_shapes=shapes), part)
            found = torch.export.load(part).module()(rows).softmax(-1)
        difference = (found - expected).abs().max().item()
        if not difference <= TOLERANCE:
            raise UserError(f"{file.name} differs from the checkpoint by {difference:g}: it is not written")
        inputs = [{"name": f.label, **({"values": f.values} if hasattr(f, "values") else {})} for f in schema.features]
        about = {"inputs": inputs, "classes": schema.classes, "schema": schema.plain(), "checked_rows": len(frame)}
        put(part, file)
        write_json(file.with_name(f"{file.name}.json"), about | {"largest_difference": difference})
    return file, difference


def main(build: Build) -> None:
    parser = Parser(prog=f"python -m {build.__package__}.export", description=__doc__.split("\n")[0])
    parser.add_argument("run", help="a run's folder, or a checkpoint")
    parser.add_argument("--format", choices=("onnx", "torch"), default="onnx")
    parser.add_argument("--trust", action="store_true", help="call what the run names and conf/ does not")
    words = parser.parse_args()
    with one_line_errors():
        checkpoint = checkpoint_file(words.run)
        from tabrun.runs.run import Run

        logging.disable(logging.WARNING)  # the exporter's own
        try:
            file, difference = export(Run.open(checkpoint, build, trust=words.trust), words.format)
        except ModuleNotFoundError as error:
            raise UserError(f"{error.name} is not installed: pip install -e '.[export]'") from error
        print(f"{file}: within {difference:.1e} of the checkpoint")
