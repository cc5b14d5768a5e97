"""The load generator counts right: closed and open loops, refusals, errors, deadlines."""

import asyncio
import os
import pickle
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread

import grpc
import pytest

from benchmarks.serving.load import (
    Closed,
    Generators,
    Latencies,
    Loop,
    Open,
    Order,
    Report,
    generate,
    set_apart,
)
from benchmarks.serving.processes import free_port
from benchmarks.serving.targets import GrpcTarget, HttpTarget, Target
from trunkline.errors import RuntimeFault


class Watched:
    """A gRPC server that counts, and whose methods do what their names say."""

    def __init__(self, workers: int, seconds: float) -> None:
        self._seconds = seconds
        self._lock = Lock()
        self._running = 0
        self.most = 0
        self.got: Counter[bytes] = Counter()
        self._server = grpc.server(ThreadPoolExecutor(workers))
        methods = {"Answer": self._answer, "Refuse": _refuse, "Break": _break}
        handlers = {
            name: grpc.unary_unary_rpc_method_handler(method) for name, method in methods.items()
        }
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("watched.Watched", handlers),)
        )
        self._port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()

    def target(self, method: str = "Answer") -> GrpcTarget:
        return GrpcTarget(f"127.0.0.1:{self._port}", f"/watched.Watched/{method}")

    def stop(self) -> None:
        self._server.stop(None).wait()

    def _answer(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        with self._lock:
            self.got[request] += 1
            self._running += 1
            self.most = max(self.most, self._running)
        time.sleep(self._seconds)
        with self._lock:
            self._running -= 1
        return request


def _refuse(request: bytes, context: grpc.ServicerContext) -> bytes:
    context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "no room")
    raise AssertionError


def _break(request: bytes, context: grpc.ServicerContext) -> bytes:
    context.abort(grpc.StatusCode.INTERNAL, "broken")
    raise AssertionError


@contextmanager
def watched(workers: int = 8, seconds: float = 0.005) -> Iterator[Watched]:
    server = Watched(workers, seconds)
    try:
        yield server
    finally:
        server.stop()


def order(target: Target, loop: Loop, seconds: float = 0.5, **more: float) -> Order:
    return Order(target, (b"a", b"bb"), (1, 2), loop, seconds, warm_seconds=0.1, **more)


def run(one: Order) -> Report:
    return asyncio.run(generate(one))


def test_calls_are_counted_by_group_and_in_documents() -> None:
    with watched() as server:
        one = replace(order(server.target(), Closed(2)), documents=3, groups=(7, 9))
        report = run(one)
    assert set(report.groups) == {7, 9}
    assert sum(map(len, report.groups.values())) == report.answered
    assert report.documents_per_second == 3 * report.answered / 0.5
    assert report.all_answered == sum(server.got.values()) > report.answered
    assert report.all_tokens == server.got[b"a"] + 2 * server.got[b"bb"]


def test_a_closed_loop_has_its_number_of_callers_and_sends_all_requests_in_turn() -> None:
    with watched() as server:
        report = run(order(server.target(), Closed(3)))
        assert server.most == 3
    assert abs(server.got[b"a"] - server.got[b"bb"]) <= 1
    # Three callers, some 5 ms a call; a busy machine only makes it fewer.
    assert 3 <= report.answered <= 320
    assert len(report.accepted) == report.answered < sum(server.got.values())
    assert report.tokens == pytest.approx(1.5 * report.answered, abs=2)
    assert report.documents_per_second == report.answered / 0.5
    assert (report.accepted.at(50) or 0) >= 0.005
    assert not report.errors
    assert not len(report.refusals)


def test_an_open_loop_keeps_its_rate_and_a_slow_server_cannot_hide() -> None:
    with watched(workers=1, seconds=0.05) as server:
        report = run(order(server.target(), Open(rate=60, seed=3), seconds=1.0))
    # One at a time takes 50 ms, so of 60 calls the last waits two seconds for those before.
    assert report.answered == pytest.approx(60, abs=25)
    assert (report.accepted.at(99) or 0) > 0.5
    assert (report.late.at(50) or 0) < 0.5


