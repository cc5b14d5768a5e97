"""What calls hold is bounded, by connection and in all; and so is the number of calls."""

import threading
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import grpc
import pytest

from tests.faults.serving.calls import ANALYZE
from tests.faults.serving.frames import wire_to
from tests.serve.hosting import PATIENCE, Loop, wait_for
from trunkline import Model
from trunkline.errors import ConfigError, Overloaded
from trunkline.v1 import analysis_service_pb2 as pb
from trunkline.v1.analysis_service_pb2_grpc import AnalysisServiceStub
from trunkline_serve.client import Client
from trunkline_serve.rpc.holdings import Held, Holdings
from trunkline_serve.settings import Limits, Settings

LIMITS = {"max_message_bytes": 100_000, "max_held_bytes": 400_000}
LARGE = pb.AnalyzeRequest(documents=[pb.Document(text="Ada " * 900, tasks=["pos"])])
# A reply to it takes some 40 KB.


def test_bytes_are_counted_by_connection_and_in_all() -> None:
    holdings = Holdings(100, 40)
    first, second, third = (Held(holdings, peer) for peer in ("a", "a", "b"))
    first.take(30)
    with pytest.raises(Overloaded, match="its connection holds 30 of 40 bytes"):
        second.take(11)
    with second.holding(10), pytest.raises(Overloaded):
        first.take(1)
    third.take(40)
    Held(holdings, "c").take(30)
    with pytest.raises(Overloaded, match="the server holds 100 of 100 bytes"):
        Held(holdings, "d").take(1)
    first.end()
    Held(holdings, "d").take(30)
    first.give_back(30)  # a task that ends behind its call
    first.take(30)
    with pytest.raises(Overloaded):
        Held(holdings, "d").take(1)


def test_replies_that_nobody_reads_are_bounded(host: Loop, model: Model) -> None:
    with (
        host.serving([model], **LIMITS) as hosted,
        Client(hosted.address, retries=0) as client,
        ExitStack() as unread,
    ):
        for _ in range(30):
            wire = unread.enter_context(wire_to(hosted.address, 0))
            wire.greet()
            wire.open(ANALYZE)
            wire.send(LARGE.SerializeToString())
        wait_for(lambda: refused(client))
        unread.close()
        wait_for(lambda: not refused(client))


def refused(client: Client) -> bool:
    """Returns whether there is no room for a large reply."""
    try:
        client.analyze(LARGE.documents[0].text, tasks=["pos"])
    except Overloaded as error:
        assert "bytes of requests and replies" in str(error)
        return True
    return False


def test_a_stream_that_nobody_reads_leaves_room_for_others(host: Loop, model: Model) -> None:
    def requests() -> Iterator[pb.AnalyzeStreamRequest]:
        for at in range(60):
            yield pb.AnalyzeStreamRequest(id=str(at), request=LARGE)

    with (
        host.serving([model], **LIMITS) as hosted,
        grpc.insecure_channel(hosted.address) as channel,
        Client(hosted.address, retries=0) as client,
    ):
        stream: Any = AnalysisServiceStub(channel).AnalyzeStream(requests(), timeout=PATIENCE)
        wait_for(lambda: hosted.engine.in_flight == 0)
        for _ in range(5):
            assert not refused(client)
        replies = list(stream)
    assert sorted(int(reply.id) for reply in replies) == list(range(60))
    refusals = [reply.error for reply in replies if reply.HasField("error")]
    assert {one.code for one in refusals} <= {grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]}


def test_calls_above_the_limit_are_refused(host: Loop, model: Model) -> None:
    with host.serving([model], max_calls=3) as hosted, ExitStack() as stack:
        streams = []
        for _ in range(3):
            channel = stack.enter_context(grpc.insecure_channel(hosted.address))
            streams.append(AnalysisServiceStub(channel).AnalyzeStream(iter(Feed(stack))))
            next(streams[-1])
        with Client(hosted.address, retries=0) as client, pytest.raises(Overloaded):
            client.analyze("Ada")
        stack.close()
        with Client(hosted.address, retries=0) as client:
            wait_for(lambda: not busy(client))


class Feed:
    """A request, and then nothing until the test is over."""

    def __init__(self, stack: ExitStack) -> None:
        self._over = threading.Event()
        stack.callback(self._over.set)

    def __iter__(self) -> Iterator[pb.AnalyzeStreamRequest]:
        yield pb.AnalyzeStreamRequest(request=pb.AnalyzeRequest(documents=[pb.Document(text="A")]))
        self._over.wait(PATIENCE)


def busy(client: Client) -> bool:
    try:
        client.analyze("Ada")
    except Overloaded:
        return True
    return False


def test_a_message_fits_what_a_connection_may_hold() -> None:
    with pytest.raises(ConfigError, match="max_held_bytes: 1000 is less than four times"):
        Settings(limits=Limits(max_message_bytes=251, max_held_bytes=1000))
