"""Which graph of a bundle is the quickest here: a short run, kept beside the bundle."""

from __future__ import annotations

import hashlib
import json
import platform
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import onnxruntime

from trunkline.bundle import Bundle, EncoderFacts, Graph
from trunkline.choice import Where
from trunkline.cpu import available_cpus, cpu_model
from trunkline.encode import Row, bare_row
from trunkline.files import write_whole
from trunkline.kinds import Output, all_outputs
from trunkline.runner import Runner, ServingRunner

# Three sentences to one question with its text, as NER and question answering are asked together.
_LENGTHS = (*range(8, 44, 3), 110, 150, 190, 240)
_ROUNDS = 3
HERE = Where()


def quickest(
    bundle: Bundle, graphs: Sequence[Graph], where: Where = HERE
) -> tuple[Graph, ServingRunner]:
    """Returns the quickest of some graphs on this machine, loaded.

    Of several, each runs the same rows a few times in turn. The times are kept in a file beside the
    bundle, under a key of graphs, machine and versions; where none can be written they are taken
    again each time.

    Raises:
        BundleError: A graph cannot be loaded or lacks an output.
        DeviceError: A device cannot be used.
    """
    if len(graphs) == 1:
        return graphs[0], where.open(bundle, graphs[0])
    file, key = _file(bundle), _key(graphs, where)
    times = _kept(file).get(key, {})
    if {graph.file for graph in graphs} <= times.keys():
        best = min(graphs, key=lambda graph: times[graph.file])
        return best, where.open(bundle, best)
    runners = {graph.file: where.open(bundle, graph) for graph in graphs}
    times = measure(
        runners, calibration_rows(bundle.manifest.encoder), all_outputs(bundle.manifest.tasks)
    )
    with suppress(OSError):
        write_whole(file, json.dumps(_kept(file) | {key: times}, indent=1) + "\n")
    best = min(graphs, key=lambda graph: times[graph.file])
    return best, runners[best.file]


def measure(
    runners: Mapping[str, Runner], rows: Sequence[Row], outputs: Sequence[Output]
) -> dict[str, float]:
    """Returns the seconds each runner takes for the rows: the least of some rounds in turn."""
    times = dict.fromkeys(runners, float("inf"))
    for runner in runners.values():  # the first run of a graph also sets up its memory
        runner.run(rows, outputs)
    for _ in range(_ROUNDS):
        for name, runner in runners.items():
            begin = time.perf_counter()
            runner.run(rows, outputs)
            times[name] = min(times[name], time.perf_counter() - begin)
    return times


def calibration_rows(facts: EncoderFacts) -> list[Row]:
    """Returns rows of mixed length, none above the model's longest; always the same."""
    random = np.random.default_rng(0)
    lengths = [min(length, facts.max_length) for length in _LENGTHS]
    return [bare_row(random.integers(0, 2, length)) for length in lengths]


def _file(bundle: Bundle) -> Path:
    folder = bundle.path.resolve()
    return folder.parent / f".{folder.name}.calibration.json"


def _kept(file: Path) -> dict[str, dict[str, float]]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    entries = found.items() if isinstance(found, dict) else ()
    return {key: times for key, times in entries if _are_times(times)}


def _are_times(times: object) -> bool:
    """Returns whether what a file holds is seconds by graph, whoever wrote it."""
    return isinstance(times, dict) and all(isinstance(one, int | float) for one in times.values())


def _key(graphs: Sequence[Graph], where: Where) -> str:
    """Returns a fingerprint of all that the times depend on."""
    parts = (
        *(graph.sha256 for graph in graphs),
        str(where.threads or available_cpus()),
        cpu_model(),
        platform.machine(),
        onnxruntime.__version__,
        *(f"{gpu.index} {gpu.name} {where.options}" for gpu in where.gpus(graphs)),
    )
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
