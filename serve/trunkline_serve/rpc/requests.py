"""Trunkline's own types to requests, and responses to them: the client's half of `converters`."""

from __future__ import annotations

from collections.abc import Sequence

from trunkline import Answer, Document, DocumentResult, QuestionResult
from trunkline.annotations import Annotations
from trunkline.errors import InvalidInput
from trunkline.v1 import analysis_service_pb2 as pb
from trunkline_serve.rpc.codecs import BY_FIELD


def request_to_pb(documents: Sequence[Document], model: str, version: int) -> pb.AnalyzeRequest:
    """Returns a request for offsets in code points.

    Raises:
        InvalidInput: A string holds lone surrogates, or a document wants no task at all.
    """
    return request_of(documents_to_pb(documents), model, version)


def request_of(documents: Sequence[pb.Document], model: str, version: int) -> pb.AnalyzeRequest:
    """Returns a request for documents that are messages already.

    Raises:
        InvalidInput: The model's name is not valid Unicode.
    """
    try:
        return pb.AnalyzeRequest(
            model=model,
            model_version=version,
            documents=documents,
            offset_unit=pb.OFFSET_UNIT_CODE_POINT,
        )
    except UnicodeEncodeError:
        raise _not_unicode("model") from None


def documents_to_pb(documents: Sequence[Document]) -> list[pb.Document]:
    """Returns the messages of documents.

    Raises:
        InvalidInput: A string holds lone surrogates, or a document wants no task at all.
    """
    return [_document_to_pb(one, f"documents[{at}]") for at, one in enumerate(documents)]


def results_from_pb(
    response: pb.AnalyzeResponse, documents: Sequence[Document]
) -> list[DocumentResult]:
    """Returns the results of a response in code points; `documents` are those of the request."""
    return [
        DocumentResult(
            text=document.text,
            tasks={task.task: _annotations_from_pb(task) for task in result.tasks},
            questions=tuple(_question_from_pb(question) for question in result.questions),
            text_pair=document.text_pair,
        )
        for document, result in zip(documents, response.results, strict=True)
    ]


def _document_to_pb(document: Document, field: str) -> pb.Document:
    if document.tasks == ():
        raise InvalidInput(f"{field}.tasks", "is empty; name the tasks, or give None for all")
    try:
        return pb.Document(
            text=document.text,
            tasks=document.tasks,
            questions=[pb.Question(text=one.text, task=one.task) for one in document.questions],
            text_pair=document.text_pair,
        )
    except UnicodeEncodeError:
        raise _not_unicode(field) from None


def _not_unicode(field: str) -> InvalidInput:
    return InvalidInput(field, "is not valid Unicode (it holds lone surrogates)")


def _annotations_from_pb(result: pb.TaskResult) -> Annotations:
    field = result.WhichOneof("annotations")
    # A newer server may send a kind this client does not know: its other tasks still count.
    return BY_FIELD[field].read(getattr(result, field)) if field else ()


def _question_from_pb(result: pb.QuestionResult) -> QuestionResult:
    answers = (Answer(one.start, one.end, one.text, one.score) for one in result.answers)
    return QuestionResult(result.question, result.task, tuple(answers), result.no_answer_score)
