"""The load generator: calls in a closed or an open loop, and what became of them.

A closed loop has a number of callers, each of which calls again when it has its answer. An open
loop has a rate: calls start when a Poisson process says so, whatever became of those before, and
their latency counts from that intended start, so that a server that stalls cannot hide it.

`trunkline bench` has a closed loop of its own (trunkline_serve.bench.load): what users install
would otherwise need the histogram's package, and a process apart.
"""

from __future__ import annotations

import asyncio
import itertools
import multiprocessing
import os
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from hdrh.histogram import HdrHistogram

from benchmarks.serving.targets import Call, Expired, Failed, Refused, Target
from trunkline.errors import RuntimeFault

MOST_CPU = 0.8  # of a core: a generator that takes more may itself be the limit
MOST_LAG = 0.05  # seconds that its event loop or its calls may be late, at the 99th percentile
_STRIDE = 37  # between the first requests of processes, so that they do not send the same at once
_LAG_SECONDS = 0.01  # between looks at how late the event loop is
_LOWEST, _HIGHEST, _DIGITS = 1, 600_000_000, 3  # microseconds
_MICRO, _ALL = 1e6, 100.0

Shoot = Callable[[float], Awaitable[None]]
"""Makes one call, given when it was to start."""


class Latencies:
    """Times in seconds, kept to three digits, in an HdrHistogram, which bounds memory and error.

    Can be sent to another process.
    """

    def __init__(self) -> None:
        self._histogram = HdrHistogram(_LOWEST, _HIGHEST, _DIGITS)

    def __len__(self) -> int:
        """Number of times recorded."""
        return int(self._histogram.get_total_count())

    def __getstate__(self) -> bytes:
        """Returns the histogram in HdrHistogram's own encoding."""
        return bytes(self._histogram.encode())

    def __setstate__(self, state: bytes) -> None:
        """Takes what `__getstate__` gave."""
        self._histogram = HdrHistogram.decode(state)

    def record(self, seconds: float) -> None:
        """Adds one time; those beyond ten minutes count as ten minutes."""
        self._histogram.record_value(int(min(max(seconds * _MICRO, _LOWEST), _HIGHEST)))

    def add(self, other: Latencies) -> None:
        """Adds all times of another."""
        self._histogram.add(other._histogram)

    def at(self, percentile: float) -> float | None:
        """Returns a percentile in seconds; None if nothing was recorded."""
        if not len(self):
            return None
        return float(self._histogram.get_value_at_percentile(percentile)) / _MICRO

    def ms(self, percentile: float) -> float | None:
        """Returns a percentile in milliseconds; None if nothing was recorded."""
        return None if (found := self.at(percentile)) is None else round(found * 1000, 3)

    def tail_ms(self, percentile: float) -> float | None:
        """Returns a percentile in milliseconds; None if it would be the largest of too few times.

        The 99th takes a hundred times, the 99.9th a thousand.
        """
        enough = len(self) * (_ALL - percentile) >= _ALL - 1e-6
        return self.ms(percentile) if enough else None

    def mean_ms(self) -> float | None:
        """Returns the mean in milliseconds; None if nothing was recorded."""
        return round(self._histogram.get_mean_value() / 1000, 3) if len(self) else None


class Window(NamedTuple):
    """Moments on the clock: calls start at `start`, and count between `begin` and `end`."""

    start: float
    begin: float
    end: float

    def holds(self, moment: float) -> bool:
        """Tells if a moment counts."""
        return self.begin <= moment < self.end


@dataclass(frozen=True)
class Closed:
    """A number of callers. What ends within the window counts: the load is steady in it."""

    callers: int

    async def drive(self, shoot: Shoot, window: Window) -> None:
        """Makes calls until the window ends, and waits for the last answer."""

        async def caller() -> None:
            while (now := time.perf_counter()) < window.end:
                await shoot(now)

        await asyncio.gather(*(caller() for _ in range(self.callers)))

    def counts(self, intended: float, ended: float, window: Window) -> bool:
        """Tells if the call ended within the window."""
        return window.holds(ended)

    def share(self, parts: int, at: int) -> Closed:
        """Returns every `parts`-th caller, from the one at `at`."""
        return Closed(len(range(at, self.callers, parts)))


@dataclass(frozen=True)
class Open:
    """Poisson arrivals. What was to start within the window counts."""

    rate: float  # calls per second, on average
    seed: int = 0  # decides when they come

    async def drive(self, shoot: Shoot, window: Window) -> None:
        """Makes calls until the window ends, and waits for the last answer."""
        random = np.random.default_rng(self.seed)
        intended = window.start
        async with asyncio.TaskGroup() as calls:
            while (intended := intended + random.exponential(1 / self.rate)) < window.end:
                if (early := intended - time.perf_counter()) > 0:
                    await asyncio.sleep(early)
                calls.create_task(_awaited(shoot(intended)))

    def counts(self, intended: float, ended: float, window: Window) -> bool:
        """Tells if the call was to start within the window."""
        return window.holds(intended)

    def share(self, parts: int, at: int) -> Open:
        """Returns arrivals at a part of the rate; together they are a Poisson process again."""
        return Open(self.rate / parts, self.seed * parts + at)


Loop = Closed | Open
"""When calls start, and which of them count."""


async def _awaited(work: Awaitable[None]) -> None:
    await work


