"""Words of a text that no tokenizer has split, and the labels of spans by word."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import pairwise
from unicodedata import category

from trunkline.formats.marked import Mark

_RUN = re.compile(r"\S+")
Bounds = tuple[int, int]


def plain_words(text: str, spans: Sequence[Mark] = ()) -> list[Bounds]:
    """Returns (start, end) of the words of a text.

    They are apart by white space; punctuation before and after a word stands alone; a span begins
    and ends a word. Inside, `don't` and `Saint-Denis` stay whole.
    """
    cuts = sorted({edge for mark in spans for edge in (mark.start, mark.end)})
    words: list[Bounds] = []
    for run in _RUN.finditer(text):
        edges = [run.start(), *_inside(cuts, *run.span()), run.end()]
        for piece in pairwise(edges):
            words += _peeled(text, *piece)
    return words


def covering(words: Sequence[Bounds], mark: Mark) -> Mark | None:
    """Returns a span with the whole of each word it touches; None if it touches none."""
    first = bisect_right(words, mark.start, key=_end)
    last = bisect_left(words, mark.end, key=_start)
    return mark._replace(start=words[first][0], end=words[last - 1][1]) if first < last else None


def iob2_tags(words: Sequence[Bounds], spans: Sequence[Mark]) -> list[str]:
    """Returns the IOB2 tag of each word: that of the span it touches.

    Args:
        words: In the order of the text.
        spans: In the order of the text; no two touch the same word.
    """
    tags = ["O"] * len(words)
    for mark in spans:
        first = bisect_right(words, mark.start, key=_end)
        last = bisect_left(words, mark.end, key=_start)
        tags[first:last] = [
            f"{'I' if at > first else 'B'}-{mark.label}" for at in range(first, last)
        ]
    return tags


def _start(word: Bounds) -> int:
    return word[0]


def _end(word: Bounds) -> int:
    return word[1]


def _inside(cuts: list[int], start: int, end: int) -> list[int]:
    return cuts[bisect_right(cuts, start) : bisect_right(cuts, end - 1)]


def _peeled(text: str, start: int, end: int) -> list[Bounds]:
    """Returns a run without white space as words, punctuation around it apart."""
    if text[start].isalnum() and text[end - 1].isalnum():
        return [(start, end)]
    first, last = start, end
    while first < end and _is_mark(text[first]):
        first += 1
    while last > first and _is_mark(text[last - 1]):
        last -= 1
    middle = [(first, last)] if first < last else []
    return [*_single(start, first), *middle, *_single(last, end)]


def _single(start: int, end: int) -> list[Bounds]:
    return [(at, at + 1) for at in range(start, end)]


def _is_mark(character: str) -> bool:
    return category(character).startswith("P")
