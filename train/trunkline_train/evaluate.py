"""Scores a pipeline on examples: the same path as serving, the official rules of each kind."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from trunkline.annotations import DocumentResult
from trunkline.documents import Document, Question
from trunkline.pipeline import Pipeline
from trunkline.tasks import AnswerOptions, TaskSpec
from trunkline_train.baseline import baseline
from trunkline_train.data.examples import AnswerExample, Example, TextExample
from trunkline_train.scores import SCORERS, Scores, best_answer, compare
from trunkline_train.scoring.squad import best_threshold


def evaluate(spec: TaskSpec, pipeline: Pipeline, examples: Sequence[Any]) -> Scores:
    """Analyses the examples' texts through the pipeline and scores what a client would get."""
    return score(spec, examples, predict(spec, pipeline, examples))


def predict(
    spec: TaskSpec, pipeline: Pipeline, examples: Sequence[Example]
) -> list[DocumentResult]:
    """Returns what a client would get for each example, by the task's options in `spec`."""
    if pipeline.tasks[spec.name] != spec:
        pipeline = Pipeline((spec,), pipeline.encoder, pipeline.runner)
    return pipeline.analyze([to_document(spec, example) for example in examples])


def score(spec: TaskSpec, examples: Sequence[Any], results: Sequence[DocumentResult]) -> Scores:
    """Scores results against the gold of the examples, one result per example.

    The scores hold the baseline too, and how far they are above it.
    """
    scores = SCORERS[spec.kind].score(spec, examples, results)
    guess = baseline(spec, examples)
    gain = compare(guess, scores).get(scores.main)
    return replace(scores, baseline=guess.value, gain=gain)


def records(
    spec: TaskSpec, examples: Sequence[Any], results: Sequence[DocumentResult]
) -> Iterator[dict[str, Any]]:
    """Yields each example as JSON: task, where it stands, gold, and what `predict` would print."""
    gold = SCORERS[spec.kind].gold
    for example, result in zip(examples, results, strict=True):
        head = {"task": spec.name, "where": example.where, "gold": gold(spec, example)}
        yield head | {"predicted": result.to_dict()}


def tuned(spec: TaskSpec, pipeline: Pipeline, examples: Sequence[Any]) -> TaskSpec:
    """Returns the task with the no-answer threshold that has the highest F1 on the examples.

    That is for question answering where some of the examples have no answer and no threshold is
    set; any other task comes back as it is. Give dev examples. What the best threshold reaches on
    the examples it was chosen on flatters: the score to report is that of other examples.
    """
    options = spec.options
    if not isinstance(options, AnswerOptions) or options.no_answer_threshold is not None:
        return spec
    gold = [example.answers for example in examples]
    if all(gold):
        return spec
    results = predict(spec, pipeline, examples)
    threshold = best_threshold(
        [result.questions[0].no_answer_score for result in results],
        gold,
        [best_answer(result) for result in results],
    )
    return replace(spec, options=replace(options, no_answer_threshold=threshold))


def to_document(spec: TaskSpec, example: Example) -> Document:
    """Returns what a client would send to have the task done on the example."""
    if isinstance(example, AnswerExample):
        question = Question(example.question, spec.name)
        return Document(example.context, (question,), (spec.name,))
    pair = example.text_pair if isinstance(example, TextExample) else None
    return Document(example.text, tasks=(spec.name,), text_pair=pair)
