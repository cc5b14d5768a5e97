"""Interleaved rounds: contenders have their turns one after the other, on the same machine."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from benchmarks.serving.contenders import (
    Bench,
    Contender,
    Load,
    Served,
    Turn,
    expected_of,
    peer_served,
    trunkline_served,
)
from benchmarks.serving.load import Report
from benchmarks.serving.peers.options import Setting
from benchmarks.serving.peers.registry import PEERS, Peer
from benchmarks.serving.processes import ServerError
from trunkline import Model
from trunkline.cpu import MOST_STOLEN, cpu_times
from trunkline.errors import Unavailable
from trunkline_serve.bench.load import Extent
from trunkline_serve.bench.report import figures
from trunkline_serve.bench.rounds import Plan
from trunkline_serve.bench.rounds import measure as measure_unloaded
from trunkline_serve.bench.texts import SHORT
from trunkline_serve.client.options import Options

_ENOUGH = 100  # answers to judge a setting by
_LONGEST = 4  # times the seconds asked for


def measure(contender: Contender, load: Load, **more: float) -> Turn:
    """Puts a contender under load, and notes the share of CPU time stolen meanwhile.

    Raises:
        ServerError: It has ended.
        Unavailable: It does not give its metrics.
    """
    before = cpu_times()
    turn = contender.turn(load)
    return replace(turn, stolen=round(cpu_times().share_since(before), 4), more=more)


@dataclass
class Round:
    """One turn of every contender."""

    # By name; a contender that failed has none.
    turns: dict[str, Turn] = field(default_factory=dict)
    # What gRPC and the server add to an unloaded call, beyond an empty one, by the server's name.
    overhead_ms: dict[str, float] = field(default_factory=dict)
    stolen: float = 0.0  # share of CPU time stolen meanwhile

    def to_dict(self) -> dict[str, Any]:
        """Returns the JSON form."""
        turns = {name: turn.to_dict() for name, turn in self.turns.items()}
        return {"turns": turns, "overhead_ms": self.overhead_ms, "stolen": self.stolen}


@dataclass
class Lineup:
    """All that take part."""

    contenders: list[Contender] = field(default_factory=list)  # in the order of their turns
    # What a reader must know of each, by name, also of those that could not start.
    about: dict[str, dict[str, Any]] = field(default_factory=dict)
    # Why contenders were left out from some turn on, by name.
    failed: dict[str, str] = field(default_factory=dict)

    def running(self) -> list[Contender]:
        """Returns those that have not failed."""
        return [one for one in self.contenders if one.name not in self.failed]

    def ours(self) -> list[Served]:
        """Returns Trunkline's servers that have not failed."""
        return [one for one in self.running() if isinstance(one, Served) and one.ours]

    def turn(self, contender: Contender, load: Load, **more: float) -> Turn | None:
        """Measures a contender; one that fails has no further turn."""
        try:
            return measure(contender, load, **more)
        except (ServerError, Unavailable) as error:
            self.failed[contender.name] = str(error)
            return None

    def round(self, load: Load, unloaded: Mapping[str, Model] | None = None) -> Round:
        """Gives every contender a turn; times unloaded calls beside models, by server's name."""
        found, before = Round(), cpu_times()
        for contender in self.running():
            turn = self.turn(contender, load)
            if turn is not None:
                found.turns[contender.name] = turn
        for served in self.ours():
            if unloaded and served.name in unloaded:
                found.overhead_ms[served.name] = overhead_ms(served, unloaded[served.name])
        found.stolen = round(cpu_times().share_since(before), 4)
        return found

    def described(self) -> dict[str, dict[str, Any]]:
        """Returns what a reader must know, with the error of each or None."""
        return {name: one | {"error": self.failed.get(name)} for name, one in self.about.items()}


@contextmanager
def opened_lineup(
    bench: Bench,
    models: Mapping[str, Model],
    peers: Sequence[str],
    seconds: float,
    *,
    metrics: bool = False,
) -> Iterator[Lineup]:
    """Starts a server for each model, by graph, and each peer with the best of its settings.

    Settings are tried for some seconds each. With `metrics`, turns of Trunkline have the sums of
    its own metrics.

    Raises:
        ServerError: Trunkline's own server does not start or answers wrongly.
    """
    lineup = Lineup()
    with ExitStack() as stack:
        for graph, model in models.items():
            served = stack.enter_context(trunkline_served(bench, graph, metrics=metrics))
            lineup.contenders.append(served)
            lineup.about[served.name] = {
                "kind": "trunkline",
                "graph": graph,
                "precision": model.graph.precision,
                "setting": None,
                "same_answers": served.check(expected_of(model, bench.traffic)),
            }
        for name in peers:
            _add_peer(stack, lineup, bench, PEERS[name], seconds)
        yield lineup


