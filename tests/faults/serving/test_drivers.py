"""The drivers notice what they are there to notice: servers that lie, drop, swap and hang."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest

from tests.faults.serving import calls
from tests.faults.serving.calls import ANALYZE, ClientPool, channel_to, good_call, raw_call, refused
from tests.faults.serving.fault_fixture import FaultFixture
from tests.faults.serving.fault_report import FaultReport
from tests.faults.serving.frames import wire_to
from tests.faults.serving.inference import Requests
from tests.faults.serving.malformed import many_malformed
from tests.faults.serving.soak import Soaked
from tests.serve.hosting import PATIENCE, Loop
from trunkline import Model
from trunkline.model import load
from trunkline.v1 import analysis_service_pb2 as pb

Forward = Callable[[bytes], bytes]
Lie = Callable[[Forward, bytes, grpc.ServicerContext], bytes]


@pytest.fixture(scope="module")
def model(bundle: Path) -> Model:
    return load(bundle, 1)


@pytest.fixture(scope="module")
def address(host: Loop, model: Model) -> Iterator[str]:
    with host.serving([model]) as hosted:
        yield hosted.address


class Between(grpc.GenericRpcHandler):
    """Passes calls on to a real server, and spoils what comes back."""

    def __init__(self, forward: Forward, lie: Lie) -> None:
        self._forward = forward
        self._lie = lie

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        return grpc.unary_unary_rpc_method_handler(
            lambda request, context: self._lie(self._forward, request, context)
        )


@contextmanager
def lying(address: str, lie: Lie) -> Iterator[str]:
    with channel_to(address) as channel, ThreadPoolExecutor(16) as threads:
        method = channel.unary_unary(ANALYZE)
        server = grpc.server(threads, handlers=[Between(method, lie)])
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            yield f"127.0.0.1:{port}"
        finally:
            server.stop(0).wait()


class Swapped:
    """Answers a call with what belongs to the call before it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last = b""

    def __call__(self, forward: Forward, request: bytes, context: grpc.ServicerContext) -> bytes:
        answer = forward(request)
        with self._lock:
            last, self._last = self._last, answer
        return last or answer


def edited(edit: Callable[[pb.AnalyzeResponse], object]) -> Lie:
    def lie(forward: Forward, request: bytes, context: grpc.ServicerContext) -> bytes:
        response = pb.AnalyzeResponse.FromString(forward(request))
        edit(response)
        return response.SerializeToString()

    return lie


def pool_of(address: str, faults: FaultFixture) -> FaultReport:
    pool = ClientPool(address, faults.oracle, FaultReport("lies"), callers=4, allowed=refused)
    with pool.calling():
        pool.wait(30)
    return pool.report


def test_an_honest_server_passes(address: str, faults: FaultFixture) -> None:
    with lying(address, lambda forward, request, context: forward(request)) as between:
        assert pool_of(between, faults).clean


@pytest.mark.parametrize(
    "lie",
    [
        Swapped(),
        edited(lambda response: response.results.pop()),
        edited(lambda response: response.results.reverse() or response.results.pop()),
        edited(lambda response: setattr(response, "model_version", 2)),
        edited(lambda response: setattr(response, "model_version", 77)),
        edited(lambda response: setattr(response, "model", "other")),
        edited(lambda response: response.results[0].tasks.pop()),
        edited(lambda response: setattr(response.results[0].tasks[1].spans.spans[0], "end", 99)),
        edited(lambda response: setattr(response.results[0].tasks[1].spans.spans[0], "score", 2)),
        lambda forward, request, context: b"",
    ],
    ids=[
        "swapped",
        "one less",
        "turned round",
        "of another version",
        "of an unknown version",
        "of another model",
        "a task less",
        "another offset",
        "another score",
        "empty",
    ],
)
def test_wrong_answers_are_noticed(address: str, faults: FaultFixture, lie: Lie) -> None:
    with lying(address, lie) as between:
        report = pool_of(between, faults)
    assert report.wrong > report.tried // 2
    assert report.complaints


