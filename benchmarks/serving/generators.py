"""Load generators in processes of their own."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from typing import Any

from benchmarks.serving.load import Order, Report, generate
from trunkline.errors import RuntimeFault

_STRIDE = 37  # between the first requests of processes, so that they do not send the same at once


class Generators:
    """Processes that make load; use it in a `with` block.

    Args:
        processes: That share an order. One more stands by for health checks.
        cpus: Where they run; none for wherever this process may.
    """

    def __init__(self, processes: int, cpus: Iterable[int] = ()) -> None:
        self._processes = processes
        self._pool = ProcessPoolExecutor(
            processes + 1,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_pin,
            initargs=(frozenset(cpus),),
        )

    def __enter__(self) -> Generators:
        list(self._pool.map(_start, range(self._processes + 1)))
        return self

    def __exit__(self, *error: Any) -> None:
        self._pool.shutdown()

    def run(self, order: Order, *aside: Order) -> list[Report]:
        """Does an order, and at the same time others, each in one process.

        Returns:
            The report of the order, then those of the others.
        """
        count = self._processes
        parts = [
            replace(order, loop=order.loop.share(count, at), first=order.first + at * _STRIDE)
            for at in range(count)
        ]
        running = [self._pool.submit(_generate, one) for one in (*parts, *aside)]
        whole, *others = [one.result() for one in running]
        for report in others[: count - 1]:
            whole.add(report)
        return [whole, *others[count - 1 :]]


def set_apart(count: int) -> frozenset[int]:
    """Returns CPUs that this process leaves from now on, and all that it starts with it.

    To be called before other threads are started: those keep theirs.

    Raises:
        RuntimeFault: None would be left, or the system has no such thing.
    """
    if not count:
        return frozenset()
    if not hasattr(os, "sched_setaffinity"):
        raise RuntimeFault("this system does not let a process choose its CPUs")
    cpus = sorted(os.sched_getaffinity(0))
    if not 0 < count < len(cpus):
        raise RuntimeFault(f"{count} CPUs cannot be set apart of {len(cpus)}")
    os.sched_setaffinity(0, cpus[:-count])
    return frozenset(cpus[-count:])


def _pin(cpus: frozenset[int]) -> None:
    if cpus:
        os.sched_setaffinity(0, cpus)


def _start(number: int) -> None:
    """Makes a process import what it needs before the first clock runs."""


def _generate(order: Order) -> Report:
    return asyncio.run(generate(order))
