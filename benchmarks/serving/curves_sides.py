"""The servers whose curves are drawn, each called in its own way."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from benchmarks.serving.peers.choose import choose
from benchmarks.serving.peers.environment import ROOT
from benchmarks.serving.peers.registry import PEERS, Peer
from benchmarks.serving.peers.work import to_json
from benchmarks.serving.processes import Server, ServerError, free_port
from benchmarks.serving.protocols import PROTOCOLS
from benchmarks.serving.sides import (
    Bench,
    expected_of,
    peer_served,
    read_trunkline,
    trunkline_served,
)
from benchmarks.serving.targets import GrpcTarget, Target
from benchmarks.serving.traffic import Traffic
from trunkline import Model
from trunkline.pipeline import Prepared

_ONE_OF = ("mosec", "litserve", "mlserver", "pytriton")  # that batch, in this order


class Calls(Protocol):
    """How a server is called."""

    def target(self, protocol: str) -> Target:
        """Returns where calls go."""
        ...

    def request(self, together: Sequence[Prepared], protocol: str) -> bytes:
        """Returns the request for documents of one call."""
        ...


@dataclass(frozen=True)
class Ours:
    """Calls to Trunkline's server, by each of its protocols."""

    address: str
    model: str

    def target(self, protocol: str) -> Target:
        """Returns where calls go."""
        return PROTOCOLS[protocol].target(self.address)

    def request(self, together: Sequence[Prepared], protocol: str) -> bytes:
        """Returns the request for documents of one call."""
        return PROTOCOLS[protocol].request(together, self.model)


@dataclass(frozen=True)
class Theirs:
    """Calls to a peer, which has one protocol, and one document a call."""

    server: Server
    peer: Peer

    def target(self, protocol: str) -> Target:
        """Returns where calls go."""
        return self.server.target

    def request(self, together: Sequence[Prepared], protocol: str) -> bytes:
        """Returns the request for one document."""
        (one,) = together
        return self.peer.wire.request(to_json(one))


@dataclass
class Curve:
    """A side that takes turns.

    Attributes:
        name: What it is called.
        server: Its processes.
        calls: How it is called.
        metrics: `host:port` of its metrics, if it has such.
    """

    name: str
    server: Server
    calls: Calls
    metrics: str | None = None
    _requests: dict[tuple[str, str, int], tuple[bytes, ...]] = field(default_factory=dict)

    @property
    def ours(self) -> bool:
        """Whether it is Trunkline."""
        return isinstance(self.calls, Ours)

    def requests(self, traffic: Traffic, protocol: str, together: int) -> tuple[bytes, ...]:
        """Returns traffic as requests of some documents each; what is left over is not sent."""
        key = traffic.name, protocol, together
        if key not in self._requests:
            last = len(traffic.prepared) - together + 1
            self._requests[key] = tuple(
                self.calls.request(traffic.prepared[at : at + together], protocol)
                for at in range(0, last, together)
            )
        return self._requests[key]


@dataclass
class Sides:
    """All that take part, and what a reader must know of each.

    Attributes:
        curves: Those that run.
        about: By name, also of those that could not start.
    """

    curves: list[Curve] = field(default_factory=list)
    about: dict[str, dict[str, Any]] = field(default_factory=dict)

    def running(self) -> list[Curve]:
        """Returns those that have not failed."""
        return [one for one in self.curves if self.about[one.name]["error"] is None]

    def fail(self, name: str, error: Exception) -> None:
        """Leaves a side out from here on."""
        self.about[name]["error"] = str(error)


def installed_peers() -> list[str]:
    """Returns the plain server, and one that batches, if its environment is there already."""
    folder = ROOT / ".tools" / "peers"
    batching = [name for name in _ONE_OF if (folder / name / ".installed").is_file()]
    return ["plain", *batching[:1]]


@contextmanager
def serving(
    bench: Bench, models: Mapping[str, Model], peers: Sequence[str], seconds: float
) -> Iterator[Sides]:
    """Starts all servers, frozen; each peer with the best of its settings.

    Args:
        bench: What they share.
        models: By graph; each is served, and its answers compared.
        peers: Names of peers.
        seconds: To try each setting of a peer.

    Raises:
        ServerError: Trunkline's own server does not start or answers wrongly.
    """
    sides = Sides()
    with ExitStack() as stack:
        for graph, model in models.items():
            stack.enter_context(_ours(sides, bench, graph, model))
        for name in peers:
            _add_peer(stack, sides, bench, PEERS[name], seconds)
        yield sides


@contextmanager
def _ours(sides: Sides, bench: Bench, graph: str, model: Model) -> Iterator[None]:
    port = free_port()
    with trunkline_served(bench, graph, "--metrics-port", str(port)) as served:
        same = served.check(read_trunkline(bench), expected_of(model, bench.traffic))
        target = served.server.target
        assert isinstance(target, GrpcTarget)
        calls = Ours(target.address, model.manifest.name)
        sides.curves.append(Curve(served.name, served.server, calls, f"127.0.0.1:{port}"))
        sides.about[served.name] = {
            "kind": "trunkline",
            "graph": graph,
            "precision": model.graph.precision,
            "setting": None,
            "same_answers": same,
            "error": None,
        }
        yield


def _add_peer(stack: ExitStack, sides: Sides, bench: Bench, peer: Peer, seconds: float) -> None:
    choice = choose(bench, peer, seconds)
    sides.about[peer.name] = {
        "kind": "peer",
        "graph": "padded-fp32",
        "precision": "fp32",
        "setting": str(choice.setting) if choice.probes else None,
        "version": choice.version,
        "same_answers": choice.same_answers,
        "error": choice.error,
    }
    if choice.error is None:
        try:
            served = stack.enter_context(peer_served(bench, peer, choice.setting))
            sides.curves.append(Curve(peer.name, served.server, Theirs(served.server, peer)))
        except ServerError as error:
            sides.fail(peer.name, error)
