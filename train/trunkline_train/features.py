"""Examples to training rows: the rows of serving, with the targets of each kind's head."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trunkline.decode.spans import unit_bounds
from trunkline.encode import Row, TextEncoder, Tokens
from trunkline.errors import DataError, InvalidInput
from trunkline.tasks import TaskSpec, TokenOptions
from trunkline_train.data.examples import AnswerExample, Example, TokenExample

IGNORE = -100  # torch's cross entropy skips targets of this value


@dataclass(frozen=True)
class Feature:
    """A row and what the head should make of it.

    Attributes:
        row: One sequence for the encoder.
        targets: By name; `labels` [S], or `start` and `end` positions [].
    """

    row: Row
    targets: Mapping[str, NDArray[np.int64]]


def build_features(
    spec: TaskSpec, examples: Sequence[Example], encoder: TextEncoder
) -> list[Feature]:
    """Returns the rows of all examples, every window of a long one included.

    Raises:
        DataError: An example does not fit the task; names it.
    """
    build = BUILDERS[spec.kind]
    return [feature for example in examples for feature in build(spec, example, encoder)]


def _token_features(spec: TaskSpec, example: TokenExample, encoder: TextEncoder) -> list[Feature]:
    tokens = encoder.tokenize(example.text, example.where)
    index = {label: at for at, label in enumerate(spec.labels)}
    labels = np.full(len(tokens), IGNORE, np.int64)
    for token, tag in _unit_tags(spec, tokens, example):
        if tag not in index:
            known = ", ".join(spec.labels)
            raise DataError(example.where, f"label {tag!r} is not in the training data ({known})")
        labels[token] = index[tag]
    features = []
    for row in encoder.rows(tokens):
        target = np.full(len(row), IGNORE, np.int64)
        target[row.owned] = labels[row.own_begin : row.own_end]
        features.append(Feature(row, {"labels": target}))
    return features


def _unit_tags(spec: TaskSpec, tokens: Tokens, example: TokenExample) -> list[tuple[int, str]]:
    """Returns (first token, tag) of every unit, the tokenizer's words, which decoding reads.

    A word of the data that is several units, such as `Saint-Germain`, goes on inside its span.
    """
    if len(tokens) == 0:
        return []
    joins = spec.options == TokenOptions("spans")
    firsts, _ = unit_bounds(tokens)
    starts = np.array([start for start, _ in example.words])
    words = np.searchsorted(starts, tokens.starts[firsts], side="right") - 1
    tagged = []
    previous = -1
    for token, word in zip(firsts, words, strict=True):
        tag = example.tags[word]
        inner = joins and word == previous and tag.startswith("B-")
        tagged.append((int(token), "I-" + tag[2:] if inner else tag))
        previous = word
    return tagged


def _answer_features(spec: TaskSpec, example: AnswerExample, encoder: TextEncoder) -> list[Feature]:
    tokens = encoder.tokenize(example.context, example.where)
    question = encoder.tokenize(example.question, example.where)
    try:
        rows = encoder.rows(tokens, question)
    except InvalidInput as error:
        raise DataError(example.where, str(error)) from None
    first, last = _answer_tokens(tokens, example)
    features = []
    for row in rows:
        inside = row.begin <= first and last < row.end and first <= last
        shift = row.offset - row.begin
        # A window without the answer points to its first token, which stands for "not here".
        start, end = (first + shift, last + shift) if inside else (0, 0)
        features.append(Feature(row, {"start": np.int64(start), "end": np.int64(end)}))
    return features


def _answer_tokens(tokens: Tokens, example: AnswerExample) -> tuple[int, int]:
    """Returns the first and last token of the first gold answer; (-1, -1) if there is none."""
    if not example.answers:
        return -1, -1
    start = example.starts[0]
    end = start + len(example.answers[0])
    touched = np.flatnonzero((tokens.ends > start) & (tokens.starts < end))
    return (int(touched[0]), int(touched[-1])) if len(touched) else (-1, -1)


BUILDERS: dict[str, Callable[[TaskSpec, Any, TextEncoder], list[Feature]]] = {
    "token-classification": _token_features,
    "question-answering": _answer_features,
}
