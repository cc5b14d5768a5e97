"""What a process and all those that it started take, together."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from subprocess import Popen
from typing import Any

import psutil


def family(process: Popen[Any]) -> list[psutil.Process]:
    """Returns a process and its children, and theirs; none if it has ended."""
    try:
        first = psutil.Process(process.pid)
        return [first, *first.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def resident(process: Popen[Any]) -> int:
    """Returns the resident memory of a family, in bytes."""
    return int(_total(process, lambda one: one.memory_info().rss))


def cpu_seconds(process: Popen[Any]) -> float:
    """Returns the CPU time of a family so far."""
    return _total(process, _cpu_seconds)


def descriptors(process: Popen[Any]) -> int:
    """Returns how many descriptors of a family are open."""
    return int(_total(process, psutil.Process.num_fds))


def _total(process: Popen[Any], read: Callable[[psutil.Process], float]) -> float:
    found = 0.0
    for one in family(process):
        with suppress(psutil.NoSuchProcess):  # it may end any time
            found += read(one)
    return found


def _cpu_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)
