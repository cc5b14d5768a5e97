"""Where tokens stand in a text: white space in none, and each other character in exactly one word.

Tokenizers count white space in, drop characters, and expand one character to several words. What
they dropped goes to the word that it touches; words that share a character are one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from operator import gt, lt
from typing import NamedTuple
from unicodedata import category

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Offsets = Sequence[tuple[int, int]]


class Bounds(NamedTuple):
    """The N tokens of a text.

    Attributes:
        starts, ends: [N] first character of each, and one past the last.
        units: [N] the word of each: tokens of one word stand together and have one number.
    """

    starts: Ints
    ends: Ints
    units: Ints


def token_bounds(text: str, offsets: Offsets, words: Sequence[int | None]) -> Bounds:
    """Returns the bounds of tokens, of what a tokenizer says of them.

    Args:
        text: What was read.
        offsets: The tokenizer's (start, end) of each token.
        words: Its pre-token of each.
    """
    # Lists and plain loops here: on texts of a few dozen tokens, numpy takes longer to begin.
    starts, ends = visible_bounds(text, offsets)
    units = [-1 if word is None else word for word in words]
    if not _exact(text, starts, ends):
        _fill(text, starts, ends)
        units = _joined(units, starts, ends)
    return Bounds(*(np.array(one, np.int64) for one in (starts, ends, units)))


def visible_bounds(text: str, offsets: Offsets) -> tuple[list[int], list[int]]:
    """Returns starts and ends of tokens without white space; one of that alone is empty.

    Empty ones stand where the next token begins, or at the end of the text.
    """
    starts, ends = [start for start, _ in offsets], [end for _, end in offsets]
    if not _all_visible(text, starts, ends):
        offsets = _moved(text, [_visible(text, *bounds) for bounds in offsets])
        starts, ends = [start for start, _ in offsets], [end for _, end in offsets]
    return starts, ends


def part_at_space(bounds: Bounds) -> Bounds:
    """Returns bounds whose words also end at white space, for tokenizers that have none."""
    starts, ends, units = bounds
    behind_space = starts[1:] > np.maximum.accumulate(ends)[:-1]
    begins = (units[1:] != units[:-1]) | behind_space
    return Bounds(starts, ends, np.concatenate([units[:1] * 0, np.cumsum(begins)]))


def _exact(text: str, starts: Sequence[int], ends: Sequence[int]) -> bool:
    """Tells if tokens hold each character but white space, and no two the same."""
    if any(map(gt, ends, islice(starts, 1, None))):
        return False
    between = zip((0, *ends), (*starts, len(text)), strict=True)
    gaps = "".join([text[end:start] for end, start in between])
    return not gaps or gaps.isspace()


def _all_visible(text: str, starts: Sequence[int], ends: Sequence[int]) -> bool:
    """Tells if no token is empty, and none begins or ends with white space."""
    if not all(map(lt, starts, ends)):
        return False
    edges = {*map(text.__getitem__, starts), *[text[end - 1] for end in ends]}
    return not any(map(str.isspace, edges))


def _visible(text: str, start: int, end: int) -> tuple[int, int]:
    """Returns the bounds without white space, which some tokenizers count to the next word."""
    piece = text[start:end]
    start = end - len(piece.lstrip())
    return start, start + len(piece.strip())


def _moved(text: str, offsets: Offsets) -> list[tuple[int, int]]:
    """Moves empty tokens to where the next one begins, or to the end of the text."""
    moved: list[tuple[int, int]] = []
    after = len(text)
    for start, end in reversed(offsets):
        after = min(after, start) if start < end else after
        moved.append((start, end) if start < end else (after, after))
    return moved[::-1]


def _fill(text: str, starts: list[int], ends: list[int]) -> None:
    """Moves bounds over what the tokenizer dropped: to the token before, else the one behind.

    Combining marks are dropped by many, and must not be cut off. Control characters at the edge of
    a word, and what white space parts from all tokens, stay in none.
    """
    before, reach = -1, 0
    for at, start in _seen(starts, ends):
        gap = text[reach:start]
        if gap and before >= 0:
            ends[before] += _solid(gap)
        if gap and (before < 0 or ends[before] < start):
            _begin(starts, ends, at, start - _solid(gap[::-1]))
        if ends[at] >= reach:
            before, reach = at, ends[at]
    if before >= 0:
        ends[before] += _solid(text[reach:])


def _begin(starts: list[int], ends: list[int], at: int, start: int) -> None:
    """Lets a token begin earlier, and with it the empty ones that stand where it began."""
    while at > 0 and starts[at - 1] == ends[at - 1] == starts[at]:
        starts[at] = start
        at -= 1
        ends[at] = start
    starts[at] = start


def _solid(piece: str) -> int:
    """Returns the characters at the beginning of a text, up to white space or what is not seen."""
    size = next((at for at, one in enumerate(piece) if one.isspace()), len(piece))
    while size and category(piece[size - 1]).startswith("C"):  # a byte order mark, say
        size -= 1
    return size


def _joined(units: Sequence[int], starts: Sequence[int], ends: Sequence[int]) -> list[int]:
    """Returns words of which none shares a character with another."""
    joined = list(units)
    into: dict[int, int] = {}
    before, reach = -1, 0
    for at, start in _seen(starts, ends):
        unit = joined[at]
        if start < reach and unit not in into:
            into[unit] = joined[before]
        joined[at] = into.get(unit, unit)
        if before >= 0 and joined[at] == joined[before]:  # empty ones between them too
            joined[before:at] = [joined[at]] * (at - before)
        before, reach = at, max(reach, ends[at])
    return joined


def _seen(starts: Sequence[int], ends: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yields number and start of each token that is not empty."""
    for at, start in enumerate(starts):
        if start < ends[at]:
            yield at, start
