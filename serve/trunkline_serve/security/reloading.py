"""Files that are read again when they change, and stay as they were when the new ones are bad."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from trunkline.errors import ConfigError

T = TypeVar("T")
Fingerprint = tuple[tuple[int, ...] | None, ...]

_log = logging.getLogger("trunkline_serve")


class Reloaded(Generic[T]):
    """What stands in some files, as of the last time they were good. Thread-safe.

    Args:
        paths: The files; links are followed, so that a swapped link is a change.
        read: Reads them all; raises ConfigError if they cannot be used.

    Attributes:
        value: What `read` gave last.

    Raises:
        ConfigError: They cannot be used to begin with.
    """

    def __init__(self, paths: Sequence[str], read: Callable[[], T]) -> None:
        self._paths = paths
        self._read = read
        self._lock = threading.Lock()
        self._seen = _fingerprint(paths)
        self._told: tuple[Fingerprint, str] | None = None
        self.value = read()

    def refresh(self) -> bool:
        """Reads the files again if they changed; returns whether there is a new value.

        Bad files are told once in the log, and the old value stays. They are tried again at each
        call: they may be good, and the system without a descriptor or memory for them just now.
        """
        with self._lock:
            found = _fingerprint(self._paths)
            if found == self._seen:
                return False
            try:
                value = self._read()
            except ConfigError as error:
                self._tell(found, error)
                return False
            # Whoever is still writing gets another look at the next call.
            if _fingerprint(self._paths) != found:
                return False
            self._seen, self.value = found, value
        _log.info("read again: %s", ", ".join(self._paths))
        return True

    def _tell(self, found: Fingerprint, error: ConfigError) -> None:
        if self._told != (found, str(error)):
            _log.error("%s; what was read before stays in force", error)
            self._told = found, str(error)


def _fingerprint(paths: Sequence[str]) -> Fingerprint:
    return tuple(_mark(path) for path in paths)


def _mark(path: str) -> tuple[int, ...] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
