"""What any process of a server sets up: its event loop, its interpreter, its signals, its end."""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterable
from typing import NoReturn

from trunkline.terminal import discard
from trunkline_serve.description import ModelId
from trunkline_serve.heap import few_arenas

_log = logging.getLogger("trunkline_serve")

# A lane that is done must not wait long for the interpreter: Python's own 5 ms are half a batch.
_SWITCH_SECONDS = 0.0005


def set_up_interpreter() -> None:
    """Lets threads take turns often, for lanes beside an event loop, and share a heap."""
    sys.setswitchinterval(_SWITCH_SECONDS)
    few_arenas()


def quick_loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Returns uvloop's, with which a call costs less; None for Python's own if it is missing."""
    if importlib.util.find_spec("uvloop") is None:
        return None
    import uvloop

    return uvloop.new_event_loop


def stop_on_signal() -> asyncio.Event:
    """Returns an event that the first SIGTERM or SIGINT sets; a second one kills as usual."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()

    def stop(number: signal.Signals) -> None:
        loop.remove_signal_handler(number)
        stopped.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop, number)
    return stopped


def say_serving(models: Iterable[ModelId], address: str) -> None:
    """Prints a line for each model. What cannot be printed, e.g. on a full disk, stops nothing."""
    try:
        for one in models:
            print(f"serving {one.name} version {one.version} on {address}", flush=True)
    except OSError as error:
        discard(sys.stdout)
        _log.warning("standard output cannot be written: %s", error.strerror)


def end_process() -> NoReturn:
    """Ends this process with status 0, at once and whatever its threads do; writes its log first.

    The system then closes its connections, so that calls which have come in and were not answered
    end as UNAVAILABLE. If gRPC were shut down, or Python's own end freed its calls, it would
    cancel them: callers would see CANCELLED, which no client tries again.
    """
    logging.shutdown()
    os._exit(0)
