"""Requests to Trunkline's own types, and those to responses: the server's half of `requests`.

`*_from_pb` reads a message, `*_to_pb` makes one, `_fill_*` writes into one.
"""

from __future__ import annotations

from collections.abc import Mapping

from trunkline import Document, DocumentResult, Question, QuestionResult
from trunkline.errors import InvalidInput
from trunkline.offsets import OffsetMap, OffsetUnit
from trunkline.v1 import analysis_service_pb2 as pb
from trunkline_serve.engine import Analysis
from trunkline_serve.rpc.codecs import ANNOTATIONS

_UNITS: dict[pb.OffsetUnit, OffsetUnit] = {
    pb.OFFSET_UNIT_UNSPECIFIED: OffsetUnit.CODE_POINT,
    pb.OFFSET_UNIT_CODE_POINT: OffsetUnit.CODE_POINT,
    pb.OFFSET_UNIT_UTF8_BYTE: OffsetUnit.UTF8_BYTE,
    pb.OFFSET_UNIT_UTF16_UNIT: OffsetUnit.UTF16_UNIT,
}
_SAID_UNITS = {unit: value for value, unit in _UNITS.items() if value}


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


def _fill_question(message: pb.QuestionResult, result: QuestionResult, at: OffsetMap) -> None:
    message.question = result.question
    message.task = result.task
    message.no_answer_score = result.no_answer_score
    for one in result.answers:
        message.answers.add(start=at(one.start), end=at(one.end), text=one.text, score=one.score)
