"""Clients that do not behave: that do not read, do not finish, or are suddenly gone."""

from __future__ import annotations

import contextlib
import itertools
import signal
import time
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np

from benchmarks.family import resident
from tests.faults.serving.calls import (
    ANALYZE,
    SECONDS,
    ClientPool,
    channel_to,
    good_call,
    judge_error,
)
from tests.faults.serving.fault_fixture import FaultFixture
from tests.faults.serving.fault_report import FaultReport
from tests.faults.serving.frames import PREFACE, Wire, framed, unframed, wire_to
from tests.faults.serving.oracle import Oracle
from trunkline.v1 import analysis_service_pb2 as pb
from trunkline.v1.analysis_service_pb2_grpc import AnalysisServiceStub
from trunkline_serve.launch import Launched

STREAM = "/trunkline.v1.AnalysisService/AnalyzeStream"
WATCH = "/grpc.health.v1.Health/Watch"
WINDOWS = (65_535, 0)
"""Bytes of replies that clients let come: what is usual, and nothing at all."""
_CALLS = 100
_MOST_GROWTH = 64.0  # MiB of the server while a client does not read
_MOST_SECONDS = 10.0  # to exit, of which a drain may take half
_MIB = 2**20
_PERMITS = 64  # documents that a server has room for, to see that none is kept


def slow_readers(fixture: FaultFixture) -> FaultReport:
    """Has clients not read what they asked for, while others go on; at last they read it all."""
    report = FaultReport("slow readers")
    with fixture.serving() as server, contextlib.ExitStack() as stack:
        pool = ClientPool(server.address, fixture.oracle, report, callers=4)
        with pool.calling():
            pool.wait(_CALLS)
            before = resident(server.process)
            wires = [stack.enter_context(wire_to(server.address, 0)) for _ in range(8)]
            asked = [ask_without_reading(wire, fixture.oracle, at) for at, wire in enumerate(wires)]
            streams = [stack.enter_context(_unread(server, fixture)) for _ in range(2)]
            pool.wait(3 * _CALLS)
            grown = (resident(server.process) - before) / _MIB
            for wire, indices in zip(wires, asked, strict=True):
                read_at_last(wire, indices, fixture.oracle, report)
            for stream in streams:
                _read_stream(stream, fixture.oracle, report)
    report.notes["MiB more"] = round(grown, 1)
    report.check(f"{grown:.0f} MiB more for slow readers" if grown > _MOST_GROWTH else "")
    return report


def ask_without_reading(wire: Wire, oracle: Oracle, at: int) -> list[int]:
    """Makes a call on a wire, which must have no window; returns the index of the request."""
    index = at % len(oracle.requests)
    wire.greet()
    wire.open(ANALYZE)
    wire.send(oracle.requests[index].SerializeToString())
    return [index]


def read_at_last(wire: Wire, indices: list[int], oracle: Oracle, report: FaultReport) -> None:
    """Reads the answers to requests on a wire, and judges them."""
    try:
        answers = unframed(wire.take())
    except OSError as error:
        report.lose(f"a reply that was read late: {error}")
        return
    if len(answers) != len(indices):
        report.lose(f"{len(answers)} replies that were read late, not {len(indices)}")
    for index, answer in zip(indices, answers, strict=False):
        report.check(oracle.complaint(index, pb.AnalyzeResponse.FromString(answer)))


@contextlib.contextmanager
def _unread(server: Launched, fixture: FaultFixture) -> Iterator[Any]:
    """Opens a stream of many requests whose replies nobody reads yet."""
    with channel_to(server.address) as channel:
        stub: Any = AnalysisServiceStub(channel)
        yield stub.AnalyzeStream(
            _requests(fixture.oracle, fixture.times(2000)), timeout=2 * SECONDS
        )


def _requests(oracle: Oracle, count: int) -> Iterator[pb.AnalyzeStreamRequest]:
    indices = itertools.islice(itertools.cycle(range(len(oracle.requests))), count)
    for number, index in enumerate(indices):
        yield pb.AnalyzeStreamRequest(id=f"{number}:{index}", request=oracle.requests[index])


def _read_stream(stream: Any, oracle: Oracle, report: FaultReport) -> None:
    seen = set()
    try:
        for reply in stream:
            seen.add(reply.id)
            if reply.HasField("response"):
                report.check(oracle.complaint(int(reply.id.partition(":")[2]), reply.response))
            else:
                report.fail(f"stream: {reply.error.message}")
    except grpc.RpcError as error:
        judge_error(error, report)
    if not seen:
        report.lose("a stream that was read late had no reply")


