"""Who is measured: a graph in this process, Trunkline's server with a graph, and its peers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

from benchmarks.family import cpu_seconds
from benchmarks.serving.load import Closed, Generators, Loop, Order, Report
from benchmarks.serving.peers.answers import Likeness, same
from benchmarks.serving.peers.options import Options, Setting
from benchmarks.serving.peers.registry import Body, Peer
from benchmarks.serving.peers.work import padded_graph, to_json
from benchmarks.serving.processes import Server, ServerError, free_port, replies, standing, started
from benchmarks.serving.protocols import PROTOCOLS, CallProtocol
from benchmarks.serving.targets import Expired, Failed, Refused
from benchmarks.serving.traffic import Traffic
from trunkline import Model, load
from trunkline.bundle import open_bundle
from trunkline.cpu import MOST_STOLEN
from trunkline.errors import Unavailable
from trunkline.v1 import analysis_service_pb2 as pb
from trunkline_serve.launch import serving
from trunkline_serve.observe.scrape import Change, fetch
from trunkline_serve.rpc.requests import results_from_pb

_TOGETHER = 64  # documents of one call in process
_ASKED = 32  # documents whose answers are compared
_SAME_ANSWERS = 0.9  # share of them that must be the same: less is other work


@dataclass(frozen=True)
class Load:
    """What a contender gets in a turn."""

    traffic: Traffic
    loop: Loop  # when calls start
    # seconds, warm_seconds: how long calls count, and how long they are made before that.
    seconds: float
    warm_seconds: float = 0.5
    protocol: str = "analyze"  # how Trunkline is called; peers have one protocol
    together: int = 1  # documents of a call
    deadline: float = 60.0  # seconds that a call may take


@dataclass(frozen=True)
class Turn:
    """One turn of one contender."""

    report: Report  # of the load generators
    # CPU time of the server, warm-up included; None in process.
    server_cpu_seconds: float | None = None
    # What the server's own metrics grew by; None of a server without.
    server_sums: Mapping[str, float] | None = None
    stolen: float = 0.0  # share of CPU time stolen
    # What else a result says of it, e.g. the offered rate.
    more: Mapping[str, float] = field(default_factory=dict)

    @property
    def counts(self) -> bool:
        """Whether the machine was ours."""
        return self.stolen <= MOST_STOLEN

    def to_dict(self) -> dict[str, Any]:
        """Returns the JSON form of the bars; latencies are None in process."""
        report, cpu = self.report, self.server_cpu_seconds
        expired = {"EXPIRED": report.expired} if report.expired else {}
        return {
            "tokens_per_second": report.tokens_per_second,
            "documents_per_second": report.documents_per_second,
            "p50_ms": report.accepted.ms(50),
            "p99_ms": report.accepted.ms(99),
            "refused": len(report.refusals),
            "errors": dict(report.errors) | expired,
            "server_cpu_seconds": None if cpu is None else round(cpu, 3),
            "generator_cpu_seconds": round(report.cpu_seconds, 3),
            "generator_lag_ms": report.lag.ms(99),
            "generator_saturated": report.saturated,
        }


class Contender(Protocol):
    """One of those that take turns."""

    @property
    def name(self) -> str:
        """What it is called in results."""
        ...

    def turn(self, load: Load) -> Turn:
        """Works under a load."""
        ...


def in_process_name(graph: str) -> str:
    """Returns the name of a graph called in this process."""
    return f"in process {graph}"


def served_name(graph: str) -> str:
    """Returns the name of Trunkline's server with a graph."""
    return f"trunkline {graph}"


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
            (
                [row for one in group for row in one.rows],
                list(dict.fromkeys(output for one in group for output in one.outputs)),
                len(group),
            )
            for group in groups
        ]

    def turn(self, load: Load) -> Turn:
        """Runs batch after batch, after one that does not count; the loop plays no part."""
        self._runner.run(*self._batches[-1][:2])
        tokens = documents = 0
        begin = time.perf_counter()
        for rows, outputs, count in cycle(self._batches):
            self._runner.run(rows, outputs)
            tokens += sum(map(len, rows))
            documents += count
            if (taken := time.perf_counter() - begin) >= load.seconds:
                break
        return Turn(Report(taken, answered=documents, tokens=tokens))


