"""Declare a setting once, with its default, bounds, allowed values and help text, and check a dataclass of settings.

    @dataclass
    class Recipe:
        epochs: int = option(16, at_least=1, help="passes over the training images")

    check(Recipe(epochs=0), "recipe")  # ValueError: recipe.epochs=0: must be at least 1

The command line and the Python API fill the same dataclasses, so each bound is defined once.
"""

import copy
import dataclasses
import operator
import types
from collections.abc import Callable, Iterable
from typing import Any, TypeVar, Union, get_args, get_origin

from s2snet.config.choices import choose

Config = TypeVar("Config")
BOUNDS = {"at_least": operator.ge, "above": operator.gt, "below": operator.lt}


def option(
    default: Any = dataclasses.MISSING,
    *,
    help: str,
    at_least: float | None = None,
    above: float | None = None,
    below: float | None = None,
    choices: Iterable[str] | None = None,
    parse: Callable[[str, Any], Any] | None = None,
) -> Any:
    """Return a dataclass field with a default, bounds and a help text, which `check` and `--help` read.

    Lists and dictionaries are copied for each instance; a class is called for a default of its own. `parse(name,
    value)` returns the value in its final form, such as 8/255 as a number, and raises ValueError in one line.
    """
    metadata = {"help": help, "choices": choices and tuple(choices), "parse": parse}
    metadata |= {"at_least": at_least, "above": above, "below": below}
    if isinstance(default, list | dict):
        return dataclasses.field(default_factory=lambda: copy.deepcopy(default), metadata=metadata)
    if isinstance(default, type):
        return dataclasses.field(default_factory=default, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def check(config: Config, name: str = "") -> Config:
    """Return a copy of a dataclass of settings in which every value is checked, and parsed where it is text.

    Nested dataclasses are checked alike. A dataclass with rules between its fields has a method
    `check_together(name)`, which runs last. `name` is what the user calls these settings, such as `recipes.stage1`.
    ValueError, in one line with the name, the value and what is allowed.
    """
    prefix = f"{name}." if name else ""
    changed = {
        item.name: _checked(f"{prefix}{item.name}", getattr(config, item.name), item)
        for item in dataclasses.fields(config)
    }
    config = dataclasses.replace(config, **changed)
    if hasattr(config, "check_together"):
        config.check_together(name)
    return config


def _checked(name: str, value: Any, item: dataclasses.Field) -> Any:
    rules = item.metadata
    if rules.get("parse"):
        value = rules["parse"](name, value)
    elif not _fits(value, item.type):
        raise ValueError(f"{name}={value!r}: expected {_described(item.type)}, got {type(value).__name__}")
    if dataclasses.is_dataclass(value):
        return check(value, name)
    if isinstance(value, dict):
        nested = {key: check(one, f"{name}.{key}") for key, one in value.items() if dataclasses.is_dataclass(one)}
        return value | nested
    if value is None:
        return None
    if rules.get("choices"):
        choose(name, value, rules["choices"])
    bounds = {rule: rules[rule] for rule in BOUNDS if rules.get(rule) is not None}
    if not all(BOUNDS[rule](value, bound) for rule, bound in bounds.items()):  # NaN fails every bound
        allowed = " and ".join(f"{rule.replace('_', ' ')} {bound:g}" for rule, bound in bounds.items())
        raise ValueError(f"{name}={value}: must be {allowed}")
    return value


def _fits(value: Any, kind: Any) -> bool:
    """Return whether a value is of an annotated type; an int is a float too, a bool is neither."""
    origin = get_origin(kind)
    if kind is Any:
        return True
    if origin in (Union, types.UnionType):
        return any(_fits(value, one) for one in get_args(kind))
    if origin in (list, dict):
        return isinstance(value, origin)
    if kind in (int, float):
        return type(value) is int or (kind is float and type(value) is float)
    return isinstance(value, kind)


def _described(kind: Any) -> str:
    parts = get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)
    return " or ".join("null" if one is types.NoneType else getattr(one, "__name__", str(one)) for one in parts)
