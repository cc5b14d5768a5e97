"""Folders and files that appear whole or not at all."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replaced_folder(target: Path) -> Iterator[Path]:
    """Gives an empty folder that takes the place of `target` if the block succeeds.

    If the block fails, or the process dies, what was at `target` stays as it was; at the worst
    moment it stands beside it and `recover_folder` puts it back.
    """
    aside, old = _beside(target, "new"), _beside(target, "old")
    target.parent.mkdir(parents=True, exist_ok=True)
    recover_folder(target)
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    try:
        yield aside
        for file in aside.rglob("*"):
            if file.is_file():
                _sync(file)
        if target.exists():
            target.rename(old)
        aside.rename(target)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)


def recover_folder(target: Path) -> None:
    """Puts back what `replaced_folder` had moved aside when its process died."""
    old = _beside(target, "old")
    if old.exists():
        if target.exists():
            shutil.rmtree(old, ignore_errors=True)
        else:
            old.rename(target)


def write_whole(path: Path, text: str) -> None:
    """Writes a text file aside, then renames it into place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = _beside(path, "new")
    aside.write_text(text, encoding="utf-8")
    _sync(aside)
    aside.replace(path)


@contextmanager
def replaced_file(target: Path) -> Iterator[Path]:
    """Gives a path to write that takes the place of `target` if the block succeeds.

    Each call has a path of its own: of several writers at once the last one stays, whole.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = _beside(target, f"{secrets.token_hex(4)}.new")
    try:
        yield aside
        _sync(aside)
        aside.replace(target)
    finally:
        aside.unlink(missing_ok=True)


def sha256_of(path: Path) -> str:
    """Returns the hex SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _beside(path: Path, role: str) -> Path:
    # `.` has no name before it is made absolute.
    whole = Path(os.path.abspath(path))
    return whole.parent / f".{whole.name}.{role}"


def _sync(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())
