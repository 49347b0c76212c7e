"""Make: what a node of the config names; the only file that calls Hydra's instantiate."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from inspect import signature
from typing import Any

from tabrun.cli.errors import UserError, value_of
from tabrun.cli.roles import Role, resolve

PACKAGE = __name__.partition(".")[0]
Config = dict[str, Any]


def made(key: str, node: Config, **more: Any) -> Any:
    """What the node at this key names, made with its arguments and `more`.

    UserError: it takes no such argument, or, where it is a library's, what that says of them.
    """
    from hydra.utils import instantiate

    check_node(key, node | more)
    with value_of(key, PACKAGE):
        return instantiate(node, **more, _convert_="all")


def played(key: str, config: Config, role: Role) -> tuple[Callable[..., Any], Config]:
    """The class or function at this key, and its arguments; UserError if it does not play the role."""
    node = config.get(key)
    if not isinstance(node, dict):
        raise UserError(f"{key}={node} is nothing that can be made: it needs a _target_")
    if "device" in node:  # which would make it there before its weights are counted
        raise UserError(f"{key}.device: trainer.accelerator says where it is: leave it out")
    return resolve(key, node.get("_target_"), role, PACKAGE), {k: v for k, v in node.items() if k != "_target_"}


def check_node(key: str, node: Config) -> None:
    """Raises UserError for arguments that the template's or the library's own do not take, here or further within."""
    from hydra.utils import get_object

    for name, part in node.items():
        if isinstance(part, dict) and "_target_" in part:
            check_node(f"{key}.{name}", part)
    if str(node["_target_"]).partition(".")[0] in (PACKAGE, "tabrun"):
        with value_of(key, PACKAGE):
            target = get_object(node["_target_"])
        given = {name: value for name, value in node.items() if not name.startswith("_")}
        check_arguments(key, target, (), given, partly=bool(node.get("_partial_")))


def check_arguments(
    key: str, function: Callable[..., Any], first: tuple, arguments: Mapping[str, Any], partly: bool = False
) -> None:
    """Raises UserError for keys of the config that `function` does not take."""
    takes = signature(function)
    try:
        (takes.bind_partial if partly else takes.bind)(*first, **arguments)
    except TypeError as error:
        raise UserError(f"{key}: {function.__name__} {error}") from None


def rehearse(optimizer: Any, schedule: Any) -> None:
    """Takes a step of both with one weight; UserError for an optimizer or arguments that do not do."""
    import torch
    from torch import nn

    weight = nn.Parameter(torch.zeros(1))
    weight.grad = torch.zeros(1)
    with value_of("optimizer", PACKAGE):
        optimizer([weight]).step()
    if schedule:
        stepped = optimizer([weight])
        with value_of("scheduler", PACKAGE):
            rates = schedule.make(stepped, **({schedule.total: 10} if schedule.total else {}))
            stepped.step()
            rates.step(*[0.0] if schedule.monitor else [])
