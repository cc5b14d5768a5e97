"""Suggests the right table for a misplaced configuration key."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any, get_type_hints

from trunkline.kinds import KINDS

_TASK = "tasks.NAME"


def misplaced(config: type, task: type, data: Mapping[str, Any]) -> str | None:
    """Returns an error message for the first key in the wrong table, or None if there is none.

    Args:
        config: The type of a configuration.
        task: The type of a task in it.
        data: Plain values of a configuration.
    """
    places = [*_places(config, ""), *_places(task, f"{_TASK}.")]
    places += [one for kind in KINDS.values() for one in _places(kind.options, f"{_TASK}.options.")]
    known = dict.fromkeys(places)
    for path, place in _keys(data):
        name = path.rpartition(".")[2]
        right = [one for one in known if one.rpartition(".")[2] == name]
        if place not in known and right:
            return f"{path}: unknown key; did you mean {' or '.join(right)}?"
    return None


def _places(cls: type, before: str) -> Iterator[str]:
    """Yields the dotted paths of all fields of a table and its subtables."""
    hints = get_type_hints(cls)
    for one in fields(cls):
        yield before + one.name
        if is_dataclass(hints[one.name]):
            yield from _places(hints[one.name], f"{before}{one.name}.")


def _keys(data: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yields each key's dotted path, and the same with NAME in place of the task name."""
    for key, value in data.items():
        yield key, key
        table = value if isinstance(value, Mapping) else {}
        if key != "tasks":
            yield from ((f"{key}.{name}", f"{key}.{name}") for name in table)
            continue
        for name, task in table.items():
            for one in task if isinstance(task, Mapping) else ():
                yield f"tasks.{name}.{one}", f"{_TASK}.{one}"
