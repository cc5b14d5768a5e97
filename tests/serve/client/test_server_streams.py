"""The server's side of a stream, as any gRPC client sees it."""

import asyncio
import queue
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from tests.serve.hosting import PATIENCE, Loop, wait_for, watched
from trunkline import Model
from trunkline.v1 import analysis_service_pb2 as pb
from trunkline.v1.analysis_service_pb2_grpc import AnalysisServiceStub
from trunkline_serve.events import Answered, Listener

METHOD = "/trunkline.v1.AnalysisService/AnalyzeStream"


def request(name: str, **document: Any) -> pb.AnalyzeStreamRequest:
    asked = pb.AnalyzeRequest(documents=[pb.Document(**document)])
    return pb.AnalyzeStreamRequest(id=name, request=asked)


def many(count: int) -> Iterator[pb.AnalyzeStreamRequest]:
    return (request(str(at), text=f"Ada {at}") for at in range(count))


class Feed:
    """Requests that are sent when they are put in, and counted when gRPC takes them."""

    def __init__(self) -> None:
        self._waiting: queue.SimpleQueue[pb.AnalyzeStreamRequest | None] = queue.SimpleQueue()
        self.taken = 0

    def put(self, one: pb.AnalyzeStreamRequest | None) -> None:
        self._waiting.put(one)

    def __iter__(self) -> Iterator[pb.AnalyzeStreamRequest]:
        while (one := self._waiting.get()) is not None:
            self.taken += 1
            yield one


def test_replies_bear_the_ids_of_their_requests(address: str) -> None:
    with grpc.insecure_channel(address) as channel:
        replies = list(AnalysisServiceStub(channel).AnalyzeStream(many(500), timeout=PATIENCE))
        alone = AnalysisServiceStub(channel).Analyze(request("", text="Ada 7").request)
    assert sorted(int(one.id) for one in replies) == list(range(500))
    (seventh,) = [one for one in replies if one.id == "7"]
    assert seventh.response.results == alone.results


def test_ids_need_not_be_unique(address: str) -> None:
    with grpc.insecure_channel(address) as channel:
        requests = iter([request("", text="Ada"), request("", text="Rome")])
        replies = list(AnalysisServiceStub(channel).AnalyzeStream(requests, timeout=PATIENCE))
    assert [one.id for one in replies] == ["", ""]


def test_an_id_is_not_given_back_at_any_length(address: str) -> None:
    with grpc.insecure_channel(address) as channel:
        requests = iter([request("x" * 1024, text="Ada"), request("y" * 1025, text="Ada")])
        replies = list(AnalysisServiceStub(channel).AnalyzeStream(requests, timeout=PATIENCE))
    fit, unfit = sorted(replies, key=lambda reply: reply.id)
    assert fit.HasField("response")
    assert unfit.id == "y" * 1024
    assert unfit.error.message == "id: has 1025 characters, at most 1024 are accepted"


def test_replies_come_before_the_requests_end(address: str) -> None:
    feed = Feed()
    with grpc.insecure_channel(address) as channel:
        replies = AnalysisServiceStub(channel).AnalyzeStream(iter(feed), timeout=PATIENCE)
        for name in ("a", "b", "c"):
            feed.put(request(name, text="Ada"))
            assert next(replies).id == name
        feed.put(None)
        assert list(replies) == []


@pytest.mark.parametrize(
    "document",
    [{"text": "x", "tasks": ["nerr"]}, {"text": "x", "questions": [pb.Question(text=" ")]}],
)
def test_an_error_says_what_a_failed_call_says(address: str, document: dict[str, Any]) -> None:
    with grpc.insecure_channel(address) as channel:
        stub = AnalysisServiceStub(channel)
        with pytest.raises(grpc.RpcError) as caught:
            stub.Analyze(request("", **document).request, timeout=PATIENCE)
        status = rpc_status.from_call(caught.value)
        requests = iter([request("bad", **document), request("good", text="Ada")])
        replies = {one.id: one for one in stub.AnalyzeStream(requests, timeout=PATIENCE)}
    error = replies["bad"].error
    assert (error.code, error.message) == (status.code, status.message)
    assert list(error.details) == list(status.details)
    assert replies["good"].response.results


def test_a_request_without_documents_is_invalid(address: str) -> None:
    with grpc.insecure_channel(address) as channel:
        requests = iter([pb.AnalyzeStreamRequest(id="x")])
        (reply,) = AnalysisServiceStub(channel).AnalyzeStream(requests, timeout=PATIENCE)
    assert reply.error.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]


