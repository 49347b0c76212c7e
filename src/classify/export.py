"""Export: a finished run as one file that needs none of this code.

python -m classify.export RUN                    # model.onnx: named raw columns in, probabilities out
python -m classify.export RUN --format torch     # model.pt2: a torch.export program of the schema's rows
"""

from __future__ import annotations

import argparse
import logging
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from classify.errors import one_line_errors

if TYPE_CHECKING:
    import numpy as np
    import polars as pl

    from classify.run import Run, TrainedClassifier
    from classify.schema import Schema

CHECKED_ROWS = 1000
TOLERANCE = 1e-5


def input_name(feature: Any) -> str:
    """A column's own name; for a part of a date, name.part."""
    return f"{feature.name}.{feature.part}" if getattr(feature, "part", None) else feature.name


def raw_inputs(schema: Schema, frame: pl.DataFrame) -> dict[str, np.ndarray]:
    """What model.onnx takes, (rows, 1) each: float64 numbers, NaN where missing, and texts, "" where missing."""
    from classify.columns import as_float64, as_text

    numbers = {input_name(n): as_float64(frame[n.name], 1) for n in schema.numbers}
    texts = {input_name(c): as_text(frame[c.name], c.part).to_numpy() for c in schema.categories}
    return {
        name: values.reshape(-1, 1)
        for name, values in (numbers | {k: v.astype(object) for k, v in texts.items()}).items()
    }


