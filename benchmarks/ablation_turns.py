"""Variants that take turns: the server's path in this process, without gRPC."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.ablation_ideas import Ideas
from benchmarks.ablation_runners import Workshop, computing, scheduler
from benchmarks.serving.latencies import Latencies
from benchmarks.serving.peers.answers import shared
from benchmarks.serving.sides import Turn
from benchmarks.serving.traffic import Traffic
from trunkline import Document, DocumentResult
from trunkline_serve.events import BatchRan, Listener
from trunkline_serve.process import quick_loop

_WARM_SHARE, _MOST_WARM = 0.25, 0.5  # of a turn, and seconds, before anything counts


@dataclass
class Runs(Listener):
    """What ran in all turns of a variant. Lists are appended to by several threads at once.

    Attributes:
        rows, tokens, computed: Of each run; computed tokens include padding.
    """

    rows: list[int] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    computed: list[int] = field(default_factory=list)

    def batch_ran(self, batch: BatchRan) -> None:
        """Notes a run."""
        self.rows.append(batch.rows)
        self.tokens.append(batch.tokens)
        self.computed.append(batch.computed_tokens)

    def to_dict(self) -> dict[str, Any]:
        """Returns means over all runs; None if there was none."""
        if not self.rows:
            return {"rows_a_run": None, "padding_share": None}
        padding = 1 - sum(self.tokens) / sum(self.computed)
        rows = sum(self.rows) / len(self.rows)
        return {"rows_a_run": round(rows, 2), "padding_share": round(padding, 4)}


class _Count:
    """What was answered from `begin` until `seconds` were over and `least` answers were there."""

    def __init__(self, begin: float, seconds: float, least: int) -> None:
        self.begin = self.end = begin
        self.documents = self.tokens = 0
        self.latencies = Latencies()
        self._done = asyncio.Event()
        self._seconds = seconds
        self._least = least

    async def wait(self) -> None:
        """Waits for the last answer that counts."""
        await self._done.wait()

    def answered(self, sent: float, tokens: int) -> None:
        """Counts an answer that came just now."""
        now = time.perf_counter()
        if now < self.begin or self._done.is_set():
            return
        self.documents += 1
        self.tokens += tokens
        self.latencies.record(now - sent)
        self.end = now
        if now >= self.begin + self._seconds and self.documents >= self._least:
            self._done.set()


class Variant:
    """Tokenise, queue, run, decode: calls of one document each in a closed loop.

    Args:
        name: What it is called in results.
        ideas: What it does.
        workshop: Makes its model.
        traffic: What is asked.
        callers: Of the closed loop.

    Attributes:
        name: As given.
        source: Where the texts are from.
        runs: Of all turns, warm-up included.
    """

    def __init__(
        self, name: str, ideas: Ideas, workshop: Workshop, *, traffic: Traffic, callers: int
    ) -> None:
        self.name = name
        self.source = traffic.source
        self.runs = Runs()
        self._model = workshop.model(ideas)
        self._traffic = traffic
        self._callers = callers
        self._scheduler = scheduler(ideas, self._model, self.runs)
        self._computing = computing(ideas, self._scheduler)
        self._next = itertools.cycle(range(len(traffic.documents)))

    def turn(self, seconds: float) -> Turn:
        """Answers calls for some seconds, after a while that does not count.

        A slow variant goes on until there are as many answers as callers: less would be chance.
        """
        with asyncio.Runner(loop_factory=quick_loop()) as loop:
            count = loop.run(self._drive(seconds))
        taken = count.end - count.begin
        return Turn(
            tokens_per_second=count.tokens / taken,
            documents_per_second=count.documents / taken,
            p50_ms=count.latencies.ms(50),
            p99_ms=count.latencies.ms(99),
        )

    def likeness(self, expected: Sequence[Any]) -> float:
        """Returns the share of annotations of the first documents that are as expected."""
        found = asyncio.run(self._together(self._traffic.documents[: len(expected)]))
        alike = map(shared, [one.to_dict() for one in found], expected)
        return round(sum(alike) / len(expected), 4)

    def close(self) -> None:
        """Ends its threads."""
        self._scheduler.close()

    async def _drive(self, seconds: float) -> _Count:
        begin = time.perf_counter() + min(_MOST_WARM, _WARM_SHARE * seconds)
        count = _Count(begin, seconds, self._callers)
        callers = {asyncio.create_task(self._call(count)) for _ in range(self._callers)}
        done = asyncio.create_task(count.wait())
        ended, _ = await asyncio.wait({done, *callers}, return_when=asyncio.FIRST_COMPLETED)
        for one in callers:
            one.cancel()
        await asyncio.gather(*callers, return_exceptions=True)
        for one in ended:
            one.result()  # a caller ends by itself only if it fails
        return count

    async def _call(self, count: _Count) -> None:
        while True:
            index, sent = next(self._next), time.perf_counter()
            await self._analyze(self._traffic.documents[index])
            count.answered(sent, self._traffic.tokens[index])

    async def _together(self, documents: Sequence[Document]) -> list[DocumentResult]:
        return await asyncio.gather(*map(self._analyze, documents))

    async def _analyze(self, document: Document) -> DocumentResult:
        pipeline = self._model.pipeline
        prepared = pipeline.prepare(document)
        ran = await self._computing.submit(self._model, prepared.rows, prepared.outputs)
        return pipeline.finish(prepared, ran.outputs)
