"""Plain: of what type a value is that is read back; imports nothing heavy."""

from dataclasses import MISSING, fields, is_dataclass
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints


def fits(value: Any, kind: Any) -> bool:
    """Whether a value is of this type, such as dict[str, float], in this range, or the fields of this dataclass.

    A list is a good tuple, and an int a good float. A field that has a default may be missing.
    """
    inner = get_args(kind)
    if isinstance(kind, UnionType):
        return any(fits(value, one) for one in inner)
    if isinstance(kind, range):
        return type(value) is int and value in kind
    if is_dataclass(kind):
        kinds = get_type_hints(kind)
        needed = {field.name for field in fields(kind) if field.default is MISSING}
        given = isinstance(value, dict) and needed <= value.keys() <= kinds.keys()
        return given and all(fits(value[k], kinds[k]) for k in value)
    if get_origin(kind) is dict:
        return isinstance(value, dict) and all(fits(k, inner[0]) and fits(v, inner[1]) for k, v in value.items())
    if inner:
        return isinstance(value, list | tuple) and all(fits(item, inner[0]) for item in value)
    return kind is Any or type(value) is kind or (kind is float and fits(value, range(-(2**63), 2**63)))
