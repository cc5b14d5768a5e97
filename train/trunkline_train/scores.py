"""Scores of one task, and the scoring functions of each kind of task."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from trunkline.annotations import DocumentResult, Label, Span
from trunkline.structure import plain
from trunkline.tasks import TaskSpec, TextOptions, TokenOptions
from trunkline_train.data.examples import AnswerExample, TextExample, TokenExample
from trunkline_train.scoring.bootstrap import Difference, Interval, differences, intervals
from trunkline_train.scoring.classes import count_labels, tally_labels, tally_tags
from trunkline_train.scoring.confusion import NOTHING, Confusion, confuse, entity_pairs
from trunkline_train.scoring.entities import (
    Counts,
    Entity,
    count_entities,
    tally_entities,
    tally_tag_entities,
    word_tags,
)
from trunkline_train.scoring.squad import tally_answers
from trunkline_train.scoring.tally import Tally

_DIGITS = 4
_PARTS = ("precision", "recall", "f1")


@dataclass(frozen=True)
class Scores:
    """Scores of one task.

    Attributes:
        main: Name of the main metric.
        metrics: All metrics by name, in points (0 to 100).
        n: Number of examples scored.
        by_label: Counts per entity type, tag or class; empty if there are none.
        intervals: 95 % bootstrap intervals of the metrics.
        confusion: Confusion matrix; None if labels are not exclusive or there are none.
        tallies: Counts per example, for paired comparison with another system.
        kind: Kind of the task.
        baseline: Main metric of the best constant guess.
        gain: Difference of the main metric to the baseline, on the same examples.
    """

    main: str
    metrics: dict[str, float]
    n: int
    by_label: dict[str, Counts]
    intervals: dict[str, Interval] = field(default_factory=dict)
    confusion: Confusion | None = None
    tallies: tuple[Tally, ...] = field(default=(), repr=False, compare=False)
    kind: str = ""
    baseline: float | None = None
    gain: Difference | None = None

    @property
    def value(self) -> float:
        """The main metric, in points."""
        return self.metrics[self.main]

    @property
    def beats_baseline(self) -> bool:
        """Whether the main metric is significantly above the baseline.

        That is, whether the 95 % interval of the paired difference is above zero.
        """
        return self.gain is not None and self.gain.low > 0.0

    def to_dict(self) -> dict[str, Any]:
        """Returns the JSON form, without per-example counts."""
        labels = {
            label: plain(counts) | {part: _rounded(getattr(counts, part)) for part in _PARTS}
            for label, counts in self.by_label.items()
        }
        return {
            "kind": self.kind,
            "main": self.main,
            "metrics": {name: _rounded(value) for name, value in self.metrics.items()},
            "intervals": {
                name: [_rounded(bounds.low), _rounded(bounds.high)]
                for name, bounds in self.intervals.items()
            },
            "n": self.n,
            "baseline": None if self.baseline is None else _rounded(self.baseline),
            "beats_baseline": self.beats_baseline,
            "by_label": labels,
            "confusion": None if self.confusion is None else self.confusion.to_dict(),
        }


def _rounded(value: float) -> float:
    return round(value, _DIGITS)


def compare(one: Scores, two: Scores) -> dict[str, Difference]:
    """Returns `two` minus `one` for each metric; both must be scored on the same examples.

    Raises:
        ValueError: The numbers of examples differ.
    """
    found: dict[str, Difference] = {}
    for tallies in zip(one.tallies, two.tallies, strict=True):
        found |= differences(*tallies)
    return found


@dataclass(frozen=True)
class Scorer:
    """Scoring functions of a kind of task.

    Attributes:
        score: Maps (spec, examples, results) to scores.
        gold: Maps (spec, example) to the gold annotations as JSON.
    """

    score: Callable[[TaskSpec, Any, Sequence[DocumentResult]], Scores]
    gold: Callable[[TaskSpec, Any], list[Any]]


def gold_entities(example: TokenExample) -> list[Entity]:
    """Returns the example's gold spans with character offsets."""
    return [(mark.start, mark.end, mark.label) for mark in example.spans]


