"""Baseline scores of a constant guess, which every trained model has to beat.

The guess ignores the text: the most frequent tag or class, the label set with the highest F1 for
multi-label tasks, no span, no answer. It is chosen on the examples it is scored on, which makes it
slightly stronger than any guess from training data.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from trunkline.annotations import Annotations, DocumentResult, Label, QuestionResult, Span
from trunkline.tasks import TaskSpec, TextOptions, TokenOptions
from trunkline_train.data.examples import AnswerExample, TextExample, TokenExample
from trunkline_train.scores import SCORERS, Scores

Guess = Callable[[TaskSpec, Any], list[DocumentResult]]


def baseline(spec: TaskSpec, examples: Sequence[Any]) -> Scores:
    """Scores the best constant guess in the same way as a model.

    Args:
        spec: The task.
        examples: Examples of the task; the guess is both chosen and scored on them.
    """
    return SCORERS[spec.kind].score(spec, examples, GUESSES[spec.kind](spec, examples))


def _guess_tokens(spec: TaskSpec, examples: Sequence[TokenExample]) -> list[DocumentResult]:
    """Guesses no span, or the most frequent tag if every word has one."""
    if spec.options != TokenOptions("tags"):
        return [_annotated(spec, example.text, ()) for example in examples]
    tag = _most_frequent(tag for example in examples for tag in example.tags)
    return [
        _annotated(
            spec,
            example.text,
            tuple(
                Span(start, end, example.text[start:end], tag, 1.0) for start, end in example.words
            ),
        )
        for example in examples
    ]


def _guess_answers(spec: TaskSpec, examples: Sequence[AnswerExample]) -> list[DocumentResult]:
    """Guesses that no context contains the answer."""
    return [
        DocumentResult(example.context, {}, (QuestionResult(example.question, spec.name, (), 1.0),))
        for example in examples
    ]


def _guess_texts(spec: TaskSpec, examples: Sequence[TextExample]) -> list[DocumentResult]:
    """Guesses the most frequent class, or the label set with the highest F1."""
    assert isinstance(spec.options, TextOptions)
    gold = [label for example in examples for label in example.labels]
    many = spec.options.multi_label
    chosen = _best_labels(gold, len(examples)) if many else (_most_frequent(gold),)
    labels = tuple(Label(label, 1.0) for label in chosen)
    return [_annotated(spec, example.text, labels) for example in examples]


def _best_labels(gold: Sequence[str], examples: int) -> tuple[str, ...]:
    """Returns the constant label set with the highest micro F1."""
    best, highest, right = 0, 0.0, 0
    ranked = Counter(gold).most_common()
    for count, (_, times) in enumerate(ranked, start=1):
        right += times
        f1 = 2.0 * right / (count * examples + len(gold))
        if f1 > highest:
            best, highest = count, f1
    return tuple(label for label, _ in ranked[:best])


def _most_frequent(labels: Iterable[str]) -> str:
    ((label, _),) = Counter(labels).most_common(1) or [("", 0)]
    return label


def _annotated(spec: TaskSpec, text: str, found: Annotations) -> DocumentResult:
    return DocumentResult(text, {spec.name: found}, ())


GUESSES: dict[str, Guess] = {
    "token-classification": _guess_tokens,
    "question-answering": _guess_answers,
    "text-classification": _guess_texts,
}