def _add_peer(stack: ExitStack, lineup: Lineup, bench: Bench, peer: Peer, seconds: float) -> None:
    choice = choose(bench, peer, seconds)
    about = {"kind": "peer", "graph": "padded-fp32", "precision": "fp32"}
    lineup.about[peer.name] = about | choice.to_dict()
    try:
        if choice.error is not None:
            raise ServerError(choice.error)
        lineup.contenders.append(stack.enter_context(peer_served(bench, peer, choice.setting)))
    except ServerError as error:
        lineup.failed[peer.name] = str(error)


@dataclass
class Choice:
    """How a peer was set up."""

    peer: Peer
    probes: dict[Setting, Report] = field(default_factory=dict)  # what each setting did
    same_answers: float = 0.0  # how alike its answers are to the model's, on average, from 0 to 1
    version: str | None = None  # of its package
    error: str | None = None  # why it does not take part, if it does not

    @property
    def setting(self) -> Setting:
        """The setting that did most."""
        return max(self.probes, key=lambda one: self.probes[one].tokens_per_second)

    def to_dict(self) -> dict[str, Any]:
        """Returns the JSON form."""
        return {
            "version": self.version,
            "setting": str(self.setting) if self.probes else None,
            "probes": {str(s): round(one.tokens_per_second, 1) for s, one in self.probes.items()},
            "answers": {str(setting): one.answered for setting, one in self.probes.items()},
            "same_answers": self.same_answers,
            "error": self.error,
        }


def choose(bench: Bench, peer: Peer, seconds: float) -> Choice:
    """Tries the settings of a peer, a turn of some seconds each.

    The first error ends that: it is kept, and the peer takes no part.
    """
    choice = Choice(peer)
    try:
        choice.version = peer.version()
        for setting in peer.settings(bench.threads):
            with peer_served(bench, peer, setting) as served:
                choice.same_answers = served.check(bench.expected, peer.likeness)
                choice.probes[setting] = _probe(bench, served, seconds)
    except ServerError as error:
        choice.error = str(error)
    _warn(choice)
    return choice


def _probe(bench: Bench, served: Served, seconds: float) -> Report:
    """Puts a server under load until it has answered often enough, if that does not take long.

    Raises:
        ServerError: It answered nothing.
    """
    longest = _LONGEST * seconds
    while (report := served.turn(bench.load(seconds)).report).answered < _ENOUGH:
        if seconds >= longest:
            break
        seconds *= 2
    if not report.answered:
        raise ServerError(f"{served.name}: no answer in {seconds:g} s under load")
    return report


def _warn(choice: Choice) -> None:
    least = min((one.answered for one in choice.probes.values()), default=_ENOUGH)
    if least < _ENOUGH:
        said = f"only {least} answers to judge a setting by: its choice means little"
        print(f"{choice.peer.name}: {said}", file=sys.stderr, flush=True)


def overhead_ms(served: Served, model: Model) -> float:
    """Returns p50 of an unloaded call minus that in process minus that of an empty call."""
    plain: dict[str, Any] = dict.fromkeys(("keepalive", "tls", "token"))
    plain |= dict.fromkeys(("wait_for_ready", "insecure_token"), False)
    reached = Options(target=served.address, timeout=60.0, retries=0, concurrency=1, **plain)
    plan = Plan(reached, model, [SHORT], [1], Extent(0, 1), 1)
    with served.server.turn():
        found = asyncio.run(measure_unloaded(plan, lambda line: None))
    return round(float(figures(found, 1)["overhead_ms"]), 3)


def kept(rounds: Sequence[Round]) -> list[Round]:
    """Returns the rounds in which the machine was ours."""
    return [one for one in rounds if one.stolen <= MOST_STOLEN]


def ratios(
    rounds: Sequence[Round],
    name: str,
    over: str,
    value: Callable[[Report], float | None] = lambda report: report.tokens_per_second,
) -> list[float]:
    """Returns how many times a value of `over` a contender has, in each round that has both."""
    both = [one.turns for one in rounds if name in one.turns and over in one.turns]
    pairs = [(value(turns[name].report), value(turns[over].report)) for turns in both]
    return [ours / theirs for ours, theirs in pairs if ours is not None and theirs]
