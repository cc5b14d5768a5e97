"""The load generator: calls in a closed or an open loop, and what became of them.

A closed loop has a number of callers, each of which calls again when it has its answer. An open
loop has a rate: calls start when a Poisson process says so, whatever became of those before, and
their latency counts from that intended start, so that a server that stalls cannot hide it.

`trunkline bench` has a closed loop of its own (trunkline_serve.bench.load), and stays without this
one: what users install would need the histogram's package, and a process apart.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np

from benchmarks.serving.latencies import Latencies
from benchmarks.serving.targets import Call, Expired, Failed, Refused, Target

_LAG_SECONDS = 0.01  # between looks at how late the event loop is
MOST_CPU = 0.8  # of a core: a generator that takes more may itself be the limit
MOST_LAG = 0.05  # seconds that its event loop or its calls may be late, at the 99th percentile

Shoot = Callable[[float], Awaitable[None]]
"""Makes one call, given when it was to start."""


@dataclass(frozen=True)
class Window:
    """Moments on the clock: calls start at `start`, and count between `begin` and `end`."""

    start: float
    begin: float
    end: float

    def holds(self, moment: float) -> bool:
        """Tells if a moment counts."""
        return self.begin <= moment < self.end


class Loop(Protocol):
    """When calls start, and which of them count."""

    async def drive(self, shoot: Shoot, window: Window) -> None:
        """Makes calls until the window ends, and waits for the last answer."""
        ...

    def counts(self, intended: float, ended: float, window: Window) -> bool:
        """Tells if a call counts, by when it was to start and when it ended."""
        ...

    def share(self, parts: int, at: int) -> Loop:
        """Returns part `at` of the loop cut into `parts`, for a process of its own."""
        ...


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
    """Poisson arrivals. What was to start within the window counts.

    Attributes:
        rate: Calls per second, on average.
        seed: Decides when they come.
    """

    rate: float
    seed: int = 0

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


async def _awaited(work: Awaitable[None]) -> None:
    await work


@dataclass(frozen=True)
class Order:
    """What a generator is to do.

    Attributes:
        target: Where calls go to.
        requests: What is sent, in turn.
        weights: Real tokens of each request.
        loop: When calls start.
        seconds: How long calls count.
        warm_seconds: How long they are made before that.
        deadline: Seconds from its intended start that a call may take.
        first: Index of the request to begin with.
        documents: How many each request holds.
        groups: What each request is counted under besides, e.g. its length; empty for nothing.
    """

    target: Target
    requests: tuple[bytes, ...]
    weights: tuple[int, ...]
    loop: Loop
    seconds: float
    warm_seconds: float = 0.5
    deadline: float = 60.0
    first: int = 0
    documents: int = 1
    groups: tuple[int, ...] = ()

    def group(self, index: int) -> int | None:
        """Returns what a request is counted under besides."""
        return self.groups[index] if self.groups else None


@dataclass
class Report:
    """What became of the calls that count.

    Attributes:
        seconds: How long calls counted.
        documents: How many each request held.
        answered: Number of answers in time.
        tokens: Real tokens of those.
        groups: Latencies of answered calls, by the group of their request.
        all_answered, all_tokens: The same of all calls, warm-up included: what the CPU seconds of a
            server were spent on.
        accepted: Latencies of answered and expired calls, from the intended start.
        refusals: Latencies of refused calls, from the intended start.
        expired: Number of calls that were neither refused nor answered in time.
        errors: Number of other failures, by code.
        late: How long after their intended start calls were really made.
        lag: How late the generator's event loop woke up.
        cpu_seconds: What the generator took, warm-up included.
        wall_seconds: How long it ran, warm-up included.
    """

    seconds: float
    documents: int = 1
    answered: int = 0
    tokens: int = 0
    groups: dict[int, Latencies] = field(default_factory=dict)
    all_answered: int = 0
    all_tokens: int = 0
    accepted: Latencies = field(default_factory=Latencies)
    refusals: Latencies = field(default_factory=Latencies)
    expired: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    late: Latencies = field(default_factory=Latencies)
    lag: Latencies = field(default_factory=Latencies)
    cpu_seconds: float = 0.0
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
        for name in _SUMS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in ("accepted", "refusals", "late", "lag"):
            getattr(self, name).add(getattr(other, name))
        for group, times in other.groups.items():
            self.groups.setdefault(group, Latencies()).add(times)

    def follow(self, other: Report) -> None:
        """Adds a later report of the same thing."""
        self.seconds += other.seconds
        self.add(other)


_SUMS = (
    "answered",
    "tokens",
    "all_answered",
    "all_tokens",
    "expired",
    "errors",
    "cpu_seconds",
    "wall_seconds",
)


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
        outcome = await _outcome(call, order.requests[index], intended + order.deadline - sent)
        ended = time.perf_counter()
        ending = Ending(ended - intended, order.weights[index], order.group(index))
        if outcome is _answered:
            report.all_answered += 1
            report.all_tokens += ending.tokens
        if order.loop.counts(intended, ended, window):
            report.late.record(sent - intended)
            outcome(report, ending)

    return shoot


class Ending(NamedTuple):
    """A call that ended.

    Attributes:
        latency: Seconds from its intended start.
        tokens: Its real tokens.
        group: What it is counted under besides.
    """

    latency: float
    tokens: int
    group: int | None


Outcome = Callable[[Report, Ending], None]
"""Writes a call into a report."""


async def _outcome(call: Call, request: bytes, seconds: float) -> Outcome:
    try:
        if seconds <= 0:
            raise Expired
        await call(request, seconds)
        return _answered
    except Refused:
        return _refused
    except Expired:
        return _expired
    except Failed as error:
        return _failed(error.code)


def _answered(report: Report, ending: Ending) -> None:
    report.answered += 1
    report.tokens += ending.tokens
    report.accepted.record(ending.latency)
    if ending.group is not None:
        report.groups.setdefault(ending.group, Latencies()).record(ending.latency)


def _refused(report: Report, ending: Ending) -> None:
    report.refusals.record(ending.latency)


def _expired(report: Report, ending: Ending) -> None:
    report.expired += 1
    report.accepted.record(ending.latency)


def _failed(code: str) -> Outcome:
    def write(report: Report, ending: Ending) -> None:
        report.errors[code] += 1

    return write


async def _watch(report: Report, window: Window) -> None:
    """Records how late the event loop wakes up."""
    while True:
        asked = time.perf_counter()
        await asyncio.sleep(_LAG_SECONDS)
        now = time.perf_counter()
        if window.holds(now):
            report.lag.record(now - asked - _LAG_SECONDS)
