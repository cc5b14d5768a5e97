"""What takes turns: the graph in this process, and servers, Trunkline's and its peers'."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any, Protocol

from benchmarks.serving.generators import Generators
from benchmarks.serving.load import Closed, Loop, Order, Report
from benchmarks.serving.peers.options import Options, Setting
from benchmarks.serving.peers.registry import Body, Peer
from benchmarks.serving.peers.work import to_json
from benchmarks.serving.processes import Server, ServerError, free_port, replies, started
from benchmarks.serving.targets import GrpcTarget
from benchmarks.serving.traffic import Traffic
from trunkline import Model
from trunkline.kinds import Output
from trunkline.v1 import analysis_service_pb2 as pb
from trunkline_serve.rpc.requests import request_to_pb, results_from_pb

ANALYZE = "/trunkline.v1.AnalysisService/Analyze"
_TOGETHER = 64  # documents of one call in process
_ASKED = 32  # documents whose answers are compared
_SAME_ANSWERS = 0.9  # share of them that must be the same: less is other work


@dataclass(frozen=True)
class Turn:
    """One turn of one side. Latencies are in ms, and None in process.

    Attributes:
        tokens_per_second: Real tokens answered.
        documents_per_second: Documents answered.
        p50_ms, p99_ms: Latencies.
        refused: Number of calls refused.
        errors: Number of calls failed or expired, by code.
        server_cpu_seconds: CPU time of the server, warm-up included.
        generator_cpu_seconds: CPU time of the load generator, warm-up included.
        generator_lag_ms: How late its event loop woke up, 99th percentile.
        generator_saturated: Whether it may have been the limit.
    """

    tokens_per_second: float
    documents_per_second: float
    p50_ms: float | None = None
    p99_ms: float | None = None
    refused: int = 0
    errors: Mapping[str, int] | None = None
    server_cpu_seconds: float | None = None
    generator_cpu_seconds: float | None = None
    generator_lag_ms: float | None = None
    generator_saturated: bool = False

    @classmethod
    def of(cls, report: Report, server_cpu_seconds: float) -> Turn:
        """Returns what a load generator reports."""
        expired = {"EXPIRED": report.expired} if report.expired else {}
        return cls(
            tokens_per_second=report.tokens_per_second,
            documents_per_second=report.documents_per_second,
            p50_ms=report.accepted.ms(50),
            p99_ms=report.accepted.ms(99),
            refused=len(report.refusals),
            errors=dict(report.errors) | expired,
            server_cpu_seconds=round(server_cpu_seconds, 3),
            generator_cpu_seconds=round(report.cpu_seconds, 3),
            generator_lag_ms=report.lag.ms(99),
            generator_saturated=report.saturated,
        )


class Side(Protocol):
    """One of those that take turns."""

    name: str

    def turn(self, seconds: float) -> Turn:
        """Works for some seconds."""
        ...


class InProcess:
    """A graph called in this process, on traffic that is rows already: what a server can reach."""

    def __init__(self, model: Model, traffic: Traffic) -> None:
        self.name = in_process_name(model.graph.name)
        self._runner = model.pipeline.runner
        groups = [
            traffic.prepared[at : at + _TOGETHER]
            for at in range(0, len(traffic.prepared), _TOGETHER)
        ]
        self._batches = [
            ([row for one in group for row in one.rows], _outputs(group)) for group in groups
        ]
        self._counts = [len(group) for group in groups]

    def turn(self, seconds: float) -> Turn:
        """Runs batch after batch, after one that does not count."""
        self._runner.run(*self._batches[-1])
        tokens = documents = 0
        begin = time.perf_counter()
        for (rows, outputs), count in cycle(zip(self._batches, self._counts, strict=True)):
            self._runner.run(rows, outputs)
            tokens += sum(map(len, rows))
            documents += count
            if (taken := time.perf_counter() - begin) >= seconds:
                break
        return Turn(tokens / taken, documents / taken)


def _outputs(group: Sequence[Any]) -> list[Output]:
    return list(dict.fromkeys(output for one in group for output in one.outputs))


def in_process_name(graph: str) -> str:
    """Returns the name of a graph's side in this process."""
    return f"in process {graph}"


def served_name(graph: str) -> str:
    """Returns the name of Trunkline's server with a graph."""
    return f"trunkline {graph}"


@dataclass(frozen=True)
class Bench:
    """What all turns share.

    Attributes:
        bundle: The bundle.
        traffic: What is asked.
        expected: Results of its first documents by the padded graph in this process.
        generators: Make the load.
        concurrency: Callers of the closed loop.
        threads: Of every server and of the model in this process.
        logs: Folder for what servers print.
    """

    bundle: Path
    traffic: Traffic
    expected: Sequence[Body]
    generators: Generators
    concurrency: int
    threads: int
    logs: Path


