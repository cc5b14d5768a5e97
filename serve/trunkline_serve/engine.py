"""What a server does, without the transport: limits, admission, batching, draining."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from time import monotonic, perf_counter_ns
from typing import TypeVar

from trunkline import Document, DocumentResult, Model
from trunkline.errors import (
    BundleError,
    DeadlinePassed,
    InvalidInput,
    NotFound,
    Overloaded,
    Unavailable,
)
from trunkline.pipeline import Pipeline, Prepared
from trunkline_serve.batcher import Batcher, Ran
from trunkline_serve.limits import check_count, check_documents
from trunkline_serve.settings import Settings

T = TypeVar("T")

# Tokenising or decoding a byte takes about a microsecond, a hop to a thread and back about a
# hundred: below this size the hop would cost more than it frees the event loop.
_INLINE_BYTES = 1024
_LEAST_RETRY = 0.1  # seconds


@dataclass(frozen=True)
class Timing:
    """Where a call's time went, in nanoseconds, and its real tokens, special ones included."""

    total_ns: int
    encode_ns: int
    queue_ns: int
    compute_ns: int
    decode_ns: int
    tokens: int


@dataclass(frozen=True)
class Analysis:
    """One result per document of a call, the model that gave them, and the timing."""

    model: Model
    results: list[DocumentResult]
    timing: Timing


class Engine:
    """Analyses the documents of concurrent calls, in shared batches. Belongs to one event loop.

    Args:
        models: At least one; a name may come in several versions.
        settings: The limits.

    Raises:
        BundleError: Two models have the same name and version.
    """

    def __init__(self, models: Sequence[Model], settings: Settings) -> None:
        self.settings = settings
        self._models = _by_version(models)
        self._batchers = {
            model: Batcher(model.pipeline.runner.run, settings.batch_tokens) for model in models
        }
        self._apart = ThreadPoolExecutor(1, thread_name_prefix="trunkline-text")
        self._in_flight = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._draining = False

    @property
    def models(self) -> list[Model]:
        """All models, by name, then version."""
        return [self._models[key] for key in sorted(self._models)]

    @property
    def in_flight(self) -> int:
        """Documents that have no answer yet."""
        return self._in_flight

    def find(self, name: str, version: int) -> Model:
        """Returns a model; an empty name means the only one, version 0 the newest.

        Raises:
            InvalidInput: The name is empty and there are several.
            NotFound: There is no such model or version.
        """
        names = {known for known, _ in self._models}
        if not name and len(names) > 1:
            known = ", ".join(sorted(names))
            raise InvalidInput("model", f"is empty; say which model is meant; known: {known}")
        name = name or next(iter(names))
        if name not in names:
            raise NotFound("model", name, names)
        versions = [known for model, known in self._models if model == name]
        if version and version not in versions:
            raise NotFound(f"version of model {name}", str(version), map(str, versions))
        return self._models[name, version or max(versions)]

    async def analyze(
        self,
        documents: Sequence[Document],
        *,
        model: str = "",
        version: int = 0,
        deadline: float | None = None,
    ) -> Analysis:
        """Analyses documents together with those of other calls.

        Args:
            documents: At least one, within the limits of the settings.
            model: Its name, as in `find`.
            version: Its version, as in `find`.
            deadline: On `time.monotonic`'s clock; None for none.

        Raises:
            InvalidInput: A document is at fault; the field names which.
            NotFound: The model, version or a task is unknown.
            Overloaded: There is no room, or the deadline cannot be met.
            Unavailable: The server is draining.
            DeadlinePassed: It did while the call was queued.
            RuntimeFault: The model gave NaN.
        """
        begin = perf_counter_ns()
        if self._draining:
            raise Unavailable("the server is shutting down")
        check_count(documents, self.settings)
        chosen = self.find(model, version)
        batcher, pipeline = self._batchers[chosen], chosen.pipeline
        with self._permits(len(documents), batcher):
            size = check_documents(documents, self.settings)
            prepared = await self._work(size, lambda: _prepare(pipeline, documents))
            encoded = perf_counter_ns()
            _check_deadline(deadline, batcher)
            rows = [row for one in prepared for row in one.rows]
            outputs = list(dict.fromkeys(output for one in prepared for output in one.outputs))
            ran = await batcher.submit(rows, outputs, deadline)
            computed = perf_counter_ns()
            results = await self._work(size, lambda: _finish(pipeline, prepared, ran))
        end = perf_counter_ns()
        timing = Timing(
            total_ns=end - begin,
            encode_ns=encoded - begin,
            queue_ns=ran.queue_ns,
            compute_ns=ran.compute_ns,
            decode_ns=end - computed,
            tokens=sum(len(row) for row in rows),
        )
        return Analysis(chosen, results, timing)

    async def drain(self, seconds: float) -> bool:
        """Refuses new calls and waits for those in flight; returns whether all were answered."""
        self._draining = True
        try:
            await asyncio.wait_for(self._idle.wait(), seconds)
        except TimeoutError:
            return False
        return True

    def close(self) -> None:
        """Ends the threads; calls that still wait fail with Unavailable."""
        self._draining = True
        for batcher in self._batchers.values():
            batcher.close()
        self._apart.shutdown()

    @contextmanager
    def _permits(self, count: int, batcher: Batcher) -> Iterator[None]:
        """Holds a place for each document, taken before any work is spent on it."""
        limit = self.settings.max_in_flight
        if self._in_flight + count > limit:
            reason = f"{self._in_flight} of {limit} documents are in flight, no room for {count}"
            raise Overloaded(reason, max(batcher.expected_wait(), _LEAST_RETRY))
        self._in_flight += count
        self._idle.clear()
        try:
            yield
        finally:
            self._in_flight -= count
            if not self._in_flight:
                self._idle.set()

    async def _work(self, size: int, work: Callable[[], T]) -> T:
        """Does CPU work: here if it is short, else on a thread beside the event loop."""
        if size <= _INLINE_BYTES:
            return work()
        return await asyncio.get_running_loop().run_in_executor(self._apart, work)


def _by_version(models: Sequence[Model]) -> dict[tuple[str, int], Model]:
    found: dict[tuple[str, int], Model] = {}
    for model in models:
        key = model.manifest.name, model.manifest.version
        if key in found:
            path, other = model.bundle.path, found[key].bundle.path
            reason = f"has the name and version of {other}: {key[0]} {key[1]}"
            raise BundleError(path, reason, "serve one of them, or export it as another version")
        found[key] = model
    return found


def _check_deadline(deadline: float | None, batcher: Batcher) -> None:
    """Raises before compute if the queue is longer than the time left."""
    if deadline is None:
        return
    left, wait = deadline - monotonic(), batcher.expected_wait()
    if left <= 0:
        raise DeadlinePassed("the deadline passed before the call was queued")
    if wait > left:
        raise Overloaded(f"the queue takes {wait:.1f} s, the deadline leaves {left:.1f} s", wait)


def _prepare(pipeline: Pipeline, documents: Sequence[Document]) -> list[Prepared]:
    return [pipeline.prepare(one, f"documents[{at}]") for at, one in enumerate(documents)]


def _finish(pipeline: Pipeline, prepared: Sequence[Prepared], ran: Ran) -> list[DocumentResult]:
    outputs = iter(ran.outputs)
    return [pipeline.finish(one, [next(outputs) for _ in one.rows]) for one in prepared]
