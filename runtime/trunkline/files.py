"""Folders and files that appear whole or not at all, and the reading of them while others write."""

from __future__ import annotations

import ctypes
import errno
import glob
import hashlib
import os
import secrets
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from trunkline.errors import TrunklineError

if sys.platform != "win32":
    import fcntl

T = TypeVar("T")
_TRIES = 5  # readings of a folder that is replaced during each
_TAKEN = (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR)  # a rename that finds its place taken
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # of Linux's renameat2


@contextmanager
def replaced_folder(target: Path) -> Iterator[Path]:
    """Gives an empty folder that takes the place of `target` if the block succeeds.

    If the block fails, or the process dies, what was at `target` stays there. Each of several
    writers at once fills a folder of its own; the last one stays, whole. Where two folders cannot
    be swapped in one step (not Linux, or some network file systems), a process that dies at the
    worst moment leaves the old folder at `left_aside`; the next writer puts it back.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    _recover(target)
    _sweep(target)
    with _own_folder(target) as aside:
        yield aside
        for file in aside.rglob("*"):
            if file.is_file():
                _sync(file)
        _put(aside, target)


def left_aside(target: Path) -> Path | None:
    """Returns where the folder lies that a writer moved away before it died; None as a rule."""
    old = _beside(target, "old")
    return old if old.exists() and not target.exists() else None


def read_steadily(folder: Path, read: Callable[[], T]) -> T:
    """Returns what `read` makes of a folder, never of parts of two.

    It reads again if the folder was replaced meanwhile, whether or not that raised an error.
    """
    for _ in range(_TRIES):
        with _kept(folder) as before:
            try:
                found = read()
            except (TrunklineError, OSError):
                if _identity(folder) == before:
                    raise
            else:
                if _identity(folder) == before:
                    return found
    return read()


def write_whole(path: Path, text: str) -> None:
    """Writes a text file aside, then renames it into place."""
    with replaced_file(path) as aside:
        aside.write_text(text, encoding="utf-8")


@contextmanager
def replaced_file(target: Path) -> Iterator[Path]:
    """Gives a path to write that takes the place of `target` if the block succeeds.

    Each call has a path of its own: of several writers at once the last one stays, whole.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = _new_beside(target)
    try:
        yield aside
        _sync(aside)
        aside.replace(target)
    finally:
        aside.unlink(missing_ok=True)


def read_edited(path: Path) -> str:
    """Returns a UTF-8 text that people edit: no byte order mark, lines that end in a line feed.

    Raises:
        OSError: It cannot be read.
        UnicodeDecodeError: It is not UTF-8.
    """
    return path.read_text(encoding="utf-8-sig")


def sha256_of(path: Path) -> str:
    """Returns the hex SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _own_folder(target: Path) -> Iterator[Path]:
    """Gives a folder beside `target`, locked for others to know that its writer lives."""
    aside = _new_beside(target)
    held = _claim(aside, aside.mkdir)
    try:
        yield aside
    finally:
        _remove(aside)
        if held is not None:
            os.close(held)


def _sweep(target: Path) -> None:
    """Removes what writers that died have left: their folders, and their lock."""
    whole = Path(os.path.abspath(target))
    folders = whole.parent.glob(f".{glob.escape(whole.name)}.*.new")
    for left in (*filter(Path.is_dir, folders), _beside(target, "lock")):
        with suppress(FileNotFoundError):  # another writer has removed it
            if (held := _lock(left, wait=False)) is not None:
                _remove(left)
                os.close(held)


def _recover(target: Path) -> None:
    """Puts back, or removes, what a writer had moved away before it died."""
    old = _beside(target, "old")
    if old.exists():
        with _locked(target):
            if target.exists():
                _remove(old)
            elif old.exists():
                old.rename(target)


def _put(aside: Path, target: Path) -> None:
    """Puts a folder at `target`; what stood there is then at `aside` or gone."""
    if _placed(aside, target) or _exchange(aside, target):
        return
    old = _beside(target, "old")
    with _locked(target):
        while not _placed(aside, target):
            _remove(old)
            target.rename(old)
        _remove(old)


def _placed(aside: Path, target: Path) -> bool:
    """Renames a folder unless something stands at `target`; returns whether it did."""
    try:
        aside.rename(target)
    except OSError as error:
        # Another writer may have moved away since what stood there then.
        if error.errno not in _TAKEN and not target.exists():
            raise
        return False
    return True


def _exchange(one: Path, two: Path) -> bool:
    """Swaps two paths in one step; returns whether system and file system could."""
    if sys.platform != "linux":
        return False
    swap = getattr(ctypes.CDLL(None), "renameat2", None)  # glibc 2.28 has it
    if swap is None:
        return False
    names = os.fsencode(one), os.fsencode(two)
    return bool(swap(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE) == 0)


@contextmanager
def _locked(target: Path) -> Iterator[None]:
    """Keeps others from moving `target` in two steps meanwhile, where the system has locks."""
    file = _beside(target, "lock")
    held = _claim(file, file.touch)
    try:
        yield
    finally:
        file.unlink(missing_ok=True)
        if held is not None:
            os.close(held)


def _claim(path: Path, make: Callable[[], None]) -> int | None:
    """Makes a file or folder and locks it; again, if another writer took it for one left behind.

    Returns the lock's descriptor, or None where nothing can be locked.
    """
    while True:
        make()
        try:
            held = _lock(path)
        except FileNotFoundError:
            continue
        if held is None or _is_at(held, path):
            return held
        os.close(held)


def _lock(path: Path, *, wait: bool = True) -> int | None:
    """Returns the descriptor of a file or folder, locked until it is closed or its process ends.

    None if another has it and there is no waiting, or it cannot be locked.

    Raises:
        FileNotFoundError: There is none.
    """
    if sys.platform == "win32":
        return None
    try:
        # Over NFS a file must be open for writing to be locked; a folder cannot be.
        held = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    except FileNotFoundError:
        raise
    except OSError:
        return None
    try:
        fcntl.flock(held, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        os.close(held)
        return None
    return held


def _is_at(descriptor: int, path: Path) -> bool:
    """Tells if what a descriptor is of still stands at a path."""
    return _identity(descriptor) == _identity(path)


def _identity(of: Path | int) -> tuple[int, int] | None:
    try:
        found = os.stat(of)
    except OSError:
        return None
    return found.st_dev, found.st_ino


@contextmanager
def _kept(folder: Path) -> Iterator[tuple[int, int] | None]:
    """Gives a folder's identity, which no later folder takes while the block lasts.

    The number of a removed folder is soon that of a new one, but not while the old one is open.
    """
    flags = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        held = os.open(folder, flags)
    except OSError:  # there is none, or the system does not open folders
        yield _identity(folder)
        return
    try:
        yield _identity(held)
    finally:
        os.close(held)


def _remove(path: Path) -> None:
    """Removes whatever stands at a path."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _new_beside(path: Path) -> Path:
    return _beside(path, f"{secrets.token_hex(4)}.new")


def _beside(path: Path, role: str) -> Path:
    # `.` has no name before it is made absolute.
    whole = Path(os.path.abspath(path))
    return whole.parent / f".{whole.name}.{role}"


def _sync(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())
