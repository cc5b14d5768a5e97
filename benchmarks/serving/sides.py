"""What takes turns: the graph in this process, and servers, Trunkline's and its peers'."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

from benchmarks.family import cpu_seconds
from benchmarks.serving.generators import Generators
from benchmarks.serving.load import Closed, Loop, Order, Report
from benchmarks.serving.peers.answers import Likeness, same
from benchmarks.serving.peers.options import Options, Setting
from benchmarks.serving.peers.registry import Body, Peer
from benchmarks.serving.peers.work import padded_graph, to_json
from benchmarks.serving.processes import (
    Server,
    ServerError,
    free_port,
    replies,
    standing,
    started,
)
from benchmarks.serving.targets import Expired, Failed, GrpcTarget, Refused
from benchmarks.serving.traffic import Traffic
from trunkline import Model, load
from trunkline.bundle import open_bundle
from trunkline.errors import Unavailable
from trunkline.kinds import Output
from trunkline.v1 import analysis_service_pb2 as pb
from trunkline_serve.launch import serving
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
        run: Folder of the checkpoint that the bundle was made of, for peers that need it.
    """

    bundle: Path
    traffic: Traffic
    expected: Sequence[Body]
    generators: Generators
    concurrency: int
    threads: int
    logs: Path
    run: Path | None = None


@contextmanager
def opened_bench(
    bundle: Path,
    traffic: Traffic,
    *,
    concurrency: int,
    threads: int,
    generators: int = 1,
    load_cpus: Iterable[int] = (),
    run: Path | None = None,
) -> Iterator[Bench]:
    """Starts load generators, and learns what the bundle's padded graph says of the traffic."""
    graph = padded_graph(open_bundle(bundle))
    padded = load(bundle, threads, graph=graph, allow_ungated=True)
    with TemporaryDirectory() as logs, Generators(generators, load_cpus) as started:
        yield Bench(
            bundle=bundle,
            traffic=traffic,
            expected=expected_of(padded, traffic),
            generators=started,
            concurrency=concurrency,
            threads=threads,
            logs=Path(logs),
            run=run,
        )


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
            before = cpu_seconds(self.server.process)
            (report,) = self._bench.generators.run(self.order(self.loop(), seconds))
            return Turn.of(report, cpu_seconds(self.server.process) - before)

    def loop(self) -> Loop:
        """Returns the closed loop of the run."""
        return Closed(self._bench.concurrency)

    def order(self, loop: Loop, seconds: float, **more: Any) -> Order:
        """Returns the order to put the server under load."""
        return Order(self.server.target, self._requests, self._tokens, loop, seconds, **more)

    def run(self, *orders: Order) -> list[Report]:
        """Does orders at the same time; the server must have its turn."""
        return self._bench.generators.run(*orders)

    def check(
        self,
        read: Callable[[bytes, int], Body],
        expected: Sequence[Body],
        likeness: Likeness = same,
    ) -> float:
        """Returns how alike answers are to those of a model in this process, on average.

        Args:
            read: Reads a reply, given the index of its document.
            expected: Results of the first documents of the traffic.
            likeness: Compares two results.

        Raises:
            ServerError: It does not answer; or so differently that it cannot be doing the same
                work.
        """
        found = [read(one, at) for at, one in enumerate(self._replies(len(expected)))]
        alike = sum(map(likeness, found, expected)) / len(found)
        if alike < _SAME_ANSWERS:
            raise ServerError(f"{self.name}: {1 - alike:.0%} of its answers are not the model's")
        return alike

    def _replies(self, count: int) -> list[bytes]:
        try:
            with self.server.turn():
                return asyncio.run(replies(self.server.target, self._requests[:count]))
        except (Refused, Expired, Failed) as error:
            said = str(error) or type(error).__name__.lower()
            raise ServerError(f"{self.name}: does not answer: {said}") from None


def expected_of(model: Model, traffic: Traffic) -> list[Body]:
    """Returns what a model in this process says of the first documents of traffic."""
    return [one.to_dict() for one in model.analyze(list(traffic.documents[:_ASKED]))]


@contextmanager
def trunkline_served(bench: Bench, graph: str, *options: str) -> Iterator[Served]:
    """Serves a graph of the bundle with `trunkline serve`, and more of its options if given.

    Raises:
        ServerError: The server does not start, or its answers differ.
    """
    flags = ["--graph", graph, "--allow-ungated", "--threads", bench.threads, *options]
    log = bench.logs / f"{graph}.log"
    documents = bench.traffic.documents
    requests = [request_to_pb([one], "", 0).SerializeToString() for one in documents]
    name = served_name(graph)
    with ExitStack() as stack:
        try:
            found = stack.enter_context(serving([bench.bundle], *flags, log=log))
        except Unavailable as error:
            raise ServerError(f"{name}: {error}") from None
        server = Server(name, GrpcTarget(found.address, ANALYZE), found.process, log)
        stack.enter_context(standing(server))
        yield Served(bench, server, requests)


def read_trunkline(bench: Bench) -> Callable[[bytes, int], Body]:
    """Returns what reads a reply of Trunkline's server."""

    def read(reply: bytes, at: int) -> Body:
        response = pb.AnalyzeResponse.FromString(reply)
        return results_from_pb(response, [bench.traffic.documents[at]])[0].to_dict()

    return read


@contextmanager
def peer_served(bench: Bench, peer: Peer, setting: Setting) -> Iterator[Served]:
    """Serves the model with a peer.

    Raises:
        ServerError: It cannot be installed, does not start or needs the checkpoint.
    """
    options = _options(bench, peer, setting)
    variables = {**peer.variables(), **options.variables()}
    requests = [peer.wire.request(to_json(one)) for one in bench.traffic.prepared]
    target, log = peer.wire.target(options), bench.logs / f"{peer.name}.log"
    with started(
        peer.name,
        target,
        peer.command(),
        probe=requests[0],
        log=log,
        environment=variables,
    ) as server:
        yield Served(bench, server, requests)


def _options(bench: Bench, peer: Peer, setting: Setting) -> Options:
    if peer.needs_run and bench.run is None:
        raise ServerError(f"{peer.name}: needs --run, the checkpoint that the bundle was made of")
    return Options(
        bundle=str(bench.bundle.absolute()),
        port=free_port(),
        setting=setting,
        run=None if bench.run is None else str(bench.run.absolute()),
        ports={spec.name: free_port() for spec in open_bundle(bench.bundle).manifest.tasks},
    )


def read_peer(peer: Peer) -> Callable[[bytes, int], Body]:
    """Returns what reads a reply of a peer."""
    return lambda reply, at: peer.wire.result(reply)
