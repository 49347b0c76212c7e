"""ONNX: a trained net as one file that takes a table's raw columns by name."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx
import onnx.compose
import torch
from onnx import TensorProto, helper
from torch import nn

from tabrun.reading.values import as_float64, as_text
from tabrun.tables.columns import Category, Number

if TYPE_CHECKING:
    import numpy as np
    import polars as pl

    from tabrun.runs.predictor import TrainedClassifier
    from tabrun.tables.schema import Schema


def raw_inputs(schema: Schema, frame: pl.DataFrame) -> dict[str, np.ndarray]:
    """What model.onnx takes, (rows, 1) each: float64 numbers, NaN where missing, and texts, "" where missing."""
    columns: dict[str, np.ndarray] = {n.label: as_float64(frame[n.name]) for n in schema.numbers}
    columns |= {c.label: as_text(frame[c.name], c.part).to_numpy().astype(object) for c in schema.categories}
    return {name: values.reshape(-1, 1) for name, values in columns.items()}


def to_onnx(classifier: TrainedClassifier, rows: Any, file: Path) -> None:
    """Writes the net, its own names under net/, after the reading of raw columns: offsets, missing values, codes."""
    model, reading = onnx.compose.add_prefix(net_model(classifier, rows), "net/", rename_outputs=False), Reading()
    numbers = [reading.number(number) for number in classifier.schema.numbers]
    codes = [reading.category(category) for category in classifier.schema.categories]
    if codes:
        reading.add("Concat", codes, "codes", axis=1)
    if numbers:
        reading.add("Concat", numbers, "numbers", axis=1)
    else:  # (rows, 0), cut from the codes
        ends = [reading.constant(name, TensorProto.INT64, value) for name, value in (("0", 0), ("to", 0), ("1", 1))]
        reading.add("Cast", [reading.add("Slice", ["net/codes", *ends], "none")], "numbers", to=TensorProto.FLOAT)
    graph = model.graph
    nodes = [*reading.nodes, *graph.node]
    del graph.input[:], graph.node[:]
    graph.input.extend(reading.inputs)
    graph.node.extend(nodes)
    graph.initializer.extend(reading.constants)
    model.opset_import.append(helper.make_opsetid("ai.onnx.ml", 2))
    onnx.checker.check_model(model)
    onnx.save(model, file)


def net_model(classifier: TrainedClassifier, rows: Any) -> Any:
    """The net as it is, from numbers and codes to probabilities, for any number of rows."""

    pair = isinstance(rows, tuple)
    example = (rows[0], rows[1].long()) if pair else rows
    dynamic: Any = {0: torch.export.Dim.DYNAMIC}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own deprecations
        program = torch.onnx.export(
            nn.Sequential(classifier.net, nn.Softmax(-1)),
            (example,),
            input_names=["numbers", "codes"] if pair else ["numbers"],
            output_names=["probabilities"],
            dynamic_shapes=((dynamic, dynamic) if pair else dynamic,),
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    assert program is not None
    return program.model_proto


class Reading:
    """The nodes that turn raw columns into what the net takes; all names but the columns' own are under net/."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.inputs: list[Any] = []
        self.constants: list[Any] = []

    def add(self, operator: str, words: list[str], result: str, domain: str = "", **attributes: Any) -> str:
        name = f"net/{result}"
        self.nodes.append(helper.make_node(operator, words, [name], name=f"node/{result}", domain=domain, **attributes))
        return name

    def constant(self, name: str, kind: int, value: float) -> str:
        self.constants.append(helper.make_tensor(f"net/constant/{name}", kind, [1], [value]))
        return f"net/constant/{name}"

    def number(self, number: Number) -> str:
        """Centred in float64, then float32; NaN where it is infinite."""
        own, i = number.label, len(self.inputs)
        self.inputs.append(helper.make_tensor_value_info(own, TensorProto.DOUBLE, ["rows", 1]))
        offset = self.constant(f"offset{i}", TensorProto.DOUBLE, number.offset)
        missing = self.constant(f"missing{i}", TensorProto.FLOAT, float("nan"))
        value = self.add("Cast", [self.add("Sub", [own, offset], f"centred{i}")], f"value{i}", to=TensorProto.FLOAT)
        return self.add("Where", [self.add("IsInf", [value], f"infinite{i}"), missing, value], f"number{i}")

    def category(self, category: Category) -> str:
        """The code of a text; of one that training never saw, 0."""
        own, i = category.label, len(self.inputs)
        self.inputs.append(helper.make_tensor_value_info(own, TensorProto.STRING, ["rows", 1]))
        keys, codes = list(category.codes), list(category.codes.values())
        encoder = {"keys_strings": keys, "values_int64s": codes, "default_int64": 0}
        return self.add("LabelEncoder", [own], f"code{i}", domain="ai.onnx.ml", **encoder)