def _score_tokens(
    spec: TaskSpec, examples: Sequence[TokenExample], results: Sequence[DocumentResult]
) -> Scores:
    predicted = [_spans(spec, result) for result in results]
    if _gives_tags(spec):
        return _score_tags(spec, examples, predicted)
    gold = [gold_entities(example) for example in examples]
    tags = [word_tags(*pair) for pair in zip([e.words for e in examples], predicted, strict=True)]
    tallies = (
        tally_entities(gold, predicted),
        tally_tag_entities([example.tags for example in examples], tags),
    )
    pairs = (pair for both in zip(gold, predicted, strict=True) for pair in entity_pairs(*both))
    return _scores(spec, "f1", tallies, count_entities(gold, predicted), confuse(pairs))


def _score_tags(
    spec: TaskSpec, examples: Sequence[TokenExample], predicted: Sequence[list[Entity]]
) -> Scores:
    """Scores tags: a word takes the tag of the unit at its start; a word without one is wrong."""
    gold = [example.tags for example in examples]
    found = []
    for example, spans in zip(examples, predicted, strict=True):
        tags = {start: label for start, _, label in spans}
        found.append([tags.get(start, NOTHING) for start, _ in example.words])
    pairs = [pair for both in zip(gold, found, strict=True) for pair in zip(*both, strict=True)]
    by_label = count_labels([{tag} for tag, _ in pairs], [{tag} - {NOTHING} for _, tag in pairs])
    return _scores(
        spec, "accuracy", (tally_tags(gold, found),), by_label, confuse(pairs, spec.labels)
    )


def _score_answers(
    spec: TaskSpec, examples: Sequence[AnswerExample], results: Sequence[DocumentResult]
) -> Scores:
    gold = [example.answers for example in examples]
    guesses = [best_answer(result) for result in results]
    return _scores(spec, "f1", (tally_answers(gold, guesses),), {}, None)


def best_answer(result: DocumentResult) -> str:
    """Returns the best answer to the document's only question; empty for "no answer"."""
    (question,) = result.questions
    return question.answers[0].text if question.answers else ""


def _score_texts(
    spec: TaskSpec, examples: Sequence[TextExample], results: Sequence[DocumentResult]
) -> Scores:
    assert isinstance(spec.options, TextOptions)
    many = spec.options.multi_label
    gold = [set(example.labels) for example in examples]
    given = [_labels(spec, result) for result in results]
    predicted = [set(labels if many else labels[:1]) for labels in given]
    tally = tally_labels(gold, predicted, multi_label=many)
    by_label = count_labels(gold, predicted)
    if many:
        return _scores(spec, "f1", (tally,), by_label, None)
    pairs = [
        (next(iter(truth)), next(iter(guess), NOTHING))
        for truth, guess in zip(gold, predicted, strict=True)
    ]
    return _scores(spec, "accuracy", (tally,), by_label, confuse(pairs, spec.labels))


def _scores(
    spec: TaskSpec,
    main: str,
    tallies: tuple[Tally, ...],
    by_label: dict[str, Counts],
    confusion: Confusion | None,
) -> Scores:
    metrics: dict[str, float] = {}
    bounds: dict[str, Interval] = {}
    for tally in tallies:
        metrics |= tally.values()
        bounds |= intervals(tally)
    return Scores(
        main,
        metrics,
        n=len(tallies[0].counts),
        by_label=by_label,
        intervals=bounds,
        confusion=confusion if confusion and confusion.labels else None,
        tallies=tallies,
        kind=spec.kind,
    )


def _gives_tags(spec: TaskSpec) -> bool:
    return spec.options == TokenOptions("tags")


def _spans(spec: TaskSpec, result: DocumentResult) -> list[Entity]:
    found = result.tasks[spec.name]
    return [(span.start, span.end, span.label) for span in found if isinstance(span, Span)]


def _labels(spec: TaskSpec, result: DocumentResult) -> list[str]:
    return [found.label for found in result.tasks[spec.name] if isinstance(found, Label)]


def _gold_tokens(spec: TaskSpec, example: TokenExample) -> list[Any]:
    if _gives_tags(spec):
        spans = [(*word, tag) for word, tag in zip(example.words, example.tags, strict=True)]
    else:
        spans = gold_entities(example)
    return [
        {"start": start, "end": end, "text": example.text[start:end], "label": label}
        for start, end, label in spans
    ]


SCORERS: dict[str, Scorer] = {
    "token-classification": Scorer(_score_tokens, _gold_tokens),
    "question-answering": Scorer(_score_answers, lambda spec, example: list(example.answers)),
    "text-classification": Scorer(_score_texts, lambda spec, example: list(example.labels)),
}
