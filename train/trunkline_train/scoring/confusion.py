"""Confusion matrices."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from trunkline_train.scoring.entities import Entity

NOTHING = "(none)"  # never a label: gold of a false positive, prediction of a miss


@dataclass(frozen=True)
class Confusion:
    """A sparse confusion matrix.

    Attributes:
        labels: Labels that occur; `(none)`, if it occurs, is last.
        pairs: Number of each (gold, predicted) pair that occurs.
    """

    labels: tuple[str, ...]
    pairs: Mapping[tuple[str, str], int]

    def to_dict(self) -> dict[str, object]:
        """Returns the JSON form, with `pairs` as lists of gold, predicted and number."""
        return {"labels": [*self.labels], "pairs": [[*of, n] for of, n in self.pairs.items()]}

    def matrix(self, labels: Sequence[str] | None = None) -> tuple[tuple[int, ...], ...]:
        """Returns the dense matrix of all or some labels: rows are gold, columns predicted."""
        order = self.labels if labels is None else labels
        return tuple(tuple(self.pairs.get((gold, got), 0) for got in order) for gold in order)


def confuse(pairs: Iterable[tuple[str, str]], labels: Sequence[str] = ()) -> Confusion:
    """Counts pairs; labels that occur are ordered as in `labels`, then alphabetically."""
    seen = Counter(pairs)
    found = {label for pair in seen for label in pair}
    known = [label for label in labels if label in found]
    rest = sorted(found.difference(known, [NOTHING]))
    return Confusion((*known, *rest, *([NOTHING] if NOTHING in found else [])), dict(seen))


def entity_pairs(gold: Iterable[Entity], predicted: Iterable[Entity]) -> list[tuple[str, str]]:
    """Returns the (gold, predicted) types of one text's entities, paired by begin and end."""
    truth = {(begin, end): label for begin, end, label in gold}
    guess = {(begin, end): label for begin, end, label in predicted}
    places = dict.fromkeys((*truth, *guess))
    return [(truth.get(place, NOTHING), guess.get(place, NOTHING)) for place in places]
