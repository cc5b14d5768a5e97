"""The measurement: short rounds in which everything takes its turn.

A machine that is slow for a minute is then slow for all sides alike; rounds in which the hypervisor
took more than a tenth of the CPU time do not count at all.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from trunkline import Document, Model
from trunkline.cpu import MOST_STOLEN, cpu_times
from trunkline.v1 import analysis_service_pb2 as pb
from trunkline.v1.analysis_service_pb2_grpc import AnalysisServiceStub
from trunkline_serve.bench.load import Call, Extent, Sample, drive, repeat
from trunkline_serve.bench.texts import SHORT
from trunkline_serve.client.options import Options
from trunkline_serve.rpc.requests import request_to_pb

_PROBES = 100  # of each kind of unloaded call, per round


@dataclass(frozen=True)
class Plan:
    """What to measure.

    Attributes:
        server: How the server is reached.
        model: The same model in this process, or None.
        documents: What to send, in turn.
        concurrency: Numbers of callers.
        extent: Length of one turn at one concurrency.
        rounds: Number of rounds.
    """

    server: Options
    model: Model | None
    documents: Sequence[Document]
    concurrency: Sequence[int]
    extent: Extent
    rounds: int


@dataclass
class Round:
    """One turn of everything, and the share of CPU time stolen meanwhile."""

    samples: dict[str, Sample] = field(default_factory=dict)
    stolen: float = 0.0

    @property
    def counts(self) -> bool:
        """Whether the machine was ours."""
        return self.stolen <= MOST_STOLEN


async def measure(plan: Plan, progress: Callable[[str], None]) -> list[Round]:
    """Warms everything up, then measures the rounds."""
    async with plan.server.channel(grpc.aio) as channel:
        calls = _Calls(channel, plan.server.metadata, plan.documents)
        await _warm_up(plan, calls)
        rounds = []
        for number in range(1, plan.rounds + 1):
            rounds.append(await _round(plan, calls))
            progress(f"round {number} of {plan.rounds}, {rounds[-1].stolen:.0%} stolen")
    return rounds


class _Calls:
    """The calls to a server, built before the clock runs."""

    def __init__(
        self,
        channel: grpc.aio.Channel,
        metadata: Sequence[tuple[str, str]],
        documents: Sequence[Document],
    ) -> None:
        self._metadata = metadata
        self._analysis: Any = AnalysisServiceStub(channel)
        self._health: Any = health_pb2_grpc.HealthStub(channel)
        self.mixed = itertools.cycle([self._analyze(document) for document in documents])
        self.short = itertools.repeat(self._analyze(SHORT))
        self.empty: Iterator[Call] = itertools.repeat(self._check)

    def _analyze(self, document: Document) -> Call:
        request = request_to_pb([document], "", 0)

        async def call() -> int:
            response: pb.AnalyzeResponse = await self._analysis.Analyze(
                request, metadata=self._metadata
            )
            return response.timing.tokens

        return call

    async def _check(self) -> int:
        await self._health.Check(health_pb2.HealthCheckRequest())
        return 0


async def _warm_up(plan: Plan, calls: _Calls) -> None:
    once = Extent(0, len(plan.documents))
    await drive(calls.mixed, max(plan.concurrency), once)
    if plan.model is not None:
        repeat(plan.model.analyze, plan.documents, len(plan.documents))


async def _round(plan: Plan, calls: _Calls) -> Round:
    before = cpu_times()
    samples = await _probe(plan.model, calls)
    if plan.model is not None:
        documents = plan.documents
        samples["in process"] = repeat(plan.model.analyze, documents, len(documents))
        samples["in process together"] = repeat(plan.model.analyze, [documents], 1)
    for callers in plan.concurrency:
        samples[f"grpc {callers}"] = await drive(calls.mixed, callers, plan.extent)
    return Round(samples, cpu_times().share_since(before))


async def _probe(model: Model | None, calls: _Calls) -> dict[str, Sample]:
    """Makes unloaded calls of each sort in turn.

    One by one, because a call in a tight loop finds the processor's caches warm, which flatters
    work in this process: a server wakes up for each call, and so must what it is compared with.
    """
    samples = {name: Sample() for name in ("in process short", "grpc short", "empty")}
    one = Extent(0, 1)
    for _ in range(_PROBES):
        if model is not None:
            samples["in process short"].add(repeat(model.analyze, [SHORT], 1))
        samples["grpc short"].add(await drive(calls.short, 1, one))
        samples["empty"].add(await drive(calls.empty, 1, one))
    return samples if model is not None else {k: v for k, v in samples.items() if v.latencies}
