"""What is asked: three short sentences for their entities to one question about a text."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from trunkline import Document, Question
from trunkline.bundle import Manifest
from trunkline.errors import ConfigError
from trunkline.pipeline import Pipeline, Prepared
from trunkline_train.config import TaskConfig
from trunkline_train.data.source import load_test

_TOKENS, _ANSWERS = "token-classification", "question-answering"
_SENTENCES = 0.75  # of all documents
_SENTENCE_FILE, _QUESTION_FILE = "ner.test.conll", "qa.dev.json"
_QUESTION_TOKENS = 11  # of the generator's questions

Pick = Callable[[], Document]


@dataclass(frozen=True)
class Traffic:
    """Documents to ask, in a fixed order, one a request.

    Attributes:
        documents: The documents.
        prepared: The same as rows.
        tokens: Real tokens of each.
        source: Where they are from.
    """

    documents: tuple[Document, ...]
    prepared: tuple[Prepared, ...]
    source: str

    @property
    def tokens(self) -> tuple[int, ...]:
        """Real tokens of each document, special ones included."""
        return tuple(sum(map(len, one.rows)) for one in self.prepared)


def mixed(
    manifest: Manifest, pipeline: Pipeline, data: Path | None, count: int, seed: int = 0
) -> Traffic:
    """Returns `count` documents.

    Args:
        manifest: Of the model that will be asked.
        pipeline: That model's, for its tokenizer.
        data: Folder with CoNLL-2003 and SQuAD as `benchmarks.prepare` leaves them. None makes
            texts of the same lengths from words of the demo's corpus.
        count: Number of documents.
        seed: Decides which and in which order.

    Raises:
        ConfigError: The model finds no entities, or answers no questions.
        DataError: The data cannot be read.
    """
    random = np.random.default_rng(seed)
    names = _task(manifest, _TOKENS), _task(manifest, _ANSWERS)
    picks = (
        _made(manifest, pipeline, random, *names) if data is None else _real(data, random, *names)
    )
    sentence, question = picks
    sentences = random.permutation(count) < round(_SENTENCES * count)
    documents = tuple((sentence if one else question)() for one in sentences)
    prepared = tuple(pipeline.prepare(one) for one in documents)
    source = "generator" if data is None else f"{_SENTENCE_FILE}, {_QUESTION_FILE}"
    return Traffic(documents, prepared, source)


def _task(manifest: Manifest, kind: str) -> str:
    for spec in manifest.tasks:
        if spec.kind == kind:
            return spec.name
    raise ConfigError(f"{manifest.name} has no {kind} task; mixed traffic needs one")


def _real(data: Path, random: np.random.Generator, ner: str, qa: str) -> tuple[Pick, Pick]:
    sentences = _shuffled(_examples(_TOKENS, data / _SENTENCE_FILE), random)
    questions = _shuffled(_examples(_ANSWERS, data / _QUESTION_FILE), random)

    def sentence() -> Document:
        return Document(next(sentences).text, tasks=(ner,))

    def question() -> Document:
        one = next(questions)
        return Document(one.context, (Question(one.question),), (qa,))

    return sentence, question


def _examples(kind: str, path: Path) -> Sequence[Any]:
    return load_test(TaskConfig(kind, train=(), test=(str(path),)), "test")


def _shuffled(examples: Sequence[Any], random: np.random.Generator) -> Iterator[Any]:
    while True:
        for index in random.permutation(len(examples)):
            yield examples[index]


def _made(
    manifest: Manifest, pipeline: Pipeline, random: np.random.Generator, *names: str
) -> tuple[Pick, Pick]:
    """Returns texts of random words, of the lengths that `_real` has, roughly."""
    ner, qa = names
    longest = manifest.encoder.max_length
    words = _Words(pipeline, random)

    def sentence() -> Document:
        return Document(words.of(np.clip(random.normal(22, 10), 5, 60)), tasks=(ner,))

    def question() -> Document:
        tokens = np.clip(random.normal(175, 55), min(80, longest), longest) - _QUESTION_TOKENS
        asked = Question(f"{words.of(_QUESTION_TOKENS)}?")
        return Document(words.of(tokens), (asked,), (qa,))

    return sentence, question


class _Words:
    """Random words of the demo's corpus, and how many tokens each has."""

    def __init__(self, pipeline: Pipeline, random: np.random.Generator) -> None:
        demo = resources.files("trunkline_train") / "demo" / "ner.train.conll"
        examples = _examples(_TOKENS, Path(str(demo)))
        words = [word for example in examples for word in example.text.split()]
        tokens = pipeline.encoder.tokenize_batch(words, words)
        self._words = list(zip(words, map(len, tokens), strict=True))
        self._random = random

    def of(self, tokens: float) -> str:
        """Returns a text of about as many tokens, at least one word."""
        chosen: list[str] = []
        while tokens > 0 or not chosen:
            word, count = self._words[self._random.integers(len(self._words))]
            chosen.append(word)
            tokens -= count
        return " ".join(chosen)