def to_onnx(classifier: TrainedClassifier, rows: Any, file: Path) -> None:
    """Writes the net, its own names under net/, after the reading of raw columns: offsets, missing values, codes."""
    import onnx
    import onnx.compose
    import torch
    from onnx import TensorProto, helper
    from torch import nn

    schema = classifier.schema
    example = rows if isinstance(rows, tuple) else (rows,)
    example = tuple(part.long() if part.dtype != torch.float32 else part for part in example)

    class Probabilities(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = classifier.net

        def forward(self, numbers: torch.Tensor, codes: torch.Tensor | None = None) -> torch.Tensor:
            return self.net(numbers if codes is None else (numbers, codes)).softmax(-1)

    names = ["numbers", "codes"][: len(example)]
    shapes = tuple({0: torch.export.Dim.DYNAMIC} for _ in example)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own deprecations
        program = torch.onnx.export(
            Probabilities(),
            example,
            input_names=names,
            output_names=["probabilities"],
            dynamic_shapes=shapes,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    assert program is not None
    model = onnx.compose.add_prefix(program.model_proto, "net/", rename_outputs=False)
    before, inputs, constants = [], [], []

    def add(operator: str, words: list[str], result: str, domain: str = "", **attributes: Any) -> str:
        before.append(helper.make_node(operator, words, [result], name=f"node/{result}", domain=domain, **attributes))
        return result

    def constant(name: str, kind: int, value: float) -> str:
        constants.append(helper.make_tensor(name, kind, [1], [value]))
        return name

    missing, columns = constant("net/missing", TensorProto.FLOAT, float("nan")), []
    for i, number in enumerate(schema.numbers):
        inputs.append(helper.make_tensor_value_info(input_name(number), TensorProto.DOUBLE, ["rows", 1]))
        centred = add(
            "Sub",
            [input_name(number), constant(f"net/offset{i}", TensorProto.DOUBLE, number.offset)],
            f"net/centred{i}",
        )
        value = add("Cast", [centred], f"net/value{i}", to=TensorProto.FLOAT)
        columns.append(add("Where", [add("IsInf", [value], f"net/infinite{i}"), missing, value], f"net/number{i}"))
    if columns:
        add("Concat", columns, "net/numbers", axis=1)
    columns = []
    for i, category in enumerate(schema.categories):
        inputs.append(helper.make_tensor_value_info(input_name(category), TensorProto.STRING, ["rows", 1]))
        keys, codes = list(category.codes), list(category.codes.values())
        encoder = {"keys_strings": keys, "values_int64s": codes, "default_int64": 0}
        columns.append(add("LabelEncoder", [input_name(category)], f"net/code{i}", domain="ai.onnx.ml", **encoder))
    if columns:
        add("Concat", columns, "net/codes", axis=1)
    if not schema.numbers:  # (rows, 0), cut from the codes
        empty = [
            helper.make_tensor(name, TensorProto.INT64, [1], [v])
            for name, v in (("net/from", 0), ("net/to", 0), ("net/axis", 1))
        ]
        constants.extend(empty)
        add(
            "Cast",
            [add("Slice", ["net/codes", "net/from", "net/to", "net/axis"], "net/none")],
            "net/numbers",
            to=TensorProto.FLOAT,
        )
    graph = model.graph
    nodes = [*before, *graph.node]
    del graph.input[:], graph.node[:]
    graph.input.extend(inputs)
    graph.node.extend(nodes)
    graph.initializer.extend(constants)
    model.opset_import.append(helper.make_opsetid("ai.onnx.ml", 2))
    onnx.checker.check_model(model)
    onnx.save(model, file)


def to_torch(classifier: TrainedClassifier, rows: Any, file: Path) -> None:
    """Writes a torch.export program from the schema's rows to scores: torch.export.load(file).module()(rows)."""
    import torch

    dynamic: Any = {0: torch.export.Dim.DYNAMIC}
    shapes = (tuple(dynamic for _ in rows),) if isinstance(rows, tuple) else (dynamic,)
    torch.export.save(torch.export.export(classifier.net, (rows,), dynamic_shapes=shapes), file)


def export(run: Run, kind: str) -> tuple[Path, float]:
    """Writes the model and its columns beside the run's files; gives the file and the largest difference found.

    ValueError: a probability differs from the checkpoint's by more than 1e-5 on up to 1,000 rows of the run's table.
    """
    import torch

    from classify.run import write_json

    classifier, schema = run.classifier(), run.schema
    if wrong := {"", "probabilities"} & set(schema.feature_names):
        raise ValueError(f"a column is called {wrong.pop()!r}: this name is taken in the exported model")
    frame = run.data().labelled().head(CHECKED_ROWS)
    rows = schema.rows(frame)
    expected = classifier(rows).softmax(-1)
    file = run.folder / ("model.onnx" if kind == "onnx" else "model.pt2")
    part = file.with_name(f"part-{file.name}")
    try:
        if kind == "onnx":
            import onnxruntime

            to_onnx(classifier, rows, part)
            session = onnxruntime.InferenceSession(part, providers=["CPUExecutionProvider"])
            found = torch.from_numpy(session.run(None, raw_inputs(schema, frame))[0])
        else:
            to_torch(classifier, rows, part)
            found = torch.export.load(part).module()(rows).softmax(-1)
        difference = (found - expected).abs().max().item()
        if not difference <= TOLERANCE:
            raise ValueError(
                f"{file.name} differs from the checkpoint by {difference:g} on {len(frame)} rows: not written"
            )
        inputs = [
            {"name": input_name(f), **({"values": f.values} if hasattr(f, "values") else {})} for f in schema.features
        ]
        about = {"inputs": inputs, "classes": schema.classes, "schema": schema.plain(), "checked_rows": len(frame)}
        write_json(file.with_name(f"{file.name}.json"), about | {"largest_difference": difference})
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)
    return file, difference


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m classify.export", description=__doc__.split("\n")[0])
    parser.add_argument("run", help="a run's folder, or a checkpoint")
    parser.add_argument("--format", choices=("onnx", "torch"), default="onnx")
    words = parser.parse_args()
    with one_line_errors():
        from classify.run import Run

        logging.disable(logging.WARNING)  # the exporter's own
        try:
            file, difference = export(Run.open(words.run), words.format)
        except ModuleNotFoundError as error:
            raise ValueError(f"{error.name} is not installed: pip install -e '.[export]'") from error
        print(f"{file}: within {difference:.1e} of the checkpoint")


if __name__ == "__main__":
    main()
