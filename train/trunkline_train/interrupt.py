"""Ends a run between two steps when it is told to stop, so that nothing is lost."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def watch_signals(processes: int = 1) -> Iterator[Callable[[], bool]]:
    """Gives a function that tells whether SIGINT or SIGTERM came; a second one interrupts at once.

    Of several processes none is interrupted at once: it would leave the others waiting, and
    launchers pass on a signal that the processes have already got from the terminal.

    Outside the main thread, where no handler can be set, it always says no.

    Args:
        processes: How many train together.
    """
    seen: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        if seen and processes == 1:
            raise KeyboardInterrupt
        seen.append(number)

    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before = {number: signal.signal(number, note) for number in _SIGNALS}
    try:
        yield lambda: bool(seen)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
