"""Runners and queues that have some of the ideas and lack others.

All are put together from the public parts of the product; a variant that has every idea is the
product's own runner and scheduler. Answers are those of the model whatever is left out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from benchmarks.ablation_ideas import Ideas
from trunkline import Model
from trunkline.batching import PADDED_INPUTS, pad, unpad
from trunkline.bundle import Bundle, Graph
from trunkline.encode import Row
from trunkline.errors import ConfigError
from trunkline.kinds import Output, all_outputs
from trunkline.packing import PACKED_INPUTS, cells, pack, unpack, width_of
from trunkline.runner import PackedRunner, RowOutputs, ServingRunner
from trunkline.session import Session
from trunkline_serve.events import Listener
from trunkline_serve.scheduler import Computing, Scheduler
from trunkline_serve.turns import Ran

_BUDGET = 512  # real tokens of a run: the packed runner's own
_ONE_ROW = 1  # token: a budget that any row exceeds, so that each runs alone

Run = Callable[[Session, Sequence[Row], Sequence[Output]], list[RowOutputs]]
"""Runs rows through a session in one way of laying them out."""


class LaidOut:
    """A runner that lays rows out in one way.

    Args:
        session: The graph.
        run: The way.
        lanes: Runs side by side.
        packing: Whether that way has no padding.
        widths: Whether rows of one width of attention are to share a run.
    """

    def __init__(
        self, session: Session, run: Run, *, lanes: int, packing: bool, widths: bool
    ) -> None:
        self.lanes = lanes
        self.budget = _BUDGET
        self._session = session
        self._run = run
        self._packing = packing
        self._widths = widths

    def group(self, length: int) -> int:
        """Returns the width of a row's attention, or one group for all rows."""
        return width_of(length) if self._widths else 0

    def computed(self, lengths: Sequence[int]) -> int:
        """Returns the tokens that go through the products."""
        return sum(lengths) if self._packing else len(lengths) * max(lengths)

    def run(self, rows: Sequence[Row], outputs: Sequence[Output]) -> list[RowOutputs]:
        """Returns for each row its outputs by name."""
        return self._run(self._session, rows, outputs)


def run_padded(
    session: Session, rows: Sequence[Row], outputs: Sequence[Output]
) -> list[RowOutputs]:
    """Runs a padded graph, all rows as long as the longest."""
    return unpad(rows, outputs, session.run(_names(outputs), pad(rows, 0)))


def run_packed(
    session: Session, rows: Sequence[Row], outputs: Sequence[Output]
) -> list[RowOutputs]:
    """Runs a packed graph as it is meant, one pack after the other."""
    results: list[RowOutputs] = [{}] * len(rows)
    for cell in cells([len(row) for row in rows], _BUDGET):
        packed = pack([rows[index] for index in cell.rows], cell.width)
        values = session.run(_names(outputs), packed.feed)
        for index, result in zip(cell.rows, unpack(packed, outputs, values), strict=True):
            results[index] = result
    return results


def run_lengthened(
    session: Session, rows: Sequence[Row], outputs: Sequence[Output]
) -> list[RowOutputs]:
    """Runs a packed graph on padded rows: padding is computed like any token, but never read."""
    longest = max(map(len, rows))
    packed = pack([_lengthened(row, longest) for row in rows], width_of(longest))
    index = packed.feed["padded_index"].copy()
    index[np.arange(index.shape[1]) >= np.array([len(row) for row in rows])[:, None]] = -1
    values = session.run(_names(outputs), {**packed.feed, "padded_index": index})
    by_row = [
        value.reshape(len(rows), longest, *value.shape[1:]) if "sequence" in output.axes else value
        for output, value in zip(outputs, values, strict=True)
    ]
    return unpad(rows, outputs, by_row)


def _lengthened(row: Row, length: int) -> Row:
    more = (0, length - len(row))
    ids, types = np.pad(row.input_ids, more), np.pad(row.token_type_ids, more)
    return replace(row, input_ids=ids, token_type_ids=types)


def _names(outputs: Sequence[Output]) -> list[str]:
    return [output.name for output in outputs]


class AnyWidth(PackedRunner):
    """The packed runner, but rows of all widths come in one line."""

    def group(self, length: int) -> int:
        """Returns one group for all rows."""
        return 0


