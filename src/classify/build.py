"""Build: config -> net, loss, classifier, callbacks, Trainer; it alone reads conf/'s keys.

Nothing heavy is imported up here, so that `--help` and the answers to mistakes come at once.
"""

from __future__ import annotations

import math
import sys
from collections import OrderedDict
from collections.abc import Callable, Mapping
from inspect import Parameter, signature
from typing import TYPE_CHECKING, Any

from classify.limits import (  # noqa: F401  (for the library)
    ADDED,
    BESIDE,
    BETTER,
    CHOICES,
    MEANT,
    MORE,
    RANGES,
    ROLES,
    alike,
    check,
    check_more,
)
from classify.make import PACKAGE, check_arguments, made, played, rehearse
from tabrun.cli.errors import UserError, value_of
from tabrun.cli.roles import DATA, MODULE

if TYPE_CHECKING:
    from lightning import Callback, Trainer
    from lightning.pytorch.loggers import Logger
    from torch import nn

    from classify.classifier import Classifier, Measures
    from tabrun.tables.schema import Schema

Config = dict[str, Any]  # the composed config, resolved, as plain values

WEIGHT_BYTES = 12  # in training: itself, its gradient, and what the optimizer keeps of it


def net(config: Config, schema: Schema, most: float = math.inf) -> nn.Sequential:
    """Encode -> the model -> the head, with every size taken from the schema; UserError for more than `most` weights.

    A model that asks for no in_features is given the table's rows as they are, and one that asks for `schema` has it.
    """
    from torch import nn

    from classify.heads import head_for, undone
    from classify.nets import AsItIs, Encode

    make, arguments = played("model", config, MODULE)
    takes = signature(make).parameters
    head = head_for(config["head"], schema.num_classes)
    anything = "in_features" in takes or any(each.kind is Parameter.VAR_KEYWORD for each in takes.values())
    encode: Encode | AsItIs = AsItIs()
    if anything:
        options = {"schema": schema} | (config.get("encode") or {})  # an older config has none
        check_arguments("encode", Encode.of, (), options)
        check_size("encode", Encode.of, options, most)
        encode = Encode.of(**options)
    known: Config = {"in_features": encode.out_features} if anything else {}
    known |= {"schema": schema} if "schema" in takes else {}
    known["out_features"] = head.in_features(schema.num_classes)
    if wrong := [name for name in arguments if name in known]:
        raise UserError(f"model.{wrong[0]}: the data says it: leave it out")
    arguments |= known
    check_arguments("model", make, (), arguments)
    check_size("model", make, arguments, most)
    with value_of("model", PACKAGE):
        body = make(**arguments)
    if not isinstance(body, nn.Module):
        raise UserError(f"model: {make.__name__} gives {type(body).__name__}, not an nn.Module")
    return nn.Sequential(OrderedDict(encode=encode, body=body, head=head(undone(config.get("loss")))))


def check_size(key: str, make: Callable[..., Any], arguments: Config, most: float) -> None:
    """Raises UserError where `make` gives more than `most` weights; they are counted before any is made."""
    import torch

    try:
        with torch.device("meta"):
            count = sum(weight.numel() for weight in make(**arguments).state_dict().values())
    except Exception:  # of what cannot be made without numbers: the real one says what is wrong
        return
    if count > most:
        raise UserError(f"{key}: {count:,} weights are too many: there is room for {most:,}: make it smaller")


def data(config: Config) -> Any:
    """Gives TabularData's constructor, which lacks what the library knows: the schema, batches_per_step."""
    played("data", config, DATA)
    make = made("data", config["data"] | {"_partial_": True})
    read = make.keywords["read"]
    check_arguments("data.read", read.func, (), {"path": "", "target": "", "kinds": {}} | read.keywords)
    return make


def measures(config: Config, schema: Schema) -> Measures:
    """The loss and metrics of a run, on rows that it does not learn from."""
    from classify.classifier import Measures

    nodes = {name: node for name, node in config["metrics"].items() if node}
    metrics = {name: made(f"metrics.{name}", node, num_classes=schema.num_classes) for name, node in nodes.items()}
    for metric in metrics.values():
        metric.validate_args = False  # of each batch; it costs more than the counting
    return Measures(metrics)


