"""Resolves the paths in a configuration.

Paths in a file are relative to that file; paths from a command line or a Python program are
relative to the working folder. Once read, a configuration holds absolute paths, so that a run can
be resumed and exported from anywhere.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

HUB = "hub:"
_HUB_MODEL = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?(@.+)?")  # OWNER/NAME@REVISION
_HUB_NAME = re.compile(r"([^#@:]+)(.*)")  # name of a data set, and the rest

_log = logging.getLogger(__name__)


def anchored(value: Any, folder: Path, key: tuple[str, ...] = ()) -> Any:
    """Makes the paths in plain values of a configuration absolute.

    Args:
        value: The whole configuration, or the value at `key`.
        folder: Folder that relative paths start from.
        key: Names of the enclosing tables, then the key itself.
    """
    if isinstance(value, Mapping):
        return {name: anchored(one, folder, (*key, str(name))) for name, one in value.items()}
    if isinstance(value, list):
        return [anchored(one, folder, key) for one in value]
    rule = _RULES.get(_pattern(key))
    return rule(value, folder) if rule and isinstance(value, str) and value else value


def is_place(key: tuple[str, ...]) -> bool:
    """Returns whether a key of a configuration holds a path or hub name."""
    return _pattern(key) in _RULES


def _pattern(key: tuple[str, ...]) -> str:
    return ".".join(("tasks", "*", *key[2:]) if key[:1] == ("tasks",) else key)


def cache_folder(setting: str | None) -> Path | None:
    """Returns the folder of encoded data sets: as configured, by default in the user's cache.

    Returns None if the setting is empty or the user has no home directory, as can happen in a
    container whose user is not in /etc/passwd.
    """
    if setting is not None:
        return Path(setting) if setting else None
    base = os.environ.get("XDG_CACHE_HOME")
    try:
        folder = Path(base) if base else Path.home() / ".cache"
    except RuntimeError:
        _log.warning("no home directory: encoded data is not kept; training.cache names a folder")
        return None
    return folder / "trunkline" / "features"


def is_path(encoder: str) -> bool:
    """Returns whether an encoder's name can only be a path, not a model on the hub."""
    return _HUB_MODEL.fullmatch(encoder) is None


def split_revision(encoder: str) -> tuple[str, str | None]:
    """Splits the NAME@REVISION of an encoder on the hub into name and revision."""
    name, _, revision = encoder.partition("@")
    return name, revision or None


def without_folder(name: str) -> str:
    """Shortens an absolute path to its last part, for results that are shown elsewhere."""
    path = Path(name.removeprefix(HUB))
    return path.name if path.is_absolute() else name


def _encoder(name: str, folder: Path) -> str:
    path = _absolute(name, folder)
    return path if is_path(name) or Path(path).exists() else name


def _source(source: str, folder: Path) -> str:
    if not source.startswith(HUB):
        return _absolute(source, folder)
    match = _HUB_NAME.fullmatch(source.removeprefix(HUB))
    if match is None or not (folder / match[1]).is_dir():
        return source
    return HUB + _absolute(match[1], folder) + match[2]


def _absolute(path: str, folder: Path) -> str:
    return os.path.abspath(folder / path)


_RULES: dict[str, Callable[[str, Path], str]] = {
    "encoder": _encoder,
    "training.cache": _absolute,
    "tasks.*.train": _source,
    "tasks.*.dev": _source,
    "tasks.*.test": _source,
    "tasks.*.teacher": _absolute,
}
