"""Roles: what a name in a config may stand for, by the part that it plays; `resolve` finds it."""

import difflib
import importlib
import sys
from dataclasses import dataclass
from inspect import isclass, isfunction
from pkgutil import resolve_name
from types import SimpleNamespace
from typing import Any, get_type_hints

from tabrun.cli.errors import UserError


@dataclass(frozen=True)
class Role:
    """A class of the template's package, or of a library's modules, that derives from a base.

    base, modules: their full names. by_function: whether a function of the package that is annotated to give such an
    object will do.
    """

    base: str
    modules: tuple[str, ...]
    by_function: bool = False

    def __str__(self) -> str:
        return ".".join(self.base.split(".")[-2:])


MODULE = Role("torch.nn.Module", ("torch.nn",), by_function=True)
CALLBACK = Role("lightning.pytorch.callbacks.Callback", ("lightning.pytorch.callbacks", "tabrun"))
DATA = Role("tabrun.TabularData", ("tabrun",))
ROLES = (MODULE, CALLBACK, DATA)


def resolve(key: str, target: Any, role: Role, package: str) -> Any:
    """Gives what the node at this key of `package`'s config names; UserError for what does not play the role."""
    if (found := playing(target, role, package)) is None:
        ways = [f"a class of {package}", *([f"a function of it that says -> {role}"] if role.by_function else [])]
        ways += [f"one of {module}" for module in role.modules]
        what = f"{key}._target_={str(target)[:80]} is no {role}{why(target, role, package)}"
        raise UserError(f"{what}: name {', or '.join(ways)}")
    return found


def why(target: Any, role: Role, package: str) -> str:
    """What is wrong with a name in the package, if that can be told."""
    module, _, name = target.rpartition(".") if isinstance(target, str) else ("", "", "")
    if module.partition(".")[0] != package:
        return ""
    found: Any = sys.modules.get(module)
    if found is None:
        return f", as there is no file {module}"
    if name in vars(found):
        return f", as it says no -> {role}" if isfunction(getattr(found, name)) and role.by_function else ""
    close = difflib.get_close_matches(name, vars(found), 1)
    return f", as {module} has no {name}{f' (did you mean {close[0]}?)' if close else ''}"


def playing(target: Any, role: Role, package: str) -> Any:
    """What this full name stands for, if it plays the role, or None; no other package's code is run to find out."""
    module, _, name = target.rpartition(".") if isinstance(target, str) else ("", "", "")
    top = module.partition(".")[0]
    allowed = top == package or module in role.modules
    if not allowed or not all(part.isidentifier() and part[:2] != "__" for part in target.split(".")):
        return None
    try:
        found = getattr(importlib.import_module(module), name, None)
    except ModuleNotFoundError as error:
        if error.name and f"{module}.".startswith(f"{error.name}."):
            return None
        raise
    if str(getattr(found, "__module__", None)).partition(".")[0] != top:  # it is imported there from elsewhere
        return None
    gives = given_by(found) if top == package and role.by_function and isfunction(found) else found
    return found if isclass(gives) and issubclass(gives, resolve_name(role.base)) else None


def given_by(function: Any) -> Any:
    """What a function is annotated to give; None where that is unknown when it is run."""
    told = SimpleNamespace(__annotations__={"return": function.__annotations__.get("return")})
    try:
        return get_type_hints(told, function.__globals__)["return"]
    except (NameError, AttributeError, TypeError):  # imported for type checkers alone
        return None