def half_open(fixture: FaultFixture) -> FaultReport:
    """Leaves connections at every stage of a call; others go on, and the server can still end."""
    report = FaultReport("half-open connections")
    with fixture.serving("--drain-seconds", 5) as server, contextlib.ExitStack() as stack:
        pool = ClientPool(server.address, fixture.oracle, report, callers=4)
        with pool.calling():
            for at in range(2 * fixture.times(50)):
                wire = stack.enter_context(wire_to(server.address, WINDOWS[at % 2]))
                STAGES[at // 2 % len(STAGES)](wire, fixture.oracle)
            pool.wait(2 * _CALLS)
        begin = time.monotonic()
        status = server.end(signal.SIGTERM)
        seconds = time.monotonic() - begin
        report.notes["s to exit"] = round(seconds, 2)
        report.check(f"exit status {status}, with connections half open" if status else "")
        report.check(f"{seconds:.1f} s to exit" if seconds > _MOST_SECONDS else "")
    return report


def _silent(wire: Wire, oracle: Oracle) -> None:
    """Says nothing."""


def _half_preface(wire: Wire, oracle: Oracle) -> None:
    wire.socket.sendall(PREFACE[: len(PREFACE) // 2])


def _only_preface(wire: Wire, oracle: Oracle) -> None:
    wire.greet()


def _only_headers(wire: Wire, oracle: Oracle) -> None:
    wire.greet()
    wire.open(ANALYZE)


def _half_request(wire: Wire, oracle: Oracle) -> None:
    wire.greet()
    wire.open(ANALYZE)
    data = framed(oracle.requests[0].SerializeToString())
    wire.send_bytes(data[: len(data) // 2], last=False)


def _open_stream(wire: Wire, oracle: Oracle) -> None:
    wire.greet()
    wire.open(STREAM)
    request = pb.AnalyzeStreamRequest(id="1", request=oracle.requests[0])
    wire.send(request.SerializeToString(), last=False)


def _whole_request(wire: Wire, oracle: Oracle) -> None:
    wire.greet()
    wire.open(ANALYZE)
    wire.send(oracle.requests[0].SerializeToString())


def _watch(wire: Wire, oracle: Oracle) -> None:
    wire.greet()
    wire.open(WATCH)
    wire.send(b"")


STAGES = (
    _silent,
    _half_preface,
    _only_preface,
    _only_headers,
    _half_request,
    _whole_request,
    _open_stream,
    _watch,
)
"""(wire, oracle) goes so far into a call, and reads nothing of it."""


def vanishing(fixture: FaultFixture) -> FaultReport:
    """Breaks connections off while their calls are at work; no permit of theirs is kept."""
    report = FaultReport("clients that vanish")
    limits = ("--max-in-flight", _PERMITS, "--max-documents", _PERMITS)
    with fixture.serving(*limits) as server, channel_to(server.address) as channel:
        pool = ClientPool(server.address, fixture.oracle, report, callers=4, allowed=_full)
        random = np.random.default_rng(1)
        with pool.calling():
            for at in range(fixture.times(400)):
                vanish(server, fixture.oracle, at, random)
            pool.wait(_CALLS)
        _check_room(channel, fixture.oracle, report)
        good_call(channel, fixture.oracle, report)
    return report


def vanish(server: Launched, oracle: Oracle, at: int, random: np.random.Generator) -> None:
    """Sends a call, one request or several on a stream, and is gone somewhere in the middle."""
    with wire_to(server.address, WINDOWS[at // 4 % 2]) as wire:
        wire.greet()
        wire.open(STREAM if at % 2 else ANALYZE)
        request = oracle.requests[at % len(oracle.requests)]
        streamed = pb.AnalyzeStreamRequest(id=str(at), request=request)
        data = framed((streamed if at % 2 else request).SerializeToString()) * (1 + 3 * (at % 2))
        end = int(random.integers(1, len(data) + 1)) if at % 4 > 1 else len(data)
        wire.send_bytes(data[:end], last=not at % 2)
        time.sleep(float(random.uniform(0, 0.004)))
        wire.vanish()


def _full(error: grpc.RpcError) -> str:
    assert isinstance(error, grpc.Call)
    full = error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    return "refused, full" if full else ""


def _check_room(channel: grpc.Channel, oracle: Oracle, report: FaultReport) -> None:
    """Asks for as much as there is room for: a permit that was kept would be missing."""
    stub: Any = AnalysisServiceStub(channel)
    documents = [oracle.requests[0].documents[0]] * _PERMITS
    request = pb.AnalyzeRequest(model=oracle.name, documents=documents)
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:  # the last of the vanished may still be at work
        try:
            response = stub.Analyze(request, timeout=SECONDS)
        except grpc.RpcError as error:
            if not _full(error):
                judge_error(error, report)
                return
            time.sleep(0.02)
        else:
            report.check("" if len(response.results) == _PERMITS else "too few results")
            return
    report.fail("permits of vanished clients are kept")
