"""Dataclasses from plain values, as JSON has them, and from text, as a command line has them.

An unknown key or a wrong value is a `UserError` that names the key, the value and the nearest known key.
"""

import dataclasses
import math
import typing
from collections.abc import Mapping
from os import PathLike, fspath
from typing import Any

from zoo.errors import UserError, nearest

_NAMES: dict[type, str] = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
_BOOLS = {"true": True, "false": False, "1": True, "0": False}


class Text(str):
    """A value written as text: the type of its field says how to read it."""


def build(cls: type, tree: Any, path: str = "") -> Any:
    """The dataclass `cls` from a tree of plain values, by its own `from_tree` if it has one.

    `path` is where the tree is in the config, such as `train.`. Raises `UserError` for a wrong key or value.
    """
    if not isinstance(tree, dict):
        first = dataclasses.fields(cls)[0].name
        raise UserError(f"config.{path.rstrip('.')}={tree!r}: it has keys of its own, such as {first}")
    if hasattr(cls, "from_tree"):
        return cls.from_tree(tree)
    return cls(**values(tree, typing.get_type_hints(cls), path))


def values(tree: Mapping[str, Any], types: Mapping[str, Any], path: str = "", owner: str = "") -> dict[str, Any]:
    """Each value of `tree` as `types` has it for its key; `owner` is what has these keys, if the path does not say."""
    for key in tree:
        if key not in types:
            of = f" of {owner}" if owner else ""
            raise UserError(f"config.{path}{key} is not a key{of}: {nearest(key, types)}")
    return {key: _value(types[key], value, f"{path}{key}") for key, value in tree.items()}


def _value(kind: Any, value: Any, path: str) -> Any:
    """`value` as `kind`, or a `UserError` that names both."""
    if dataclasses.is_dataclass(kind):
        return build(kind, value, f"{path}.")
    if typing.get_origin(kind) is tuple:
        return _tuple(typing.get_args(kind)[0], value, path)
    if kind is str and isinstance(value, PathLike):
        return fspath(value)
    try:
        if isinstance(value, Text):
            return _parsed(kind, value)
        if isinstance(value, bool) == (kind is bool) and isinstance(value, kind | int if kind is float else kind):
            return _finite(kind(value))
    except (ValueError, KeyError):
        pass
    raise UserError(f"config.{path}={value!r} is not {_NAMES.get(kind, kind)}")


def _tuple(kind: Any, value: Any, path: str) -> tuple:
    """From a list, or from text such as `8,16` or `(8, 16)`."""
    if isinstance(value, str):
        return tuple(_value(kind, Text(item), path) for item in value.strip("()").replace(",", " ").split())
    if isinstance(value, list):
        return tuple(_value(kind, item, path) for item in value)
    raise UserError(f"config.{path}={value!r} is not a list")


def _parsed(kind: type, text: str) -> Any:
    if kind is bool:
        return _BOOLS[text.lower()]
    if kind is int:
        return int(text.replace("_", ""))
    return _finite(kind(str(text)))


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(value)
    return value
