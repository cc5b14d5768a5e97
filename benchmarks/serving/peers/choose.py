"""Gives each peer the best of its settings, found by a short run of each.

A run that had too few answers to tell settings apart is made again, twice as long.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import Any

from benchmarks.serving.peers.options import Setting
from benchmarks.serving.peers.registry import Peer
from benchmarks.serving.processes import ServerError
from benchmarks.serving.sides import Bench, Served, peer_served, read_peer

_ENOUGH = 100  # answers to judge a setting by
_LONGEST = 4  # times the seconds asked for


@dataclass(frozen=True)
class Probe:
    """What a setting did in its run.

    Attributes:
        tokens_per_second: Real tokens answered.
        answers: Calls answered.
    """

    tokens_per_second: float
    answers: int


@dataclass
class Choice:
    """How a peer was set up.

    Attributes:
        peer: The peer.
        probes: What each setting did.
        same_answers: How alike its answers are to the model's, on average, from 0 to 1.
        version: Of its package.
        error: Why it does not take part, if it does not.
    """

    peer: Peer
    probes: dict[Setting, Probe] = field(default_factory=dict)
    same_answers: float = 0.0
    version: str | None = None
    error: str | None = None

    @property
    def setting(self) -> Setting:
        """The setting that did most."""
        return max(self.probes, key=lambda one: self.probes[one].tokens_per_second)

    def to_dict(self) -> dict[str, Any]:
        """Returns the JSON form."""
        return {
            "version": self.version,
            "setting": str(self.setting) if self.probes else None,
            "probes": {
                str(one): round(probe.tokens_per_second, 1) for one, probe in self.probes.items()
            },
            "answers": {str(one): probe.answers for one, probe in self.probes.items()},
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
                choice.same_answers = served.check(read_peer(peer), bench.expected, peer.likeness)
                choice.probes[setting] = _probe(served, seconds)
    except ServerError as error:
        choice.error = str(error)
    _warn(choice)
    return choice


def _probe(served: Served, seconds: float) -> Probe:
    """Puts a server under load until it has answered often enough, if that does not take long.

    Raises:
        ServerError: It answered nothing.
    """
    longest = _LONGEST * seconds
    while True:
        turn = served.turn(seconds)
        answers = round(turn.documents_per_second * seconds)
        if answers >= _ENOUGH or seconds >= longest:
            break
        seconds *= 2
    if not answers:
        raise ServerError(f"{served.name}: no answer in {seconds:g} s under load")
    return Probe(turn.tokens_per_second, answers)


def _warn(choice: Choice) -> None:
    least = min((probe.answers for probe in choice.probes.values()), default=_ENOUGH)
    if least < _ENOUGH:
        said = f"only {least} answers to judge a setting by: its choice means little"
        print(f"{choice.peer.name}: {said}", file=sys.stderr, flush=True)
