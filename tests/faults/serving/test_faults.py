"""Every fault of the report, on a smaller scale: nothing is lost, nothing wrong."""

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.faults.__main__ import FAULTS
from benchmarks.faults.malformed import open_inference
from benchmarks.faults.soak import soak
from benchmarks.faults.tally import Tally, table
from benchmarks.faults.world import World

ENOUGH = {open_inference.__name__: 1.0}
"""Faults that are tried as often as in the report."""


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_nothing_is_lost_and_nothing_is_wrong(
    faults: World, fault: Callable[[World], Tally]
) -> None:
    tally = fault(dataclasses.replace(faults, size=ENOUGH.get(fault.__name__, faults.size)))
    assert tally.clean, table([tally])


def test_a_short_soak_ends_as_it_began(faults: World) -> None:
    tally, soaked = soak(faults, 0.05, lambda line: None)
    assert tally.clean, table([tally])
    assert soaked.samples


def test_the_report_is_a_command(bundle: Path, tmp_path: Path) -> None:
    line = [sys.executable, "-m", "benchmarks.faults", bundle, "--size", "0.1"]
    more = ["--only", "odd_texts", "mutated", "--json", tmp_path / "report.json"]
    done = subprocess.run([*line, *more], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    head, *rows = done.stdout.splitlines()
    assert head.split() == ["fault", "tried", "survived", "lost", "wrong"]
    assert len(rows) == 2
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["command"].startswith("python -m benchmarks.faults tiny ")
    assert [one["lost"] for one in report["faults"]] == [0, 0]
    assert all(one["tried"] == one["survived"] > 0 for one in report["faults"])
