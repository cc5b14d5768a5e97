"""A real supervisor with its processes, and callers that never stop calling."""

import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import psutil
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.serve.hosting import PATIENCE, wait_for
from trunkline import Document, DocumentResult
from trunkline.v1.analysis_service_pb2_grpc import AnalysisServiceStub
from trunkline_serve.launch import Launched, serving
from trunkline_serve.rpc.requests import request_to_pb, results_from_pb

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class Family:
    """A supervisor and its children."""

    def __init__(self, server: Launched) -> None:
        self.supervisor = server.process
        self.address = server.address
        self.await_log = server.await_log
        self.port = int(server.address.rpartition(":")[2])
        self._parent = psutil.Process(server.process.pid)

    @property
    def children(self) -> list[psutil.Process]:
        return self._parent.children()

    def role(self, name: str) -> list[psutil.Process]:
        """Returns the children of a role, `engine` or `front`."""
        found = []
        for child in self.children:
            try:
                line = child.cmdline()
            except psutil.Error:  # it has just died
                continue
            if "trunkline_serve.fronts" in line and name in line:
                found.append(child)
        return found

    def wait_until_whole(self, fronts: int = 2) -> None:
        """Returns when all processes live and the service answers."""
        wait_for(lambda: len(self.role("front")) == fronts and len(self.role("engine")) == 1)
        wait_for(lambda: all(self._health() == SERVING for _ in range(8)))

    def _health(self) -> int:
        with own_channel(self.address) as channel:
            try:
                status: int = (
                    health_pb2_grpc.HealthStub(channel)
                    .Check(health_pb2.HealthCheckRequest(), timeout=PATIENCE)
                    .status
                )
            except grpc.RpcError:
                return NOT_SERVING
        return status


def own_channel(address: str) -> grpc.Channel:
    """Returns a channel with a connection of its own: gRPC shares them as a rule."""
    return grpc.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)])


@contextmanager
def family(bundle: Path, *flags: str | Path, fronts: int = 2) -> Iterator[Family]:
    """Runs `trunkline serve` with several fronts; interrupts it if the test has not ended it."""
    with serving([bundle], "--threads", 1, "--fronts", fronts, *flags) as server:
        yield Family(server)
        if server.process.poll() is None:
            assert server.end(signal.SIGINT) == 0


class Caller(threading.Thread):
    """Asks again and again over a connection of its own, and keeps count of what it gets."""

    def __init__(self, address: str, document: Document, wanted: DocumentResult) -> None:
        super().__init__()
        self._address = address
        self._document = document
        self._wanted = wanted
        self._ended = threading.Event()
        self.outcomes: Counter[str] = Counter()
        self.slowest = 0.0

    def run(self) -> None:
        request = request_to_pb([self._document], "", 0)
        with own_channel(self._address) as channel:
            stub: Any = AnalysisServiceStub(channel)
            while not self._ended.is_set():
                begin = time.monotonic()
                self.outcomes[self._call(stub, request)] += 1
                self.slowest = max(self.slowest, time.monotonic() - begin)

    def end(self) -> None:
        self._ended.set()
        self.join(PATIENCE)

    def _call(self, stub: Any, request: Any) -> str:
        try:
            response = stub.Analyze(request, timeout=PATIENCE)
        except grpc.RpcError as error:
            assert isinstance(error, grpc.Call)
            time.sleep(0.01)  # as a client that tries again would, and more patiently
            return f"{error.code().name}: {error.details()}"
        (result,) = results_from_pb(response, [self._document])
        return "right" if result == self._wanted else "WRONG"


@contextmanager
def calling(
    address: str, asked: Sequence[tuple[Document, DocumentResult]]
) -> Iterator[list[Caller]]:
    """Runs a caller for each document and its right answer."""
    callers = [Caller(address, *one) for one in asked]
    for caller in callers:
        caller.start()
    try:
        wait_for(lambda: all(caller.outcomes["right"] for caller in callers))
        yield callers
    finally:
        for caller in callers:
            caller.end()


def total(callers: Sequence[Caller]) -> Counter[str]:
    """Returns what all callers got."""
    return sum((caller.outcomes for caller in callers), Counter())
