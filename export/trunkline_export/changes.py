"""What an export may change: where dev data is, how it is read, and how answers are decoded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from trunkline.errors import ConfigError
from trunkline.kinds import find_kind
from trunkline.structure import parse, plain
from trunkline.tasks import TaskSpec
from trunkline_train.checkpoint import Checkpoint
from trunkline_train.config import Config, TaskConfig, beyond_data, changed

# Options that a head was trained for; the others only say how its outputs are decoded.
_TRAINED = ("multi_label", "pair")


def apply_changes(checkpoint: Checkpoint, changes: Sequence[str]) -> Checkpoint:
    """Returns a checkpoint whose configuration, and options of decoding, are changed.

    Args:
        checkpoint: Its model gets the changed tasks.
        changes: `key.path=value` each.

    Raises:
        ConfigError: A key is unknown, a value does not fit, or the change would not reach the
            bundle.
    """
    before, after = checkpoint.config, changed(checkpoint.config, changes)
    key = _settled(before, after)
    if key is not None:
        raise ConfigError(f"--set {key}: does not change an export; training has settled it")
    checkpoint.model.tasks = tuple(
        _decoded(spec, before.tasks[spec.name], after.tasks[spec.name]) for spec in checkpoint.tasks
    )
    return replace(checkpoint, config=after)


def _settled(before: Config, after: Config) -> str | None:
    """Returns the first key that differs and would not reach the bundle."""
    if before.tasks.keys() != after.tasks.keys():
        return f"tasks.{sorted(before.tasks.keys() ^ after.tasks.keys())[0]}"
    for name, task in after.tasks.items():
        old = before.tasks[name]
        # Without dev data of its own a task is measured on a part of its training data.
        unread = ("kind", "test", *(("train",) if task.dev is not None else ()))
        for key in unread:
            if getattr(task, key) != getattr(old, key):
                return f"tasks.{name}.{key}"
        for option in _TRAINED:
            if task.options.get(option) != old.options.get(option):
                return f"tasks.{name}.options.{option}"
    return beyond_data(before, after, ("name", "options"))


def _decoded(spec: TaskSpec, before: TaskConfig, after: TaskConfig) -> TaskSpec:
    """Returns a task with the options that were changed over those it was trained with."""
    options: dict[str, Any] = plain(spec.options)
    for name in before.options.keys() - after.options.keys():
        del options[name]
    options |= {
        name: value
        for name, value in after.options.items()
        if name not in before.options or before.options[name] != value
    }
    try:
        parsed = parse(find_kind(spec.kind).options, options, "options")
        return replace(spec, options=parsed)
    except ValueError as error:
        raise ConfigError(f"--set tasks.{spec.name}: {error}") from None
