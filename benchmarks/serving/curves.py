"""The curves of the server: latency, throughput, stages, batches and cost, peers beside it.

    python -m benchmarks.serving.curves BUNDLE [--data FOLDER] [--small] [--peers plain,mosec] \
        --json benchmarks/results/curves.json

`trunkline serve` with each packed graph takes turns with its peers (see benchmarks.serving.bars) at
each point of each curve, so that a machine that is slow for a minute is slow for all. Turns with
more than a tenth of the CPU time stolen do not count. `--small` takes about three minutes, the
whole about fifteen. docs/performance.md says what is in the file, and
`python -m benchmarks.report FOLDER` draws it.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from benchmarks.record import record
from benchmarks.serving import options
from benchmarks.serving.contenders import Contender, Load, Turn, opened_bench
from benchmarks.serving.load import Closed, Loop, Open
from benchmarks.serving.peers.environment import installed
from benchmarks.serving.points import X, length_points, point
from benchmarks.serving.protocols import PROTOCOLS
from benchmarks.serving.rounds import Lineup, opened_lineup
from benchmarks.serving.traffic import WORKLOADS, Traffic, by_length, workload
from trunkline import Model
from trunkline.cpu import MOST_STOLEN
from trunkline.errors import TrunklineError

CURVES = ("concurrency", "load", "length", "workloads", "protocols")
_TOGETHER = 64  # documents of a call of `bulk-calls`
_CALLERS_TOGETHER = 2  # of them: so that one is at work while the other is answered
_LONGER = 3.0  # times the seconds of a turn, where calls take long, or are told apart
_LEAST_RATE = 0.5  # calls per second
_PROBED = ("probes", "answers")  # what was tried of a peer is told with the bars
_BATCHING = ("mosec", "litserve", "mlserver", "pytriton")  # in the order of preference


@dataclass(frozen=True)
class Extent:
    """What is measured, and for how long."""

    # seconds, warm_seconds: of each turn, and before it.
    seconds: float = 4.0
    warm_seconds: float = 0.5
    rounds: int = 2  # how often each point has its turn
    concurrency: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64, 128)  # numbers of callers
    # Offered loads, of the maximum.
    shares: tuple[float, ...] = (0.2, 0.4, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1)
    lengths: tuple[int, ...] = (16, 32, 64, 128, 256, 512, 1024)  # of texts, in tokens


SMALL = Extent(
    seconds=1.5,
    rounds=1,
    concurrency=(1, 8, 32, 128),
    shares=(0.3, 0.6, 0.9, 1.1),
    lengths=(16, 64, 256, 1024),
)


@dataclass
class Curves:
    """Measures all curves.

    Args:
        lineup: Takes turns.
        traffic: By workload, and `length`.
        extent: What is measured, and for how long.
        callers: Of the closed loop that finds the maximum.
        deadline: Seconds of a call in the open loop.

    Attributes:
        turns: By name of the curve, contender and x.
    """

    lineup: Lineup
    traffic: Mapping[str, Traffic]
    extent: Extent
    callers: int
    deadline: float
    turns: dict[tuple[str, str, X], list[Turn]] = field(default_factory=lambda: defaultdict(list))

    def measure(self) -> None:
        """Gives every contender its turn at every point, in each round."""
        for number in range(1, self.extent.rounds + 1):
            for name in CURVES:
                options.say(f"round {number} of {self.extent.rounds}: {name}")
                getattr(self, f"_{name}")()

    def points(self, curve: str, price: float | None) -> list[dict[str, Any]]:
        """Returns the JSON form of a curve's points, one contender after the other."""
        found = [(key, turns) for key, turns in self.turns.items() if key[0] == curve]
        if curve == "length":
            return [one for (_, name, _), turns in found for one in length_points(name, turns)]
        return [point(name, x, turns, price) for (_, name, x), turns in found]

    def _concurrency(self) -> None:
        for callers in self.extent.concurrency:
            self._all("concurrency", callers, self._under("mixed", Closed(callers)))

    def _load(self) -> None:
        maxima = self._all("maximum", 0, self._under("mixed", Closed(self.callers)))
        for share in self.extent.shares:
            for one in self.lineup.running():
                maximum = maxima[one.name].report.documents_per_second
                rate = max(share * maximum, _LEAST_RATE)
                loop = Open(rate, seed=round(share * 100))
                load = replace(self._under("mixed", loop), deadline=self.deadline)
                self._turn("load", share, one, load, offered=rate, maximum=maximum)

    def _length(self) -> None:
        self._all("length", 0, self._under("length", Closed(1), _LONGER))

    def _workloads(self) -> None:
        for name, one in WORKLOADS.items():
            longer = _LONGER if name == "long" else 1.0
            load = self._under(name, Closed(one.callers), longer)
            protocol = "stream" if name == "bulk" else "analyze"
            self._all("workloads", name, replace(load, protocol=protocol))
        load = self._under("bulk", Closed(_CALLERS_TOGETHER), _LONGER)
        self._ours("workloads", "bulk-calls", replace(load, together=_TOGETHER))

    def _protocols(self) -> None:
        for name in PROTOCOLS:
            load = self._under("mixed", Closed(self.callers))
            self._ours("protocols", name, replace(load, protocol=name))

    def _under(self, name: str, loop: Loop, longer: float = 1.0) -> Load:
        seconds = longer * self.extent.seconds
        return Load(self.traffic[name], loop, seconds, self.extent.warm_seconds)

    def _all(self, curve: str, x: X, load: Load) -> dict[str, Turn]:
        running = self.lineup.running()
        turns = {one.name: self._turn(curve, x, one, load) for one in running}
        return {name: turn for name, turn in turns.items() if turn is not None}

    def _ours(self, curve: str, x: X, load: Load) -> None:
        for one in self.lineup.ours():
            self._turn(curve, x, one, load)

    def _turn(
        self, curve: str, x: X, contender: Contender, load: Load, **more: float
    ) -> Turn | None:
        turn = self.lineup.turn(contender, load, **more)
        if turn is not None:
            self.turns[curve, contender.name, x].append(turn)
        return turn


