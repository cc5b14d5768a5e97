"""Rounds in which every side has its turn, one after the other."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from benchmarks.serving.processes import ServerError
from benchmarks.serving.sides import Served, Side, Turn
from benchmarks.serving.targets import GrpcTarget
from trunkline import Model
from trunkline.cpu import cpu_times
from trunkline_serve.bench.load import Extent
from trunkline_serve.bench.report import figures
from trunkline_serve.bench.rounds import MOST_STOLEN, Plan, measure
from trunkline_serve.bench.texts import SHORT
from trunkline_serve.client.options import Options


@dataclass
class Round:
    """One turn of every side.

    Attributes:
        turns: By the side's name; a side that failed has none.
        overhead_ms: What gRPC and the server add to an unloaded call, beyond an empty one, by the
            server's name.
        stolen: Share of CPU time stolen meanwhile.
    """

    turns: dict[str, Turn] = field(default_factory=dict)
    overhead_ms: dict[str, float] = field(default_factory=dict)
    stolen: float = 0.0


class Sides:
    """All that take part.

    Args:
        sides: Take turns, in this order.
        unloaded: Servers whose unloaded calls are timed, with the same model in this process.

    Attributes:
        failed: Why sides were left out from some round on, by name.
    """

    def __init__(self, sides: Sequence[Side], unloaded: Sequence[tuple[Served, Model]]) -> None:
        self._sides = sides
        self._unloaded = unloaded
        self.failed: dict[str, str] = {}

    def round(self, seconds: float) -> Round:
        """Gives every side a turn of some seconds."""
        found, before = Round(), cpu_times()
        for side in self._sides:
            if side.name not in self.failed:
                self._turn(side, seconds, found)
        for served, model in self._unloaded:
            if served.name not in self.failed:
                found.overhead_ms[served.name] = overhead_ms(served, model)
        found.stolen = round(cpu_times().share_since(before), 4)
        return found

    def _turn(self, side: Side, seconds: float, found: Round) -> None:
        try:
            found.turns[side.name] = side.turn(seconds)
        except ServerError as error:
            self.failed[side.name] = str(error)


def overhead_ms(served: Served, model: Model) -> float:
    """Returns p50 of an unloaded call minus that in process minus that of an empty call."""
    target = served.server.target
    assert isinstance(target, GrpcTarget)
    plan = Plan(_reached(target.address), model, [SHORT], [1], Extent(0, 1), 1)
    with served.server.turn():
        found = asyncio.run(measure(plan, lambda line: None))
    return round(float(figures(found, 1)["overhead_ms"]), 3)


def _reached(address: str) -> Options:
    return Options(
        target=address,
        timeout=60.0,
        retries=0,
        concurrency=1,
        keepalive=None,
        wait_for_ready=False,
        tls=None,
        token=None,
        insecure_token=False,
    )


def kept(rounds: Sequence[Round]) -> list[Round]:
    """Returns the rounds in which the machine was ours."""
    return [one for one in rounds if one.stolen <= MOST_STOLEN]


def turns_of(rounds: Sequence[Round], name: str) -> list[Turn]:
    """Returns the turns of a side."""
    return [one.turns[name] for one in rounds if name in one.turns]


def names_of(rounds: Sequence[Round]) -> list[str]:
    """Returns all sides that had a turn."""
    return list(dict.fromkeys(name for one in rounds for name in one.turns))


def ratios(rounds: Sequence[Round], name: str, over: str) -> list[float]:
    """Returns how many times the tokens of `over` a side did, per round."""
    pairs = [_pair(one.turns, name, over) for one in rounds]
    return [
        ours.tokens_per_second / theirs.tokens_per_second for ours, theirs in filter(None, pairs)
    ]


def tail_ratios(rounds: Sequence[Round], name: str, over: str) -> list[float]:
    """Returns how many times the 99th percentile of `over` a side has, per round."""
    pairs = [_pair(one.turns, name, over) for one in rounds]
    return [
        ours.p99_ms / theirs.p99_ms
        for ours, theirs in filter(None, pairs)
        if ours.p99_ms and theirs.p99_ms
    ]


def _pair(turns: Mapping[str, Turn], name: str, over: str) -> tuple[Turn, Turn] | None:
    """Returns the turns of both, if both had one and did something."""
    ours, theirs = turns.get(name), turns.get(over)
    if ours is None or theirs is None or not theirs.tokens_per_second:
        return None
    return ours, theirs
