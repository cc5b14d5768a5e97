"""One server under load and faults for a long time: its memory and descriptors must not grow."""

from __future__ import annotations

import contextlib
import itertools
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import grpc
import numpy as np

from benchmarks.family import descriptors, resident
from benchmarks.faults.calls import Crowd, channel_to, good_call, raw_call
from benchmarks.faults.changing import swap
from benchmarks.faults.clients import (
    STAGES,
    WINDOWS,
    ask_without_reading,
    read_at_last,
    vanish,
)
from benchmarks.faults.frames import wire_to
from benchmarks.faults.inference import Requests
from benchmarks.faults.malformed import many_malformed, mutation
from benchmarks.faults.tally import Tally
from benchmarks.faults.texts import odd_requests
from benchmarks.faults.world import World
from trunkline.v1.model_service_pb2_grpc import ModelServiceStub
from trunkline_serve.launch import Launched

_PARTS = 5  # of the time: growth is from the second to the last, the first warms up
_MOST_MEMORY = 0.1  # as a share
_SLACK_MEMORY = 24.0  # MiB beside that
_SLACK_DESCRIPTORS = 12
_LINE_SECONDS = 60.0  # between two lines of news
_MIB = 2**20
_CALLS = 40
_BURST = 20


@dataclass
class Soaked:
    """What was seen of a server: seconds, MiB and descriptors, once a round.

    Attributes:
        samples: All of that.
    """

    samples: list[tuple[float, float, int]] = field(default_factory=list)

    def growth(self, column: int) -> tuple[float, float]:
        """Returns the medians of a column early on and at the end."""
        values = [sample[column] for sample in self.samples]
        part = max(1, len(values) // _PARTS)
        return median(values[part : 2 * part] or values), median(values[-part:])

    def complaints(self) -> list[str]:
        """Returns what grew more than it may."""
        memory, memory_after = self.growth(1)
        descriptors, descriptors_after = self.growth(2)
        found = []
        if memory_after > memory * (1 + _MOST_MEMORY) + _SLACK_MEMORY:
            found.append(f"memory grew from {memory:.0f} to {memory_after:.0f} MiB")
        if descriptors_after > descriptors + _SLACK_DESCRIPTORS:
            found.append(f"descriptors grew from {descriptors:.0f} to {descriptors_after:.0f}")
        return found


@dataclass
class _Soak:
    """What the faults of a soak need."""

    world: World
    server: Launched
    channel: grpc.Channel
    tally: Tally
    bundles: Sequence[str]
    round: int = 0

    def vanish(self) -> None:
        chance = np.random.default_rng(self.round)
        for at in range(_BURST):
            vanish(self.server, self.world.truth, at, chance)

    def half_open(self) -> None:
        with contextlib.ExitStack() as stack:
            for stage, window in itertools.product(STAGES, WINDOWS):
                wire = stack.enter_context(wire_to(self.server.address, window))
                stage(wire, self.world.truth)
            good_call(self.channel, self.world.truth, self.tally, self.round)

    def slow_reader(self) -> None:
        with wire_to(self.server.address, 0) as wire:
            asked = ask_without_reading(wire, self.world.truth, self.round)
            good_call(self.channel, self.world.truth, self.tally, self.round)
            read_at_last(wire, asked, self.world.truth, self.tally)

    def malformed(self) -> None:
        requests = Requests(self.world.truth, self.round)
        many_malformed(self.channel, requests, self.tally, _BURST)

    def mutated(self) -> None:
        originals = [one.SerializeToString() for one in self.world.truth.requests]
        chance = random.Random(self.round)
        for _ in range(_BURST):
            self._raw(mutation(originals, chance))

    def odd_texts(self) -> None:
        for data in odd_requests():
            self._raw(data)

    def reload(self) -> None:
        models: Any = ModelServiceStub(self.channel)
        swap(models, self.bundles, self.round, self.world)
        self.round += 1

    def _raw(self, data: bytes) -> None:
        versions = self.world.truth.versions
        raw_call(self.channel, data, self.world.truth, self.tally, versions=versions)


_FAULTS: tuple[Callable[[_Soak], None], ...] = (
    _Soak.vanish,
    _Soak.half_open,
    _Soak.slow_reader,
    _Soak.malformed,
    _Soak.mutated,
    _Soak.odd_texts,
    _Soak.reload,
)


def soak(world: World, minutes: float, say: Callable[[str], None]) -> tuple[Tally, Soaked]:
    """Serves under load while all faults that a server outlives come round and round.

    Args:
        world: What is served.
        minutes: How long; a round is finished.
        say: Told once a minute how it goes.
    """
    tally, soaked = Tally(f"soak of {minutes:g} minutes"), Soaked()
    with (
        world.folder() as folder,
        world.serving("--models-folder", folder) as server,
        channel_to(server.address) as channel,
    ):
        bundles = [world.copy(at, folder, f"v{at}").name for at in range(len(world.versions))]
        crowd = Crowd(server.address, world.truth, tally, callers=4)
        with crowd.calling():
            state = _Soak(world, server, channel, tally, bundles)
            _go_round(state, crowd, 60 * minutes, soaked, say)
    for complaint in soaked.complaints():
        tally.fail(complaint)
    tally.notes |= {
        "MiB": _from_to(*soaked.growth(1)),
        "descriptors": _from_to(*soaked.growth(2)),
    }
    return tally, soaked


def _go_round(
    state: _Soak, crowd: Crowd, seconds: float, soaked: Soaked, say: Callable[[str], None]
) -> None:
    begin = told = time.monotonic()
    for fault in itertools.cycle(_FAULTS):
        fault(state)
        crowd.wait(_CALLS)
        if fault is not _FAULTS[-1]:
            continue
        now, process = time.monotonic(), state.server.process
        memory = resident(process) / _MIB
        soaked.samples.append((now - begin, memory, descriptors(process)))
        if now - told > _LINE_SECONDS:
            told = now
            say(_news(now - begin, state.tally, soaked))
        if now - begin > seconds:
            return


def _from_to(before: float, after: float) -> str:
    return f"{before:.0f} to {after:.0f}"


def _news(seconds: float, tally: Tally, soaked: Soaked) -> str:
    _, memory, descriptors = soaked.samples[-1]
    return (
        f"{seconds / 60:6.1f} min  {tally.tried:>9} tried  {tally.lost} lost  {tally.wrong} wrong"
        f"  {memory:.0f} MiB  {descriptors} descriptors"
    )
