"""The documents of a stream on their way to the server, over one stream after another.

A stream ends when its connection does, which a server sees to every few minutes. Then another one
is opened: it is sent what has no answer, and goes on where the documents are.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Iterable, Iterator
from typing import Any

import grpc

from trunkline.v1 import analysis_service_pb2 as pb
from trunkline_serve.client.flow import Flow
from trunkline_serve.client.messages import AnyDocument

_END: Any = object()


class Source:
    """Documents that gRPC's threads read: one for each stream, of which the newest counts.

    Args:
        documents: Read as there is room.
        flow: Learns what is sent.
        window: Most documents without an answer.
    """

    def __init__(self, documents: Iterator[AnyDocument], flow: Flow, window: int) -> None:
        self._documents = documents
        self._flow = flow
        self._room = threading.Semaphore(window)
        self._reading = threading.Lock()  # held while a document comes, which may take long
        self._sending = threading.Lock()
        self._newest = 0
        self._kept: list[AnyDocument] = []
        self._ended = False

    @property
    def done(self) -> bool:
        """Whether all documents are answered."""
        return self._ended and not self._flow.unanswered

    def requests(self) -> Iterator[pb.AnalyzeStreamRequest]:
        """Returns what to send on a new stream; those before it send nothing from now on."""
        with self._sending:
            self._newest += 1
            return self._sent(self._newest, self._flow.again())

    def release(self) -> None:
        """Makes room for one more."""
        self._room.release()

    def close(self) -> None:
        """Ends the sender."""
        self._newest += 1
        self._room.release()

    def _sent(
        self, stream: int, again: list[pb.AnalyzeStreamRequest]
    ) -> Iterator[pb.AnalyzeStreamRequest]:
        yield from again
        while True:
            self._room.acquire()
            request = self._next(stream)
            if request is None:
                self._room.release()  # for the stream that comes after this one, if there is one
                return
            yield request

    def _next(self, stream: int) -> pb.AnalyzeStreamRequest | None:
        """Returns the request for the next document; None at the end of them, or of the stream."""
        with self._reading:
            if stream == self._newest and not self._kept and not self._ended:
                self._read()
            with self._sending, self._flow.sending():
                if stream == self._newest and self._kept:
                    return self._flow.request(self._kept.pop())
            self._ended = self._ended or self._flow.failed
        return None

    def _read(self) -> None:
        with self._flow.sending():  # gRPC's thread would hide an exception
            document = next(self._documents, _END)
            if document is not _END:
                self._kept.append(document)
                return
        self._ended = True


class AsyncSource:
    """Does the same on an event loop.

    Args:
        documents: Read as there is room.
        flow: Learns what is sent.
        window: Most documents without an answer.
    """

    def __init__(
        self,
        documents: AsyncIterable[AnyDocument] | Iterable[AnyDocument],
        flow: Flow,
        window: int,
    ) -> None:
        self._documents = _each(documents)
        self._flow = flow
        self._room = asyncio.Semaphore(window)
        self._coming: asyncio.Task[AnyDocument] | None = None
        self._ended = False

    @property
    def done(self) -> bool:
        """Whether all documents are answered."""
        return self._ended and not self._flow.unanswered

    async def send(self, stream: Any) -> None:
        """Sends what has no answer, and then further documents; may be cancelled at any time."""
        for request in self._flow.again():
            if not await _written(stream.write(request)):
                return
        while (sent := await self._next()) is not None:
            if not await _written(stream.write(sent)):
                return
        await _written(stream.done_writing())

    def release(self) -> None:
        """Makes room for one more."""
        self._room.release()

    def close(self) -> None:
        """Reads no further."""
        if self._coming is not None:
            self._coming.cancel()

    async def _next(self) -> pb.AnalyzeStreamRequest | None:
        """Returns the request for the next document; None at their end."""
        await self._room.acquire()
        try:
            with self._flow.sending():
                if not self._ended and (document := await self._document()) is not _END:
                    return self._flow.request(document)
            self._ended = True
        except asyncio.CancelledError:
            self._room.release()
            raise
        self._room.release()
        return None

    async def _document(self) -> AnyDocument:
        """Returns the next document; if it is cancelled, the document waits for the next call."""
        if self._coming is None:
            self._coming = asyncio.create_task(_first(self._documents))
        document = await asyncio.shield(self._coming)
        self._coming = None
        return document


async def _first(documents: AsyncIterator[AnyDocument]) -> AnyDocument:
    return await anext(documents, _END)


async def _written(writing: Awaitable[None]) -> bool:
    """Returns whether the stream was still there; reading from it tells why it is not."""
    try:
        await writing
    except (grpc.RpcError, asyncio.InvalidStateError):
        return False
    return True


async def _each(
    documents: AsyncIterable[AnyDocument] | Iterable[AnyDocument],
) -> AsyncIterator[AnyDocument]:
    if isinstance(documents, AsyncIterable):
        async for document in documents:
            yield document
    else:
        for document in documents:
            yield document
