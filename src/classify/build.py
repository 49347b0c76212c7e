"""Build: config -> data, net, classifier, trainer; the only file that calls Hydra's instantiate.

Hydra and Lightning are imported by the functions that need them: to load a finished run's net takes neither.
"""

from __future__ import annotations

import logging
import math
import sys
import warnings
from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import partial
from inspect import isfunction, signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from classify import nets
from tabrun.tables.columns import FIRST_CODE
from classify.heads import head_for
from tabrun.runs.pace import batches_per_step, free_memory
from tabrun.tables.schema import Schema

if TYPE_CHECKING:
    from lightning import Trainer
    from omegaconf import DictConfig
    from torchmetrics import Metric

    from tabrun.tables.data import TabularData
    from classify.classifier import Classifier

WEIGHT_BYTES = 12  # in training: itself, its gradient, and what the optimizer keeps of it
Config = dict[str, Any]  # the composed config, resolved, as plain values


def resolved(cfg: DictConfig, folder: Path | str, test: bool) -> Config:
    """The composed config as plain values, for a run in this folder."""
    from omegaconf import OmegaConf

    from tabrun.runs.earlier import absolute

    absolute(cfg)
    cfg.folder, cfg.test = str(folder), test
    cfg.mode = better({str(key): value for key, value in cfg.items()})
    return OmegaConf.to_container(cfg, resolve=True)  # type: ignore[return-value]


def net(config: Config, schema: Schema, most: float = math.inf) -> nn.Sequential:
    """Encode -> the model -> the head, with every size taken from the schema; ValueError for more than `most` weights.

    They are counted before any is made.
    """
    arguments = dict(config["model"])
    target = str(arguments.pop("_target_", ""))
    module, _, name = target.rpartition(".")
    model = vars(nets).get(name)
    if module != nets.__name__ or not isfunction(model):  # nothing else may be named by a checkpoint and then called
        raise ValueError(f"model._target_={target} is no function in {nets.__name__}: write the model there")
    check_arguments("model", model, (0, 0), arguments)
    head = head_for(config["head"], schema.num_classes)
    encode = nets.Encode(
        [number.mean for number in schema.numbers],
        [number.std or 1.0 for number in schema.numbers],  # 0: a constant that is sometimes missing
        [i for i, number in enumerate(schema.numbers) if number.indicator],
        [FIRST_CODE + len(category.values) for category in schema.categories],
        [category.embedded for category in schema.categories],
    )
    sizes = encode.out_features, head.in_features(schema.num_classes)
    try:
        with torch.device("meta"):
            count = sum(parameter.numel() for parameter in model(*sizes, **arguments).parameters())
    except Exception:  # of a model that cannot be made without numbers: the real one says what is wrong
        count = 0
    if count > most:
        raise ValueError(f"model: {count:,} weights are too many: there is room for {most:,}: make it smaller")
    body = model(*sizes, **arguments)
    return nn.Sequential(OrderedDict(encode=encode, body=body, head=head()))


def check_arguments(key: str, function: Callable[..., Any], first: tuple, arguments: Mapping[str, Any]) -> None:
    """Raises ValueError for keys of the config that `function` does not take."""
    try:
        signature(function).bind(*first, **arguments)
    except TypeError as error:
        raise ValueError(f"{key}: {function.__name__} {error}") from None


def data(config: Config, schema: Schema | None = None) -> TabularData:
    """The data, set up; with a finished run's schema the table is read as that run read it."""
    from hydra.utils import instantiate

    make = instantiate(config["data"], _convert_="all", _partial_=True)
    check_arguments("data", make.func, (), make.keywords)
    read = make.keywords["read"]
    check_arguments("data.read", read.func, (), {"path": "", "target": "", "kinds": {}} | read.keywords)
    table: TabularData = make(schema=schema, batches_per_step=batches_per_step(config))
    table.setup()
    return table


def metrics(config: Config, schema: Schema) -> dict[str, Metric]:
    from hydra.utils import instantiate

    made = {name: instantiate(node, num_classes=schema.num_classes) for name, node in config["metrics"].items() if node}
    for metric in made.values():
        metric.validate_args = False  # of each batch; it costs more than the counting
    return made


