"""Arithmetic of graphs: numbers too small for full precision count as zero, in every thread alike.

Subnormal numbers, as tails of attention have, are many times slower. onnxruntime's own setting is
kept by the thread that loads a graph, for all it does later, and is missing in others that run it.
So it is set around each run, and the calling thread has its own arithmetic back behind it.
"""

from __future__ import annotations

import ctypes
import platform
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

_WORDS = 8  # of C's fenv_t on x86-64 Linux, 32 bits each; MXCSR is the last
_MXCSR = 7
_TO_ZERO = 0x8040  # flush to zero, and denormals are zero
_DEFAULT = ctypes.c_void_p(-1)  # FE_DFL_ENV

_Environment = ctypes.Array[ctypes.c_uint32]


def flushes() -> bool:
    """Returns whether subnormal numbers count as zero here: on x86-64 Linux, not elsewhere."""
    return _functions() is not None


@contextmanager
def subnormals_as_zero() -> Iterator[None]:
    """Lets the calling thread compute so in the block, and round as usual.

    Does nothing where `flushes` is false.
    """
    functions = _functions()
    if functions is None:
        yield
        return
    read, write = functions
    before = _empty()
    read(before)
    write(_computing())
    try:
        yield
    finally:
        write(before)


@cache
def _functions() -> tuple[Callable[..., Any], Callable[..., Any]] | None:
    """Returns C's fegetenv and fesetenv, where the layout of what they take is known."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return None
    for name in (None, "libm.so.6"):
        try:
            library = ctypes.CDLL(name)
            return library.fegetenv, library.fesetenv
        except (OSError, AttributeError):
            continue
    return None


@cache
def _computing() -> _Environment:
    """Returns the usual environment of C, with subnormal numbers as zero."""
    functions = _functions()
    assert functions is not None
    read, write = functions
    before, found = _empty(), _empty()
    read(before)
    write(_DEFAULT)
    read(found)
    write(before)
    found[_MXCSR] |= _TO_ZERO
    return found


def _empty() -> _Environment:
    return (ctypes.c_uint32 * _WORDS)()
