"""The heap of a server that loads and drops models: it must not grow with each.

glibc gives threads arenas of their own, up to eight a CPU. What a model needs for a while is taken
from one, what outlives it keeps the arena's pages, and the next model is loaded from another.
"""

from __future__ import annotations

import ctypes
import gc
import os

_ARENA_MAX = -8  # mallopt's name for it, in malloc.h
_ARENAS = 2  # with one, threads that compute and the event loop wait for each other
_CHOSEN = ("MALLOC_ARENA_MAX", "GLIBC_TUNABLES")  # where users choose for themselves


def few_arenas() -> None:
    """Lets all threads share two arenas; before they start, and where the C library is glibc."""
    choose = getattr(ctypes.CDLL(None), "mallopt", None)
    if choose is not None and not any(name in os.environ for name in _CHOSEN):
        choose(_ARENA_MAX, _ARENAS)


def give_back() -> None:
    """Returns freed memory to the system: glibc keeps it otherwise."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
