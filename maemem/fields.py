"""Config sections made of dataclasses: a field is declared, typed, checked and documented once.

A section holds the fields of one dataclass. What the code itself gives an object, such as a mesh or
a network, is declared by `given()` and is no field of the section. Where a section may describe one
of several classes, its field `kind` is the key of the dictionary that has them.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from ml_collections import ConfigDict

T = TypeVar("T")

_PLAIN = (bool, int, float, str)
# Fields of numbers that may be negative, or larger than 2**32.
_SIGNED, _LARGE = ("unlabelled", "intensity_range"), ("_bytes", "unlabelled", "intensity_range")


def given(**options: Any) -> Any:
    """A field of a dataclass that its config section does not have: the code gives it."""
    return dataclasses.field(kw_only=True, metadata={"given": True}, **options)


def section(made: Any, kinds: Mapping[str, type] | None = None, /, **changes: Any) -> ConfigDict:
    """The config section of an object, or of a class whose fields all have defaults.

    Args:
      made: a dataclass, or an instance of one.
      kinds: the dictionary in which its class is; the section then names its key as `kind`.
      **changes: values other than those that `made` has.

    Raises:
      KeyError: if the class is not in `kinds`.
      ValueError: if there is no such field to change, or a field without a default is not named.
    """
    cls = made if isinstance(made, type) else type(made)
    values: dict[str, Any] = {}
    if kinds is not None:
        values["kind"] = {kind: name for name, kind in kinds.items()}[cls]
    names = [field.name for field in own_fields(cls)]
    if unknown := sorted(changes.keys() - set(names)):
        raise ValueError(f"{cls.__name__} has no fields {unknown}; it has {', '.join(names)}")
    for field in own_fields(cls):
        if field.name in changes:
            value = changes[field.name]
        elif not isinstance(made, type):
            value = getattr(made, field.name)
        elif field.default is not dataclasses.MISSING:
            value = field.default
        elif field.default_factory is not dataclasses.MISSING:
            value = field.default_factory()
        else:
            raise ValueError(f"{cls.__name__} needs a value of {field.name}")
        nested = dataclasses.is_dataclass(value) and not isinstance(value, type)
        values[field.name] = section(value) if nested else value
    return ConfigDict(values)


def build(cls: type[T], found: Mapping[str, Any], name: str, **of_code: Any) -> T:
    """The object that a section describes.

    Args:
      cls: the dataclass.
      found: its section.
      name: of the section in the config, such as `finetune.optimizer`, for messages.
      **of_code: the fields declared by `given`.

    Raises:
      ValueError: if a field is missing, unknown, of another type, or refused by the class; it says
        which, what it is and what is expected.
    """
    known = {field.name: field for field in own_fields(cls)}
    values = {key: value for key, value in dict(found).items() if key != "kind"}
    if unknown := sorted(values.keys() - known.keys()):
        raise ValueError(
            f"{name} has the fields {', '.join(unknown)}, which {_kind(cls, found)} does not know; "
            f"it knows {', '.join(known) or 'none'}. A flag cannot exchange one kind for another "
            f"with other fields: choose a config, or a variant of one, that does"
        )
    hints = _hints(cls)
    for key, value in values.items():
        _check_numbers(f"{name}.{key}", value)
        if isinstance(hints[key], type) and dataclasses.is_dataclass(hints[key]):
            values[key] = build(hints[key], value, f"{name}.{key}")
        else:
            values[key] = _typed(f"{name}.{key}", value, hints[key])
    try:
        return cls(**values, **of_code)
    except ValueError as error:
        # What a class says of a field begins with its name.
        of_field = str(error).split(" ")[0] in known
        raise ValueError(f"{name}{'.' if of_field else ': '}{error}") from None
    except TypeError:
        missing = [key for key in known if key not in values]
        raise ValueError(f"{name} has no value of {', '.join(missing)}; give it one") from None


def build_kind(
    kinds: Mapping[str, type[T]], found: Mapping[str, Any], name: str, **of_code: Any
) -> T:
    """The object that a section describes, of the class that its field `kind` names.

    Raises:
      ValueError: if there is no such kind; as `build`.
    """
    return build(kind_of(kinds, found, name), found, name, **of_code)


def kind_of(kinds: Mapping[str, type[T]], found: Mapping[str, Any], name: str) -> type[T]:
    """The class that the field `kind` of a section names.

    Raises:
      ValueError: if there is no such kind.
    """
    kind = found["kind"]
    if kind not in kinds:
        raise ValueError(f"{name}.kind is {kind!r}; expected: one of {', '.join(kinds)}")
    return kinds[kind]


def own_fields(cls: type) -> list[dataclasses.Field]:
    """The fields of a dataclass that its section has; Flax's own are not among them."""
    fields = {field.name: field for field in dataclasses.fields(cls)}
    of_flax = ("parent", "name") if "parent" in fields else ()
    return [
        field
        for name, field in fields.items()
        if field.init and not field.metadata.get("given") and name not in of_flax
    ]


@functools.cache
def _hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def _kind(cls: type, found: Mapping[str, Any]) -> str:
    return f"kind {found['kind']}" if "kind" in found else cls.__name__


def _typed(name: str, value: Any, hint: Any) -> Any:
    """A value of the type that its field is declared with; tuples for lists, floats for ints."""
    if isinstance(value, ConfigDict):
        return value.to_dict()
    if isinstance(value, list):
        value = tuple(value)
    if not _fits(value, hint):
        raise ValueError(f"{name} is {value!r}; expected: {_described(hint)}")
    return float(value) if hint is float else value


def _fits(value: Any, hint: Any) -> bool:
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, each) for each in inner)
    if origin is typing.Literal:
        return value in inner
    if origin is tuple:
        if not isinstance(value, tuple):
            return False
        if inner == ((),) or not inner:
            return value == ()
        if inner[-1] is Ellipsis:
            return all(_fits(each, inner[0]) for each in value)
        return len(value) == len(inner) and all(map(_fits, value, inner))
    if hint is type(None):
        return value is None
    if hint in _PLAIN:
        whole = isinstance(value, int) and not isinstance(value, bool)
        return whole if hint is int else isinstance(value, hint) or (hint is float and whole)
    return True


def _described(hint: Any) -> str:
    """A type in words."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    words = {bool: "True or False", int: "a whole number", float: "a number", str: "a text"}
    if origin in (typing.Union, types.UnionType):
        return ", or ".join(map(_described, inner))
    if origin is typing.Literal:
        return f"one of {', '.join(map(str, inner))}"
    if origin is tuple:
        if not inner or inner == ((),):
            return "()"
        if inner[-1] is Ellipsis:
            return f"a tuple, each {_described(inner[0])}"
        return f"({', '.join(map(_described, inner))})"
    return words.get(hint, "nothing" if hint is type(None) else str(hint))


def _check_numbers(name: str, value: Any, shown: Any = None) -> None:
    """Refuses numbers that are not finite, below 0, or so large that they cannot be meant."""
    shown = value if shown is None else shown
    if isinstance(value, tuple | list):
        for each in value:
            _check_numbers(name, each, shown)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        limit = 2.0 ** (64 if name.endswith(_LARGE) else 32) if isinstance(value, int) else math.inf
        if not -limit < value < limit:
            raise ValueError(f"{name} is {shown}; expected: a number, finite and not that large")
        if value < 0 and not name.endswith(_SIGNED):
            raise ValueError(f"{name} is {shown}; expected: 0 or more")