@dataclass(frozen=True)
class Bench:
    """What all turns share."""

    bundle: Path
    traffic: Traffic  # what is asked unless a load says otherwise
    expected: Sequence[Body]  # results of its first documents by the padded graph in this process
    generators: Generators  # make the load
    callers: int  # of the closed loop
    threads: int  # of every server and of the model in this process
    logs: Path  # folder for what servers print
    run: Path | None = None  # folder of the bundle's checkpoint, for peers that need it

    def load(self, seconds: float) -> Load:
        """Returns the closed loop."""
        return Load(self.traffic, Closed(self.callers), seconds)


@contextmanager
def opened_bench(
    bundle: Path,
    traffic: Traffic,
    *,
    callers: int,
    threads: int,
    generators: int = 1,
    load_cpus: Iterable[int] = (),
    run: Path | None = None,
) -> Iterator[Bench]:
    """Starts load generators, and learns what the bundle's padded graph says of the traffic."""
    graph = padded_graph(open_bundle(bundle))
    padded = load(bundle, threads, graph=graph, allow_ungated=True)
    expected = expected_of(padded, traffic)
    with TemporaryDirectory() as logs, Generators(generators, load_cpus) as started:
        yield Bench(bundle, traffic, expected, started, callers, threads, Path(logs), run)


def expected_of(model: Model, traffic: Traffic) -> list[Body]:
    """Returns what a model in this process says of the first documents of traffic."""
    return [one.to_dict() for one in model.analyze(list(traffic.documents[:_ASKED]))]


