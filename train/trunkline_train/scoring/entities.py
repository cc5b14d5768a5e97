"""Entity F1 of served spans, and of tags by the rules of conlleval and of strict IOB2.

A prediction is right if begin, end and type are right. The three metrics differ in the unit of
boundaries and in the treatment of ill-formed tag sequences:

- `f1` compares the character offsets that are served. Decoded spans are well-formed, so tag rules
  do not affect it. A span that ends inside a word of the data is wrong.
- `conlleval_f1` is the figure in papers: every word of the data gets the tag of its first unit, and
  tags are read as by conlleval and seqeval's default, where I-X without B-X opens an entity.
- `strict_f1` reads the same tags as seqeval's strict mode with IOB2: I-X without B-X is ignored.

If every span begins and ends at a word bound, the three are equal. They differ if the tokenizer
splits words of the data (`Saint-Denis`, `U.S.`) and a span begins or ends inside one.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from trunkline_train.scoring.tally import CountTable, Metric, Share, Sums, Tally, points

Entity = tuple[int, int, str]  # begin, end, type
_OUTSIDE = "O"


@dataclass(frozen=True)
class Counts:
    """Numbers of correct, predicted and gold entities, of one type or of all."""

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


def count_entities(
    gold: Sequence[Iterable[Entity]], predicted: Sequence[Iterable[Entity]]
) -> dict[str, Counts]:
    """Counts correct, predicted and gold entities of each type, comparing text by text."""
    correct, found, wanted = Counter[str](), Counter[str](), Counter[str]()
    for truth, guess in zip(gold, predicted, strict=True):
        right, given = set(truth), set(guess)
        correct.update(label for _, _, label in right & given)
        found.update(label for _, _, label in given)
        wanted.update(label for _, _, label in right)
    return {
        label: Counts(correct[label], found[label], wanted[label])
        for label in sorted({*found, *wanted})
    }


def tally_entities(
    gold: Sequence[Iterable[Entity]], predicted: Sequence[Iterable[Entity]]
) -> Tally:
    """Tallies F1, precision and recall over all types (micro average)."""
    metrics: dict[str, Metric] = {"f1": _F1(0), "precision": Share(0, 1), "recall": Share(0, 2)}
    return Tally(_entity_counts(gold, predicted), metrics)


def tally_tag_entities(gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> Tally:
    """Tallies the F1 of the entities in tag sequences, by the conlleval and strict rules."""
    counts = [
        _entity_counts([read(tags) for tags in gold], [read(tags) for tags in predicted])
        for read in (read_conlleval, read_strict)
    ]
    return Tally(counts[0].beside(counts[1]), {"conlleval_f1": _F1(0), "strict_f1": _F1(3)})


def read_conlleval(tags: Sequence[str]) -> list[Entity]:
    """Returns the entities (begin, end, type) that conlleval finds in a sequence of tags.

    Its rules (startOfChunk, endOfChunk) cover IOB1, IOB2 and IOBES, and repair ill-formed tags.
    """

    def parts(last: str, tag: str) -> bool:
        return last[0] in "ES" or tag[0] in "BSO" or last[2:] != tag[2:]

    def opens(last: str, tag: str) -> bool:
        return tag[0] in "BS" or last[0] in "OES" or last[2:] != tag[2:]

    return _read(tags, opens, parts)


def read_strict(tags: Sequence[str]) -> list[Entity]:
    """Returns the entities (begin, end, type) of IOB2 tags; ignores I-X that does not follow X."""

    def parts(last: str, tag: str) -> bool:
        return tag[0] != "I" or last[2:] != tag[2:]

    def opens(last: str, tag: str) -> bool:
        return tag[0] == "B"

    return _read(tags, opens, parts)


def word_tags(words: Sequence[tuple[int, int]], spans: Sequence[Entity]) -> list[str]:
    """Converts spans to IOB2 tags of words; the first character of a word decides its tag.

    Args:
        words: (start, end) of each word.
        spans: Non-overlapping spans, in text order.
    """
    starts = [start for start, _, _ in spans]
    tags = []
    for word, _ in words:
        at = bisect_right(starts, word) - 1
        if at < 0 or spans[at][1] <= word:
            tags.append(_OUTSIDE)
        else:
            tags.append(("B-" if starts[at] == word else "I-") + spans[at][2])
    return tags


def _read(
    tags: Sequence[str], opens: Callable[[str, str], bool], parts: Callable[[str, str], bool]
) -> list[Entity]:
    """Reads entities: `opens(last, tag)` begins one, `parts(last, tag)` ends the open one."""
    found: list[Entity] = []
    begin = -1
    for at, (last, tag) in enumerate(zip([_OUTSIDE, *tags], [*tags, _OUTSIDE], strict=True)):
        if begin >= 0 and parts(last, tag):
            found.append((begin, at, last[2:]))
            begin = -1
        if tag != _OUTSIDE and begin < 0 and opens(last, tag):
            begin = at
    return found


def _entity_counts(
    gold: Sequence[Iterable[Entity]], predicted: Sequence[Iterable[Entity]]
) -> CountTable:
    """Returns [n, 3]: correct, predicted and gold entities of each text."""
    rows = []
    for truth, guess in zip(gold, predicted, strict=True):
        right, given = set(truth), set(guess)
        rows.append((len(right & given), len(given), len(right)))
    return CountTable.of_rows(rows, 3)


@dataclass(frozen=True)
class _F1:
    """F1 from the three columns correct, predicted and gold, starting at `first`."""

    first: int

    def __call__(self, sums: Sums) -> Sums:
        correct, predicted, gold = (sums[..., self.first + at] for at in range(3))
        return points(2.0 * correct, predicted + gold)
