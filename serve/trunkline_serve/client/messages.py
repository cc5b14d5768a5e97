"""What a client sends and how it reads the reply, whatever carries it."""

from __future__ import annotations

import re
from collections.abc import AsyncIterable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Annotated, Any, Generic, NamedTuple, TypeVar

from google.protobuf.message import Message

from trunkline import Document, DocumentResult
from trunkline.documents import as_documents
from trunkline.errors import ConfigError, InvalidInput, TrunklineError
from trunkline.ranges import Positive, Range
from trunkline.structure import check_value
from trunkline.v1 import analysis_service_pb2 as analysis_pb
from trunkline.v1 import model_service_pb2 as model_pb
from trunkline.v1.analysis_service_pb2_grpc import AnalysisServiceStub
from trunkline.v1.model_service_pb2_grpc import ModelServiceStub
from trunkline_serve.description import Description, Limits, ModelId
from trunkline_serve.rpc.descriptions import description_from_pb, id_from_pb
from trunkline_serve.rpc.requests import documents_to_pb, request_of, results_from_pb

T = TypeVar("T")
AnyDocument = str | Document
Outcome = DocumentResult | TrunklineError
"""What becomes of one document of a stream."""

_DOCUMENT = re.compile(r"documents\[(\d+)\](.*)", re.DOTALL)
_Version = Annotated[int, Range(least=0, below=2**63)]
_FRAME_BYTES = 8  # of a document in a request: a tag and its length, at most
_OWN_BYTES = 1024  # of a request beside its documents


class Stubs(NamedTuple):
    """The methods of a server, over a channel of either kind."""

    analysis: Any
    models: Any

    @classmethod
    def over(cls, channel: Any) -> Stubs:
        """Returns the methods over a channel."""
        return cls(AnalysisServiceStub(channel), ModelServiceStub(channel))


@dataclass(frozen=True)
class Call(Generic[T]):
    """One call.

    Attributes:
        method: Picks the method.
        request: Its request.
        read: Makes the result of the response.
        again: Whether making it twice does the same as making it once.
        first: Where its documents begin in the caller's list.
    """

    method: Callable[[Stubs], Callable[..., Any]]
    request: Message
    read: Callable[[Any], T]
    again: bool = True
    first: int = 0

    def placed(self, error: TrunklineError) -> TrunklineError:
        """Returns an error with its document counted as in the caller's list."""
        found = _DOCUMENT.fullmatch(error.field) if isinstance(error, InvalidInput) else None
        if found is None or not isinstance(error, InvalidInput):
            return error
        at = int(found[1]) + self.first
        return InvalidInput(f"documents[{at}]{found[2]}", error.reason)


@dataclass(frozen=True)
class Analysis:
    """What `analyze` was asked for.

    Attributes:
        documents: The documents.
        alone: Whether it was one, not a list.
        model, version: Of the model, as in `analyze`.
    """

    documents: list[Document]
    alone: bool
    model: str
    version: int

    @classmethod
    def of(
        cls,
        text: AnyDocument | Sequence[AnyDocument],
        questions: Sequence[str] = (),
        tasks: Sequence[str] | None = None,
        *,
        text_pair: str | Sequence[str] | None = None,
        model: str = "",
        version: int = 0,
    ) -> Analysis:
        """Reads the arguments of `analyze`.

        Raises:
            InvalidInput: They do not go together.
        """
        check_model(model, version)
        alone = isinstance(text, str | Document)
        given = [text] if isinstance(text, str | Document) else text
        return cls(as_documents(given, questions, tasks, text_pair), alone, model, version)

    @property
    def may_be_long(self) -> bool:
        """Whether the server's limits matter; one document goes into one call in any case."""
        return len(self.documents) > 1

    def calls(self, limits: Limits | None) -> list[Call[list[DocumentResult]]]:
        """Returns as few calls as the server's limits allow; without limits one.

        Raises:
            InvalidInput: A document cannot be sent.
        """
        messages = documents_to_pb(self.documents)
        parts = [range(len(messages))] if limits is None else _cut(messages, limits)
        return [self._call(part, messages) for part in parts if part]

    def result(
        self, results: Sequence[list[DocumentResult]]
    ) -> DocumentResult | list[DocumentResult]:
        """Returns the results of the calls as the result of all."""
        joined = list(chain.from_iterable(results))
        return joined[0] if self.alone else joined

    def _call(
        self, part: range, messages: Sequence[analysis_pb.Document]
    ) -> Call[list[DocumentResult]]:
        documents = self.documents[part.start : part.stop]
        return Call(
            method=lambda stubs: stubs.analysis.Analyze,
            request=request_of(messages[part.start : part.stop], self.model, self.version),
            read=lambda response: results_from_pb(response, documents),
            first=part.start,
        )


