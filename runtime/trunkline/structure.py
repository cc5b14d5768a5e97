"""Reads plain JSON or TOML values into typed dataclasses, and refuses what does not fit.

One strict reader for manifests, task specs and training configurations: unknown keys, missing keys
and wrong types raise ValueError with the path of the key.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from trunkline.errors import did_you_mean

T = TypeVar("T")
_LARGEST = 2**63  # what numpy and onnxruntime count with


def parse(cls: type[T], value: object, where: str = "") -> T:
    """Returns `value` as an instance of the dataclass `cls`.

    Fields may be str, int, float, bool, object, tuple[X, ...], dict[str, X], X | None, Literal,
    nested dataclasses, and numbers of a range: Annotated[float, Range(above=0)]. Numbers are
    finite, whole ones have 64 bits at most.

    Raises:
        ValueError: An unknown or missing key, or a value of the wrong type or out of its range;
            names the key's path.
    """
    return typing.cast(T, _parse(cls, value, where))


def check_fields(value: Any) -> None:
    """Checks that the fields of a dataclass are of their types and in their ranges.

    For what a program makes itself: no type checker need have seen it.

    Raises:
        ValueError: One is not; names it.
    """
    hints = typing.get_type_hints(type(value), include_extras=True)
    for field in dataclasses.fields(value):
        _parse(hints[field.name], getattr(value, field.name), field.name)


def check_value(kind: Any, value: object, where: str) -> None:
    """Checks that a value is of a type, which may have a range.

    Raises:
        ValueError: It is not; names it by `where`.
    """
    _parse(kind, value, where)


def plain(value: Any) -> Any:
    """Returns a dataclass as JSON-ready dicts and lists; the inverse of `parse`."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def _parse(kind: Any, value: object, where: str) -> object:
    if dataclasses.is_dataclass(kind):
        return _parse_dataclass(typing.cast(type, kind), value, where)
    read = _BY_ORIGIN.get(typing.get_origin(kind))
    if read is not None:
        return read(typing.get_args(kind), value, where)
    return _parse_scalar(kind, value, where)


def _parse_dataclass(cls: type, value: object, where: str) -> object:
    if isinstance(value, cls):
        return value
    if not isinstance(value, Mapping):
        raise ValueError(f"{where or 'top level'}: expected a table, got {_describe(value)}")
    hints = typing.get_type_hints(cls, include_extras=True)
    fields = {field.name: field for field in dataclasses.fields(cls)}
    for key in value:
        if key not in fields:
            raise ValueError(
                f"{_join(where, str(key))}: unknown key{did_you_mean(str(key), fields)}; "
                f"known: {', '.join(fields)}"
            )
    for name, field in fields.items():
        required = (
            field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        )
        if required and name not in value:
            raise ValueError(f"{_join(where, name)}: missing")
    given = {key: _parse(hints[key], item, _join(where, key)) for key, item in value.items()}
    try:
        return cls(**given)
    except ValueError as error:
        raise ValueError(f"{where}: {error}" if where else str(error)) from None


def _parse_optional(options: tuple[Any, ...], value: object, where: str) -> object:
    if value is None and type(None) in options:
        return None
    kinds = [option for option in options if option is not type(None)]
    for kind in kinds[:-1]:
        try:
            return _parse(kind, value, where)
        except ValueError:
            continue
    return _parse(kinds[-1], value, where)


def _parse_ranged(of: tuple[Any, ...], value: object, where: str) -> object:
    kind, numbers = of
    # The range first: of NaN and the like it says what is expected.
    number = typing.cast(float, value if type(value) is kind else _parse(kind, value, where))
    if number not in numbers:
        raise ValueError(f"{where}: must be {numbers}, not {f'{number!r}'[:40]}")
    return _parse(kind, number, where)


def _parse_literal(options: tuple[Any, ...], value: object, where: str) -> object:
    if value not in options:
        names = ", ".join(repr(option) for option in options)
        raise ValueError(f"{where}: expected one of {names}, got {value!r}")
    return value


def _parse_tuple(of: tuple[Any, ...], value: object, where: str) -> object:
    if not isinstance(value, list | tuple):
        raise ValueError(f"{where}: expected a list, got {_describe(value)}")
    return tuple(_parse(of[0], each, f"{where}[{index}]") for index, each in enumerate(value))


def _parse_dict(of: tuple[Any, ...], value: object, where: str) -> object:
    if not isinstance(value, Mapping):
        raise ValueError(f"{where}: expected a table, got {_describe(value)}")
    return {str(key): _parse(of[1], each, _join(where, str(key))) for key, each in value.items()}


_BY_ORIGIN: dict[Any, Callable[[tuple[Any, ...], object, str], object]] = {
    types.UnionType: _parse_optional,
    typing.Union: _parse_optional,
    typing.Annotated: _parse_ranged,
    typing.Literal: _parse_literal,
    tuple: _parse_tuple,
    dict: _parse_dict,
}


def _parse_scalar(kind: Any, value: object, where: str) -> object:
    if kind is object:
        return value
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = _as_float(value, where)
    if type(value) is not kind:  # bool is an int to isinstance, but never a count
        raise ValueError(f"{where}: expected {kind.__name__}, got {_describe(value)}")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{where}: must be a finite number, not {value}")
    if type(value) is int and abs(value) >= _LARGEST:
        reason = f"expected a number of 64 bits, got one of {len(str(abs(value)))} digits"
        raise ValueError(f"{where}: {reason}")
    return value


def _as_float(value: int, where: str) -> float:
    try:
        return float(value)
    except OverflowError:
        reason = f"expected a number, got one of {len(str(abs(value)))} digits"
        raise ValueError(f"{where}: {reason}") from None


def _join(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key


def _describe(value: object) -> str:
    return f"{type(value).__name__} {value!r}"[:80]
