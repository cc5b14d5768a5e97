"""Calls to a server, one or a pool of them, each judged by what the model says."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy as np

from tests.faults.serving.fault_report import FaultReport
from tests.faults.serving.oracle import Oracle, difference
from trunkline.v1 import analysis_service_pb2 as pb
from trunkline.v1.analysis_service_pb2_grpc import AnalysisServiceStub
from trunkline_serve.rpc.status import DOMAIN

Allowed = Callable[[grpc.RpcError], str]
"""(error) to what it is counted as under a fault, such as `refused`; empty if it is not allowed."""

OPTIONS = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.use_local_subchannel_pool", 1),  # a connection for each channel
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
]
ANALYZE = "/trunkline.v1.AnalysisService/Analyze"
SECONDS = 60.0  # that a call may take; one without an answer by then is lost
_PAUSE = 0.02  # seconds, after a call that failed


def none(error: grpc.RpcError) -> str:
    """Allows no error."""
    return ""


def code_of(error: grpc.RpcError) -> grpc.StatusCode:
    """Returns an error's status code."""
    assert isinstance(error, grpc.Call)
    return error.code()


def words_of(error: grpc.RpcError) -> str:
    """Returns an error's code and message."""
    assert isinstance(error, grpc.Call)
    return f"{error.code().name}: {error.details()}"


def refused(error: grpc.RpcError) -> str:
    """Allows a server that says it is going, and one that cannot be reached.

    A connection that breaks under a call is not allowed: the call may have been accepted.
    """
    if code_of(error) is not grpc.StatusCode.UNAVAILABLE:
        return ""
    if is_ours(error):
        return "refused"
    return "unreachable" if "failed to connect" in words_of(error).lower() else ""


def cut(error: grpc.RpcError) -> str:
    """Allows every UNAVAILABLE: where a process ends, its calls end with it."""
    if code_of(error) is not grpc.StatusCode.UNAVAILABLE:
        return ""
    return refused(error) or "cut off"


def is_ours(error: grpc.RpcError) -> bool:
    """Tells if a status was sent by the server, not made up by the client's own library."""
    assert isinstance(error, grpc.Call)
    trailers = error.trailing_metadata() or ()
    return any(
        key == "grpc-status-details-bin" and DOMAIN.encode() in value for key, value in trailers
    )


def judge_error(error: grpc.RpcError, report: FaultReport, allowed: Allowed = none) -> None:
    """Counts a call that failed: what broke off or took too long is lost, the rest wrong."""
    kind = allowed(error)
    if kind:
        report.survive(kind)
    elif is_ours(error):
        report.fail(words_of(error))
    elif code_of(error) in _LOST:
        report.lose(words_of(error))
    else:
        report.fail(words_of(error))


_LOST = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED,
}


@contextmanager
def channel_to(address: str) -> Iterator[grpc.Channel]:
    """Opens a connection of its own."""
    with grpc.insecure_channel(address, options=OPTIONS) as channel:
        yield channel


def good_call(channel: grpc.Channel, oracle: Oracle, report: FaultReport, index: int = 0) -> None:
    """Makes one call that must be answered, and judges the answer."""
    stub: Any = AnalysisServiceStub(channel)
    index %= len(oracle.requests)
    try:
        response = stub.Analyze(oracle.requests[index], timeout=SECONDS, wait_for_ready=True)
    except grpc.RpcError as error:
        judge_error(error, report)
        return
    report.check(oracle.complaint(index, response))


def raw_call(
    channel: grpc.Channel,
    data: bytes,
    oracle: Oracle,
    report: FaultReport,
    *,
    versions: Sequence[int] = (),
    seconds: float = SECONDS,
) -> None:
    """Sends any bytes to Analyze; the model itself decides what must come back.

    Args:
        channel: To the server.
        data: Of the request, if they are one.
        oracle: Decides.
        report: Counts the outcome.
        versions: Those of which one is served; the oldest by default.
        seconds: That the call may take.
    """
    read = pb.AnalyzeResponse.FromString
    method: Any = channel.unary_unary(ANALYZE, response_deserializer=read)
    verdicts = [oracle.verdict(data, version) for version in versions or oracle.versions[:1]]
    try:
        response = method(data, timeout=seconds)
    except grpc.RpcError as error:
        if is_ours(error) and code_of(error) in verdicts:
            report.survive()
        else:
            judge_error(error, report)
        return
    answers = [one for one in verdicts if not isinstance(one, grpc.StatusCode)]
    complaints = [difference(one, response.results) for one in answers]
    if not answers:
        report.fail(f"answered what should be {verdicts[0]}: {data[:60]!r}")
    else:
        report.check("" if "" in complaints else complaints[0])


@dataclass
class ClientPool:
    """Callers that call again and again, each on a thread; half of them share a connection.

    Attributes:
        address: The server.
        oracle: Measures the answers.
        report: Counts them.
        callers: How many.
        allowed: What errors the fault may cause.
        slowest: Seconds of the slowest call, whatever became of it.
        answered: Calls that got an answer, right or wrong.
        versions: Versions that answered.
    """

    address: str
    oracle: Oracle
    report: FaultReport
    callers: int = 8
    allowed: Allowed = none
    slowest: float = 0.0
    answered: int = 0
    versions: set[int] = field(default_factory=set)
    _stop: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def calling(self) -> Iterator[ClientPool]:
        """Has them call while the block runs, and waits for the last answers."""
        with channel_to(self.address) as shared, _many(self.address, self.callers // 2) as own:
            channels = [*own, *[shared] * (self.callers - len(own))]
            threads = [
                threading.Thread(target=self._call, args=(channel, seed))
                for seed, channel in enumerate(channels)
            ]
            for thread in threads:
                thread.start()
            try:
                yield self
            finally:
                self._stop.set()
                for thread in threads:
                    thread.join()

    def wait(self, calls: int) -> None:
        """Waits until so many more calls have an outcome.

        Raises:
            TimeoutError: There were not, in a minute.
        """
        target = self.report.tried + calls
        self._wait(lambda: self.report.tried >= target)

    def recover(self, answers: int) -> None:
        """Waits until so many more calls were answered.

        Raises:
            TimeoutError: They were not, in a minute.
        """
        target = self.answered + answers
        self._wait(lambda: self.answered >= target)

    def _wait(self, condition: Callable[[], bool]) -> None:
        end = time.monotonic() + SECONDS
        while not condition():
            if time.monotonic() > end:
                raise TimeoutError(f"{self.report.fault}: too few calls in {SECONDS:.0f} s")
            time.sleep(0.005)

    def _call(self, channel: grpc.Channel, seed: int) -> None:
        stub: Any = AnalysisServiceStub(channel)
        random = np.random.default_rng(seed)
        while not self._stop.is_set():
            index = int(random.integers(len(self.oracle.requests)))
            begin = time.monotonic()
            try:
                response = stub.Analyze(self.oracle.requests[index], timeout=SECONDS)
            except grpc.RpcError as error:
                judge_error(error, self.report, self.allowed)
                self._stop.wait(_PAUSE)
            else:
                with self._lock:
                    self.answered += 1
                self.versions.add(response.model_version)
                self.report.check(self.oracle.complaint(index, response))
            self.slowest = max(self.slowest, time.monotonic() - begin)


@contextmanager
def _many(address: str, count: int) -> Iterator[list[grpc.Channel]]:
    channels = [grpc.insecure_channel(address, options=OPTIONS) for _ in range(count)]
    try:
        yield channels
    finally:
        for channel in channels:
            channel.close()
