"""The client that blocks."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from time import sleep
from types import TracebackType
from typing import TypeVar, overload

import grpc

from trunkline import Document, DocumentResult
from trunkline.errors import TrunklineError
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
from trunkline_serve.client.sources import Source
from trunkline_serve.description import Description, Limits, ModelId
from trunkline_serve.rpc.status import to_error

T = TypeVar("T")


class Client(Base):
    """Talks to a server. Thread-safe; close it, or use it in a `with` block.

    It takes the arguments of `Base`.

    Raises (every method):
        Unavailable: There is no server at the target, or it is shutting down.
        DeadlinePassed: There was no answer within `timeout`.
        RemoteError: The server failed; the message has the id to look for in its log.
    """

    _module = grpc

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connection."""
        self._channel.close()

    # A str is a sequence of str as well; the first signature that fits is meant.
    @overload
    def analyze(  # type: ignore[overload-overlap]
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
    def analyze(
        self,
        text: Sequence[AnyDocument],
        questions: Sequence[str] = (),
        tasks: Sequence[str] | None = None,
        *,
        text_pair: str | Sequence[str] | None = None,
        model: str = "",
        version: int = 0,
    ) -> list[DocumentResult]: ...

    def analyze(
        self,
        text: AnyDocument | Sequence[AnyDocument],
        questions: Sequence[str] = (),
        tasks: Sequence[str] | None = None,
        *,
        text_pair: str | Sequence[str] | None = None,
        model: str = "",
        version: int = 0,
    ) -> DocumentResult | list[DocumentResult]:
        """Analyses one text, or a list of texts in as few calls as the server's limits allow.

        Args:
            text: A text or `Document`, or a list of them.
            questions: Asked of every text that is not a `Document` (which brings its own).
            tasks: Names of the tasks wanted; None for all.
            text_pair: The second text, for tasks that read a pair; for a list of texts, one for
                all or a list with one for each.
            model: Name of the model; may be empty if the server has one.
            version: Its version; 0 for the newest.

        Returns:
            A result for a text, a list of results in the same order for a list.

        Raises:
            InvalidInput: A text or question cannot be read; the field names which.
            NotFound: The model, version or a task is unknown.
            Overloaded: The server has no room; `retry_after` says when to try again.
        """
        asked = Analysis.of(
            text, questions, tasks, text_pair=text_pair, model=model, version=version
        )
        limits = self._known_limits(model, version) if asked.may_be_long else None
        return asked.result(self._all(asked.calls(limits)))

    def analyze_stream(
        self,
        documents: Iterable[AnyDocument],
        *,
        window: int = WINDOW,
        model: str = "",
        version: int = 0,
        timeout: float | None = None,
    ) -> Iterator[tuple[Document, Outcome]]:
        """Analyses documents without end, and yields each as soon as it is answered.

        A server ends every stream after some minutes, with its connection. Another one then takes
        it up: documents without an answer are sent again.

        Args:
            documents: Read on another thread, only as answers are taken.
            window: Most documents without an answer.
            model: Name of the model; may be empty if the server has one.
            version: Its version; 0 for the newest.
            timeout: Seconds for the whole stream; None for no end.

        Yields:
            A document, and its result or the error it met, in the order of the answers. Documents
            that meet `Unavailable` or `Overloaded` are sent again, in calls of their own.

        Raises:
            TrunklineError: The stream broke, and others had no answer either; raised after the
                documents without an answer were yielded with the same error. What was not yielded
                was not analysed.
            Exception: Whatever `documents` raises, after all before it were yielded.
        """
        check_stream(documents)
        check_timeout(timeout)
        flow = Flow(window, model, version)
        source = Source(iter(documents), flow, window)
        broken: TrunklineError | None = None
        try:
            with closing(self._replies(source, timeout)) as replies:
                for reply in replies:
                    document, outcome = flow.answered(reply)
                    source.release()
                    yield document, self._settled(flow, document, outcome)
        except TrunklineError as error:
            broken = error
        finally:
            source.close()
        yield from flow.left(broken)
        flow.check(broken)

    def models(self) -> list[ModelId]:
        """Returns name and version of the server's models."""
        return self._call(list_models())

    def describe(self, model: str = "", version: int = 0) -> Description:
        """Returns all about a model: tasks, labels, limits, graphs and gates.

        Raises:
            InvalidInput: No model is named and the server has several.
            NotFound: The model or version is unknown.
        """
        return self._call(describe_model(model, version))

    def load(self, bundle: str, *, replace: bool = False, timeout: float = LOAD_SECONDS) -> ModelId:
        """Has a bundle of the server's folder of models served. Never tried twice.

        Args:
            bundle: Name of the bundle's folder there.
            replace: Whether older versions of the model are unloaded once this one answers.
            timeout: Seconds that it may take.

        Raises:
            InvalidInput: The name is none of a folder, or the bundle fails its checks.
            NotFound: There is no such bundle.
        """
        check_timeout(timeout)
        call = load_model(bundle, replace)
        return self._call(call, self._attempts(call.again, timeout))

    def unload(self, model: str, version: int = 0) -> list[ModelId]:
        """Has a model served no longer, or with version 0 all its versions. Never tried twice.

        Returns:
            What is served no longer.

        Raises:
            NotFound: There is no such model or version.
        """
        return self._call(unload_model(model, version))

    def _known_limits(self, model: str, version: int) -> Limits:
        if self._limits is None:
            self._limits = self.describe(model, version).limits
        return self._limits

    def _all(self, calls: Sequence[Call[T]]) -> list[T]:
        if len(calls) == 1:
            return [self._call(calls[0])]
        with ThreadPoolExecutor(self._options.concurrency) as callers:
            return list(callers.map(self._call, calls))

    def _call(self, call: Call[T], attempts: Attempts | None = None) -> T:
        attempts = attempts or self._attempts(call.again)
        while True:
            try:
                response = call.method(self._stubs)(call.request, **self._arguments(attempts.left))
                return call.read(response)
            except grpc.RpcError as failed:
                pause = attempts.pause(call.placed(to_error(failed)))
            sleep(pause)

    def _replies(
        self, source: Source, timeout: float | None
    ) -> Generator[pb.AnalyzeStreamResponse]:
        """Yields the replies of one stream after another, until all documents are answered."""
        renewals = Renewals(timeout, lambda: self._attempts(again=True))
        while True:
            replies = self._stubs.analysis.AnalyzeStream(
                source.requests(), **self._arguments(renewals.left)
            )
            try:
                for reply in replies:
                    renewals.answered()
                    yield reply
                return
            except grpc.RpcError as error:
                if source.done:
                    return
                pause = renewals.pause(to_error(error))
            finally:
                replies.cancel()
            sleep(pause)

    def _settled(self, flow: Flow, document: Document, outcome: Outcome) -> Outcome:
        """Asks again for a document of a stream where that makes sense."""
        if not isinstance(outcome, TrunklineError):
            return outcome
        attempts = self._attempts(again=True)
        try:
            sleep(attempts.pause(outcome))
            return self._call(flow.alone(document), attempts)[0]
        except TrunklineError as error:
            return error
