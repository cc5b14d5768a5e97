"""Where the tensors of a job stand in its block: a function of what both processes know.

All token ids, then all token types, as int32; then each output of all rows, as float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import numpy as np
from numpy.typing import NDArray

from trunkline.decode.numeric import Floats
from trunkline.encode import Row
from trunkline.kinds import Output, task_outputs
from trunkline.runner import RowOutputs
from trunkline.tasks import TaskSpec
from trunkline_serve.fronts.memory import Bytes

_ITEM = 4  # bytes of an int32 and of a float32


@dataclass(frozen=True)
class Column:
    """An output: its shape for one token, or for a row where `per_token` is false."""

    output: Output
    per_token: bool
    shape: tuple[int, ...]

    @property
    def width(self) -> int:
        """Values for one token or row."""
        return int(np.prod(self.shape, dtype=np.int64))


def columns(tasks: Sequence[TaskSpec]) -> dict[str, Column]:
    """Returns the outputs of a graph with these tasks, by name."""
    return {output.name: _column(spec, output) for spec in tasks for output in task_outputs(spec)}


def _column(spec: TaskSpec, output: Output) -> Column:
    sizes = {"labels": len(spec.labels)}
    _, *axes = output.axes
    per_token = "sequence" in axes
    return Column(output, per_token, tuple(sizes[axis] for axis in axes if axis != "sequence"))


class Layout:
    """Places of a job's tensors, counted from the start of its block.

    Args:
        lengths: Tokens of each row.
        wanted: The outputs.

    Attributes:
        lengths: As given.
        size: Bytes of the block.
    """

    def __init__(self, lengths: Sequence[int], wanted: Sequence[Column]) -> None:
        self.lengths = lengths
        self._tokens = sum(lengths)
        self._rows = len(lengths)
        self._cuts = list(pairwise(accumulate(lengths, initial=0)))
        self._wanted = wanted
        inputs = 2 * self._tokens
        values = sum(self._count(column) * column.width for column in wanted)
        self.size = (inputs + values) * _ITEM

    def write_rows(self, block: Bytes, rows: Sequence[Row]) -> None:
        """Writes the inputs."""
        ids, types = self._inputs(block)
        np.concatenate([row.input_ids for row in rows], out=ids, casting="same_kind")
        np.concatenate([row.token_type_ids for row in rows], out=types, casting="same_kind")

    def read_rows(self, block: Bytes) -> list[Row]:
        """Returns the inputs, copied; only ids and types are those that were written."""
        ids, types = (part.astype(np.int64) for part in self._inputs(block))
        return [
            Row(ids[begin:end], types[begin:end], 0, 0, end - begin, 0, end - begin)
            for begin, end in self._cuts
        ]

    def write_outputs(self, block: Bytes, outputs: Sequence[RowOutputs]) -> None:
        """Writes the outputs of all rows."""
        for column, place in self._outputs(block):
            values = [row[column.output.name] for row in outputs]
            if column.per_token:
                np.concatenate(values, out=place)
            else:
                np.stack(values, out=place)

    def read_outputs(self, block: Bytes) -> list[RowOutputs]:
        """Returns the outputs of each row, copied."""
        copies = {column: place.copy() for column, place in self._outputs(block)}
        return [
            {
                column.output.name: values[begin:end] if column.per_token else values[at]
                for column, values in copies.items()
            }
            for at, (begin, end) in enumerate(self._cuts)
        ]

    def _count(self, column: Column) -> int:
        return self._tokens if column.per_token else self._rows

    def _inputs(self, block: Bytes) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        both = block[: 2 * self._tokens * _ITEM].view(np.int32)
        return both[: self._tokens], both[self._tokens :]

    def _outputs(self, block: Bytes) -> list[tuple[Column, Floats]]:
        at = 2 * self._tokens * _ITEM
        places = []
        for column in self._wanted:
            count = self._count(column)
            end = at + count * column.width * _ITEM
            place: Floats = block[at:end].view(np.float32).reshape(count, *column.shape)
            places.append((column, place))
            at = end
        return places
