"""The server's side of AnalyzeStream: many requests at work, a bounded number at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from time import monotonic

from trunkline.v1 import analysis_service_pb2 as pb
from trunkline_serve.engine import Engine
from trunkline_serve.limits import check_count, check_questions
from trunkline_serve.rpc.converters import documents_from_pb, response_to_pb, unit_from_pb
from trunkline_serve.rpc.status import status_of
from trunkline_serve.security.guard import CALLER

Reply = pb.AnalyzeStreamResponse


async def analyze_stream(
    requests: AsyncIterator[pb.AnalyzeStreamRequest], engine: Engine, deadline: float | None
) -> AsyncIterator[Reply]:
    """Yields replies as they are ready; a request that fails gets one of its own.

    The next request is read only while fewer than `Limits.max_stream_requests` have no reply that
    was taken: a caller that does not read replies is not read from either. Closed early, it drops
    the work that is under way.

    Args:
        requests: Raises what makes a request unreadable, which ends the stream.
        engine: Does the work.
        deadline: Of every request, on `time.monotonic`'s clock; None for none.
    """
    stream = _Stream(requests, engine, deadline)
    try:
        async for reply in stream.replies():
            yield reply
    finally:
        stream.cancel()


async def analyze(
    request: pb.AnalyzeRequest, engine: Engine, deadline: float | None
) -> pb.AnalyzeResponse:
    """Analyses the documents of one request.

    Raises:
        InvalidInput: The offset unit is unknown; and whatever `Engine.analyze` raises.
    """
    unit = unit_from_pb(request.offset_unit)
    limits = engine.settings.limits
    # On the message: a few bytes of it can stand for millions of documents.
    check_count(request.documents, limits)
    for at, document in enumerate(request.documents):
        check_questions(len(document.questions), limits, f"documents[{at}]")
    analysis = await engine.analyze(
        documents_from_pb(request),
        model=request.model,
        version=request.model_version,
        deadline=deadline,
    )
    return response_to_pb(analysis, unit)


class _Stream:
    """One stream: a task that reads, and one for each request without a reply."""

    def __init__(
        self,
        requests: AsyncIterator[pb.AnalyzeStreamRequest],
        engine: Engine,
        deadline: float | None,
    ) -> None:
        self._requests = requests
        self._engine = engine
        self._deadline = deadline
        self._caller = CALLER.get(None)
        self._first = True
        self._room = asyncio.Semaphore(engine.settings.limits.max_stream_requests)
        self._tasks: set[asyncio.Task[Reply | None]] = set()
        self._ended: asyncio.Queue[asyncio.Task[Reply | None]] = asyncio.Queue()

    async def replies(self) -> AsyncIterator[Reply]:
        """Yields the replies until all requests have theirs."""
        self._start(self._read())
        while self._tasks:
            task = await self._ended.get()
            self._tasks.discard(task)
            reply = task.result()
            if reply is not None:
                yield reply
                self._room.release()

    def cancel(self) -> None:
        """Cancels all that is under way."""
        for task in self._tasks:
            task.cancel()

    def _start(self, work: Coroutine[None, None, Reply | None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended.put_nowait)

    async def _read(self) -> None:
        await self._room.acquire()
        async for request in self._requests:
            self._start(self._reply(request, first=self._first))
            self._first = False
            await self._room.acquire()

    async def _reply(self, request: pb.AnalyzeStreamRequest, *, first: bool) -> Reply:
        try:
            if self._caller is not None and not first:  # the stream itself was counted as a call
                self._caller.charge(monotonic())
            response = await analyze(request.request, self._engine, self._deadline)
        except Exception as error:
            status = status_of(error)
            failed = pb.Error(code=status.code, message=status.message, details=status.details)
            return Reply(id=request.id, error=failed)
        return Reply(id=request.id, response=response)
