"""Every row of the error table, as any gRPC client sees it and as ours raises it."""

import logging
import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from tests.serve.hosting import PATIENCE, Loop, Recorder, wait_for, watched
from tests.tiny import POISON
from trunkline import Document, Question
from trunkline.errors import (
    DeadlinePassed,
    Forbidden,
    InvalidInput,
    NotFound,
    Overloaded,
    RemoteError,
    TrunklineError,
    Unauthenticated,
    Unavailable,
)
from trunkline.v1 import analysis_service_pb2 as pb
from trunkline.v1.analysis_service_pb2_grpc import AnalysisServiceStub
from trunkline_serve.client import Client
from trunkline_serve.rpc.status import TABLE, to_status


@pytest.fixture(scope="module")
def stub(address: str) -> Iterator[AnalysisServiceStub]:
    with grpc.insecure_channel(address) as channel:
        yield AnalysisServiceStub(channel)


def refused(stub: AnalysisServiceStub, request: pb.AnalyzeRequest) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as caught:
        stub.Analyze(request, timeout=PATIENCE)
    return caught.value


def details(error: Any) -> dict[str, Message]:
    """Returns the details of a status by their type's name."""
    status = rpc_status.from_call(error)
    assert status is not None
    assert (status.code, status.message) == (error.code().value[0], error.details())
    found: dict[str, Message] = {}
    for packed in status.details:
        name = packed.TypeName().rpartition(".")[2]
        found[name] = getattr(error_details_pb2, name)()
        assert packed.Unpack(found[name])
    info: Any = found["ErrorInfo"]
    assert re.fullmatch("[A-Z][A-Z_]{0,62}", info.reason)
    assert info.domain == "trunkline"
    return found


def asking(**fields: Any) -> pb.AnalyzeRequest:
    return pb.AnalyzeRequest(documents=[pb.Document(text="Ada"), pb.Document(**fields)])


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (pb.AnalyzeRequest(), "documents"),
        (pb.AnalyzeRequest(documents=[pb.Document()] * 257), "documents"),
        (asking(text="x" * 262_145), "documents[1].text"),
        (asking(text="x", questions=[pb.Question(text="y")] * 65), "documents[1].questions"),
        (asking(text="x", questions=[pb.Question()]), "documents[1].questions[0].text"),
        (asking(text="x", text_pair="y" * 262_145), "documents[1].text_pair"),
        (asking(text="x", text_pair="y " * 999), "documents[1].text_pair"),
        (asking(text="x", tasks=["match"]), "documents[1].text_pair"),
        (
            asking(text="x", questions=[pb.Question(text="Who?"), pb.Question(text="y " * 999)]),
            "documents[1].questions[1].text",
        ),
        (pb.AnalyzeRequest(documents=[pb.Document()], offset_unit=99), "offset_unit"),  # type: ignore[arg-type]
    ],
)
def test_invalid_input_names_the_field(
    stub: AnalysisServiceStub, request_: pb.AnalyzeRequest, field: str
) -> None:
    error = refused(stub, request_)
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    found: Any = details(error)
    (violation,) = found["BadRequest"].field_violations
    assert violation.field == field == found["ErrorInfo"].metadata["field"]
    assert found["ErrorInfo"].reason == "INVALID_INPUT"
    assert error.details() == f"{field}: {violation.description}"


@pytest.mark.parametrize(
    ("request_", "what", "name"),
    [
        (pb.AnalyzeRequest(model="tinny", documents=[pb.Document()]), "model", "tinny"),
        (
            pb.AnalyzeRequest(model_version=7, documents=[pb.Document()]),
            "version of model tiny",
            "7",
        ),
        (asking(text="x", tasks=["nerr"]), "task", "nerr"),
        (
            asking(text="x", questions=[pb.Question(text="Who?", task="ner")]),
            "question task",
            "ner",
        ),
    ],
)
def test_not_found_names_what(
    stub: AnalysisServiceStub, request_: pb.AnalyzeRequest, what: str, name: str
) -> None:
    error = refused(stub, request_)
    assert error.code() is grpc.StatusCode.NOT_FOUND
    info: Any = details(error)["ErrorInfo"]
    assert (info.reason, dict(info.metadata)) == ("NOT_FOUND", {"what": what, "name": name})


