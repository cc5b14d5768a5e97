"""Rows to packs without padding, and back. The graph's side: trunkline_export.packed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trunkline.decode.numeric import Floats
from trunkline.encode import Row
from trunkline.kinds import Output

PACKED_INPUTS = frozenset(
    {"input_ids", "position_ids", "token_type_ids", "padded_index", "token_index"}
)
_STEP = 16  # of attention's widths


@dataclass(frozen=True)
class Cell:
    """Rows to run together: their indices, and the width of their attention."""

    rows: tuple[int, ...]
    width: int


@dataclass(frozen=True)
class Pack:
    """Rows as a packed graph takes them: its inputs, and the rows' lengths."""

    feed: Mapping[str, NDArray[np.int64]]
    lengths: tuple[int, ...]


def width_of(length: int) -> int:
    """Returns the width of attention for a row: its length alone decides."""
    return -(-length // _STEP) * _STEP


def cells(lengths: Sequence[int], budget: int) -> list[Cell]:
    """Groups rows of equal width, widest first, at most `budget` tokens each or one row."""
    found: list[Cell] = []
    rows: list[int] = []
    tokens = width = 0
    for index in sorted(range(len(lengths)), key=lambda at: -width_of(lengths[at])):
        wanted = width_of(lengths[index])
        if rows and (wanted != width or tokens + lengths[index] > budget):
            found.append(Cell(tuple(rows), width))
            rows, tokens = [], 0
        width = wanted
        rows.append(index)
        tokens += lengths[index]
    return [*found, Cell(tuple(rows), width)] if rows else found


def pack(rows: Sequence[Row], width: int) -> Pack:
    """Returns rows one behind the other, with where attention finds them in [rows, width]."""
    lengths = np.array([len(row) for row in rows])
    there = np.arange(width) < lengths[:, None]
    places = np.flatnonzero(there)
    index = np.full(there.shape, -1, np.int64)
    index.reshape(-1)[places] = np.arange(len(places))
    feed = {
        "input_ids": np.concatenate([row.input_ids for row in rows]),
        "position_ids": places % width,
        "token_type_ids": np.concatenate([row.token_type_ids for row in rows]),
        "padded_index": index,
        "token_index": places,
    }
    return Pack(feed, tuple(map(int, lengths)))


def unpack(
    packed: Pack, outputs: Sequence[Output], values: Sequence[Floats]
) -> list[Mapping[str, Floats]]:
    """Returns each row's part of the outputs: of its tokens, or its one of all rows."""
    ends = np.cumsum(packed.lengths)
    begins = ends - packed.lengths
    return [
        {
            output.name: value[begin:end] if "sequence" in output.axes else value[at]
            for output, value in zip(outputs, values, strict=True)
        }
        for at, (begin, end) in enumerate(zip(begins, ends, strict=True))
    ]
