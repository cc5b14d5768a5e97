"""Runs rows through a graph. A runner hides the layout: rows go in, per-row arrays come out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from trunkline.batching import PADDED_INPUTS, pad, plan, unpad
from trunkline.cpu import available_cpus
from trunkline.decode.numeric import Floats
from trunkline.encode import Row
from trunkline.forking import Workers
from trunkline.kinds import Output
from trunkline.packing import PACKED_INPUTS, Pack, cells, pack, unpack, width_of
from trunkline.session import Session

RowOutputs = Mapping[str, Floats]
_PADDED_TOKENS = 2048  # of one batch of a padded graph
PACK_TOKENS = 512  # of one pack, as a rule: docs/adr/0012


class Runner(Protocol):
    """Whatever can run rows: an ONNX graph, a torch model."""

    def run(self, rows: Sequence[Row], outputs: Sequence[Output]) -> list[RowOutputs]:
        """Returns for each row its outputs by name: [S, ...] without padding, or one for all."""
        ...


class ServingRunner(Runner, Protocol):
    """A runner that many callers share, with what a scheduler must know of it.

    Attributes:
        lanes: Runs that may go on at once, a thread each.
        budget: Real tokens that one run should have at most; a longer row runs alone.
    """

    lanes: int
    budget: int

    def group(self, length: int) -> int:
        """Returns the group of a row of this length: rows of one group run well together."""
        ...

    def computed(self, lengths: Sequence[int]) -> int:
        """Returns the tokens that are computed for rows of one run, padding included."""
        ...


class PaddedRunner:
    """Base of runners over padded batches: groups rows by length, pads, runs, takes apart.

    Args:
        pad_id: Vocabulary id of padding.
        budget: Most tokens in one batch, padding included.
    """

    lanes = 1  # a run has all threads

    def __init__(self, pad_id: int, budget: int = _PADDED_TOKENS) -> None:
        self._pad_id = pad_id
        self.budget = budget

    def group(self, length: int) -> int:
        """Returns the group of a row: there is but one, since `run` sorts rows by length."""
        return 0

    def computed(self, lengths: Sequence[int]) -> int:
        """Returns the tokens of the batches that `run` makes of rows, padding included."""
        batches = plan(lengths, self.budget)
        return sum(len(batch) * max(lengths[index] for index in batch) for batch in batches)

    def run(self, rows: Sequence[Row], outputs: Sequence[Output]) -> list[RowOutputs]:
        """Returns for each row its outputs by name: [S, ...] without padding, or one for all."""
        results: list[RowOutputs] = [{}] * len(rows)
        for batch in plan([len(row) for row in rows], self.budget):
            chosen = [rows[index] for index in batch]
            values = self.forward(pad(chosen, self._pad_id), [output.name for output in outputs])
            for index, result in zip(batch, unpad(chosen, outputs, values), strict=True):
                results[index] = result
        return results

    def forward(
        self, inputs: Mapping[str, NDArray[np.int64]], outputs: Sequence[str]
    ) -> list[Floats]:
        """Runs one padded batch [B, S] and returns the named outputs."""
        raise TypeError(f"{type(self).__name__} must define forward")


class OrtRunner(PaddedRunner):
    """Runs a padded graph in onnxruntime on the CPU.

    Args:
        path: The ONNX file.
        pad_id: Vocabulary id of padding.
        outputs: Outputs that the graph must have.
        threads: Threads of one run; by default the CPUs this process may use.

    Raises:
        BundleError: The graph cannot be loaded or lacks an output.
    """

    def __init__(
        self, path: Path, pad_id: int, outputs: Sequence[Output], threads: int | None = None
    ) -> None:
        super().__init__(pad_id)
        self._session = Session(path, PADDED_INPUTS, outputs, threads or available_cpus())

    def forward(
        self, inputs: Mapping[str, NDArray[np.int64]], outputs: Sequence[str]
    ) -> list[Floats]:
        """Runs one padded batch [B, S] and returns the named outputs."""
        return self._session.run(outputs, inputs)


class PackedRunner:
    """Runs a packed graph in onnxruntime on the CPU, several packs side by side.

    A pack holds rows of one width of attention, which follows from a row's own length: it is
    computed in the same way, and has the same outputs bit for bit, in any company. Packs run on a
    thread each, since threads that share one operator wait for each other (docs/adr/0012).

    Args:
        path: The ONNX file.
        outputs: Outputs that the graph must have.
        threads: Packs at once; by default the CPUs this process may use.
        budget: Most tokens in one pack; a longer row stands alone, so that 1 lets every row.

    Raises:
        BundleError: The graph cannot be loaded or lacks an output.
    """

    def __init__(
        self,
        path: Path,
        outputs: Sequence[Output],
        threads: int | None = None,
        budget: int = PACK_TOKENS,
    ) -> None:
        self._session = Session(path, PACKED_INPUTS, outputs, 1)
        self.lanes = threads or available_cpus()
        self.budget = budget
        self._threads = Workers(self.lanes, "trunkline-run")

    def group(self, length: int) -> int:
        """Returns the group of a row: the width of its attention."""
        return width_of(length)

    def computed(self, lengths: Sequence[int]) -> int:
        """Returns the rows' own tokens: there is no padding but inside attention."""
        return sum(lengths)

    def run(self, rows: Sequence[Row], outputs: Sequence[Output]) -> list[RowOutputs]:
        """Returns for each row its outputs by name: [S, ...] without padding, or one for all."""
        results: list[RowOutputs] = [{}] * len(rows)
        packs = [
            (cell, pack([rows[index] for index in cell.rows], cell.width))
            for cell in cells([len(row) for row in rows], self.budget)
        ]
        for (cell, packed), values in zip(
            packs, self._run_all([packed for _, packed in packs], outputs), strict=True
        ):
            for index, result in zip(cell.rows, unpack(packed, outputs, values), strict=True):
                results[index] = result
        return results

    def _run_all(
        self, packs: Sequence[Pack], outputs: Sequence[Output]
    ) -> Sequence[Sequence[Floats]]:
        names = [output.name for output in outputs]
        if len(packs) == 1:  # spares it the way to another thread
            return [self._session.run(names, packs[0].feed)]
        return list(self._threads.map(lambda one: self._session.run(names, one.feed), packs))


def open_runner(
    path: Path, layout: str, pad_id: int, outputs: Sequence[Output], threads: int | None = None
) -> ServingRunner:
    """Returns the runner of a graph's layout, `padded` or `packed`.

    Raises:
        BundleError: The graph cannot be loaded or lacks an output.
    """
    if layout == "packed":
        return PackedRunner(path, outputs, threads)
    return OrtRunner(path, pad_id, outputs, threads)