@dataclass(frozen=True)
class Order:
    """What a generator is to do."""

    target: Target
    requests: tuple[bytes, ...]  # sent in turn
    weights: tuple[int, ...]  # real tokens of each request
    loop: Loop
    seconds: float  # how long calls count
    warm_seconds: float = 0.5  # how long they are made before that
    deadline: float = 60.0  # seconds from its intended start that a call may take
    first: int = 0  # index of the request to begin with
    documents: int = 1  # in each request
    groups: tuple[int, ...] = ()  # what each request is counted under besides, e.g. its length


@dataclass
class Report:
    """What became of the calls that count."""

    seconds: float  # how long calls counted
    documents: int = 1  # in each request
    answered: int = 0  # in time
    tokens: int = 0  # real ones, of those
    groups: dict[int, Latencies] = field(default_factory=dict)  # of answered calls
    # Of all calls, warm-up included: what the CPU seconds of a server were spent on.
    all_answered: int = 0
    all_tokens: int = 0
    # Latencies from the intended start: of answered and expired calls, and of refused ones.
    accepted: Latencies = field(default_factory=Latencies)
    refusals: Latencies = field(default_factory=Latencies)
    expired: int = 0  # neither refused nor answered in time
    errors: Counter[str] = field(default_factory=Counter)  # other failures, by code
    late: Latencies = field(default_factory=Latencies)  # from the intended start to the real one
    lag: Latencies = field(default_factory=Latencies)  # of the generator's event loop
    cpu_seconds: float = 0.0  # of the generator, warm-up included
    wall_seconds: float = 0.0

    @property
    def documents_per_second(self) -> float:
        """Documents answered in time, per second."""
        return self.answered * self.documents / self.seconds

    @property
    def tokens_per_second(self) -> float:
        """Real tokens of the answers in time, per second."""
        return self.tokens / self.seconds

    @property
    def saturated(self) -> bool:
        """Whether the generator may have been the limit, not the server."""
        late = max(times.at(99) or 0 for times in (self.lag, self.late))
        return self.cpu_seconds > MOST_CPU * self.wall_seconds or late > MOST_LAG

    def add(self, other: Report) -> None:
        """Adds the report of another generator that ran at the same time.

        CPU and wall seconds add up as well, so that `saturated` is about the mean of them.
        """
        for name in ("answered", "tokens", "all_answered", "all_tokens", "expired", "errors"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.cpu_seconds += other.cpu_seconds
        self.wall_seconds += other.wall_seconds
        for name in ("accepted", "refusals", "late", "lag"):
            getattr(self, name).add(getattr(other, name))
        for group, times in other.groups.items():
            self.groups.setdefault(group, Latencies()).add(times)

    def follow(self, other: Report) -> None:
        """Adds a later report of the same thing."""
        self.seconds += other.seconds
        self.add(other)

    def answer(self, latency: float, tokens: int, group: int | None) -> None:
        """Counts a call that was answered in time."""
        self.answered += 1
        self.tokens += tokens
        self.accepted.record(latency)
        if group is not None:
            self.groups.setdefault(group, Latencies()).record(latency)

    def fail(self, error: Exception, latency: float) -> None:
        """Counts a call that was refused, expired or failed."""
        if isinstance(error, Refused):
            self.refusals.record(latency)
        elif isinstance(error, Expired):
            self.expired += 1
            self.accepted.record(latency)
        elif isinstance(error, Failed):
            self.errors[error.code] += 1


async def generate(order: Order) -> Report:
    """Does what an order says."""
    report = Report(order.seconds, order.documents)
    async with order.target.connect() as call:
        start, cpu = time.perf_counter(), time.process_time()
        begin = start + order.warm_seconds
        window = Window(start, begin, begin + order.seconds)
        watch = asyncio.create_task(_watch(report, window))
        await order.loop.drive(_shooter(order, call, window, report), window)
        watch.cancel()
        with suppress(asyncio.CancelledError):
            await watch
    report.cpu_seconds = time.process_time() - cpu
    report.wall_seconds = time.perf_counter() - start
    return report


def _shooter(order: Order, call: Call, window: Window, report: Report) -> Shoot:
    indices = itertools.cycle(range(len(order.requests)))
    numbers = itertools.islice(indices, order.first % len(order.requests), None)

    async def shoot(intended: float) -> None:
        index = next(numbers)
        sent = time.perf_counter()
        error = await _failure(call, order.requests[index], intended + order.deadline - sent)
        ended, tokens = time.perf_counter(), order.weights[index]
        if error is None:
            report.all_answered += 1
            report.all_tokens += tokens
        if not order.loop.counts(intended, ended, window):
            return
        report.late.record(sent - intended)
        if error is None:
            group = order.groups[index] if order.groups else None
            report.answer(ended - intended, tokens, group)
        else:
            report.fail(error, ended - intended)

    return shoot


async def _failure(call: Call, request: bytes, seconds: float) -> Exception | None:
    """Makes a call; returns why it has no answer in time, None if it has."""
    if seconds <= 0:
        return Expired()
    try:
        await call(request, seconds)
    except (Refused, Expired, Failed) as error:
        return error
    return None


async def _watch(report: Report, window: Window) -> None:
    """Records how late the event loop wakes up."""
    while True:
        asked = time.perf_counter()
        await asyncio.sleep(_LAG_SECONDS)
        now = time.perf_counter()
        if window.holds(now):
            report.lag.record(now - asked - _LAG_SECONDS)


class Generators:
    """Processes that make load together; use it in a `with` block.

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
