"""Build: config -> data, net, classifier, trainer; the only file that calls Hydra's instantiate.

Hydra and Lightning are imported by the functions that need them: to load a finished run's net takes neither.
"""

from __future__ import annotations

import logging
import pkgutil
import sys
import warnings
from collections import OrderedDict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from classify.heads import head_for
from classify.nets import Encode
from classify.schema import Schema

if TYPE_CHECKING:
    from lightning import Trainer
    from torchmetrics import Metric

    from classify.data import TabularData
    from classify.module import Classifier

Config = dict[str, Any]  # the composed config, resolved, as plain values


def net(config: Config, schema: Schema) -> nn.Sequential:
    """Encode -> the model -> the head, with every size taken from the schema."""
    arguments = dict(config["model"])
    target = arguments.pop("_target_")
    if not target.startswith(f"{__package__}."):  # nothing else may be named by a checkpoint and then called
        raise ValueError(f"model._target_={target} is not in this package: write the model in {__package__}/nets.py")
    head = head_for(config["head"], schema.num_classes)
    encode = Encode([n.mean for n in schema.numbers], [n.std for n in schema.numbers])
    body = pkgutil.resolve_name(target)(encode.out_features, head.in_features(schema.num_classes), **arguments)
    return nn.Sequential(OrderedDict(encode=encode, body=body, head=head()))


def data(config: Config, schema: Schema | None = None) -> TabularData:
    """The data, set up; with a finished run's schema the table is read as that run read it."""
    from hydra.utils import instantiate

    table: TabularData = instantiate(config["data"], _convert_="all", _partial_=True)(schema=schema)
    table.setup()
    return table


def metrics(config: Config, schema: Schema) -> dict[str, Metric]:
    from hydra.utils import instantiate

    shared = {
        "num_classes": schema.num_classes,
        "validate_args": False,
    }  # checking every batch costs more than counting
    return {name: instantiate(metric, **shared) for name, metric in config["metrics"].items() if metric}


def loss(config: Config, schema: Schema) -> nn.CrossEntropyLoss:
    weights = config["loss"]["class_weights"]
    if weights == "balanced":
        weights = schema.balanced_weights()
    elif weights is not None and len(weights) != schema.num_classes:
        raise ValueError(f"loss.class_weights={weights} has not one number for each class of {list(schema.classes)}")
    return nn.CrossEntropyLoss(
        weight=None if weights is None else torch.tensor(weights, dtype=torch.float32),
        label_smoothing=config["loss"]["label_smoothing"],
    )


def classifier(config: Config, schema: Schema) -> Classifier:
    """A fresh Classifier; its weights are drawn from torch's global generator."""
    from hydra.utils import instantiate

    from classify.module import Classifier

    return Classifier(
        net(config, schema),
        instantiate(config["optimizer"], _convert_="all"),
        instantiate(config["scheduler"], _convert_="all"),
        loss(config, schema),
        metrics(config, schema),
    )


def better(config: Mapping[str, Any]) -> str:
    """ "min" or "max": what is better for the monitored metric."""
    from hydra.utils import get_class

    if config["mode"] != "auto":
        return config["mode"]
    name = config["monitor"].removeprefix("val/")
    if name == "loss":
        return "min"
    metric: Any = get_class(config["metrics"][name]["_target_"])
    return "max" if metric.higher_is_better else "min"


def trainer(config: Config, saved: dict[str, Any]) -> Trainer:
    """The Trainer with its callbacks and loggers; `saved` are the plain values that go into each checkpoint."""
    from hydra.utils import instantiate

    from classify.callbacks import SaveWith

    for part in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(part).setLevel(logging.WARNING)  # no tips, no hardware that is not there
    warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)`", FutureWarning)  # lightning's own, each fit
    arguments = {key: value for key, value in config["trainer"].items() if key != "threads"}
    arguments["enable_progress_bar"] &= sys.stderr.isatty()  # off a terminal it would print a line per refresh
    listeners = [instantiate(node, _convert_="all") for node in config["callbacks"].values() if node]
    loggers = [instantiate(node, _convert_="all") for node in config["logger"].values() if node]
    return instantiate(arguments, callbacks=[*listeners, SaveWith(saved)], logger=loggers, _convert_="all")
