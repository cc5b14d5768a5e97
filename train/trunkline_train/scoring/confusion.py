"""What was taken for what."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from trunkline_train.scoring.entities import Entity

NOTHING = "(none)"  # no label is written so: it is the gold of a false alarm, and a miss's guess


@dataclass(frozen=True)
class Confusion:
    """Numbers of (gold, predicted) pairs.

    Attributes:
        labels: That occur; `(none)` is last, where there is one.
        pairs: Those that occur: of thousands of labels few are taken for each other.
    """

    labels: tuple[str, ...]
    pairs: Mapping[tuple[str, str], int]

    def to_dict(self) -> dict[str, object]:
        """Returns the JSON form: a list of gold, predicted and number for `pairs`."""
        return {"labels": [*self.labels], "pairs": [[*of, n] for of, n in self.pairs.items()]}

    def matrix(self, labels: Sequence[str] | None = None) -> tuple[tuple[int, ...], ...]:
        """Returns a row per gold label and a column per predicted one, of all or some labels."""
        order = self.labels if labels is None else labels
        return tuple(tuple(self.pairs.get((gold, got), 0) for got in order) for gold in order)


def confuse(pairs: Iterable[tuple[str, str]], labels: Sequence[str] = ()) -> Confusion:
    """Counts pairs; those of `labels` that occur stand first, in their order."""
    seen = Counter(pairs)
    found = {label for pair in seen for label in pair}
    known = [label for label in labels if label in found]
    rest = sorted(found.difference(known, [NOTHING]))
    return Confusion((*known, *rest, *([NOTHING] if NOTHING in found else [])), dict(seen))


def entity_pairs(gold: Iterable[Entity], predicted: Iterable[Entity]) -> list[tuple[str, str]]:
    """Returns (gold, predicted) types of one text, paired where begin and end agree."""
    truth = {(begin, end): label for begin, end, label in gold}
    guess = {(begin, end): label for begin, end, label in predicted}
    places = dict.fromkeys((*truth, *guess))
    return [(truth.get(place, NOTHING), guess.get(place, NOTHING)) for place in places]