def test_unreadable_bytes_end_the_stream(
    host: Loop, bundle: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model, recorder = watched(bundle)
    with host.serving([model]) as hosted, grpc.insecure_channel(hosted.address) as channel:
        recorder.gate.clear()
        good = request("a", text="Ada").SerializeToString()
        with pytest.raises(grpc.RpcError) as caught:
            list(channel.stream_stream(METHOD)(iter([good, b"\xff\xff"]), timeout=PATIENCE))
        wait_for(lambda: hosted.engine.in_flight == 0)
        recorder.gate.set()
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    info = error_details_pb2.BadRequest()
    assert any(one.Unpack(info) for one in rpc_status.from_call(caught.value).details)
    assert info.field_violations[0].field == "request"
    assert not [one for one in caplog.records if one.levelname == "ERROR"]


def test_no_more_than_the_limit_is_at_work(host: Loop, bundle: Path) -> None:
    model, recorder = watched(bundle)
    with (
        host.serving([model], max_stream_requests=3) as hosted,
        grpc.insecure_channel(hosted.address) as channel,
    ):
        recorder.gate.clear()
        replies = AnalysisServiceStub(channel).AnalyzeStream(many(50), timeout=PATIENCE)
        wait_for(lambda: hosted.engine.in_flight == 3)
        recorder.wait_until_busy()
        threading.Event().wait(0.1)
        assert hosted.engine.in_flight == 3
        recorder.gate.set()
        assert len(list(replies)) == 50


class Counter(Listener):
    """Counts the calls that were answered."""

    def __init__(self) -> None:
        self.count = 0

    def answered(self, call: Answered) -> None:
        self.count += 1


def test_a_caller_that_does_not_read_is_not_read_from(host: Loop, model: Model) -> None:
    counter, count = Counter(), 1000
    with host.serving([model]) as hosted, grpc.insecure_channel(hosted.address) as channel:
        hosted.engine.events.add(counter)
        text = "Ada lives in Rome. " * 100
        requests = (request(str(at), text=text, tasks=["pos"]) for at in range(count))
        replies = AnalysisServiceStub(channel).AnalyzeStream(requests, timeout=60)
        assert 64 <= _answered_until_it_stops(hosted.engine, counter) < count / 2
        assert len(list(replies)) == count


def _answered_until_it_stops(engine: Any, counter: Counter) -> int:
    """Returns the number of answers when for a while none more was begun."""
    pause = threading.Event()
    before = -1
    for _ in range(int(PATIENCE / 0.3)):
        if counter.count == before and engine.in_flight == 0:
            return before
        before = counter.count
        pause.wait(0.3)
    raise AssertionError("it went on and on")


@pytest.mark.parametrize("way", ["cancel", "close"])
def test_work_of_a_caller_that_is_gone_is_dropped(host: Loop, bundle: Path, way: str) -> None:
    model, recorder = watched(bundle)
    feed = Feed()
    with host.serving([model]) as hosted:
        recorder.gate.clear()
        channel = grpc.insecure_channel(hosted.address)
        replies = AnalysisServiceStub(channel).AnalyzeStream(iter(feed), timeout=PATIENCE)
        for at in range(20):
            feed.put(request(str(at), text="Ada"))
        wait_for(lambda: hosted.engine.in_flight == 20)
        replies.cancel() if way == "cancel" else channel.close()
        wait_for(lambda: hosted.engine.in_flight == 0)
        batches = len(recorder.batches)
        recorder.gate.set()
        feed.put(None)
        channel.close()
        with grpc.insecure_channel(hosted.address) as other:
            AnalysisServiceStub(other).Analyze(request("", text="Rome").request)
        assert len(recorder.batches) == batches + 1


@pytest.mark.parametrize("way", ["cancel", "close"])
def test_a_caller_that_goes_while_replies_wait_leaves_nothing(
    host: Loop, model: Model, way: str, caplog: pytest.LogCaptureFixture
) -> None:
    text = "Ada lives in Rome. " * 500
    with host.serving([model]) as hosted, grpc.insecure_channel(hosted.address) as channel:
        requests = (request(str(at), text=text, tasks=["pos"]) for at in range(10_000))
        replies = AnalysisServiceStub(channel).AnalyzeStream(requests, timeout=PATIENCE)
        next(replies)
        replies.cancel() if way == "cancel" else channel.close()
        wait_for(lambda: hosted.engine.in_flight == 0)
        wait_for(lambda: host.run(_stream_tasks()) == 0)
    assert not [one for one in caplog.records if one.levelname == "ERROR"]


async def _stream_tasks() -> int:
    return sum("_Stream" in repr(task) for task in asyncio.all_tasks())


def test_the_deadline_of_the_stream_is_that_of_each_request(host: Loop, bundle: Path) -> None:
    model, recorder = watched(bundle)
    with host.serving([model]) as hosted, grpc.insecure_channel(hosted.address) as channel:
        recorder.gate.clear()
        with pytest.raises(grpc.RpcError) as caught:
            list(AnalysisServiceStub(channel).AnalyzeStream(many(9), timeout=0.3))
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        wait_for(lambda: hosted.engine.in_flight == 0)
        recorder.gate.set()


def test_streams_and_calls_share_batches(host: Loop, bundle: Path, model: Model) -> None:
    watched_model, recorder = watched(bundle)
    with host.serving([watched_model]) as hosted, grpc.insecure_channel(hosted.address) as channel:
        stub = AnalysisServiceStub(channel)
        recorder.gate.clear()
        first = stub.Analyze.future(request("", text="first").request)
        recorder.wait_until_busy()
        requests = [request(str(at), text="Ada") for at in range(4)]
        replies = stub.AnalyzeStream(iter(requests), timeout=PATIENCE)
        calls = [stub.Analyze.future(request("", text="Ada").request) for _ in range(4)]
        wait_for(lambda: hosted.engine.queued_tokens == 8 * 3)
        recorder.gate.set()
        assert len(list(replies)) == 4
        for call in (first, *calls):
            call.result(PATIENCE)
    assert [len(batch) for batch in recorder.batches] == [1, 8]
