"""A typed client: the same calls and results as a model in this process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, overload

import grpc

from trunkline import Document, DocumentResult
from trunkline.pipeline import as_documents
from trunkline.v1 import model_service_pb2
from trunkline.v1.analysis_service_pb2_grpc import AnalysisServiceStub
from trunkline.v1.model_service_pb2_grpc import ModelServiceStub
from trunkline_serve.description import Description, ModelId
from trunkline_serve.rpc.converters import request_to_pb, results_from_pb
from trunkline_serve.rpc.descriptions import description_from_pb, id_from_pb
from trunkline_serve.rpc.status import to_error

AnyDocument = str | Document


# The server bounds requests. A response grows with the text, and only the caller's own.
OPTIONS = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]


class Client:
    """Talks to a server. Thread-safe; close it, or use it in a `with` block.

    Args:
        target: Address of the server, e.g. `127.0.0.1:50051`.
        timeout: Seconds that each call may take.

    Raises (every method):
        Unavailable: There is no server at the target, or it is shutting down.
        DeadlinePassed: There was no answer within `timeout`.
        RemoteError: The server failed; the message has the id to look for in its log.
    """

    def __init__(self, target: str, timeout: float = 30.0) -> None:
        self._timeout = timeout
        self._channel = grpc.insecure_channel(target, options=OPTIONS)
        self._analysis: Any = AnalysisServiceStub(self._channel)
        self._models: Any = ModelServiceStub(self._channel)

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
        """Analyses one text, or a list of texts in one call.

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
        alone = isinstance(text, str | Document)
        given = [text] if isinstance(text, str | Document) else text
        documents = as_documents(given, questions, tasks, text_pair)
        if not documents:
            return []
        request = request_to_pb(documents, model, version)
        response = self._call(self._analysis.Analyze, request)
        results = results_from_pb(response, documents)
        return results[0] if alone else results

    def models(self) -> list[ModelId]:
        """Returns name and version of the server's models."""
        request = model_service_pb2.ListModelsRequest()
        return [id_from_pb(one) for one in self._call(self._models.ListModels, request).models]

    def describe(self, model: str = "", version: int = 0) -> Description:
        """Returns all about a model: tasks, labels, limits, graphs and gates.

        Raises:
            InvalidInput: No model is named and the server has several.
            NotFound: The model or version is unknown.
        """
        request = model_service_pb2.DescribeModelRequest(model=model, model_version=version)
        return description_from_pb(self._call(self._models.DescribeModel, request))

    def _call(self, method: Callable[..., Any], request: Any) -> Any:
        try:
            return method(request, timeout=self._timeout)
        except grpc.RpcError as error:
            raise to_error(error) from None
