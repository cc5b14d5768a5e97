"""Scores a pipeline on examples: the same path as serving, the official rules of each kind."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from trunkline.annotations import DocumentResult
from trunkline.pipeline import Document, Pipeline, Question
from trunkline.scoring.entities import Entity, score_entities
from trunkline.scoring.squad import score_answers
from trunkline.tasks import TaskSpec, TokenOptions
from trunkline_train.data.examples import AnswerExample, Example, TokenExample


@dataclass(frozen=True)
class Scores:
    """One task's scores.

    Attributes:
        main: Name of the metric that counts.
        metrics: All metrics by name, in points (0 to 100).
        n: Examples scored.
        by_label: F1 or accuracy per label, in points; empty where labels have no score.
    """

    main: str
    metrics: dict[str, float]
    n: int
    by_label: dict[str, float]

    @property
    def value(self) -> float:
        """The metric that counts, in points."""
        return self.metrics[self.main]


def evaluate(spec: TaskSpec, pipeline: Pipeline, examples: Sequence[Any]) -> Scores:
    """Analyses the examples' texts through the pipeline and scores what a client would get."""
    return SCORERS[spec.kind](spec, pipeline, examples)


def to_document(spec: TaskSpec, example: Example) -> Document:
    """Returns what a client would send to have the task done on the example."""
    if isinstance(example, AnswerExample):
        question = Question(example.question, spec.name)
        return Document(example.context, (question,), (spec.name,))
    return Document(example.text, tasks=(spec.name,))


def _score_tokens(spec: TaskSpec, pipeline: Pipeline, examples: Sequence[TokenExample]) -> Scores:
    results = pipeline.analyze([to_document(spec, example) for example in examples])
    predicted = [_spans(spec, result) for result in results]
    assert isinstance(spec.options, TokenOptions)
    if spec.options.aggregation == "tags":
        return _score_tags(examples, predicted)
    scores = score_entities([gold_entities(example) for example in examples], predicted)
    overall = scores.overall
    metrics = {"f1": overall.f1, "precision": overall.precision, "recall": overall.recall}
    by_label = {label: counts.f1 for label, counts in scores.by_type.items()}
    return Scores("f1", metrics, len(examples), by_label)


def gold_entities(example: TokenExample) -> list[Entity]:
    """Returns the example's gold spans with character offsets."""
    spans: list[Entity] = []
    for (start, end), tag in zip(example.words, example.tags, strict=True):
        if tag.startswith("B-"):
            spans.append((start, end, tag[2:]))
        elif tag.startswith("I-"):
            spans[-1] = (spans[-1][0], end, tag[2:])
    return spans


def _spans(spec: TaskSpec, result: DocumentResult) -> list[Entity]:
    return [(span.start, span.end, span.label) for span in result.tasks[spec.name]]


def _score_tags(examples: Sequence[TokenExample], predicted: Sequence[list[Entity]]) -> Scores:
    """Scores tags: a word has the tag of the unit it starts with; a word without one is wrong."""
    right: dict[str, int] = {}
    total: dict[str, int] = {}
    for example, spans in zip(examples, predicted, strict=True):
        tags = {start: label for start, _, label in spans}
        for (start, _), tag in zip(example.words, example.tags, strict=True):
            total[tag] = total.get(tag, 0) + 1
            right[tag] = right.get(tag, 0) + (tags.get(start) == tag)
    count = sum(total.values())
    by_label = {tag: 100.0 * right[tag] / total[tag] for tag in sorted(total)}
    accuracy = 100.0 * sum(right.values()) / count if count else 0.0
    return Scores("accuracy", {"accuracy": accuracy}, len(examples), by_label)


def _score_answers(spec: TaskSpec, pipeline: Pipeline, examples: Sequence[AnswerExample]) -> Scores:
    results = pipeline.analyze([to_document(spec, example) for example in examples])
    guesses = [_best_answer(result) for result in results]
    scores = score_answers([example.answers for example in examples], guesses)
    return Scores("f1", {"exact_match": scores.exact_match, "f1": scores.f1}, scores.n, {})


def _best_answer(result: DocumentResult) -> str:
    (question,) = result.questions
    return question.answers[0].text if question.answers else ""


SCORERS: dict[str, Callable[[TaskSpec, Pipeline, Any], Scores]] = {
    "token-classification": _score_tokens,
    "question-answering": _score_answers,
}
