"""Memory stays flat, however the shapes of what is run change."""

from pathlib import Path

import numpy as np
import psutil
import pytest

from trunkline.bundle import open_bundle
from trunkline.encode import Row
from trunkline.kinds import task_outputs
from trunkline.runner import open_runner

MEGABYTE = 1_000_000
GRAPHS = pytest.mark.parametrize("name", ["packed-fp32", "packed-int8", "padded-fp32"])


def growth(bundle: Path, name: str, settled: int, more: int) -> float:
    """Returns the megabytes that a process grows by from `settled` sets of rows on."""
    opened = open_bundle(bundle)
    (graph,) = opened.candidates(name)
    outputs = [output for spec in opened.manifest.tasks for output in task_outputs(spec)]
    runner = open_runner(bundle / graph.file, graph.layout, 0, outputs, 2)
    random, process = np.random.default_rng(0), psutil.Process()
    before = 0
    for number in range(settled + more):
        if number == settled:
            before = process.memory_info().rss
        lengths = random.integers(2, 65, random.integers(1, 16))
        runner.run([row(random, int(length)) for length in lengths], outputs)
    return (process.memory_info().rss - before) / MEGABYTE


def row(random: np.random.Generator, length: int) -> Row:
    ids = random.integers(5, 60, length)
    return Row(ids, np.zeros_like(ids), 0, 0, length, 0, length)


@GRAPHS
def test_memory_stays_flat_over_random_shapes(quantised: Path, name: str) -> None:
    assert growth(quantised, name, 150, 300) < 10


@pytest.mark.slow
@GRAPHS
def test_memory_stays_flat_over_very_many_shapes(quantised: Path, name: str) -> None:
    assert growth(quantised, name, 1000, 10_000) < 20
