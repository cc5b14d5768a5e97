"""A closed loop of concurrent callers, and what they saw.

For a look at one's own server: it shares a process with the graph it is compared with, call by
call, and needs nothing that `trunkline[serve]` does not have. The load generator of the benchmarks
(open loop, processes apart, HdrHistogram) is benchmarks.serving.load.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import grpc.aio

Call = Callable[[], Awaitable[int]]
"""Makes one call and returns the tokens it took."""


@dataclass
class Sample:
    """What calls took.

    Attributes:
        latencies: Seconds of each answered call.
        tokens: Real tokens of the answered calls.
        seconds: From the first call to the last answer.
        errors: Number of failed calls by status code.
    """

    latencies: list[float] = field(default_factory=list)
    tokens: int = 0
    seconds: float = 0.0
    errors: Counter[str] = field(default_factory=Counter)

    def add(self, other: Sample) -> None:
        """Adds a later sample of the same thing."""
        self.latencies += other.latencies
        self.tokens += other.tokens
        self.seconds += other.seconds
        self.errors += other.errors


@dataclass(frozen=True)
class Extent:
    """How long to measure: a number of calls if given, else seconds."""

    seconds: float
    calls: int | None = None

    def ticks(self) -> Iterator[None]:
        """Yields once per call to make; may be shared by concurrent callers."""
        end = perf_counter() + self.seconds
        counted: Iterable[int] = itertools.count() if self.calls is None else range(self.calls)
        for _ in counted:
            if self.calls is None and perf_counter() >= end:
                return
            yield


async def drive(calls: Iterator[Call], concurrency: int, extent: Extent) -> Sample:
    """Lets `concurrency` callers make the next of `calls` as soon as their last was answered."""
    sample = Sample()
    ticks = extent.ticks()

    async def caller() -> None:
        for _ in ticks:
            await _measure(next(calls), sample)

    begin = perf_counter()
    await asyncio.gather(*(caller() for _ in range(concurrency)))
    sample.seconds = perf_counter() - begin
    return sample


def repeat(work: Callable[[Any], object], items: Sequence[Any], count: int) -> Sample:
    """Does work of this process `count` times, going round the items."""
    sample = Sample()
    for item in itertools.islice(itertools.cycle(items), count):
        begin = perf_counter()
        work(item)
        sample.latencies.append(perf_counter() - begin)
    sample.seconds = sum(sample.latencies)
    return sample


async def _measure(call: Call, sample: Sample) -> None:
    begin = perf_counter()
    try:
        tokens = await call()
        sample.tokens += tokens
        sample.latencies.append(perf_counter() - begin)
    except grpc.aio.AioRpcError as error:
        sample.errors[error.code().name] += 1
