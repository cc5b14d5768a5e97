"""Twice the load that a server can take: what it still does, what it refuses, and how fast."""

from __future__ import annotations

import statistics
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from benchmarks.family import resident
from benchmarks.serving.load import Open, Order, Report
from benchmarks.serving.processes import Server
from benchmarks.serving.sides import Served
from benchmarks.serving.targets import GrpcTarget
from trunkline.cpu import cpu_times
from trunkline_serve.bench.rounds import MOST_STOLEN

_FACTOR = 2.0  # of the maximum
_DEADLINES = 2.0  # times the 99th percentile at the maximum
_TRIES = 3  # for a run without too much stolen CPU time
_WARM_SECONDS = 2.0
_HEALTH = "/grpc.health.v1.Health/Check"
_HEALTH_RATE = 20.0  # checks per second
_LOOKS = 60  # at the memory, over a run
_MB = 1e6


@dataclass(frozen=True)
class Overload:
    """A run at twice the maximum. Times are in ms.

    Attributes:
        server: Name of the server.
        seconds: How long.
        rate: Calls per second, on average.
        deadline_ms: What each call was given, from its intended start.
        maximum: Documents per second of the closed loop just before.
        goodput_documents: Documents answered in time, as share of that maximum.
        goodput_tokens: The same in real tokens, which tells if only the short ones get through.
        accepted_p50_ms, accepted_p99_ms: Of calls not refused; expired ones count.
        refused, refusal_p50_ms: Calls refused, and how long that took.
        expired: Calls not refused, but not answered in time either.
        errors: Other failures by code.
        health_p99_ms, health_errors: Of health checks meanwhile, by a process of their own.
        memory_growth: Resident memory in the last quarter over that in the first.
        memory_mb: Resident memory over the run.
        stolen: Share of CPU time stolen.
        generator_cpu_share: CPU seconds of the load generator per second.
        generator_late_p50_ms, generator_late_p99_ms: How late it made calls; part of all latencies.
        generator_saturated: Whether it may have been the limit.
    """

    server: str
    seconds: float
    rate: float
    deadline_ms: float
    maximum: float
    goodput_documents: float
    goodput_tokens: float
    accepted_p50_ms: float | None
    accepted_p99_ms: float | None
    refused: int
    refusal_p50_ms: float | None
    expired: int
    errors: Mapping[str, int]
    health_p99_ms: float | None
    health_errors: Mapping[str, int]
    memory_growth: float
    memory_mb: Sequence[float]
    stolen: float
    generator_cpu_share: float
    generator_late_p50_ms: float | None
    generator_late_p99_ms: float | None
    generator_saturated: bool

    @property
    def goodput(self) -> float:
        """The lesser of both goodputs."""
        return min(self.goodput_documents, self.goodput_tokens)

    @property
    def counts(self) -> bool:
        """Whether the machine was ours."""
        return self.stolen <= MOST_STOLEN


def overload(
    served: Served, seconds: float, maximum_seconds: float, deadline: float | None
) -> Overload:
    """Measures a server at twice its maximum, again if too much CPU time was stolen.

    Args:
        served: The server.
        seconds: Length of the run.
        maximum_seconds: Length of the closed loop just before, which finds the maximum.
        deadline: Seconds that each call may take; None gives twice the 99th percentile at the
            maximum.

    Returns:
        The run; of several the one with least CPU time stolen.
    """
    runs: list[Overload] = []
    while not any(run.counts for run in runs) and len(runs) < _TRIES:
        runs.append(_run(served, seconds, maximum_seconds, deadline))
    return min(runs, key=lambda run: run.stolen)


def _run(
    served: Served, seconds: float, maximum_seconds: float, deadline: float | None
) -> Overload:
    before = cpu_times()
    with served.server.turn():
        (most,) = served.run(served.order(served.loop(), maximum_seconds))
        limit = deadline or _DEADLINES * (most.accepted.at(99) or 1.0)
        warm = _WARM_SECONDS + limit  # by then the queue is as long as it will be
        rate = _FACTOR * max(most.documents_per_second, 1.0)
        order = served.order(Open(rate), seconds, warm_seconds=warm, deadline=limit)
        with _watched(served.server, seconds) as memory:
            report, health = served.run(order, _health(served, seconds, warm))
    return Overload(
        server=served.name,
        seconds=seconds,
        rate=round(rate, 2),
        deadline_ms=round(limit * 1000, 1),
        maximum=round(most.documents_per_second, 2),
        goodput_documents=_share(report.documents_per_second, most.documents_per_second),
        goodput_tokens=_share(report.tokens_per_second, most.tokens_per_second),
        accepted_p50_ms=report.accepted.ms(50),
        accepted_p99_ms=report.accepted.ms(99),
        refused=len(report.refusals),
        refusal_p50_ms=report.refusals.ms(50),
        expired=report.expired,
        errors=dict(report.errors),
        health_p99_ms=health.accepted.ms(99),
        health_errors=_health_errors(health),
        memory_growth=growth(memory),
        memory_mb=[round(one / _MB, 1) for one in memory],
        stolen=round(cpu_times().share_since(before), 4),
        generator_cpu_share=round(report.cpu_seconds / report.wall_seconds, 3),
        generator_late_p50_ms=report.late.ms(50),
        generator_late_p99_ms=report.late.ms(99),
        generator_saturated=report.saturated,
    )


def _share(part: float, whole: float) -> float:
    return round(part / whole, 4) if whole else 0.0


def _health(served: Served, seconds: float, warm: float) -> Order:
    target = served.server.target
    assert isinstance(target, GrpcTarget)
    checks = replace(target, method=_HEALTH)
    return Order(checks, (b"",), (0,), Open(_HEALTH_RATE), seconds, warm)


def _health_errors(report: Report) -> dict[str, int]:
    refused = {"RESOURCE_EXHAUSTED": len(report.refusals)} if len(report.refusals) else {}
    return dict(report.errors) | refused


def growth(memory: Sequence[float]) -> float:
    """Returns the median of the last quarter of samples over that of the first."""
    quarter = max(len(memory) // 4, 1)
    first, last = statistics.median(memory[:quarter]), statistics.median(memory[-quarter:])
    return round(last / first, 4)


@contextmanager
def _watched(server: Server, seconds: float) -> Iterator[list[int]]:
    """Gives the resident memory of a server, looked at while the block runs."""
    memory = [resident(server.process)]
    done = threading.Event()

    def look() -> None:
        while not done.wait(seconds / _LOOKS):
            memory.append(resident(server.process))

    watch = threading.Thread(target=look)
    watch.start()
    try:
        yield memory
    finally:
        done.set()
        watch.join()
