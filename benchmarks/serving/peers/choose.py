"""Gives each peer the best of its settings, found by a short run of each.

A run that had too few answers to tell settings apart is made again, twice as long.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import Any

from benchmarks.serving.contenders import Bench, Served, peer_served
from benchmarks.serving.load import Report
from benchmarks.serving.peers.options import Setting
from benchmarks.serving.peers.registry import Peer
from benchmarks.serving.processes import ServerError

_ENOUGH = 100  # answers to judge a setting by
_LONGEST = 4  # times the seconds asked for


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
