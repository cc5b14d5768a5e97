"""Messages of the API to and from Trunkline's own types.

`*_from_pb` reads a message, `*_to_pb` makes one, `_fill_*` writes into one.
Server and client each use one half.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trunkline import Answer, Document, DocumentResult, Label, Question, QuestionResult, Span
from trunkline.annotations import Annotations
from trunkline.errors import InvalidInput
from trunkline.offsets import OffsetMap, OffsetUnit
from trunkline.v1 import analysis_service_pb2 as pb
from trunkline_serve.engine import Analysis

_UNITS: dict[pb.OffsetUnit, OffsetUnit] = {
    pb.OFFSET_UNIT_UNSPECIFIED: OffsetUnit.CODE_POINT,
    pb.OFFSET_UNIT_CODE_POINT: OffsetUnit.CODE_POINT,
    pb.OFFSET_UNIT_UTF8_BYTE: OffsetUnit.UTF8_BYTE,
    pb.OFFSET_UNIT_UTF16_UNIT: OffsetUnit.UTF16_UNIT,
}
_SAID_UNITS = {unit: value for value, unit in _UNITS.items() if value}


@dataclass(frozen=True)
class Codec:
    """How the annotations of one kind of text task travel.

    Attributes:
        field: Their field in the `annotations` oneof of TaskResult.
        fill: (the field's message, annotations, offset map) writes the annotations.
        read: (the field's message) to annotations, for offsets in code points.
    """

    field: str
    fill: Callable[[Any, Sequence[Any], OffsetMap], None]
    read: Callable[[Any], Annotations]


def _fill_spans(message: pb.SpanList, spans: Sequence[Span], at: OffsetMap) -> None:
    for span in spans:
        message.spans.add(
            start=at(span.start),
            end=at(span.end),
            text=span.text,
            label=span.label,
            score=span.score,
        )


def _read_spans(message: pb.SpanList) -> tuple[Span, ...]:
    return tuple(Span(one.start, one.end, one.text, one.label, one.score) for one in message.spans)


def _fill_labels(message: pb.LabelList, labels: Sequence[Label], at: OffsetMap) -> None:
    for one in labels:
        message.labels.add(label=one.label, score=one.score)


def _read_labels(message: pb.LabelList) -> tuple[Label, ...]:
    return tuple(Label(one.label, one.score) for one in message.labels)


ANNOTATIONS: dict[str, Codec] = {
    "token-classification": Codec("spans", _fill_spans, _read_spans),
    "text-classification": Codec("labels", _fill_labels, _read_labels),
}
"""By kind of task; the only place that knows which message a kind's annotations become."""

_BY_FIELD = {codec.field: codec for codec in ANNOTATIONS.values()}


def unit_from_pb(value: pb.OffsetUnit) -> OffsetUnit:
    """Returns the offset unit of a request.

    Raises:
        InvalidInput: The API has no such unit.
    """
    if value not in _UNITS:
        known = ", ".join(pb.OffsetUnit.keys())
        raise InvalidInput("offset_unit", f"is {value}, which is none of {known}")
    return _UNITS[value]


def documents_from_pb(request: pb.AnalyzeRequest) -> list[Document]:
    """Returns the documents of a request."""
    return [
        Document(
            text=document.text,
            questions=tuple(Question(asked.text, asked.task) for asked in document.questions),
            tasks=tuple(document.tasks) or None,
            text_pair=document.text_pair if document.HasField("text_pair") else None,
        )
        for document in request.documents
    ]


def request_to_pb(documents: Sequence[Document], model: str, version: int) -> pb.AnalyzeRequest:
    """Returns a request for offsets in code points.

    Raises:
        InvalidInput: A string holds lone surrogates, or a document wants no task at all.
    """
    return pb.AnalyzeRequest(
        model=model,
        model_version=version,
        documents=[_document_to_pb(one, f"documents[{at}]") for at, one in enumerate(documents)],
        offset_unit=pb.OFFSET_UNIT_CODE_POINT,
    )


def response_to_pb(analysis: Analysis, unit: OffsetUnit) -> pb.AnalyzeResponse:
    """Returns the response with all offsets in `unit`."""
    manifest = analysis.model.manifest
    kinds = {spec.name: spec.kind for spec in manifest.tasks}
    response = pb.AnalyzeResponse(
        model=manifest.name,
        model_version=manifest.version,
        offset_unit=_SAID_UNITS[unit],
        timing=pb.Timing(**vars(analysis.timing)),
    )
    # Filled in place: messages given to a constructor are copied, once per level of nesting.
    for result in analysis.results:
        _fill_result(response.results.add(), result, kinds, unit)
    return response


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
        raise InvalidInput(field, "is not valid Unicode (it holds lone surrogates)") from None


def _fill_result(
    message: pb.DocumentResult,
    result: DocumentResult,
    kinds: Mapping[str, str],
    unit: OffsetUnit,
) -> None:
    at = OffsetMap(result.text, unit)
    for name, found in result.tasks.items():
        codec = ANNOTATIONS[kinds[name]]
        field = getattr(message.tasks.add(task=name), codec.field)
        field.SetInParent()  # chosen even if there is nothing to write
        codec.fill(field, found, at)
    for question in result.questions:
        _fill_question(message.questions.add(), question, at)


def _annotations_from_pb(result: pb.TaskResult) -> Annotations:
    field = result.WhichOneof("annotations")
    # A newer server may send a kind this client does not know: its other tasks still count.
    return _BY_FIELD[field].read(getattr(result, field)) if field else ()


def _fill_question(message: pb.QuestionResult, result: QuestionResult, at: OffsetMap) -> None:
    message.question = result.question
    message.task = result.task
    message.no_answer_score = result.no_answer_score
    for one in result.answers:
        message.answers.add(start=at(one.start), end=at(one.end), text=one.text, score=one.score)


def _question_from_pb(result: pb.QuestionResult) -> QuestionResult:
    answers = (Answer(one.start, one.end, one.text, one.score) for one in result.answers)
    return QuestionResult(result.question, result.task, tuple(answers), result.no_answer_score)