@dataclass
class Served:
    """A server under load."""

    bench: Bench  # what it shares with others
    server: Server
    protocol: Callable[[str], CallProtocol]  # by its name
    read: Callable[[bytes, int], Body]  # a reply, and the index of its document, to a result
    address: str = ""  # its `host:port`, if it is Trunkline's
    model: str = ""  # name of its model, if it is Trunkline's
    metrics: str | None = None  # `host:port` of its metrics, if it has such
    _requests: dict[tuple[str, str, int], tuple[bytes, ...]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What it is called in results."""
        return self.server.name

    @property
    def ours(self) -> bool:
        """Whether it is Trunkline's."""
        return bool(self.address)

    def turn(self, load: Load) -> Turn:
        """Puts the server under load.

        Raises:
            ServerError: It has ended.
            Unavailable: It does not give its metrics.
        """
        order = self.order(load)
        with self.server.turn():
            cpu = cpu_seconds(self.server.process)
            before = None if self.metrics is None else fetch(self.metrics)
            (report,) = self.bench.generators.run(order)
            after = None if self.metrics is None else fetch(self.metrics)
            spent = cpu_seconds(self.server.process) - cpu
        sums = None if before is None or after is None else _sums(Change(before, after))
        return Turn(report, spent, sums)

    def order(self, load: Load) -> Order:
        """Returns what load generators are to do."""
        tokens, step = load.traffic.tokens, load.together
        requests = self._written(load.traffic, load.protocol, step)
        return Order(
            target=self.protocol(load.protocol).target(self.address),
            requests=requests,
            weights=tuple(sum(tokens[at * step : (at + 1) * step]) for at in range(len(requests))),
            loop=load.loop,
            seconds=load.seconds,
            warm_seconds=load.warm_seconds,
            deadline=load.deadline,
            documents=step,
            groups=load.traffic.groups,
        )

    def _written(self, traffic: Traffic, protocol: str, together: int) -> tuple[bytes, ...]:
        """Returns traffic as requests of some documents each; what is left over is not sent."""
        key = traffic.name, protocol, together
        if key not in self._requests:
            last = len(traffic.prepared) - together + 1
            write = self.protocol(protocol).request
            self._requests[key] = tuple(
                write(traffic.prepared[at : at + together], self.model)
                for at in range(0, last, together)
            )
        return self._requests[key]

    def check(self, expected: Sequence[Body], likeness: Likeness = same) -> float:
        """Returns how alike the first answers are to a model's in this process, on average.

        Raises:
            ServerError: It does not answer; or so differently that it cannot be doing the same
                work.
        """
        order = self.order(self.bench.load(0))
        try:
            with self.server.turn():
                found = asyncio.run(replies(order.target, order.requests[: len(expected)]))
        except (Refused, Expired, Failed) as error:
            said = str(error) or type(error).__name__.lower()
            raise ServerError(f"{self.name}: does not answer: {said}") from None
        results = [self.read(reply, at) for at, reply in enumerate(found)]
        alike = sum(map(likeness, results, expected)) / len(results)
        if alike < _SAME_ANSWERS:
            raise ServerError(f"{self.name}: {1 - alike:.0%} of its answers are not the model's")
        return alike


def _sums(change: Change) -> dict[str, float]:
    """Returns how much a server's metrics grew between two readings."""
    stages = change.counts("trunkline_stage_seconds_sum", "stage")
    calls = change.counts("trunkline_stage_seconds_count", "stage")
    named = {
        "batches": "batch_fill_count",
        "fill": "batch_fill_sum",
        "sharing": "batch_calls_sum",
        "tokens": "tokens_total",
        "computed": "computed_tokens_total",
    }
    found = {f"{stage} seconds": value for (stage,), value in stages.items()}
    found |= {name: change.count(f"trunkline_{one}") for name, one in named.items()}
    return found | {"calls": calls.get(("total",), 0.0)}


@contextmanager
def trunkline_served(bench: Bench, graph: str, *, metrics: bool = False) -> Iterator[Served]:
    """Serves a graph of the bundle with `trunkline serve`; with `metrics`, turns have its own sums.

    Raises:
        ServerError: The server does not start.
    """
    name, log, port = served_name(graph), bench.logs / f"{graph}.log", free_port()
    flags = ["--graph", graph, "--allow-ungated", "--threads", bench.threads]
    flags += ["--metrics-port", port] if metrics else []
    documents, model = bench.traffic.documents, open_bundle(bench.bundle).manifest.name

    def read(reply: bytes, at: int) -> Body:
        response = pb.AnalyzeResponse.FromString(reply)
        return results_from_pb(response, [documents[at]])[0].to_dict()

    with ExitStack() as stack:
        try:
            found = stack.enter_context(serving([bench.bundle], *flags, log=log))
        except Unavailable as error:
            raise ServerError(f"{name}: {error}") from None
        address, place = found.address, f"127.0.0.1:{port}" if metrics else None
        server = Server(name, PROTOCOLS["analyze"].target(address), found.process, log)
        stack.enter_context(standing(server))
        yield Served(bench, server, PROTOCOLS.__getitem__, read, address, model, place)


@contextmanager
def peer_served(bench: Bench, peer: Peer, setting: Setting) -> Iterator[Served]:
    """Serves the model with a peer.

    Raises:
        ServerError: It cannot be installed, does not start or needs the checkpoint.
    """
    options = _options(bench, peer, setting)
    target, log = peer.wire.target(options), bench.logs / f"{peer.name}.log"
    calls = CallProtocol(lambda _: target, lambda one, _: peer.wire.request(to_json(*one)))
    with started(
        peer.name,
        target,
        peer.command(),
        probe=calls.request(bench.traffic.prepared[:1], ""),
        log=log,
        environment={**peer.variables(), **options.variables()},
    ) as server:
        yield Served(bench, server, lambda _: calls, lambda reply, _: peer.wire.result(reply))


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
