"""One server under load and faults for a long time: its memory and descriptors must not grow.

    python -m tests.faults.serving.soak BUNDLE --minutes 60 --json FILE

Exits with 1 if a call was lost or answered wrongly, or if the server grew.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import random
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import grpc
import numpy as np

from benchmarks.family import descriptors, resident
from benchmarks.record import record
from tests.faults.serving.calls import ClientPool, channel_to, good_call, raw_call
from tests.faults.serving.changing import swap
from tests.faults.serving.clients import (
    STAGES,
    WINDOWS,
    ask_without_reading,
    read_at_last,
    vanish,
)
from tests.faults.serving.fault_fixture import FaultFixture, fault_fixture
from tests.faults.serving.fault_report import FaultReport, table
from tests.faults.serving.frames import wire_to
from tests.faults.serving.inference import Requests
from tests.faults.serving.malformed import many_malformed, mutation
from tests.faults.serving.texts import odd_requests
from trunkline.files import write_whole
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

    fixture: FaultFixture
    server: Launched
    channel: grpc.Channel
    report: FaultReport
    bundles: Sequence[str]
    round: int = 0

    def vanish(self) -> None:
        chance = np.random.default_rng(self.round)
        for at in range(_BURST):
            vanish(self.server, self.fixture.oracle, at, chance)

    def half_open(self) -> None:
        with contextlib.ExitStack() as stack:
            for stage, window in itertools.product(STAGES, WINDOWS):
                wire = stack.enter_context(wire_to(self.server.address, window))
                stage(wire, self.fixture.oracle)
            good_call(self.channel, self.fixture.oracle, self.report, self.round)

    def slow_reader(self) -> None:
        with wire_to(self.server.address, 0) as wire:
            asked = ask_without_reading(wire, self.fixture.oracle, self.round)
            good_call(self.channel, self.fixture.oracle, self.report, self.round)
            read_at_last(wire, asked, self.fixture.oracle, self.report)

    def malformed(self) -> None:
        requests = Requests(self.fixture.oracle, self.round)
        many_malformed(self.channel, requests, self.report, _BURST)

    def mutated(self) -> None:
        originals = [one.SerializeToString() for one in self.fixture.oracle.requests]
        chance = random.Random(self.round)
        for _ in range(_BURST):
            self._raw(mutation(originals, chance))

    def odd_texts(self) -> None:
        for data in odd_requests():
            self._raw(data)

    def reload(self) -> None:
        models: Any = ModelServiceStub(self.channel)
        swap(models, self.bundles, self.round, self.fixture)
        self.round += 1

    def _raw(self, data: bytes) -> None:
        versions = self.fixture.oracle.versions
        raw_call(self.channel, data, self.fixture.oracle, self.report, versions=versions)


_FAULTS: tuple[Callable[[_Soak], None], ...] = (
    _Soak.vanish,
    _Soak.half_open,
    _Soak.slow_reader,
    _Soak.malformed,
    _Soak.mutated,
    _Soak.odd_texts,
    _Soak.reload,
)


def soak(
    fixture: FaultFixture, minutes: float, say: Callable[[str], None]
) -> tuple[FaultReport, Soaked]:
    """Serves under load while all faults that a server outlives come round and round.

    Args:
        fixture: What is served.
        minutes: How long; a round is finished.
        say: Told once a minute how it goes.
    """
    report, soaked = FaultReport(f"soak of {minutes:g} minutes"), Soaked()
    with (
        fixture.folder() as folder,
        fixture.serving("--models-folder", folder) as server,
        channel_to(server.address) as channel,
    ):
        bundles = [fixture.copy(at, folder, f"v{at}").name for at in range(len(fixture.versions))]
        pool = ClientPool(server.address, fixture.oracle, report, callers=4)
        with pool.calling():
            state = _Soak(fixture, server, channel, report, bundles)
            _go_round(state, pool, 60 * minutes, soaked, say)
    for complaint in soaked.complaints():
        report.fail(complaint)
    report.notes |= {
        "MiB": _from_to(*soaked.growth(1)),
        "descriptors": _from_to(*soaked.growth(2)),
    }
    return report, soaked


def _go_round(
    state: _Soak, pool: ClientPool, seconds: float, soaked: Soaked, say: Callable[[str], None]
) -> None:
    begin = told = time.monotonic()
    for fault in itertools.cycle(_FAULTS):
        fault(state)
        pool.wait(_CALLS)
        if fault is not _FAULTS[-1]:
            continue
        now, process = time.monotonic(), state.server.process
        memory = resident(process) / _MIB
        soaked.samples.append((now - begin, memory, descriptors(process)))
        if now - told > _LINE_SECONDS:
            told = now
            say(_news(now - begin, state.report, soaked))
        if now - begin > seconds:
            return


def _from_to(before: float, after: float) -> str:
    return f"{before:.0f} to {after:.0f}"


def _news(seconds: float, report: FaultReport, soaked: Soaked) -> str:
    _, memory, descriptors = soaked.samples[-1]
    return (
        f"{seconds / 60:6.1f} min  {report.tried:>9} tried  {report.lost} lost"
        f"  {report.wrong} wrong  {memory:.0f} MiB  {descriptors} descriptors"
    )


def main(argv: Sequence[str]) -> int:
    """Prints and writes the report; returns the exit status."""
    parser = argparse.ArgumentParser("python -m tests.faults.serving.soak", description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--minutes", type=float, default=60.0, help="default: 60")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report there, too")
    given = parser.parse_args(argv)
    with fault_fixture(given.bundle) as fixture:
        report, soaked = soak(fixture, given.minutes, lambda line: print(line, file=sys.stderr))
    print(table([report]))
    if given.json is not None:
        head = record("tests.faults.serving.soak", argv)
        body = {"bundle": given.bundle.name, "graph": fixture.oracle.graph}
        body |= {"faults": [report.to_dict()], "samples": soaked.samples}
        write_whole(given.json, json.dumps(head | body, indent=1, ensure_ascii=False) + "\n")
    return int(not report.clean)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