class Served:
    """A server under load.

    Attributes:
        name: What it is called in results.
        server: Its processes.
    """

    def __init__(self, bench: Bench, server: Server, requests: Sequence[bytes]) -> None:
        self.name = server.name
        self.server = server
        self._bench = bench
        self._requests = tuple(requests)
        self._tokens = bench.traffic.tokens

    def turn(self, seconds: float) -> Turn:
        """Puts the server under the load of the closed loop."""
        with self.server.turn():
            before = self.server.cpu_seconds()
            (report,) = self._bench.generators.run(self.order(self.loop(), seconds))
            return Turn.of(report, self.server.cpu_seconds() - before)

    def loop(self) -> Loop:
        """Returns the closed loop of the run."""
        return Closed(self._bench.concurrency)

    def order(self, loop: Loop, seconds: float, **more: Any) -> Order:
        """Returns the order to put the server under load."""
        return Order(self.server.target, self._requests, self._tokens, loop, seconds, **more)

    def run(self, *orders: Order) -> list[Report]:
        """Does orders at the same time; the server must have its turn."""
        return self._bench.generators.run(*orders)

    def check(self, read: Callable[[bytes, int], Body], expected: Sequence[Body]) -> float:
        """Returns the share of answers that are those of a model in this process.

        Args:
            read: Reads a reply, given the index of its document.
            expected: Results of the first documents of the traffic.

        Raises:
            ServerError: They are so different that the server cannot be doing the same work.
        """
        with self.server.turn():
            got = asyncio.run(replies(self.server.target, self._requests[: len(expected)]))
        found = [_bare(read(one, at)) for at, one in enumerate(got)]
        same = sum(a == _bare(b) for a, b in zip(found, expected, strict=True)) / len(found)
        if same < _SAME_ANSWERS:
            raise ServerError(f"{self.name}: {1 - same:.0%} of its answers are not the model's")
        return same


def expected_of(model: Model, traffic: Traffic) -> list[Body]:
    """Returns what a model in this process says of the first documents of traffic."""
    return [one.to_dict() for one in model.analyze(list(traffic.documents[:_ASKED]))]


def _bare(value: Any) -> Any:
    """Returns results without scores, which differ in the last digit from graph to graph."""
    if isinstance(value, Mapping):
        return {k: _bare(v) for k, v in value.items() if not k.endswith("score")}
    if isinstance(value, list | tuple):
        return [_bare(one) for one in value]
    return value


@contextmanager
def trunkline_served(bench: Bench, graph: str) -> Iterator[Served]:
    """Serves a graph of the bundle with `trunkline serve`.

    Raises:
        ServerError: The server does not start, or its answers differ.
    """
    port = free_port()
    command = [sys.executable, "-m", "trunkline", "serve", str(bench.bundle)]
    command += ["--port", str(port), "--graph", graph, "--allow-ungated"]
    command += ["--threads", str(bench.threads)]
    documents = bench.traffic.documents
    requests = [request_to_pb([one], "", 0).SerializeToString() for one in documents]

    target = GrpcTarget(f"127.0.0.1:{port}", ANALYZE)
    log = bench.logs / f"{graph}.log"
    with started(served_name(graph), target, command, probe=requests[0], log=log) as server:
        yield Served(bench, server, requests)


def read_trunkline(bench: Bench) -> Callable[[bytes, int], Body]:
    """Returns what reads a reply of Trunkline's server."""

    def read(reply: bytes, at: int) -> Body:
        response = pb.AnalyzeResponse.FromString(reply)
        return results_from_pb(response, [bench.traffic.documents[at]])[0].to_dict()

    return read


@contextmanager
def peer_served(bench: Bench, peer: Peer, setting: Setting) -> Iterator[Served]:
    """Serves the padded graph with a peer.

    Raises:
        ServerError: It cannot be installed or does not start.
    """
    port = free_port()
    options = Options(str(bench.bundle.absolute()), port, setting)
    variables = {**peer.variables(), **options.variables()}
    requests = [
        json.dumps(peer.wire.request(to_json(one))).encode() for one in bench.traffic.documents
    ]
    target, log = peer.wire.target(port), bench.logs / f"{peer.name}.log"
    with started(
        peer.name,
        target,
        peer.command(),
        probe=requests[0],
        log=log,
        environment=variables,
    ) as server:
        yield Served(bench, server, requests)


def read_peer(peer: Peer) -> Callable[[bytes, int], Body]:
    """Returns what reads a reply of a peer."""
    return lambda reply, at: peer.wire.result(json.loads(reply))
