"""Bearer tokens: what the file of tokens holds, and whose a token is.

Tokens are long and random (`new_token`), so that one round of SHA-256 hides them: there is nothing
to guess that a slower hash would protect (docs/adr/0015).
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import re
import secrets
import stat
import tomllib
from dataclasses import dataclass

from trunkline.errors import ConfigError, Overloaded
from trunkline.structure import parse
from trunkline_serve.security.reloading import Reloaded

_log = logging.getLogger("trunkline_serve")

_LOOK_SECONDS = 1.0  # between two looks at the file
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Entry:
    """One `[[token]]` of the file.

    Attributes:
        name: Whose it is; stands in messages.
        sha256: Hex SHA-256 of the token.
        admin: Whether models may be loaded and unloaded with it.
        calls_per_second: What it may be used for in the long run; None for any number.
        burst: Calls that may come at once; by default those of one second.

    Raises:
        ValueError: A value makes no sense.
    """

    name: str
    sha256: str
    admin: bool = False
    calls_per_second: float | None = None
    burst: int | None = None

    def __post_init__(self) -> None:
        """Refuses what could not work."""
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"name {self.name!r} may only have letters, digits, '.', '_' and '-'")
        if not _DIGEST.fullmatch(self.sha256):
            raise ValueError(f"sha256 of {self.name} must be 64 hex digits in lower case")
        if self.calls_per_second is not None and not 0 < self.calls_per_second < float("inf"):
            raise ValueError(f"calls_per_second of {self.name} must be above 0")
        if self.burst is not None and (self.calls_per_second is None or self.burst < 1):
            raise ValueError(f"burst of {self.name} must be 1 or more, beside calls_per_second")


class Bucket:
    """Permits for calls, which come back at an even rate.

    Args:
        rate: Permits that come back per second.
        size: Most permits at once; as many are there to begin with.
    """

    def __init__(self, rate: float, size: float) -> None:
        self._rate = rate
        self._size = size
        self._left = size
        self._at = 0.0

    def take(self, now: float) -> float:
        """Takes a permit; returns 0, or the seconds until there is one.

        Args:
            now: Seconds on a clock that never goes back.
        """
        self._left = min(self._size, self._left + (now - self._at) * self._rate)
        self._at = now
        if self._left < 1.0:
            return (1.0 - self._left) / self._rate
        self._left -= 1.0
        return 0.0


class Caller:
    """Somebody who may call.

    Args:
        name: As in the file of tokens; empty if the caller needs none.
        admin: Whether models may be loaded and unloaded.
        bucket: Permits; without one there is no limit.
    """

    def __init__(self, name: str, admin: bool, bucket: Bucket | None = None) -> None:
        self.name = name
        self.admin = admin
        self._bucket = bucket

    def charge(self, now: float) -> None:
        """Counts one call, or one request of a stream after its first.

        Raises:
            Overloaded: There were too many.
        """
        wait = 0.0 if self._bucket is None else self._bucket.take(now)
        if wait:
            raise Overloaded(f"token {self.name!r} is used more often than it may be", wait)


class Tokens:
    """The callers of a file of tokens, which is to be looked at once a second while calls come.

    Raises:
        ConfigError: The file cannot be used.
    """

    def __init__(self, path: str) -> None:
        self._file = Reloaded([path], lambda: read_tokens(path))
        self._looked = 0.0
        self._callers: dict[Entry, Caller] = {}
        self._renew()

    def due(self, now: float) -> bool:
        """Returns whether it is time to look at the file, and takes it as looked at if so.

        Args:
            now: Seconds on the monotonic clock.
        """
        if now - self._looked < _LOOK_SECONDS:
            return False
        self._looked = now
        return True

    def look(self) -> None:
        """Reads the file again if it has changed: not quick, and fit for any thread."""
        if self._file.refresh():
            self._renew()

    def find(self, token: str) -> Caller | None:
        """Returns whose token it is, or None.

        Args:
            token: As it was sent.
        """
        digest = digest_of(token)
        found = None
        # All are compared, so that the time tells nothing about which one it was.
        for entry, caller in self._callers.items():
            if hmac.compare_digest(entry.sha256, digest):
                found = caller
        return found

    def _renew(self) -> None:
        """Makes callers of the entries; one that did not change keeps its count of calls."""
        old = self._callers
        self._callers = {entry: old.get(entry) or _caller(entry) for entry in self._file.value}


def read_tokens(path: str) -> tuple[Entry, ...]:
    """Returns the entries of a file of tokens. Tells in the log if everybody can read it.

    Raises:
        ConfigError: It cannot be read, or something in it makes no sense.
    """
    entries, readable = _read(path)
    if readable:
        _log.warning("%s: every user of this machine can read it; chmod 600 mends that", path)
    return entries


def check_tokens(path: str) -> None:
    """Raises ConfigError unless a file of tokens can be used; tells nothing in the log."""
    _read(path)


def _read(path: str) -> tuple[tuple[Entry, ...], bool]:
    """Returns the entries of a file, and whether everybody can read it."""
    try:
        with open(path, "rb") as file:
            readable = os.fstat(file.fileno()).st_mode & stat.S_IROTH
            entries = parse(_File, tomllib.loads(file.read().decode("utf-8-sig"))).token
        _refuse_twins(entries)
    except OSError as error:
        mend = "check the path and who may read it"
        raise ConfigError(f"auth.tokens: cannot read {path}: {error.strerror}; {mend}") from None
    except (ValueError, RecursionError) as error:
        mend = "`trunkline token NAME` prints an entry as it must be"
        raise ConfigError(f"auth.tokens: {path}: {error}; {mend}") from None
    return entries, bool(readable)


def new_token() -> str:
    """Returns a new random token of 256 bits, recognisable by tools that search for secrets."""
    return f"trunkline_{secrets.token_urlsafe(32)}"


def digest_of(token: str) -> str:
    """Returns the hex SHA-256 of a token."""
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()


@dataclass(frozen=True)
class _File:
    token: tuple[Entry, ...]


def _refuse_twins(entries: tuple[Entry, ...]) -> None:
    for what in ("name", "sha256"):
        seen: set[str] = set()
        for value in (getattr(entry, what) for entry in entries):
            if value in seen:
                raise ValueError(f"two tokens have {what} {value!r}")
            seen.add(value)


def _caller(entry: Entry) -> Caller:
    rate = entry.calls_per_second
    bucket = None if rate is None else Bucket(rate, entry.burst or max(1.0, rate))
    return Caller(entry.name, entry.admin, bucket)