@contextmanager
def held(host: Loop, bundle: Path, **settings: Any) -> Iterator[tuple[Any, Recorder]]:
    """Serves a model that is busy with one call until its gate opens."""
    model, recorder = watched(bundle)
    with host.serving([model], **settings) as hosted, ThreadPoolExecutor(1) as caller:
        recorder.gate.clear()
        with Client(hosted.address) as client:
            first = caller.submit(client.analyze, "Ada")
            recorder.wait_until_busy()
            try:
                yield hosted, recorder
            finally:
                recorder.gate.set()
                first.result(PATIENCE)


def test_overload_says_when_to_try_again(host: Loop, bundle: Path) -> None:
    with (
        held(host, bundle, max_in_flight=1, max_documents=1) as (hosted, _),
        grpc.insecure_channel(hosted.address) as channel,
        Client(hosted.address) as client,
    ):
        error = refused(AnalysisServiceStub(channel), pb.AnalyzeRequest(documents=[pb.Document()]))
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        found: Any = details(error)
        assert found["ErrorInfo"].reason == "OVERLOADED"
        assert found["RetryInfo"].retry_delay.ToTimedelta().total_seconds() == pytest.approx(0.1)
        with pytest.raises(Overloaded, match="in flight") as caught:
            client.analyze("Ada")
        assert caught.value.retry_after == 0.1


def test_draining_is_unavailable(host: Loop, bundle: Path) -> None:
    with (
        held(host, bundle) as (hosted, _),
        grpc.insecure_channel(hosted.address) as channel,
        Client(hosted.address) as client,
    ):
        host.run(hosted.engine.drain(0))
        error = refused(AnalysisServiceStub(channel), pb.AnalyzeRequest(documents=[pb.Document()]))
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        assert details(error)["ErrorInfo"].reason == "UNAVAILABLE"  # type: ignore[attr-defined]
        with pytest.raises(Unavailable, match="shutting down"):
            client.analyze("Ada")


def test_calls_whose_deadline_passed_are_not_computed(host: Loop, bundle: Path) -> None:
    with held(host, bundle) as (hosted, recorder):
        with Client(hosted.address, timeout=0.1) as hasty, pytest.raises(DeadlinePassed):
            hasty.analyze("Rome")
        wait_for(lambda: hosted.engine.in_flight == 1)
        recorder.gate.set()
        with Client(hosted.address) as client:
            client.analyze("Ada")
        assert len(recorder.batches) == 2


def test_cancelled_calls_are_not_computed(host: Loop, bundle: Path) -> None:
    with (
        held(host, bundle) as (hosted, recorder),
        grpc.insecure_channel(hosted.address) as channel,
    ):
        request = pb.AnalyzeRequest(documents=[pb.Document(text="Rome")])
        call = AnalysisServiceStub(channel).Analyze.future(request)
        wait_for(lambda: hosted.engine.in_flight == 2)
        call.cancel()
        wait_for(lambda: hosted.engine.in_flight == 1)
        recorder.gate.set()
        with Client(hosted.address) as client:
            client.analyze("Ada")
        assert len(recorder.batches) == 2