class Workshop:
    """Makes the models of variants; a graph is loaded once for all that run it alike.

    Args:
        bundle: With padded and packed fp32 graphs and a packed int8 one.
        threads: To compute with.

    Raises:
        ConfigError: The bundle lacks one of them.
    """

    def __init__(self, bundle: Bundle, threads: int) -> None:
        self._bundle = bundle
        self._threads = threads
        self._outputs = all_outputs(bundle.manifest.tasks)
        self._sessions: dict[tuple[str, int], Session] = {}
        for layout, precision in (("padded", "fp32"), ("packed", "fp32"), ("packed", "int8")):
            self._find(layout, precision)

    def model(self, ideas: Ideas) -> Model:
        """Returns the model of a variant."""
        layout = "packed" if ideas.packing or ideas.int8 else "padded"
        graph = self._find(layout, "int8" if ideas.int8 else "fp32")
        return Model(self._bundle, graph, self._runner(ideas, graph))

    def _runner(self, ideas: Ideas, graph: Graph) -> ServingRunner:
        if ideas.packing and ideas.lanes:
            chosen = PackedRunner if ideas.widths else AnyWidth
            return chosen(self._bundle.path / graph.file, self._outputs, self._threads)
        run = run_packed if ideas.packing else run_lengthened
        return LaidOut(
            self._session(graph, 1 if ideas.lanes else self._threads),
            run_padded if graph.layout == "padded" else run,
            lanes=self._threads if ideas.lanes else 1,
            packing=ideas.packing,
            widths=ideas.packing and ideas.widths,
        )

    def _session(self, graph: Graph, threads: int) -> Session:
        key = graph.file, threads
        if key not in self._sessions:
            takes = PADDED_INPUTS if graph.layout == "padded" else PACKED_INPUTS
            path = self._bundle.path / graph.file
            self._sessions[key] = Session(path, takes, self._outputs, threads)
        return self._sessions[key]

    def _find(self, layout: str, precision: str) -> Graph:
        for graph in self._bundle.manifest.graphs:
            if (graph.layout, graph.precision) == (layout, precision):
                return graph
        raise ConfigError(
            f"{self._bundle.path} has no {layout} {precision} graph; export it with int8"
        )


def scheduler(ideas: Ideas, model: Model, listener: Listener) -> Scheduler:
    """Returns the scheduler of a variant; to be closed."""
    budget = _ONE_ROW if ideas.batches == "row" else None
    return Scheduler(model.runner.lanes, listener, budget)


def computing(ideas: Ideas, scheduled: Scheduler) -> Computing:
    """Returns what calls of a variant hand their rows to."""
    found: Computing = OfOneTask(scheduled) if ideas.batches == "task" else scheduled
    return found if ideas.heads else PassPerHead(found)


class _Through:
    """A way to another `Computing`."""

    def __init__(self, there: Computing) -> None:
        self._there = there

    @property
    def queued_tokens(self) -> int:
        """Tokens that wait."""
        return self._there.queued_tokens

    def expected_wait(self, tokens: int = 0) -> float:
        """Returns the seconds until a call of so many tokens, made now, should be done."""
        return self._there.expected_wait(tokens)


class OfOneTask(_Through):
    """A queue a set of outputs, as if each task had a model of its own: none share a run."""

    def __init__(self, there: Computing) -> None:
        super().__init__(there)
        self._models: dict[tuple[Output, ...], Model] = {}

    async def submit(
        self,
        model: Model,
        rows: Sequence[Row],
        outputs: Sequence[Output],
        deadline: float | None = None,
    ) -> Ran:
        """Queues rows among those that want the same outputs."""
        wanted = tuple(outputs)
        if wanted not in self._models:
            self._models[wanted] = Model(model.bundle, model.graph, model.runner)
        return await self._there.submit(self._models[wanted], rows, outputs, deadline)


class PassPerHead(_Through):
    """Rows go through the encoder once for each task that they are asked for."""

    async def submit(
        self,
        model: Model,
        rows: Sequence[Row],
        outputs: Sequence[Output],
        deadline: float | None = None,
    ) -> Ran:
        """Queues rows as often as there are tasks among the outputs."""
        by_task: dict[str, list[Output]] = {}
        for output in outputs:
            by_task.setdefault(output.name.partition(".")[0], []).append(output)
        passes = (self._there.submit(model, rows, one, deadline) for one in by_task.values())
        return Ran(_merged([ran.outputs for ran in await asyncio.gather(*passes)]))


def _merged(passes: Sequence[Sequence[RowOutputs]]) -> list[RowOutputs]:
    found: list[RowOutputs] = []
    for parts in zip(*passes, strict=True):
        row: Mapping[str, np.ndarray] = {name: v for part in parts for name, v in part.items()}
        found.append(row)
    return found
