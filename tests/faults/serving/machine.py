"""Faults of the machine: its clock, its disk, its descriptors."""

from __future__ import annotations

import contextlib
import itertools
import re
import resource
import socket
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import grpc

from benchmarks.family import descriptors as open_descriptors
from tests.faults.serving.calls import ClientPool, channel_to, code_of, good_call, judge_error, none
from tests.faults.serving.fault_fixture import FaultFixture
from tests.faults.serving.fault_report import FaultReport
from trunkline.v1 import analysis_service_pb2 as pb
from trunkline.v1.analysis_service_pb2_grpc import AnalysisServiceStub
from trunkline_serve.launch import Launched

_CALLS = 200
_FULL = Path("/dev/full")
_SMALL = 2048  # bytes, the largest file that a server with a full disk may write
_SPARE = 6  # descriptors left to a server that runs out
_STAMP = re.compile(r"^(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)", re.MULTILINE)


def clock_jumps(fixture: FaultFixture) -> FaultReport:
    """Has the wall clock jump by a day at every look: deadlines go by a clock that does not."""
    report = FaultReport("clock jumps")
    jumping = "tests.faults.serving.jumping_clock"
    with fixture.serving("--log-calls", module=jumping) as server:
        pool = ClientPool(server.address, fixture.oracle, report, callers=4)
        with pool.calling(), channel_to(server.address) as channel:
            for _ in range(fixture.times(20)):
                pool.wait(_CALLS // 20)
                _expire(channel, fixture, report)
        report.notes["hours between log lines at most"] = jumped = _hours(server.log)
        report.check("" if jumped > 1 else "the clock did not jump")
    return report


def _expire(channel: grpc.Channel, fixture: FaultFixture, report: FaultReport) -> None:
    """Makes a call that cannot be done in time, which must be told neither late nor as else."""
    stub: Any = AnalysisServiceStub(channel)
    documents = [document for one in fixture.oracle.requests for document in one.documents]
    request = pb.AnalyzeRequest(model=fixture.oracle.name, documents=documents)
    begin = time.monotonic()
    try:
        stub.Analyze(request, timeout=0.002)
        report.survive("answered in 2 ms")
    except grpc.RpcError as error:
        quick = time.monotonic() - begin < 1
        judge_error(error, report, _expired if quick else none)


def _expired(error: grpc.RpcError) -> str:
    late = (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.RESOURCE_EXHAUSTED)
    return "expired" if code_of(error) in late else ""


def _hours(log: Path) -> int:
    """Returns the most hours between two neighbouring lines of a log."""
    stamps = _STAMP.findall(log.read_text(encoding="utf-8"))
    times = [datetime.fromisoformat(stamp) for stamp in stamps]
    gaps = [abs(b - a).total_seconds() for a, b in itertools.pairwise(times)]
    return int(max(gaps, default=0) / 3600)


def full_disk(fixture: FaultFixture) -> FaultReport:
    """Lets no line of the log be written, from the start or from some size on."""
    report = FaultReport("disk full for logs")
    if _FULL.exists():
        with fixture.serving("--log-calls", log=_FULL) as server:
            _answers_on(server, fixture, report)
    with fixture.serving("--log-calls") as server:
        limits = (_SMALL, resource.RLIM_INFINITY)
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, limits)
        _answers_on(server, fixture, report)
        written = server.log.stat().st_size
        report.check(
            f"{written} bytes of log, so the disk was not full" if written > _SMALL else ""
        )
    return report


def _answers_on(server: Launched, fixture: FaultFixture, report: FaultReport) -> None:
    pool = ClientPool(server.address, fixture.oracle, report, callers=4)
    with pool.calling():
        pool.wait(_CALLS)
    status = server.process.poll()
    report.check("" if status is None else f"the server ended with {status}")


def descriptors(fixture: FaultFixture) -> FaultReport:
    """Takes all descriptors of a server: who is connected goes on, others get in afterwards."""
    report = FaultReport("descriptor exhaustion")
    with fixture.serving() as server:
        pool = ClientPool(server.address, fixture.oracle, report, callers=4)
        with pool.calling(), contextlib.ExitStack() as stack:
            pool.wait(_CALLS)
            few = open_descriptors(server.process) + _SPARE
            _, most = resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE)
            resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (few, most))
            for _ in range(fixture.times(100) + 4 * _SPARE):
                stack.enter_context(_connection(server))
            pool.wait(_CALLS)
            taken = few - open_descriptors(server.process)
            report.check(f"{taken} descriptors were still free" if taken > 0 else "")
        with channel_to(server.address) as channel:
            good_call(channel, fixture.oracle, report)
    return report


def _connection(server: Launched) -> socket.socket:
    host, _, port = server.address.rpartition(":")
    return socket.create_connection((host, int(port)), 10)
