"""What was taken for what."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from trunkline.scoring.entities import Entity

NOTHING = "(none)"  # no label is written so: it is the gold of a false alarm, and a miss's guess


@dataclass(frozen=True)
class Confusion:
    """Numbers of (gold, predicted) pairs.

    Attributes:
        labels: Of rows and columns; `(none)` is last, where there is one.
        counts: A row per gold label, a column per predicted one.
    """

    labels: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]


def confuse(pairs: Iterable[tuple[str, str]], labels: Sequence[str] = ()) -> Confusion:
    """Counts pairs; those of `labels` that occur stand first, in their order."""
    seen = Counter(pairs)
    found = {label for pair in seen for label in pair}
    known = [label for label in labels if label in found]
    rest = sorted(found.difference(known, [NOTHING]))
    order = (*known, *rest, *([NOTHING] if NOTHING in found else []))
    return Confusion(order, tuple(tuple(seen[gold, got] for got in order) for gold in order))


def entity_pairs(gold: Iterable[Entity], predicted: Iterable[Entity]) -> list[tuple[str, str]]:
    """Returns (gold, predicted) types of one text, paired where begin and end agree."""
    truth = {(begin, end): label for begin, end, label in gold}
    guess = {(begin, end): label for begin, end, label in predicted}
    places = dict.fromkeys((*truth, *guess))
    return [(truth.get(place, NOTHING), guess.get(place, NOTHING)) for place in places]
