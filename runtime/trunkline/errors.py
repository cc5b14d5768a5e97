"""Every error Trunkline raises on purpose, as one tree.

TrunklineError
├── InvalidInput      the caller's text, question or tensor is at fault
├── NotFound          no model, version or task of that name
├── ConfigError       a training configuration is at fault
├── DataError         a data file is at fault
├── CheckpointError   a checkpoint is missing, broken or of another kind
├── BundleError       a bundle is missing, broken or altered
├── RuntimeFault      the model gave something that cannot be an answer
├── DeviceError       a device, or what it needs, is not there or cannot be used
├── Overloaded        the server has no room, or the deadline cannot be met
├── Unavailable       the server is loading or draining
├── DeadlinePassed    the caller's deadline passed before there was an answer
├── Unauthenticated   the call lacks a token that the server knows
├── Forbidden         the caller may not do this
├── RemoteError       a server answered with an error that has no name here
└── MissingExtra      packages of an extra are needed and not installed (an ImportError too)

Each message is one line: what is wrong, where, and the mend.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path

LONGEST_NAME = 128
"""Characters of the longest name that a model, a task or anything else may have."""

_SHOWN = 64  # characters of a longer text that are shown


class TrunklineError(Exception):
    """Base of all errors raised on purpose; `str(error)` is fit for a user to read."""


class InvalidInput(TrunklineError):
    """The caller's data is at fault.

    Attributes:
        field: Path of the value, e.g. `documents[2].text`.
        reason: What is wrong with it and what is accepted.
    """

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason

    def under(self, parent: str) -> InvalidInput:
        """Returns the same error with its field placed below `parent`."""
        return InvalidInput(f"{parent}.{self.field}", self.reason)


class NotFound(TrunklineError):
    """No model, version or task of that name.

    Attributes:
        what: Kind of thing looked for, e.g. `task`.
        name: The name asked for; cut off if it is no name at all but a long text.
    """

    def __init__(self, what: str, name: str, known: Iterable[str] = ()) -> None:
        known = sorted(known)
        names = ", ".join(known) or "none"
        super().__init__(f"unknown {what} {shown(name)}{did_you_mean(name, known)}; known: {names}")
        self.what = what
        self.name = shortened(name)


class ConfigError(TrunklineError):
    """A configuration is at fault; the message names the key."""


class DataError(TrunklineError):
    """A data file is at fault; the message names file and line."""

    def __init__(self, path: str | Path, reason: str, line: int | None = None) -> None:
        where = f"{path}:{line}" if line is not None else str(path)
        super().__init__(f"{where}: {reason}")


class CheckpointError(TrunklineError):
    """A checkpoint is missing, broken or of another kind."""

    def __init__(self, path: str | Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")


class TrainingFault(TrunklineError):
    """Training cannot go on: a loss is not finite, or memory ran out; says what to do."""


class BundleError(TrunklineError):
    """A bundle is missing, broken or altered.

    Attributes:
        path: The file at fault.
        mend: What to do about it.
    """

    def __init__(self, path: str | Path, reason: str, mend: str) -> None:
        super().__init__(f"{path}: {reason}; {mend}")
        self.path = Path(path)
        self.mend = mend


class RuntimeFault(TrunklineError):
    """The model gave something that cannot be an answer, such as NaN."""


class DeviceError(TrunklineError):
    """A device, or what it needs, is not there or cannot be used.

    Attributes:
        device: Its name, e.g. `cuda:1`.
        mend: What to do about it.
    """

    def __init__(self, device: str, reason: str, mend: str) -> None:
        super().__init__(f"{device}: {reason}; {mend}")
        self.device = device
        self.mend = mend


class Overloaded(TrunklineError):
    """The server has no room, or the deadline cannot be met.

    Attributes:
        retry_after: Seconds after which a new try makes sense.
    """

    def __init__(self, reason: str, retry_after: float) -> None:
        super().__init__(f"{reason}; try again in {retry_after:.1f} s")
        self.retry_after = retry_after


class Unavailable(TrunklineError):
    """The server is loading or draining."""


class DeadlinePassed(TrunklineError):
    """The caller's deadline passed before there was an answer."""


class Unauthenticated(TrunklineError):
    """The call has no token, or one that the server does not know."""


class Forbidden(TrunklineError):
    """The caller may not do this; another one may."""


class RemoteError(TrunklineError):
    """A server answered with an error that has no name here."""


class MissingExtra(TrunklineError, ImportError):
    """Something needs packages of an extra that is not installed.

    Attributes:
        module: What could not be imported.
        extra: The extra that brings it.
    """

    def __init__(self, module: str, extra: str, mend: str) -> None:
        super().__init__(f"needs {module}, which is not installed: {mend}")
        self.module = module
        self.extra = extra


def shortened(text: str) -> str:
    """Returns a text that a caller gave, cut off where it is longer than any name."""
    return text if len(text) <= LONGEST_NAME else text[:_SHOWN] + "…"


def shown(text: str) -> str:
    """Returns a text that a caller gave as it may stand in a message: quoted, and not too long."""
    return repr(shortened(text))


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Returns ` (did you mean 'x'?)` for the nearest known name, or an empty string."""
    if len(name) > LONGEST_NAME:  # comparing takes time by the square of the length
        return ""
    near = get_close_matches(name, list(known), n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""
