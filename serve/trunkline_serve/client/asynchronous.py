"""The client for asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable, Sequence
from contextlib import aclosing
from types import TracebackType
from typing import TypeVar, overload

import grpc
import grpc.aio

from trunkline import Document, DocumentResult
from trunkline.errors import TrunklineError, Unavailable
from trunkline.v1 import analysis_service_pb2 as pb
from trunkline_serve.client.base import LOAD_SECONDS, Base
from trunkline_serve.client.flow import WINDOW, Flow
from trunkline_serve.client.messages import (
    Analysis,
    AnyDocument,
    Call,
    Outcome,
    check_stream,
    check_timeout,
    describe_model,
    list_models,
    load_model,
    unload_model,
)
from trunkline_serve.client.retry import Attempts, Renewals
from trunkline_serve.client.sources import AsyncSource
from trunkline_serve.description import Description, Limits, ModelId
from trunkline_serve.rpc.status import to_error

T = TypeVar("T")

_WRITTEN_LATE = "Internal error from Core"


class AsyncClient(Base):
    """Talks to a server from a running event loop; close it, or use it in an `async with` block.

    It takes the arguments of `Base`; its methods do and raise what those of `Client` do.
    """

    _module = grpc.aio

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the connection."""
        await self._channel.close()

    # A str is a sequence of str as well; the first signature that fits is meant.
    @overload
    async def analyze(  # type: ignore[overload-overlap]
        self,
        text: AnyDocument,
        questions: Sequence[str] = (),
        tasks: Sequence[str] | None = None,
        *,
        text_pair: str | None = None,
        model: str = "",
        version: int = 0,
    ) -> DocumentResult: ...

    @overload
    async def analyze(
        self,
        text: Sequence[AnyDocument],
        questions: Sequence[str] = (),
        tasks: Sequence[str] | None = None,
        *,
        text_pair: str | Sequence[str] | None = None,
        model: str = "",
        version: int = 0,
    ) -> list[DocumentResult]: ...

    async def analyze(
        self,
        text: AnyDocument | Sequence[AnyDocument],
        questions: Sequence[str] = (),
        tasks: Sequence[str] | None = None,
        *,
        text_pair: str | Sequence[str] | None = None,
        model: str = "",
        version: int = 0,
    ) -> DocumentResult | list[DocumentResult]:
        """Does what `Client.analyze` does."""
        asked = Analysis.of(
            text, questions, tasks, text_pair=text_pair, model=model, version=version
        )
        limits = await self._known_limits(model, version) if asked.may_be_long else None
        return asked.result(await self._all(asked.calls(limits)))

    async def analyze_stream(
        self,
        documents: AsyncIterable[AnyDocument] | Iterable[AnyDocument],
        *,
        window: int = WINDOW,
        model: str = "",
        version: int = 0,
        timeout: float | None = None,
    ) -> AsyncIterator[tuple[Document, Outcome]]:
        """Does what `Client.analyze_stream` does; `documents` are read by a task of their own."""
        check_stream(documents)
        check_timeout(timeout)
        flow = Flow(window, model, version)
        source = AsyncSource(documents, flow, window)
        broken: TrunklineError | None = None
        try:
            async with aclosing(self._replies(source, timeout)) as replies:
                async for reply in replies:
                    document, outcome = flow.answered(reply)
                    source.release()
                    yield document, await self._settled(flow, document, outcome)
        except TrunklineError as error:
            broken = error
        finally:
            source.close()
        for one in flow.left(broken):
            yield one
        flow.check(broken)

    async def models(self) -> list[ModelId]:
        """Does what `Client.models` does."""
        return await self._call(list_models())

    async def describe(self, model: str = "", version: int = 0) -> Description:
        """Does what `Client.describe` does."""
        return await self._call(describe_model(model, version))

    async def load(
        self, bundle: str, *, replace: bool = False, timeout: float = LOAD_SECONDS
    ) -> ModelId:
        """Does what `Client.load` does."""
        check_timeout(timeout)
        call = load_model(bundle, replace)
        return await self._call(call, self._attempts(call.again, timeout))

    async def unload(self, model: str, version: int = 0) -> list[ModelId]:
        """Does what `Client.unload` does."""
        return await self._call(unload_model(model, version))

    async def _known_limits(self, model: str, version: int) -> Limits:
        if self._limits is None:
            self._limits = (await self.describe(model, version)).limits
        return self._limits

    async def _all(self, calls: Sequence[Call[T]]) -> list[T]:
        room = asyncio.Semaphore(self._options.concurrency)

        async def one(call: Call[T]) -> T:
            async with room:
                return await self._call(call)

        tasks = [asyncio.create_task(one(call)) for call in calls]
        try:
            return await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()

    async def _call(self, call: Call[T], attempts: Attempts | None = None) -> T:
        attempts = attempts or self._attempts(call.again)
        while True:
            try:
                method = call.method(self._stubs)
                return call.read(await method(call.request, **self._arguments(attempts.left)))
            except grpc.RpcError as failed:
                pause = attempts.pause(call.placed(to_error(failed)))
            await asyncio.sleep(pause)

    async def _replies(
        self, source: AsyncSource, timeout: float | None
    ) -> AsyncGenerator[pb.AnalyzeStreamResponse]:
        """Yields the replies of one stream after another, until all documents are answered."""
        renewals = Renewals(timeout, lambda: self._attempts(again=True))
        while True:
            replies = self._stubs.analysis.AnalyzeStream(**self._arguments(renewals.left))
            sender = asyncio.create_task(source.send(replies))
            try:
                async for reply in replies:
                    renewals.answered()
                    yield reply
                return
            except grpc.RpcError as error:
                if source.done:
                    return
                pause = renewals.pause(_why_ended(error))
            finally:
                sender.cancel()
                replies.cancel()
            await asyncio.sleep(pause)

    async def _settled(self, flow: Flow, document: Document, outcome: Outcome) -> Outcome:
        """Asks again for a document of a stream where that makes sense."""
        if not isinstance(outcome, TrunklineError):
            return outcome
        attempts = self._attempts(again=True)
        try:
            await asyncio.sleep(attempts.pause(outcome))
            return (await self._call(flow.alone(document), attempts))[0]
        except TrunklineError as error:
            return error


def _why_ended(error: grpc.RpcError) -> TrunklineError:
    """Returns why a stream ended.

    Where a write meets the end, grpc.aio puts an error of its own in the place of the status.
    """
    if isinstance(error, grpc.aio.AioRpcError) and error.details() == _WRITTEN_LATE:
        return Unavailable("the stream ended")
    return to_error(error)
