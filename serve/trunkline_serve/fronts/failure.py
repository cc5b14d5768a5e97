"""Errors that cross from one process to another, as plain values."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trunkline import errors
from trunkline.errors import BundleError, RuntimeFault, TrunklineError

_log = logging.getLogger("trunkline_serve")


def pack_error(error: BaseException) -> dict[str, Any]:
    """Returns an error as plain values. One that is not ours goes to the log, with its trace."""
    if not isinstance(error, TrunklineError):
        _log.error("the engine failed", exc_info=error)
        error = RuntimeFault(f"the engine failed, see its log: {type(error).__name__}: {error}")
    values = {
        name: str(value) if isinstance(value, Path) else value
        for name, value in vars(error).items()
    }
    return {"kind": type(error).__name__, "message": str(error), "values": values}


def unpack_error(packed: Mapping[str, Any]) -> TrunklineError:
    """Returns the error that `pack_error` was given, or the one it made of it."""
    kind = getattr(errors, packed["kind"])
    assert issubclass(kind, TrunklineError)
    # Constructors take parts of the message, which need not be kept: what was made is copied.
    error: TrunklineError = kind.__new__(kind)
    error.args = (packed["message"],)
    vars(error).update(packed["values"])
    if isinstance(error, BundleError):
        error.path = Path(error.path)
    return error
