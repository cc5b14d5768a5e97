"""The server's side of Analyze and AnalyzeStream."""

from __future__ import annotations

from collections.abc import AsyncIterator

from trunkline.v1 import analysis_service_pb2 as pb
from trunkline_serve.aside import aside
from trunkline_serve.engine import Engine
from trunkline_serve.limits import LONGEST_ID, check_count, check_id, check_questions
from trunkline_serve.rpc.converters import documents_from_pb, response_to_pb, unit_from_pb
from trunkline_serve.rpc.replies import replies
from trunkline_serve.rpc.status import status_of

Reply = pb.AnalyzeStreamResponse

_STRING = 4  # characters that take as long to read as a string does whatever its length


def analyze_stream(
    requests: AsyncIterator[pb.AnalyzeStreamRequest], engine: Engine, deadline: float | None
) -> AsyncIterator[Reply]:
    """Yields replies as they are ready; a request that fails gets one of its own.

    At most `Limits.max_stream_requests` have no reply that was taken; see `replies`.

    Args:
        requests: Raises what makes a request unreadable, which ends the stream.
        engine: Does the work.
        deadline: Of every request, on `time.monotonic`'s clock; None for none.
    """

    async def answer(request: pb.AnalyzeStreamRequest) -> Reply:
        check_id(request.id)
        response = await analyze(request.request, engine, deadline)
        return Reply(id=request.id, response=response)

    return replies(requests, answer, _failed, engine.settings.limits.max_stream_requests)


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
    strings = 0
    for at, document in enumerate(request.documents):
        check_questions(len(document.questions), limits, f"documents[{at}]")
        strings += 1 + len(document.questions) + len(document.tasks)
    documents = await aside(_STRING * strings, lambda: documents_from_pb(request))
    analysis = await engine.analyze(
        documents,
        model=request.model,
        version=request.model_version,
        deadline=deadline,
    )
    return await aside(analysis.size, lambda: response_to_pb(analysis, unit))


def _failed(request: pb.AnalyzeStreamRequest, error: Exception) -> Reply:
    status = status_of(error)
    told = pb.Error(code=status.code, message=status.message, details=status.details)
    return Reply(id=request.id[:LONGEST_ID], error=told)