def test_what_is_not_answered_in_time_counts_as_accepted_and_not_as_answered() -> None:
    with watched(workers=1, seconds=0.05) as server:
        report = run(order(server.target(), Open(rate=60), seconds=1.0, deadline=0.2))
    assert report.expired > 0
    assert len(report.accepted) == report.answered + report.expired
    assert (report.accepted.at(99) or 0) >= 0.2


@pytest.mark.parametrize(
    ("method", "errors"), [("Refuse", {}), ("Break", {"INTERNAL": 1}), ("No", {"UNIMPLEMENTED": 1})]
)
def test_refusals_and_errors_are_counted_apart(method: str, errors: dict[str, int]) -> None:
    with watched() as server:
        report = run(order(server.target(method), Open(rate=50)))
    assert report.answered == report.tokens == 0
    assert set(report.errors) == set(errors)
    assert bool(len(report.refusals)) is not bool(errors)


def test_processes_share_an_order_and_work_at_the_same_time() -> None:
    with watched() as server, Generators(2) as generators:
        whole, aside = generators.run(
            order(server.target(), Closed(4)), order(server.target("Refuse"), Open(rate=40))
        )
        assert server.most == 4
    assert whole.answered == len(whole.accepted) > 4
    assert len(aside.refusals) > 0
    assert whole.cpu_seconds > 0


def test_generators_stay_on_the_cpus_that_are_set_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    last = max(os.sched_getaffinity(0))
    with Generators(1, [last]) as generators:
        assert generators._pool.submit(os.sched_getaffinity, 0).result() == {last}
    left: list[tuple[int, list[int]]] = []
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 2, 3})
    monkeypatch.setattr(os, "sched_setaffinity", lambda *given: left.append(given))
    assert set_apart(0) == frozenset()
    assert set_apart(1) == {3}
    assert left == [(0, [0, 2])]
    for count in (3, -1):
        with pytest.raises(RuntimeFault, match="of 3"):
            set_apart(count)


def test_a_generator_that_is_the_limit_says_so() -> None:
    assert not Report(1.0, cpu_seconds=0.5, wall_seconds=1.0).saturated
    assert Report(1.0, cpu_seconds=0.9, wall_seconds=1.0).saturated
    slow = Report(1.0, cpu_seconds=0.1, wall_seconds=1.0)
    slow.lag.record(0.2)
    assert slow.saturated
    behind = Report(1.0, cpu_seconds=0.1, wall_seconds=1.0)
    behind.late.record(0.2)
    assert behind.saturated


class _Http(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(int(self.path[1:]))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *given: object) -> None:
        pass


def test_http_servers_refuse_by_their_own_codes() -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Http) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        found = {
            code: run(order(HttpTarget(f"http://127.0.0.1:{server.server_port}/{code}"), Closed(2)))
            for code in (200, 429, 503, 500)
        }
        server.shutdown()
    assert found[200].answered > 0
    assert len(found[429].refusals) > 0
    assert len(found[503].refusals) > 0
    assert set(found[500].errors) == {"HTTP 500"}


def test_a_server_that_is_gone_is_an_error() -> None:
    port = free_port()
    gone = [GrpcTarget(f"127.0.0.1:{port}", "/a.B/C"), HttpTarget(f"http://127.0.0.1:{port}/")]
    reports = [run(order(target, Open(rate=30), seconds=0.3)) for target in gone]
    assert [set(report.errors) for report in reports] == [
        {"UNAVAILABLE"},
        {"ClientConnectorError"},
    ]


def test_latencies_keep_three_digits_and_travel() -> None:
    times = Latencies()
    assert times.at(50) is None
    for number in range(1, 101):
        times.record(number / 1000)
    travelled = pickle.loads(pickle.dumps(times))
    travelled.add(times)
    assert len(travelled) == 200
    assert travelled.at(50) == pytest.approx(0.05, rel=2e-3)
    assert travelled.ms(99) == pytest.approx(99, rel=2e-3)
    assert travelled.mean_ms() == pytest.approx(50.5, rel=2e-3)
    assert travelled.tail_ms(99) == travelled.ms(99)
    assert travelled.tail_ms(99.9) is None
    assert times.tail_ms(99) == times.ms(99)
