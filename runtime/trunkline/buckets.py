"""Rows to the shapes that a GPU computes: token counts in steps, whose rest dummy rows fill.

A run of a new shape costs more than one of a known shape, on any GPU, and CUDA graphs exist for
known shapes only. So token counts are rounded up, and so are the number of rows and the longest
row's length. Rows attend to themselves alone: what stands behind them changes no answer. The
graph's side: trunkline_export.packed_cuda.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

from trunkline.encode import Row

Ints = NDArray[np.int32]

CUDA_INPUTS = (
    "input_ids",
    "position_ids",
    "token_type_ids",
    "token_offset",
    "cumulative_sequence_length",
    "first_index",
)
_LEAST_TOKENS = 64
_STEPS = 8  # token counts from one power of two to the next: at most an eighth is filled up
_ROWS, _WIDTH = 8, 64
_CAPTURED = (64, 128, 192, 256, 384, 512, 768, 1024)
_AREA = 8  # places of rows at equal width, over the budget: long rows do not go with very many
_ALIGNED = 64  # elements: where a tensor may begin in memory


@dataclass(frozen=True)
class Shape:
    """What a run computes.

    Attributes:
        tokens: One behind the other.
        rows: That they make.
        width: Of the longest row, at most.
    """

    tokens: int
    rows: int
    width: int


@dataclass(frozen=True)
class Place:
    """A tensor's place in a block of memory: its first element and its shape."""

    begin: int
    shape: tuple[int, ...]

    @property
    def end(self) -> int:
        """The element behind its last one."""
        return self.begin + prod(self.shape)


def bucket(lengths: Sequence[int]) -> Shape:
    """Returns the least shape of the steps that holds rows of these lengths."""
    width = _up(max(lengths), _WIDTH)
    tokens = _token_bucket(sum(lengths))
    dummies = -(-(tokens - sum(lengths)) // width)
    return Shape(tokens, _up(len(lengths) + dummies, _ROWS), width)


def fits(lengths: Sequence[int], shape: Shape) -> bool:
    """Returns whether a shape holds rows of these lengths and the dummy rows behind them."""
    left = shape.tokens - sum(lengths)
    rows = len(lengths) + -(-left // shape.width)
    return left >= 0 and rows <= shape.rows and max(lengths) <= shape.width


def captured(longest: int) -> list[Shape]:
    """Returns the shapes worth a CUDA graph: few tokens, where starting operators costs most.

    Each token count has a shape for sentences and one for longer rows, up to `longest` tokens.
    """
    shapes = []
    for tokens in _CAPTURED:
        shapes.append(Shape(tokens, max(4, tokens // 8), _WIDTH))
        if longest > _WIDTH and tokens > _WIDTH:
            width = _up(min(longest, tokens), _WIDTH)
            shapes.append(Shape(tokens, max(4, tokens // 32), width))
    return shapes


def runs(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Groups rows into runs, longest first, of at most `budget` tokens or one row.

    Rows of one run are at most so many and so different that the places of all at equal width are
    few times the budget; some kernels take memory for each.
    """
    found: list[list[int]] = []
    tokens = width = 0
    for index in sorted(range(len(lengths)), key=lambda at: -lengths[at]):
        length = lengths[index]
        area = width * (len(found[-1]) + 1) if found else 0
        if not found or tokens + length > budget or area > _AREA * budget:
            found.append([])
            tokens, width = 0, _up(length, _WIDTH)
        found[-1].append(index)
        tokens += length
    return found


def layout(names: Iterable[tuple[str, tuple[int, ...]]]) -> dict[str, Place]:
    """Returns places for tensors of these shapes in one block, one behind the other."""
    places: dict[str, Place] = {}
    end = 0
    for name, shape in names:
        places[name] = Place(_up(end, _ALIGNED), shape)
        end = places[name].end
    return places


def input_places(shape: Shape) -> dict[str, Place]:
    """Returns where the inputs of a run of this shape stand in one block of int32."""
    tokens, rows = (shape.tokens,), (shape.rows,)
    sizes = (tokens, tokens, tokens, (shape.rows, shape.width), (shape.rows + 1,), rows)
    return layout(zip(CUDA_INPUTS, sizes, strict=True))


def fill(block: Ints, places: dict[str, Place], shape: Shape, rows: Sequence[Row]) -> None:
    """Writes the inputs of rows, and of the dummy rows that fill the shape, into a block."""

    def tensor(name: str) -> Ints:
        place = places[name]
        return block[place.begin : place.end].reshape(place.shape)

    lengths = _lengths([len(row) for row in rows], shape)
    ends = np.cumsum(lengths)
    there = np.arange(shape.width) < lengths[:, None]
    taken, free = np.flatnonzero(there), np.flatnonzero(~there)
    tensor("position_ids")[:] = taken % shape.width
    offsets = tensor("token_offset").reshape(-1)
    offsets[: shape.tokens], offsets[shape.tokens :] = taken, free
    tensor("cumulative_sequence_length")[0] = 0
    tensor("cumulative_sequence_length")[1:] = ends
    # Rows without tokens stand behind all others; any token will do for them.
    tensor("first_index")[:] = np.where(lengths > 0, ends - lengths, 0)
    real = sum(map(len, rows))
    for name, parts in (
        ("input_ids", [row.input_ids for row in rows]),
        ("token_type_ids", [row.token_type_ids for row in rows]),
    ):
        np.concatenate(parts, out=tensor(name)[:real], casting="same_kind")
        tensor(name)[real:] = 0


def _lengths(real: Sequence[int], shape: Shape) -> NDArray[np.int64]:
    """Returns the lengths of all rows of a shape: real ones, dummies, and rows without tokens."""
    lengths = np.zeros(shape.rows, np.int64)
    lengths[: len(real)] = real
    left = shape.tokens - sum(real)
    dummies = -(-left // shape.width)
    lengths[len(real) : len(real) + dummies] = shape.width
    if left % shape.width:
        lengths[len(real) + dummies - 1] = left % shape.width
    return lengths


def _token_bucket(tokens: int) -> int:
    power = 1 << (max(tokens, 1).bit_length() - 1)
    return _up(tokens, max(_LEAST_TOKENS, power // _STEPS))


def _up(value: int, step: int) -> int:
    return -(-value // step) * step
