"""Gives each peer the best of its settings, found by a short run of each."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from benchmarks.serving.peers.options import Setting
from benchmarks.serving.peers.registry import Peer
from benchmarks.serving.processes import ServerError
from benchmarks.serving.sides import Bench, peer_served, read_peer


@dataclass
class Choice:
    """How a peer was set up.

    Attributes:
        peer: The peer.
        probes: Real tokens per second of each setting.
        same_answers: How alike its answers are to the model's, on average, from 0 to 1.
        version: Of its package.
        error: Why it does not take part, if it does not.
    """

    peer: Peer
    probes: dict[Setting, float] = field(default_factory=dict)
    same_answers: float = 0.0
    version: str | None = None
    error: str | None = None

    @property
    def setting(self) -> Setting:
        """The setting that did most."""
        return max(self.probes, key=lambda one: self.probes[one])

    def to_dict(self) -> dict[str, Any]:
        """Returns the JSON form."""
        return {
            "version": self.version,
            "setting": str(self.setting) if self.probes else None,
            "probes": {str(one): round(value, 1) for one, value in self.probes.items()},
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
                choice.probes[setting] = served.turn(seconds).tokens_per_second
    except ServerError as error:
        choice.error = str(error)
    return choice
