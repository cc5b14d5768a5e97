"""Work beside the event loop: what takes long there holds up every other call."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

_INLINE = 4096  # characters, bytes or numbers that take no longer than a way to a thread and back


async def aside(size: int, work: Callable[[], T]) -> T:
    """Does work on `size` characters, bytes or numbers, on a thread if they are many.

    It must be short even then: there are only a few threads, for everybody.
    """
    return work() if size <= _INLINE else await asyncio.to_thread(work)
