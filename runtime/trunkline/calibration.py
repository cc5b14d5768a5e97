"""Which graph of a bundle is the quickest here, and how many tokens one run of it should have.

Both are found by a short run, and kept beside the bundle.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import TypeVar

import numpy as np

from trunkline.bundle import Bundle, EncoderFacts, Graph
from trunkline.choice import Where
from trunkline.cpu import available_cpus
from trunkline.device import ON_CPU
from trunkline.encode import Row, bare_row
from trunkline.kinds import Output, all_outputs
from trunkline.runner import PACK_TOKENS, ServingRunner
from trunkline.tried import Tried, fingerprint

# Three sentences to one question with its text, as NER and question answering are asked together.
_LENGTHS = (*range(8, 44, 3), 110, 150, 190, 240)
_ROUNDS = 3
_MARGIN = 1.05  # two measurements of one and the same thing differ by less
_BUDGETS = (PACK_TOKENS, 1)  # the usual packs, and every row by itself
HERE = Where()

Name = TypeVar("Name")
Opened = tuple[Graph, ServingRunner]


@dataclass(frozen=True)
class Choice:
    """What was found: the file of a graph, and its runner's budget where that was a choice."""

    graph: str
    budget: int | None


class Trial:
    """A runner at work as it is in a server: every lane runs all rows, a batch at a time.

    One call with all rows would not tell: how its packs happen to fall to the lanes, and which lane
    is done last, can weigh more than what is compared.

    Args:
        runner: Runs the rows.
        budget: Most tokens of a batch.
        rows: What each lane runs.
        outputs: Of the graph.
    """

    def __init__(
        self, runner: ServingRunner, budget: int, rows: Sequence[Row], outputs: Sequence[Output]
    ) -> None:
        self._runner = runner
        self._batches = _batches(runner, budget, rows)
        self._outputs = outputs

    def seconds(self) -> float:
        """Runs the rows on every lane; returns the seconds over the number of lanes."""
        lanes = self._runner.lanes
        with ThreadPoolExecutor(lanes) as threads:
            begin = time.perf_counter()
            list(threads.map(self._lane, range(lanes)))
            return (time.perf_counter() - begin) / lanes

    def _lane(self, _: int) -> None:
        for batch in self._batches:
            self._runner.run(batch, self._outputs)


def quickest(bundle: Bundle, graphs: Sequence[Graph], where: Where = HERE) -> Opened:
    """Returns the quickest of some graphs on this machine, loaded, with the budget that suits it.

    A packed graph on the CPU runs packs of many rows or, where that is quicker, every row by
    itself. What was found is kept in a file beside the bundle, under a key of graphs, machine and
    versions; where none can be written it is measured again each time. Of one graph nothing is
    measured, since small devices are to answer at once: it has the budget that was found for it
    when it was the quickest of several, or its usual one.

    Args:
        bundle: The bundle.
        graphs: At least one, the one that is quickest as a rule first.
        where: What they run on.

    Raises:
        BundleError: A graph cannot be loaded or lacks an output.
        DeviceError: A device cannot be used.
    """
    tried, key = Tried(bundle.path), _key(graphs, where)
    found = _kept(tried).get(key)
    for graph in graphs:
        if found in _choices(graph, where):
            return graph, _suited(where.open(bundle, graph), found)
    if len(graphs) == 1:
        return graphs[0], where.open(bundle, graphs[0])
    graph, runner, found = _measured(bundle, graphs, where)
    tried.keep(dict.fromkeys((key, _key([graph], where)), asdict(found)))
    return graph, _suited(runner, found)


def _choices(graph: Graph, where: Where) -> list[Choice]:
    """Returns what there is to choose from once a graph is chosen, the usual first."""
    packs = graph.layout == "packed" and where.device_of(graph) == ON_CPU
    return [Choice(graph.file, budget) for budget in (_BUDGETS if packs else (None,))]


def _suited(runner: ServingRunner, choice: Choice) -> ServingRunner:
    runner.budget = choice.budget or runner.budget
    return runner


def _measured(
    bundle: Bundle, graphs: Sequence[Graph], where: Where
) -> tuple[Graph, ServingRunner, Choice]:
    """Lets each graph try to beat the best before it, then each budget of the best of all.

    The two that are compared are open together and take turns: whatever slows the machine down for
    a while would otherwise count against the one that ran then. No more than two are open, since
    all may not fit into memory.
    """
    rows = calibration_rows(bundle.manifest.encoder)
    outputs = all_outputs(bundle.manifest.tasks)
    best = graphs[0], where.open(bundle, graphs[0])
    for graph in graphs[1:]:
        best = _quicker(best, (graph, where.open(bundle, graph)), rows, outputs)
    graph, runner = best
    choices = _choices(graph, where)
    if len(choices) == 1:
        return graph, runner, choices[0]
    trials = {one: Trial(runner, one.budget or 0, rows, outputs) for one in choices}
    return graph, runner, _clearly_quickest(measure(trials))


def _quicker(best: Opened, other: Opened, rows: Sequence[Row], outputs: Sequence[Output]) -> Opened:
    """Returns the quicker of two graphs, each with its usual budget; the other can be freed."""
    both = {graph.file: (graph, runner) for graph, runner in (best, other)}
    trials = {
        file: Trial(runner, runner.budget, rows, outputs) for file, (_, runner) in both.items()
    }
    return both[_clearly_quickest(measure(trials))]


def _clearly_quickest(times: Mapping[Name, float]) -> Name:
    """Returns the first name, unless others are clearly quicker: then the quickest of all."""
    first, best = next(iter(times)), min(times, key=times.__getitem__)
    return best if times[best] * _MARGIN < times[first] else first


def measure(trials: Mapping[Name, Trial]) -> dict[Name, float]:
    """Returns the seconds that each trial takes: the least of some rounds in turn."""
    for trial in trials.values():  # the first run of a graph also sets up its memory
        trial.seconds()
    times = dict.fromkeys(trials, float("inf"))
    for _ in range(_ROUNDS):
        for name, trial in trials.items():
            times[name] = min(times[name], trial.seconds())
    return times


def calibration_rows(facts: EncoderFacts) -> list[Row]:
    """Returns rows of mixed length, none above the model's longest; always the same."""
    random = np.random.default_rng(0)
    lengths = [min(length, facts.max_length) for length in _LENGTHS]
    return [bare_row(random.integers(0, 2, length)) for length in lengths]


def _batches(runner: ServingRunner, budget: int, rows: Sequence[Row]) -> list[list[Row]]:
    """Cuts rows of each group where one more would exceed the budget, as the server does."""
    batches: list[list[Row]] = []
    tokens = group = 0
    for row in sorted(rows, key=lambda row: runner.group(len(row))):
        same = bool(batches) and runner.group(len(row)) == group
        if not same or tokens + len(row) > budget:
            batches.append([])
            tokens = 0
        batches[-1].append(row)
        group, tokens = runner.group(len(row)), tokens + len(row)
    return batches


def _kept(tried: Tried) -> dict[str, Choice]:
    """Returns the choices that are kept."""
    return {
        key: Choice(entry["graph"], entry["budget"])
        for key, entry in tried.read().items()
        if entry.keys() == {"graph", "budget"}
    }


def _key(graphs: Sequence[Graph], where: Where) -> str:
    """Returns a fingerprint of all that the choice depends on."""
    return fingerprint(
        *(graph.sha256 for graph in graphs),
        str(where.threads or available_cpus()),
        *(f"{gpu.index} {gpu.name} {where.options}" for gpu in where.gpus(graphs)),
    )
