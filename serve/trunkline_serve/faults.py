"""Errors that nobody expects, in a form that ends one call and nothing else."""

from __future__ import annotations

import asyncio

from trunkline.errors import RuntimeFault

ENDING = (asyncio.CancelledError, GeneratorExit, KeyboardInterrupt, SystemExit)
"""What must pass through whatever handles all other errors, on an event loop."""


def contained(error: BaseException) -> Exception:
    """Returns an error that a future can have, from any.

    What native code panics with is no Exception, StopIteration cannot be a future's, and SystemExit
    would end the event loop that it gets to.
    """
    if isinstance(error, Exception) and not isinstance(error, StopIteration):
        return error
    fault = RuntimeFault(f"{type(error).__name__}: {error}")
    fault.__cause__ = error
    return fault
