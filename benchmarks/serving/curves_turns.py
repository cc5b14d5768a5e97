"""The turns of all curves, in an order in which every side has its turn at each point."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from benchmarks.family import cpu_seconds
from benchmarks.serving.curves_points import Turn, X, length_points, point, told
from benchmarks.serving.curves_sides import Curve, Sides
from benchmarks.serving.generators import Generators
from benchmarks.serving.load import Closed, Loop, Open, Order
from benchmarks.serving.processes import ServerError
from benchmarks.serving.protocols import PROTOCOLS
from benchmarks.serving.traffic import WORKLOADS, Traffic
from trunkline.cpu import cpu_times
from trunkline.errors import Unavailable
from trunkline_serve.observe.scrape import Change, Scrape, fetch

TOGETHER = 64  # documents of a call of `bulk-calls`
CALLERS_TOGETHER = 2  # of them: so that one is at work while the other is answered
_MIXED, _LONG, _BULK, _BULK_CALLS = "mixed", "long", "bulk", "bulk-calls"
_LONGER = 3.0  # times the seconds of a turn, where calls take long, or are told apart
_LEAST_RATE = 0.5  # calls per second

Key = tuple[str, str, X]
"""Name of the curve, side, x."""


@dataclass(frozen=True)
class Extent:
    """What is measured, and for how long.

    Attributes:
        seconds: Of each turn.
        warm_seconds: Of each turn before that.
        rounds: How often each point has its turn.
        concurrency: Numbers of callers.
        shares: Offered loads, of the maximum.
        lengths: Of texts, in tokens.
    """

    seconds: float = 4.0
    warm_seconds: float = 0.5
    rounds: int = 2
    concurrency: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64, 128)
    shares: tuple[float, ...] = (0.2, 0.4, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1)
    lengths: tuple[int, ...] = (16, 32, 64, 128, 256, 512, 1024)


SMALL = Extent(
    seconds=1.5,
    rounds=1,
    concurrency=(1, 8, 32, 128),
    shares=(0.3, 0.6, 0.9, 1.1),
    lengths=(16, 64, 256, 1024),
)


@dataclass(frozen=True)
class Load:
    """What a side gets in a turn.

    Attributes:
        traffic: What is asked.
        loop: When.
        protocol: How Trunkline is called.
        together: Documents of a call.
        deadline: Seconds that a call may take.
        longer: Times the seconds of a turn that it goes on for.
    """

    traffic: Traffic
    loop: Loop
    protocol: str = "analyze"
    together: int = 1
    deadline: float = 60.0
    longer: float = 1.0

    def order(self, side: Curve, extent: Extent) -> Order:
        """Returns what the load generators are to do."""
        requests = side.requests(self.traffic, self.protocol, self.together)
        tokens = self.traffic.tokens
        weights = [
            sum(tokens[at : at + self.together])
            for at in range(0, len(requests) * self.together, self.together)
        ]
        return Order(
            target=side.calls.target(self.protocol),
            requests=requests,
            weights=tuple(weights),
            loop=self.loop,
            seconds=extent.seconds * self.longer,
            warm_seconds=extent.warm_seconds,
            deadline=self.deadline,
            documents=self.together,
            groups=self.traffic.groups,
        )


@dataclass
class Curves:
    """Measures all curves.

    Args:
        sides: Take turns.
        generators: Make the load.
        traffic: By workload, and `length`.
        extent: What is measured, and for how long.
        callers: Of the closed loop that finds the maximum.
        deadline: Seconds of a call in the open loop.
        say: Told of progress.
    """

    sides: Sides
    generators: Generators
    traffic: Mapping[str, Traffic]
    extent: Extent
    callers: int
    deadline: float
    say: Callable[[str], None]
    turns: dict[Key, list[Turn]] = field(default_factory=lambda: defaultdict(list))

    def measure(self) -> None:
        """Gives every side its turn at every point, in each round."""
        for number in range(1, self.extent.rounds + 1):
            of = f"round {number} of {self.extent.rounds}"
            for curve in (
                self._concurrency,
                self._load,
                self._length,
                self._workloads,
                self._protocols,
            ):
                self.say(f"{of}: {curve.__name__.removeprefix('_')}")
                curve()

    def points(self, curve: str, price: float | None) -> list[dict[str, Any]]:
        """Returns the JSON form of a curve's points, side by side in the order of x."""
        found = [(key, turns) for key, turns in self.turns.items() if key[0] == curve]
        return [
            one
            for (_, side, x), turns in found
            for one in (
                length_points(side, turns) if curve == "length" else [point(side, x, turns, price)]
            )
        ]

    def _concurrency(self) -> None:
        for callers in self.extent.concurrency:
            for side in self.sides.running():
                self._take(("concurrency", side.name, callers), side, self._mixed(callers))

    def _load(self) -> None:
        maxima = dict(self._maxima())
        for share in self.extent.shares:
            for side in self.sides.running():
                maximum = maxima[side.name]
                rate = max(share * maximum, _LEAST_RATE)
                seed = round(share * 100)
                load = replace(self._mixed(0), loop=Open(rate, seed), deadline=self.deadline)
                more = {"offered": rate, "maximum": maximum}
                self._take(("load", side.name, share), side, load, more)

    def _maxima(self) -> Iterator[tuple[str, float]]:
        for side in self.sides.running():
            turn = self._take(("maximum", side.name, self.callers), side, self._mixed(self.callers))
            if turn is not None:
                yield side.name, turn.report.documents_per_second

    def _mixed(self, callers: int) -> Load:
        return Load(self.traffic[_MIXED], Closed(callers))

    def _length(self) -> None:
        for side in self.sides.running():
            load = Load(self.traffic["length"], Closed(1), longer=_LONGER)
            self._take(("length", side.name, 0), side, load)

    def _workloads(self) -> None:
        for name in WORKLOADS:
            protocol = "stream" if name == _BULK else "analyze"
            longer = _LONGER if name == _LONG else 1.0
            loop = Closed(WORKLOADS[name].callers)
            load = Load(self.traffic[name], loop, protocol, longer=longer)
            for side in self.sides.running():
                self._take(("workloads", side.name, name), side, load)
        loop = Closed(CALLERS_TOGETHER)
        calls = Load(self.traffic[_BULK], loop, together=TOGETHER, longer=_LONGER)
        for side in self._ours():
            self._take(("workloads", side.name, _BULK_CALLS), side, calls)

    def _protocols(self) -> None:
        for protocol in PROTOCOLS:
            load = replace(self._mixed(self.callers), protocol=protocol)
            for side in self._ours():
                self._take(("protocols", side.name, protocol), side, load)

    def _ours(self) -> Sequence[Curve]:
        return [side for side in self.sides.running() if side.ours]

    def _take(
        self, key: Key, side: Curve, load: Load, more: Mapping[str, float] | None = None
    ) -> Turn | None:
        """Gives a side its turn; one that fails has no further."""
        try:
            turn = take(side, load.order(side, self.extent), self.generators, more or {})
        except (ServerError, Unavailable) as error:
            self.sides.fail(side.name, error)
            return None
        self.turns[key].append(turn)
        return turn


def take(side: Curve, order: Order, generators: Generators, more: Mapping[str, float]) -> Turn:
    """Puts a server under load.

    Raises:
        ServerError: It has ended.
        Unavailable: It does not give its metrics.
    """
    stolen = cpu_times()
    with side.server.turn():
        cpu, before = cpu_seconds(side.server.process), _scrape(side)
        (report,) = generators.run(order)
        after, spent = _scrape(side), cpu_seconds(side.server.process) - cpu
    return Turn(
        report=report,
        server_cpu_seconds=spent,
        stolen=round(cpu_times().share_since(stolen), 4),
        told=None if before is None or after is None else told(Change(before, after)),
        more=more,
    )


def _scrape(side: Curve) -> Scrape | None:
    return None if side.metrics is None else fetch(side.metrics)
