"""Entity F1 and tag accuracy.

Entities count as conlleval and seqeval's default count them: a prediction is right if begin, end
and type are. Decoded spans are always well-formed, so seqeval's strict IOB2 gives the same figure.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

Entity = tuple[int, int, str]  # begin, end, type


@dataclass(frozen=True)
class Counts:
    """True positives, predicted and gold numbers of one type or of all."""

    correct: int
    predicted: int
    gold: int

    @property
    def precision(self) -> float:
        """Share of predictions that are right, in points; 0 without predictions."""
        return 100.0 * self.correct / self.predicted if self.predicted else 0.0

    @property
    def recall(self) -> float:
        """Share of gold entities found, in points; 0 without gold."""
        return 100.0 * self.correct / self.gold if self.gold else 0.0

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall, in points."""
        total = self.predicted + self.gold
        return 200.0 * self.correct / total if total else 0.0


@dataclass(frozen=True)
class EntityScores:
    """Counts over all types (micro average) and per type."""

    overall: Counts
    by_type: dict[str, Counts]


def score_entities(
    gold: Sequence[Iterable[Entity]], predicted: Sequence[Iterable[Entity]]
) -> EntityScores:
    """Scores predicted entities against gold ones, text by text."""
    correct, found, wanted = Counter[str](), Counter[str](), Counter[str]()
    for truth, guess in zip(gold, predicted, strict=True):
        right, given = set(truth), set(guess)
        correct.update(label for _, _, label in right & given)
        found.update(label for _, _, label in given)
        wanted.update(label for _, _, label in right)
    by_type = {
        label: Counts(correct[label], found[label], wanted[label])
        for label in sorted({*found, *wanted})
    }
    return EntityScores(Counts(correct.total(), found.total(), wanted.total()), by_type)


def to_iob2(tags: Sequence[str]) -> list[str]:
    """Returns IOB1 or IOB2 tags as IOB2; an entity that opens with I- gets its B-.

    In IOB1, B- stands only between neighbouring entities of one type
    (Tjong Kim Sang and Veenstra, 1999); the same repair is what conlleval applies.
    """
    fixed: list[str] = []
    previous = "O"
    for tag in tags:
        prefix, _, label = tag.partition("-")
        opens = prefix == "I" and previous[2:] != label
        fixed.append(f"B-{label}" if opens else tag)
        previous = tag
    return fixed