def loss(config: Config, schema: Schema, most: float = math.inf) -> nn.Module:
    """The loss of scores and labels, and of weights of rows with data.weight.

    class_weights, which the config says beside its arguments, become its `weight`; undo_smoothing is the head's.
    """
    import torch

    from tabrun.training.weights import by_row

    make, arguments = played("loss", config, MODULE)
    weights = arguments.pop("class_weights", None)
    arguments.pop("undo_smoothing", None)
    if weights is not None and "weight" not in signature(make).parameters:
        raise UserError(f"loss.class_weights={weights}: {make.__name__} takes no weight: say null")
    if weights == "balanced":
        weights = schema.balanced_weights()
    elif weights is not None:
        numbers = isinstance(weights, list) and all(isinstance(w, int | float) and w >= 0 for w in weights)
        if not numbers or len(weights) != schema.num_classes:
            raise UserError(
                f"loss.class_weights={weights}: say balanced, or one number for each of {list(schema.classes)}"
            )
    if weights is not None:
        arguments["weight"] = torch.tensor(weights, dtype=torch.float32)
    check_arguments("loss", make, (), arguments)
    check_size("loss", make, arguments, most)
    with value_of("loss", PACKAGE):
        made_loss = make(**arguments)
    return made_loss if config["data"].get("weight") is None else by_row(made_loss)


def classifier(config: Config, schema: Schema, measured: Measures | None = None) -> Classifier:
    """A fresh Classifier, with these measures or its own; its weights are drawn from torch's global generator."""
    from classify.classifier import Classifier
    from tabrun.training.pace import free_memory

    node = dict(config["optimizer"])
    decay_biases = node.pop("decay_biases", True)  # said beside its arguments; an older config does not
    optimizer = made("optimizer", node)
    if "fused" in optimizer.keywords and config["trainer"]["precision"] in ("bf16-true", "16-true"):
        optimizer.keywords["fused"] = False  # on the CPU torch's SGD leaves such weights as they were (pytorch#191763)
    schedule = made("scheduler", config["scheduler"]) if config["scheduler"] else None
    rehearse(optimizer, schedule)
    most = free_memory(config["trainer"]["accelerator"]) // WEIGHT_BYTES
    own = net(config, schema, most), optimizer, schedule, loss(config, schema, most)
    measured = measures(config, schema) if measured is None else measured
    trained = Classifier(*own, measured, decay_biases)
    # now, as the Trainer would read a checkpoint's weights before it turns the net's into float64
    return trained.double() if config["trainer"]["precision"] == "64-true" else trained


def better(config: Mapping[str, Any]) -> str:
    """What is better for the monitored metric: min or max."""
    from hydra.utils import get_class

    if config["mode"] != "auto":
        return config["mode"]
    name = config["monitor"].removeprefix("val/")
    if name == "loss":
        return "min"
    with value_of(f"metrics.{name}", PACKAGE):
        metric: Any = get_class(config["metrics"][name]["_target_"])
    return "max" if metric.higher_is_better else "min"


def callbacks(config: Config) -> list[Callback]:
    """Those of the config, but for one that is never to act."""
    wanted = {name: node for name, node in config["callbacks"].items() if node and node.get("every_n_steps") != 0}
    return [made(f"callbacks.{name}", node) for name, node in wanted.items()]


def loggers(config: Config) -> list[Logger]:
    return [made(f"logger.{name}", node) for name, node in config["logger"].items() if node]


def trainer(config: Config, callbacks: list[Callback], loggers: list[Logger], **more: Any) -> Trainer:
    """The Trainer of the config, with these callbacks and loggers, and `more` arguments that the library adds."""
    import torch

    arguments = dict(config["trainer"])
    if arguments["accelerator"] == "gpu" and not torch.cuda.is_available():
        raise UserError("trainer.accelerator=gpu: there is no GPU here: say trainer=auto, or trainer=cpu")
    arguments["enable_progress_bar"] &= sys.stderr.isatty()  # off a terminal it would print a line per refresh
    arguments.setdefault("default_root_dir", config["folder"])
    return made("trainer", arguments, callbacks=callbacks, logger=loggers, **more)
