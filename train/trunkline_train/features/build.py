"""Builds training rows from examples: the same rows as in serving, plus targets for the heads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trunkline.encode import Row, TextEncoder, Tokens
from trunkline.errors import DataError
from trunkline.tasks import TaskSpec, TextOptions, TokenOptions
from trunkline_train.data.examples import AnswerExample, Example, TextExample, TokenExample
from trunkline_train.features.targets import IGNORE

_AT_ONCE = 512  # examples per tokeniser call

Targets = Mapping[str, NDArray[np.int64] | np.int64]
TokensOf = Mapping[str, Tokens]
"""Tokens by text."""


@dataclass(frozen=True)
class Feature:
    """A row with its training targets.

    Attributes:
        row: One sequence for the encoder.
        targets: Targets by name. Token classification: `labels` [S], IGNORE for tokens without one.
            Question answering: `start` and `end` [], positions in the row. Text classification:
            `label` [], or `labels` [labels] of 0 and 1 if multi-label.
    """

    row: Row
    targets: Targets


def build_features(
    spec: TaskSpec, examples: Sequence[Example], encoder: TextEncoder
) -> list[Feature]:
    """Returns the rows that `each_feature` yields as a list."""
    return list(each_feature(spec, examples, encoder))


def each_feature(
    spec: TaskSpec, examples: Sequence[Example], encoder: TextEncoder
) -> Iterator[Feature]:
    """Yields the rows of all examples, including every window of a long one.

    Raises:
        DataError: An example does not fit the task.
    """
    build = BUILDERS[spec.kind]
    for at in range(0, len(examples), _AT_ONCE):
        some = examples[at : at + _AT_ONCE]
        tokens = _tokenize(some, encoder)
        for example in some:
            yield from build(spec, example, tokens, encoder)


def check_room(examples: Sequence[Example], encoder: TextEncoder) -> None:
    """Checks that every question or second text leaves enough room for the text.

    Raises:
        DataError: A question or second text is too long; names the first one.
    """
    limit = encoder.max_question_tokens
    # A token has at least one byte, so hardly any text needs to be tokenised for this.
    long = [one for one in examples if one.beside and len(one.beside.encode()) >= limit]
    for example in long:
        assert example.beside is not None
        _check_length(encoder.tokenize(example.beside, example.where), example, encoder)


def _check_length(beside: Tokens, example: Example, encoder: TextEncoder) -> None:
    if len(beside) > encoder.max_question_tokens:
        role = "text_pair" if isinstance(example, TextExample) else "question"
        limit = f"at most {encoder.max_question_tokens} are read"
        mend = "shorten it, or raise rows.max_length"
        raise DataError(example.where, f"{role}: has {len(beside)} tokens, {limit}; {mend}")


def _tokenize(examples: Sequence[Example], encoder: TextEncoder) -> TokensOf:
    """Tokenises each distinct text once, since questions share contexts."""
    places = {one.beside: one.where for one in examples if one.beside is not None}
    places.update({one.document: one.where for one in examples})
    tokens = encoder.tokenize_batch(list(places), list(places.values()))
    return dict(zip(places, tokens, strict=True))


def _rows(example: Example, tokens: TokensOf, encoder: TextEncoder) -> tuple[Row, ...]:
    """Returns the rows of an example, the same as in serving."""
    document = tokens[example.document]
    if example.beside is None:
        return encoder.rows(document)
    beside = tokens[example.beside]
    _check_length(beside, example, encoder)
    if isinstance(example, TextExample):
        return encoder.rows(document, pair=beside)
    return encoder.rows(document, beside)


def _token_features(
    spec: TaskSpec, example: TokenExample, tokens: TokensOf, encoder: TextEncoder
) -> Iterator[Feature]:
    document = tokens[example.text]
    index = {label: at for at, label in enumerate(spec.labels)}
    labels = np.full(len(document), IGNORE, np.int64)
    for token, word, tag in _unit_tags(spec, document, example):
        if tag not in index:
            reason = f"label {tag!r} is not in the training data ({', '.join(spec.labels)})"
            raise DataError(example.place(word), reason)
        labels[token] = index[tag]
    for row in _rows(example, tokens, encoder):
        target = np.full(len(row), IGNORE, np.int64)
        target[row.owned] = labels[row.own_begin : row.own_end]
        yield Feature(row, {"labels": target})


def _unit_tags(spec: TaskSpec, tokens: Tokens, example: TokenExample) -> list[tuple[int, int, str]]:
    """Returns (first token, word, tag) of each unit, i.e. tokenizer word, as in decoding.

    If a word of the data is several units, such as `Saint-Germain`, B- becomes I- after the first.
    """
    if len(tokens) == 0:
        return []
    joins = spec.options == TokenOptions("spans")
    firsts = tokens.words.firsts
    starts = np.array([start for start, _ in example.words])
    words = np.searchsorted(starts, tokens.starts[firsts], side="right") - 1
    tagged = []
    previous = -1
    for token, word in zip(firsts, words, strict=True):
        tag = example.tags[word]
        inner = joins and word == previous and tag.startswith("B-")
        tagged.append((int(token), int(word), "I-" + tag[2:] if inner else tag))
        previous = word
    return tagged


def _answer_features(
    spec: TaskSpec, example: AnswerExample, tokens: TokensOf, encoder: TextEncoder
) -> Iterator[Feature]:
    first, last = _answer_tokens(tokens[example.context], example)
    for row in _rows(example, tokens, encoder):
        inside = row.begin <= first and last < row.end and first <= last
        shift = row.offset - row.begin
        # A window without the answer points to its first token, which means "no answer here".
        start, end = (first + shift, last + shift) if inside else (0, 0)
        yield Feature(row, {"start": np.int64(start), "end": np.int64(end)})


def _text_features(
    spec: TaskSpec, example: TextExample, tokens: TokensOf, encoder: TextEncoder
) -> Iterator[Feature]:
    """Yields the windows of a text, each with all the text's labels."""
    targets = _text_targets(spec, example)
    for row in _rows(example, tokens, encoder):
        yield Feature(row, targets)


def _text_targets(spec: TaskSpec, example: TextExample) -> Targets:
    assert isinstance(spec.options, TextOptions)
    unknown = [label for label in example.labels if label not in spec.labels]
    if unknown:
        known = ", ".join(spec.labels)
        reason = f"label {unknown[0]!r} is not in the training data ({known})"
        raise DataError(example.where, reason)
    places = [spec.labels.index(label) for label in example.labels]
    if not spec.options.multi_label:
        return {"label": np.int64(places[0])}
    labels = np.zeros(len(spec.labels), np.int64)
    labels[places] = 1
    return {"labels": labels}


def _answer_tokens(tokens: Tokens, example: AnswerExample) -> tuple[int, int]:
    """Returns the first and last token of the first gold answer, or (-1, -1) without answers."""
    if not example.answers:
        return -1, -1
    start = example.starts[0]
    end = start + len(example.answers[0])
    touched = np.flatnonzero((tokens.ends > start) & (tokens.starts < end))
    return (int(touched[0]), int(touched[-1])) if len(touched) else (-1, -1)


BUILDERS: dict[str, Callable[[TaskSpec, Any, TokensOf, TextEncoder], Iterator[Feature]]] = {
    "token-classification": _token_features,
    "question-answering": _answer_features,
    "text-classification": _text_features,
}