def measure(given: argparse.Namespace, models: Mapping[str, Model]) -> Curves:
    """Starts the servers and measures all curves.

    Raises:
        ConfigError: The model lacks a task that a workload needs.
        ServerError: Trunkline's own server does not start or answers wrongly.
    """
    extent, first = given.extent, next(iter(models.values()))
    traffic = {name: workload(name, first, given.data) for name in WORKLOADS}
    traffic["length"] = by_length(first, extent.lengths, given.data)
    with (
        opened_bench(given.bundle, traffic["mixed"], **options.bench_options(given)) as bench,
        opened_lineup(bench, models, given.peers, extent.seconds, metrics=True) as lineup,
    ):
        curves = Curves(lineup, traffic, extent, given.callers, given.deadline)
        curves.measure()
    return curves


def main(argv: Sequence[str] | None = None) -> int:
    """Measures the curves, prints what they say and writes the file.

    Raises:
        TrunklineError: The bundle or the data cannot be used, or its server does not start.
    """
    arguments = sys.argv[1:] if argv is None else list(argv)
    given = options.parsed(_parser(), arguments)
    chosen = SMALL if given.small else Extent()
    asked = {"seconds": given.seconds, "rounds": given.rounds}
    given.extent = replace(chosen, **{name: one for name, one in asked.items() if one is not None})
    curves = measure(given, options.models(given))
    body = _body(given, curves)
    for line in _lines(body):
        print(line)
    options.write(given.json, record("benchmarks.serving.curves", arguments), body)
    return 0


def _parser() -> argparse.ArgumentParser:
    batching = [name for name in _BATCHING if installed(name)][:1]
    parser = options.parser(__doc__, deadline=10.0, peers=["plain", *batching])
    add = parser.add_argument
    add("--small", action="store_true", help="fewer points; a round of 1.5 s a turn, not two of 4")
    add("--price-per-cpu-hour", type=options.positive, help="in any currency; default: no money")
    return parser


def _body(given: argparse.Namespace, curves: Curves) -> dict[str, Any]:
    points = {name: curves.points(name, given.price_per_cpu_hour) for name in CURVES}
    return {
        "note": given.note,
        "settings": {
            "threads": given.threads,
            "generators": given.generators,
            "rounds": given.extent.rounds,
            "seconds": given.extent.seconds,
            "warm_seconds": given.extent.warm_seconds,
            "callers": given.callers,
            "deadline_seconds": given.deadline,
            "small": given.small,
            "price_per_cpu_hour": given.price_per_cpu_hour,
            "texts": curves.traffic["mixed"].source,
            "most_stolen": MOST_STOLEN,
        },
        "traffic": dict(_described(curves.traffic)),
        "sides": {
            name: {field: one for field, one in about.items() if field not in _PROBED}
            for name, about in curves.lineup.described().items()
        },
        **points,
    }


def _described(traffic: Mapping[str, Traffic]) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, wanted in WORKLOADS.items():
        one = traffic[name]
        p50, p99 = np.percentile(one.tokens, [50, 99]).tolist()
        mean = round(float(np.mean(one.tokens)), 1)
        described = {
            "about": wanted.about,
            "source": one.source,
            "documents": len(one.documents),
            "documents_per_call": 1,
            "callers": wanted.callers,
            "tokens": {"mean": mean, "p50": p50, "p99": round(p99, 1), "most": max(one.tokens)},
        }
        yield name, described
        if name == "bulk":
            together = {"documents_per_call": _TOGETHER, "callers": _CALLERS_TOGETHER}
            yield "bulk-calls", described | together


def _lines(body: Mapping[str, Any]) -> Iterator[str]:
    """Yields the workloads as a table, what failed, and how many points count."""
    columns = f"{'documents/s':>13}{'p50 ms':>10}{'p99 ms':>10}{'CPU s/1M docs':>15}"
    yield f"{'workload':16}{'side':24}{columns}"
    for one in body["workloads"]:
        cost = one["cost"] or {}
        cells = (
            (one["documents_per_second"], 13),
            (one["p50_ms"], 10),
            (one["p99_ms"], 10),
            (cost.get("cpu_seconds_per_million_requests"), 15),
        )
        row = "".join(f"{'':>{w}}" if v is None else f"{v:>{w},.1f}" for v, w in cells)
        yield f"{one['x']:16}{one['side']:24}{row}{'' if one['counts'] else '  throttled'}"
    for name, about in body["sides"].items():
        if about["error"] is not None:
            yield f"{name}: took no part, or not to the end: {about['error']}"
    points = [one for name in CURVES for one in body[name]]
    yield f"{sum(one['counts'] for one in points)} of {len(points)} points count"


if __name__ == "__main__":
    try:
        raise SystemExit(main())
    except TrunklineError as error:
        raise SystemExit(f"{error}") from None