def check_model(model: str, version: int) -> None:
    """Raises InvalidInput unless these could name a model."""
    _check("model", str, model)
    _check("version", _Version, version)


def check_stream(documents: object) -> None:
    """Raises InvalidInput unless this gives documents: a string gives its letters."""
    unfit = isinstance(documents, str | bytes | bytearray | Mapping)
    if unfit or not isinstance(documents, Iterable | AsyncIterable):
        reason = f"is of type {type(documents).__name__}; give texts or Documents, one by one"
        raise InvalidInput("documents", reason)


def check_timeout(timeout: float | None) -> None:
    """Raises ConfigError unless this is a time, or None."""
    try:
        check_value(Positive | None, timeout, "timeout")
    except ValueError as error:
        raise ConfigError(str(error)) from None


def _check(field: str, kind: Any, value: object) -> None:
    try:
        check_value(kind, value, field)
        if isinstance(value, str):
            value.encode()
    except UnicodeEncodeError:
        raise InvalidInput(field, "is not valid Unicode (it holds lone surrogates)") from None
    except ValueError as error:
        raise InvalidInput(field, str(error).removeprefix(f"{field}: ")) from None


def list_models() -> Call[list[ModelId]]:
    """Returns the call that lists the models."""
    return Call(
        method=lambda stubs: stubs.models.ListModels,
        request=model_pb.ListModelsRequest(),
        read=lambda response: [id_from_pb(one) for one in response.models],
    )


def describe_model(model: str, version: int) -> Call[Description]:
    """Returns the call that describes a model."""
    check_model(model, version)
    return Call(
        method=lambda stubs: stubs.models.DescribeModel,
        request=model_pb.DescribeModelRequest(model=model, model_version=version),
        read=description_from_pb,
    )


def load_model(bundle: str, replace: bool) -> Call[ModelId]:
    """Returns the call that loads a bundle."""
    _check("bundle", str, bundle)
    _check("replace", bool, replace)
    return Call(
        method=lambda stubs: stubs.models.LoadModel,
        request=model_pb.LoadModelRequest(bundle=bundle, replace=replace),
        read=lambda response: id_from_pb(response.id),
        again=False,
    )


def unload_model(model: str, version: int) -> Call[list[ModelId]]:
    """Returns the call that unloads a model."""
    check_model(model, version)
    return Call(
        method=lambda stubs: stubs.models.UnloadModel,
        request=model_pb.UnloadModelRequest(model=model, model_version=version),
        read=lambda response: [id_from_pb(one) for one in response.models],
        again=False,
    )


def _cut(messages: Sequence[analysis_pb.Document], limits: Limits) -> Iterator[range]:
    """Cuts a list into ranges that the server takes, each as long as it may be.

    A call may not take more tokens than the server lets wait. Only the server can count them; but
    one text may have `max_text_bytes`, so documents that come to no more are taken together.
    """
    most = min(limits.max_text_bytes, limits.max_message_bytes - _OWN_BYTES)
    start, size = 0, 0
    for at, message in enumerate(messages):
        own = _weight(message)
        if at > start and (size + own > most or at - start == limits.max_documents):
            yield range(start, at)
            start, size = at, 0
        size += own
    yield range(start, len(messages))


def _weight(message: analysis_pb.Document) -> int:
    """Returns a document's bytes, as often as the encoder reads them."""
    readings = 1 + len(message.questions) + message.HasField("text_pair")
    return readings * (message.ByteSize() + _FRAME_BYTES)
