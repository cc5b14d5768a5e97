"""What a server does, without the transport: limits, admission, batching, draining."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from time import monotonic, perf_counter_ns

from trunkline import Document, DocumentResult, Model
from trunkline.encode import Row
from trunkline.errors import (
    DeadlinePassed,
    InvalidInput,
    NotFound,
    Overloaded,
    Unavailable,
    shortened,
)
from trunkline.kinds import all_outputs
from trunkline.pipeline import Pipeline, Prepared
from trunkline.runner import RowOutputs
from trunkline_serve.apart import Apart
from trunkline_serve.events import Answered, Everyone, Failed, Timing
from trunkline_serve.limits import Size, check_count, check_documents, check_tokens
from trunkline_serve.models import Registry
from trunkline_serve.scheduler import Computing
from trunkline_serve.settings import Settings
from trunkline_serve.turns import Ran

_USUAL_BYTES = 5  # of text in one token: what the room for a call is judged by at first
_MOST_BYTES = 8  # of text in one token, on average: what has more is told before it is tokenised
_ANNOTATION = 4
_LEAST_RETRY = 0.1  # seconds
_REASONS: dict[type[BaseException], str] = {
    InvalidInput: "INVALID_INPUT",
    NotFound: "NOT_FOUND",
    Overloaded: "OVERLOADED",
    Unavailable: "UNAVAILABLE",
    DeadlinePassed: "DEADLINE_PASSED",
    asyncio.CancelledError: "CANCELLED",
}


@dataclass(frozen=True)
class Analysis:
    """One result per document of a call, the model that gave them, and the timing."""

    model: Model
    results: list[DocumentResult]
    timing: Timing

    @property
    def size(self) -> int:
        """How much there is to write, in characters of texts; an annotation takes as long as 4."""
        return sum(
            len(result.text)
            + _ANNOTATION * sum(map(len, result.tasks.values()))
            + sum(_ANNOTATION * len(one.answers) + len(one.question) for one in result.questions)
            for result in self.results
        )


@dataclass(frozen=True)
class Inference:
    """The outputs of each row of a call, the model that gave them, and the timing."""

    model: Model
    outputs: list[RowOutputs]
    timing: Timing


class _Call:
    """One call on its way: what it is about, and when it passed which stage."""

    def __init__(self, model: str, documents: int) -> None:
        self.model = shortened(model)
        self.documents = documents
        self.begin = self.encoded = self.computed = perf_counter_ns()
        self.stage = "admission"

    def timing(self, ran: Ran, rows: Sequence[Row]) -> Timing:
        """Returns where the time went until now."""
        end = perf_counter_ns()
        return Timing(
            total_ns=end - self.begin,
            encode_ns=self.encoded - self.begin,
            queue_ns=ran.queue_ns,
            compute_ns=ran.compute_ns,
            decode_ns=end - self.computed,
            tokens=sum(len(row) for row in rows),
        )


class Engine:
    """Analyses the documents of concurrent calls, in shared batches. Belongs to one event loop.

    Args:
        computing: Computes rows; stays the caller's to close.
        settings: The limits.
        events: Told of every call.

    Attributes:
        settings, events: As given.
        models: What is served; add to it what shall be.
    """

    def __init__(self, computing: Computing, settings: Settings, events: Everyone) -> None:
        self.settings = settings
        self.events = events
        self.models = Registry()
        self._computing = computing
        self._apart = Apart()
        self._in_flight = 0
        self._encoding = 0  # tokens, about, of texts that wait to be tokenised
        self._idle = asyncio.Event()
        self._idle.set()
        self._draining = False

    @property
    def in_flight(self) -> int:
        """Documents that have no answer yet."""
        return self._in_flight

    @property
    def queued_tokens(self) -> int:
        """Tokens that wait to be computed."""
        return self._computing.queued_tokens

    @property
    def draining(self) -> bool:
        """Whether new calls are refused."""
        return self._draining

    def expected_wait(self) -> float:
        """Returns the seconds that a call made now should wait."""
        return self._computing.expected_wait()

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
            model: Its name, as in `Registry.find`.
            version: Its version, as in `Registry.find`.
            deadline: On `time.monotonic`'s clock; None for none.

        Raises:
            InvalidInput: A document is at fault; the field names which.
            NotFound: The model, version or a task is unknown.
            Overloaded: There is no room, or the deadline cannot be met.
            Unavailable: The server is draining.
            DeadlinePassed: It did while the call was queued.
            RuntimeFault: The model gave NaN.
        """
        call = _Call(model, len(documents))
        with self._told(call):
            self._check_open()
            check_count(documents, self.settings.limits)
            served = self.models.find(model, version)
            call.model = served.id.name
            with served.held() as chosen, self._permits(call.documents):
                size = check_documents(documents, self.settings.limits)
                check_tokens(size.tokenised // _MOST_BYTES, self.settings.limits)
                # Tokenising is work too, and most calls without room can be told so before it.
                self._check_room(deadline, size.tokenised // _USUAL_BYTES, sum(size.work))
                call.stage = "encode"
                prepared = await self._prepared(chosen, documents, size, deadline)
                call.encoded = perf_counter_ns()
                rows = [row for one in prepared for row in one.rows]
                outputs = tuple(dict.fromkeys(out for one in prepared for out in one.outputs))
                call.stage = "queue"
                tokens = sum(len(row) for row in rows)
                check_tokens(tokens, self.settings.limits)
                self._check_room(deadline, tokens)
                ran = await self._computing.submit(chosen, rows, outputs, deadline)
                call.computed = perf_counter_ns()
                call.stage = "decode"
                decode = _decoding(chosen.pipeline, prepared, ran)
                results = await self._apart.do(size.work, decode, deadline)
        analysis = Analysis(chosen, results, call.timing(ran, rows))
        self._tell_answered(call, chosen, _tasks(results), analysis.timing)
        return analysis

    async def infer(
        self,
        rows: Sequence[Row],
        wanted: Sequence[str],
        *,
        model: str = "",
        version: int = 0,
        deadline: float | None = None,
    ) -> Inference:
        """Computes rows of token ids together with those of other calls.

        Args:
            rows: At least one; each no longer than the model's longest, ids within its vocabulary.
            wanted: Names of outputs of the graph.
            model: Its name, as in `Registry.find`.
            version: Its version, as in `Registry.find`.
            deadline: On `time.monotonic`'s clock; None for none.

        Raises:
            InvalidInput: There are too many rows.
            NotFound: The model, version or an output is unknown.
            Overloaded: There is no room, or the deadline cannot be met.
            Unavailable: The server is draining.
            DeadlinePassed: It did while the call was queued.
        """
        call = _Call(model, len(rows))
        with self._told(call):
            self._check_open()
            check_count(rows, self.settings.limits, "rows")
            served = self.models.find(model, version)
            call.model = served.id.name
            with served.held() as chosen, self._permits(call.documents):
                known = {output.name: output for output in all_outputs(chosen.manifest.tasks)}
                unknown = [name for name in wanted if name not in known]
                if unknown:
                    raise NotFound("output", unknown[0], known)
                call.stage = "queue"
                tokens = sum(len(row) for row in rows)
                check_tokens(tokens, self.settings.limits, "rows")
                self._check_room(deadline, tokens)
                outputs = tuple(known[name] for name in wanted)
                ran = await self._computing.submit(chosen, rows, outputs, deadline)
                call.computed = perf_counter_ns()
        inference = Inference(chosen, ran.outputs, call.timing(ran, rows))
        self._tell_answered(call, chosen, {}, inference.timing)
        return inference

    async def drain(self, seconds: float) -> bool:
        """Refuses new calls and waits for those in flight; returns whether all were answered."""
        self._draining = True
        try:
            await asyncio.wait_for(self._idle.wait(), seconds)
        except TimeoutError:
            return False
        return True

    def close(self) -> None:
        """Ends the engine's own thread."""
        self._draining = True
        self._apart.close()

    def _check_open(self) -> None:
        if self._draining:
            raise Unavailable("the server is shutting down")

    @contextmanager
    def _permits(self, count: int) -> Iterator[None]:
        """Holds a place for each document, taken before any work is spent on it."""
        limit = self.settings.limits.max_in_flight
        if self._in_flight + count > limit:
            reason = f"{self._in_flight} of {limit} documents are in flight, no room for {count}"
            raise Overloaded(reason, max(self.expected_wait(), _LEAST_RETRY))
        self._in_flight += count
        self._idle.clear()
        try:
            yield
        finally:
            self._in_flight -= count
            if not self._in_flight:
                self._idle.set()

    async def _prepared(
        self, model: Model, documents: Sequence[Document], size: Size, deadline: float | None
    ) -> list[Prepared]:
        """Returns documents as rows. Until then they count as tokens that wait."""
        tokens = size.tokenised // _USUAL_BYTES
        self._encoding += tokens
        try:
            encode = partial(_prepare, model.pipeline, documents)
            return await self._apart.do(size.work, encode, deadline)
        finally:
            self._encoding -= tokens

    def _check_room(self, deadline: float | None, tokens: int, text: int = 0) -> None:
        """Raises before compute if the queue is full, or longer than the time left.

        Args:
            deadline: Of the call.
            tokens: To compute.
            text: Bytes to tokenise first, and to decode in the end.
        """
        queued, limit = self.queued_tokens + self._encoding, self.settings.limits.max_queue_tokens
        if queued and queued + tokens > limit:
            reason = f"{queued} of {limit} tokens are waiting, no room for {tokens}"
            raise Overloaded(reason, max(self.expected_wait(), _LEAST_RETRY))
        if deadline is None:
            return
        left, wait = deadline - monotonic(), self._computing.expected_wait(tokens)
        wait += 2 * self._apart.expected_wait(text)
        if left <= 0:
            raise DeadlinePassed("the deadline passed before the call was queued")
        if wait > left:
            reason = f"the queue takes {wait:.2f} s, the deadline leaves {left:.2f} s"
            raise Overloaded(reason, max(wait - left, _LEAST_RETRY))

    @contextmanager
    def _told(self, call: _Call) -> Iterator[None]:
        """Tells of a call that fails."""
        try:
            yield
        except BaseException as error:
            reason = _REASONS.get(type(error), "INTERNAL")
            spent = perf_counter_ns() - call.begin
            self.events.failed(Failed(call.model, reason, call.stage, spent))
            raise

    def _tell_answered(
        self, call: _Call, model: Model, tasks: Mapping[str, int], timing: Timing
    ) -> None:
        manifest = model.manifest
        self.events.answered(
            Answered(manifest.name, manifest.version, tasks, call.documents, timing)
        )


def _prepare(pipeline: Pipeline, documents: Sequence[Document], at: int) -> Prepared:
    return pipeline.prepare(documents[at], f"documents[{at}]")


def _decoding(
    pipeline: Pipeline, prepared: Sequence[Prepared], ran: Ran
) -> Callable[[int], DocumentResult]:
    """Returns what decodes a document, by its index."""
    ends = list(accumulate(len(one.rows) for one in prepared))

    def decode(at: int) -> DocumentResult:
        own = ran.outputs[ends[at] - len(prepared[at].rows) : ends[at]]
        return pipeline.finish(prepared[at], own)

    return decode


def _tasks(results: Sequence[DocumentResult]) -> Mapping[str, int]:
    """Returns for how many documents each task was done; questions count one each."""
    counts: Counter[str] = Counter()
    for result in results:
        counts.update(result.tasks.keys())
        counts.update(question.task for question in result.questions)
    return counts