def loss(config: Config, schema: Schema) -> nn.CrossEntropyLoss:
    weights = config["loss"]["class_weights"]
    if weights == "balanced":
        weights = schema.balanced_weights()
    elif weights is not None:
        numbers = isinstance(weights, list) and all(
            isinstance(weight, int | float) and weight >= 0 for weight in weights
        )
        if not numbers or len(weights) != schema.num_classes:
            raise ValueError(
                f"loss.class_weights={weights}: say balanced, or one number for each of {list(schema.classes)}"
            )
    return nn.CrossEntropyLoss(
        weight=None if weights is None else torch.tensor(weights, dtype=torch.float32),
        label_smoothing=config["loss"]["label_smoothing"],
    )


def classifier(config: Config, schema: Schema, measured: dict[str, Metric] | None = None) -> Classifier:
    """A fresh Classifier, with these metrics or its own; its weights are drawn from torch's global generator."""
    from hydra.utils import instantiate

    from classify.classifier import Classifier
    from tabrun.runs.chunks import QuickClassifier

    optimizer = instantiate(config["optimizer"], _convert_="all")
    if "fused" in optimizer.keywords and config["trainer"]["precision"] in ("bf16-true", "16-true"):
        optimizer.keywords["fused"] = False  # on the CPU torch's SGD leaves such weights as they were (pytorch#191763)
    schedule = instantiate(config["scheduler"], _convert_="all")
    rehearse(optimizer, schedule)
    quick = batches_per_step(config) > 1
    most = free_memory(config["trainer"]["accelerator"]) // WEIGHT_BYTES
    make = partial(QuickClassifier, config["data"]["batch_size"]) if quick else Classifier
    made = make(
        net(config, schema, most),
        optimizer,
        schedule,
        loss(config, schema),
        metrics(config, schema) if measured is None else measured,
    )
    if mode := config["trainer"]["compile"]:  # for two sizes, the batch's and the last one's, in each run of a process
        options: dict[str, Any] = {"mode": mode, "dynamic": False, "isolate_recompiles": True}
        made.batch_loss = torch.compile(made.batch_loss, **options)  # type: ignore[method-assign]
    # now, as the Trainer would read a checkpoint's weights before it turns the net's into float64
    return made.double() if config["trainer"]["precision"] == "64-true" else made


def rehearse(optimizer: Any, schedule: Any) -> None:
    """Takes a step of both with one weight; ValueError for an optimizer or arguments that do not do."""
    weight, key = nn.Parameter(torch.zeros(1)), "optimizer"
    weight.grad = torch.zeros(1)
    try:
        optimizer([weight]).step()
        if schedule:
            key, made = "scheduler", optimizer([weight])
            rates = schedule.make(made, **({schedule.total: 10} if schedule.total else {}))
            made.step()
            rates.step(*[0.0] if schedule.monitor else [])
    except (TypeError, RuntimeError, LookupError) as error:
        raise ValueError(f"{key}: {error}") from error


def better(config: Mapping[str, Any]) -> str:
    """What is better for the monitored metric: min or max."""
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

    from classify.callbacks import SaveWith, WholeFiles

    for part in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(part).setLevel(logging.WARNING)  # no tips, no hardware that is not there
    warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)`", FutureWarning)  # lightning's own, each fit
    arguments = {key: value for key, value in config["trainer"].items() if key not in ("threads", "compile")}
    arguments["enable_progress_bar"] &= sys.stderr.isatty()  # off a terminal it would print a line per refresh
    wanted = [node for node in config["callbacks"].values() if node and node.get("every_n_steps") != 0]
    listeners = [instantiate(node, _convert_="all") for node in wanted]
    arguments.setdefault("default_root_dir", config["folder"])
    loggers = [instantiate(node, _convert_="all") for node in config["logger"].values() if node]
    plugins = [*(instantiate(arguments.pop("plugins", None) or [], _convert_="all")), WholeFiles()]
    listeners.append(SaveWith(saved))
    return instantiate(arguments, callbacks=listeners, logger=loggers, plugins=plugins, _convert_="all")
