"""The documents of a stream that have no answer yet."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count

from trunkline import Document, DocumentResult
from trunkline.documents import as_document
from trunkline.errors import ConfigError, InvalidInput, TrunklineError, Unavailable
from trunkline.ranges import Count
from trunkline.structure import check_value
from trunkline.v1 import analysis_service_pb2 as pb
from trunkline_serve.client.messages import Analysis, AnyDocument, Call, Outcome, check_model
from trunkline_serve.rpc.requests import request_to_pb, results_from_pb
from trunkline_serve.rpc.status import error_of

WINDOW = 64  # as many as a server reads by default


class Flow:
    """Knows what each reply of a stream is about. One may send while another reads.

    Args:
        window: Most documents without an answer.
        model: Name of the model, as in `analyze`.
        version: Its version, as in `analyze`.

    Raises:
        ConfigError: The window is closed.
        InvalidInput: These could not name a model.
    """

    def __init__(self, window: int, model: str, version: int) -> None:
        try:
            check_value(Count, window, "window")
        except ValueError as error:
            raise ConfigError(str(error)) from None
        check_model(model, version)
        self._model = model
        self._version = version
        self._numbers = count()
        self._unanswered: dict[str, Document] = {}
        self._unsent: dict[str, InvalidInput] = {}
        self._failure: Exception | None = None

    def request(self, text: AnyDocument) -> pb.AnalyzeStreamRequest:
        """Returns the request for a document."""
        document = as_document(text)
        name = str(next(self._numbers))
        self._unanswered[name] = document
        return self._request(name, document)

    def again(self) -> list[pb.AnalyzeStreamRequest]:
        """Returns the requests for all documents without an answer, in the order they were sent."""
        return [self._request(*one) for one in list(self._unanswered.items())]

    @property
    def unanswered(self) -> int:
        """Number of documents without an answer."""
        return len(self._unanswered)

    @property
    def failed(self) -> bool:
        """Whether the caller's documents raised something."""
        return self._failure is not None

    def _request(self, name: str, document: Document) -> pb.AnalyzeStreamRequest:
        request = pb.AnalyzeStreamRequest(id=name)
        try:
            request.request.CopyFrom(request_to_pb([document], self._model, self._version))
        except InvalidInput as error:
            # An empty request is refused: so this document too is answered, when its turn comes.
            self._unsent[name] = error
        return request

    def answered(self, reply: pb.AnalyzeStreamResponse) -> tuple[Document, Outcome]:
        """Returns the document that a reply is about, and what became of it."""
        document = self._unanswered.pop(reply.id)
        if reply.id in self._unsent:
            return document, self._unsent.pop(reply.id)
        if reply.WhichOneof("outcome") == "error":
            failed = reply.error
            return document, error_of(failed.code, failed.message, failed.details)
        (result,) = results_from_pb(reply.response, [document])
        return document, result

    def alone(self, document: Document) -> Call[list[DocumentResult]]:
        """Returns a call of its own for a document."""
        (call,) = Analysis([document], True, self._model, self._version).calls(None)
        return call

    @contextmanager
    def sending(self) -> Iterator[None]:
        """Keeps what the caller's documents raise, for `check`."""
        try:
            yield
        except Exception as error:
            self._failure = error

    def left(self, broken: TrunklineError | None) -> Iterator[tuple[Document, Outcome]]:
        """Yields what the end of the stream left without an answer, in the order it was sent."""
        error = broken or Unavailable("the server ended the stream without an answer")
        for name in list(self._unanswered):
            yield self._unanswered.pop(name), self._unsent.pop(name, error)

    def check(self, broken: TrunklineError | None) -> None:
        """Raises what ended the stream early: the caller's documents, or an error."""
        for error in (self._failure, broken):
            if error is not None:
                raise error
