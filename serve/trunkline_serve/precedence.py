"""Who gives way on a busy CPU: the threads that talk to callers, to those that compute.

A thread that wakes up to read a socket takes the CPU from one that computes, which finds its caches
changed afterwards; a call wakes several. Linux lets threads of the policy SCHED_BATCH wait for
their turn, some milliseconds, instead. On an idle CPU they start at once as ever.
"""

from __future__ import annotations

import os
from contextlib import suppress


def give_way() -> None:
    """Makes the calling thread, and all it starts from now on, wait for its turn on a busy CPU.

    Does nothing where the system has no such thing or forbids it, or whoever started the server
    chose a policy.
    """
    _change("SCHED_OTHER", "SCHED_BATCH")


def go_first() -> None:
    """Takes that back for the calling thread, and all it starts from now on."""
    _change("SCHED_BATCH", "SCHED_OTHER")


def _change(old: str, new: str) -> None:
    if not hasattr(os, "SCHED_BATCH"):
        return
    with suppress(OSError):  # a sandbox may forbid it, and all goes on without
        if os.sched_getscheduler(0) == getattr(os, old):
            os.sched_setscheduler(0, getattr(os, new), os.sched_param(0))