@pytest.mark.parametrize("cause", ["nan", "bug"])
def test_internal_errors_have_an_id_and_keep_the_trace(
    host: Loop, bundle: Path, caplog: pytest.LogCaptureFixture, cause: str
) -> None:
    model, recorder = watched(bundle)
    if cause == "bug":
        recorder.failure = ZeroDivisionError("secret path /srv/x")
    request = pb.AnalyzeRequest(documents=[pb.Document(text=POISON)])
    with (
        caplog.at_level(logging.ERROR),
        host.serving([model]) as hosted,
        grpc.insecure_channel(hosted.address) as channel,
        Client(hosted.address) as client,
    ):
        error = refused(AnalysisServiceStub(channel), request)
        with pytest.raises(RemoteError, match="internal error"):
            client.analyze(POISON)
    assert error.code() is grpc.StatusCode.INTERNAL
    found: Any = details(error)
    name = found["ErrorInfo"].metadata["id"]
    assert list(found) == ["ErrorInfo"]
    assert error.details() == f"internal error {name}; the server's log says more under this id"
    (record, _) = caplog.records
    assert name in record.getMessage()
    assert record.exc_info is not None


def test_a_long_name_does_not_break_the_status(stub: AnalysisServiceStub) -> None:
    error = refused(stub, asking(text="x", tasks=["😀" * 100_000]))
    assert error.code() is grpc.StatusCode.NOT_FOUND
    info: Any = details(error)["ErrorInfo"]
    assert len(info.metadata["name"].encode()) <= 256


def test_an_oversized_message_is_refused(client: Client, stub: AnalysisServiceStub) -> None:
    document = pb.Document(text="x" * 200_000)
    error = refused(stub, pb.AnalyzeRequest(documents=[document] * 25))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    client.analyze("still here")


@pytest.mark.parametrize("data", [b"\xff\xff", b"\x1a\x04\x0a\x02\xff\xfe"])
def test_unreadable_bytes_are_invalid_input(
    address: str, data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with grpc.insecure_channel(address) as channel, pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary("/trunkline.v1.AnalysisService/Analyze")(data, timeout=PATIENCE)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    found: Any = details(caught.value)
    assert found["BadRequest"].field_violations[0].field == "request"
    assert not caplog.records


@pytest.mark.parametrize(
    ("arguments", "raised"),
    [
        ((Document("Ada", (Question(" "),)),), InvalidInput("documents[0].questions[0].text", "")),
        (("Ada", (), ["nerr"]), NotFound("task", "nerr")),
    ],
)
def test_client_raises_the_models_own_errors(
    client: Client, model: Any, arguments: Any, raised: TrunklineError
) -> None:
    with pytest.raises(type(raised)) as remote:
        client.analyze(*arguments)
    with pytest.raises(type(raised)) as local:
        model.analyze(*arguments)
    assert str(remote.value) == str(local.value)
    assert vars(remote.value) == vars(local.value)


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        (("\ud800",), "documents[0]"),
        (("Ada", (), []), "tasks"),
        (("Ada", "Who?"), "questions"),
        (("Ada", (), "ner"), "tasks"),
    ],
)
def test_client_refuses_what_cannot_be_sent(client: Client, arguments: Any, field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        client.analyze(*arguments)
    assert caught.value.field == field


def test_no_server_is_unavailable() -> None:
    # Port 9 is "discard": nothing listens there.
    with Client("127.0.0.1:9") as client, pytest.raises(Unavailable):
        client.analyze("Ada")


def test_every_row_of_the_table_survives_the_way() -> None:
    errors = {
        InvalidInput: InvalidInput("a", "b"),
        NotFound: NotFound("task", "x", ["y"]),
        Overloaded: Overloaded("full", 1.5),
        Unavailable: Unavailable("gone"),
        DeadlinePassed: DeadlinePassed("late"),
        Unauthenticated: Unauthenticated("who"),
        Forbidden: Forbidden("no"),
    }
    assert {row.error for row in TABLE} == set(errors)
    for row in TABLE:
        error = errors[row.error]
        rebuilt = row.rebuild(row.metadata(error), str(error))
        assert type(rebuilt) is row.error
        assert (str(rebuilt), vars(rebuilt)) == (str(error), vars(error))
        assert to_status(error).code is row.code


def test_no_thread_is_left_behind(host: Loop, model: Any) -> None:
    before = threading.active_count()
    with host.serving([model]):
        pass
    wait_for(lambda: threading.active_count() <= before)