@pytest.mark.parametrize(
    ("code", "lost", "wrong"),
    [
        (grpc.StatusCode.UNAVAILABLE, True, False),
        (grpc.StatusCode.CANCELLED, True, False),
        (grpc.StatusCode.DEADLINE_EXCEEDED, True, False),
        (grpc.StatusCode.INTERNAL, False, True),
        (grpc.StatusCode.UNKNOWN, False, True),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, False, True),
    ],
)
def test_bare_statuses_are_noticed(
    address: str, faults: FaultFixture, code: grpc.StatusCode, lost: bool, wrong: bool
) -> None:
    def lie(forward: Forward, request: bytes, context: grpc.ServicerContext) -> bytes:
        context.abort(code, "Socket closed")
        raise AssertionError

    with lying(address, lie) as between:
        report = pool_of(between, faults)
    assert (bool(report.lost), bool(report.wrong)) == (lost, wrong)


def test_calls_that_hang_are_lost(
    address: str, faults: FaultFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "SECONDS", 0.2)
    done = threading.Event()

    def lie(forward: Forward, request: bytes, context: grpc.ServicerContext) -> bytes:
        done.wait(PATIENCE)
        return forward(request)

    report = FaultReport("hanging")
    with lying(address, lie) as between, channel_to(between) as channel:
        good_call(channel, faults.oracle, report)
        done.set()
    assert (report.lost, report.wrong) == (1, 0)


def test_a_faulty_request_that_is_answered_is_noticed(address: str, faults: FaultFixture) -> None:
    good = faults.oracle.requests[0].SerializeToString()
    with (
        lying(address, lambda forward, request, context: forward(good)) as between,
        channel_to(between) as channel,
    ):
        for data in (b"\xff", b"", pb.AnalyzeRequest(model="none").SerializeToString()):
            report = FaultReport("answered")
            raw_call(channel, data, faults.oracle, report)
            assert (report.wrong, report.lost) == (1, 0)


def test_a_faulty_inference_request_that_is_answered_is_noticed(
    address: str, faults: FaultFixture
) -> None:
    good = faults.oracle.requests[0].SerializeToString()
    report = FaultReport("answered")
    with (
        lying(address, lambda forward, request, context: forward(good)) as between,
        channel_to(between) as channel,
    ):
        many_malformed(channel, Requests(faults.oracle, 1), report, 60)
    assert report.wrong == report.tried == 62


def test_faulty_requests_are_the_same_for_a_seed_and_of_every_fault(faults: FaultFixture) -> None:
    first, again = (Requests(faults.oracle, 4) for _ in range(2))
    made = [first.malformed() for _ in range(1500)]
    assert made == [again.malformed() for _ in range(1500)]
    assert len({one.fault for one in made}) == 35


def test_an_answer_that_is_read_late_is_whole(address: str, faults: FaultFixture) -> None:
    with wire_to(address, 0) as wire:
        wire.greet()
        wire.open(ANALYZE)
        wire.send(faults.oracle.requests[3].SerializeToString())
        threading.Event().wait(0.1)
        assert not wire.received
        body = wire.take()
    response = pb.AnalyzeResponse.FromString(body[5:])
    assert not faults.oracle.complaint(3, response)
    assert faults.oracle.complaint(4, response)


@pytest.mark.parametrize(
    ("samples", "words"),
    [
        ([(at, 200.0, 30) for at in range(100)], []),
        ([(at, 300.0 if at < 10 else 200.0, 30) for at in range(100)], []),
        ([(at, 200.0 + at, 30) for at in range(100)], ["memory"]),
        ([(at, 200.0, 30 + at) for at in range(100)], ["descriptors"]),
    ],
)
def test_growth_is_noticed(samples: list[tuple[float, float, int]], words: list[str]) -> None:
    found = Soaked(samples).complaints()
    assert [line.split()[0] for line in found] == words
