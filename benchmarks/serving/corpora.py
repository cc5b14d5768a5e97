"""Texts for the traffic: those of a data folder, or words of a generator with the same lengths."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from trunkline.pipeline import Pipeline
from trunkline_train.config import TaskConfig
from trunkline_train.data.source import load_test

_TOKENS, _ANSWERS = "token-classification", "question-answering"
_WORDS = 2000  # to choose from, repeated ones included: as many again would take as long again
_SENTENCE_FILE, _PARAGRAPH_FILE = "ner.test.conll", "qa.dev.json"


@dataclass(frozen=True)
class Lengths:
    """A log-normal distribution of lengths.

    Attributes:
        median: Half of them are shorter.
        sigma: Standard deviation of their logarithms.
        least, most: What is beyond is drawn in to these.
    """

    median: float
    sigma: float
    least: float
    most: float

    def draw(self, random: np.random.Generator) -> float:
        """Returns a length."""
        length = self.median * np.exp(self.sigma * random.standard_normal())
        return float(np.clip(length, self.least, self.most))


# In tokens of all-MiniLM-L6-v2, special ones not counted: medians, standard deviations of the
# logarithms, and extremes of the sentences of CoNLL-2003's test set, and of the paragraphs and
# questions of the 1,000 of SQuAD that benchmarks.prepare holds out.
SENTENCES = Lengths(12, 0.78, 2, 138)
PARAGRAPHS = Lengths(130, 0.46, 40, 527)
QUESTIONS = Lengths(12, 0.32, 6, 29)


class Paragraph(NamedTuple):
    """A paragraph and a question about it."""

    text: str
    question: str


class Corpus(Protocol):
    """Texts without end, in an order that its seed decides.

    Attributes:
        name: Where they are from.
    """

    name: str

    def sentence(self) -> str:
        """Returns the next sentence."""
        ...

    def paragraph(self) -> Paragraph:
        """Returns the next paragraph."""
        ...


class DataFolder:
    """CoNLL-2003 and SQuAD as `benchmarks.prepare` leaves them.

    Args:
        folder: Has the files.
        random: Decides the order.

    Raises:
        DataError: The files cannot be read.
    """

    name = f"{_SENTENCE_FILE}, {_PARAGRAPH_FILE}"

    def __init__(self, folder: Path, random: np.random.Generator) -> None:
        self._sentences = _shuffled(_examples(_TOKENS, folder / _SENTENCE_FILE), random)
        self._paragraphs = _shuffled(_examples(_ANSWERS, folder / _PARAGRAPH_FILE), random)

    def sentence(self) -> str:
        """Returns the next sentence."""
        return str(next(self._sentences).text)

    def paragraph(self) -> Paragraph:
        """Returns the next question, and what it is about."""
        one = next(self._paragraphs)
        return Paragraph(one.context, one.question)


def _examples(kind: str, path: Path) -> Sequence[Any]:
    return load_test(TaskConfig(kind, train=str(path), test=str(path)), "test")


def _shuffled(examples: Sequence[Any], random: np.random.Generator) -> Iterator[Any]:
    while True:
        for index in random.permutation(len(examples)):
            yield examples[index]


class Generator:
    """Random words of the demo's corpus, in texts as long as those of `DataFolder` are.

    Args:
        pipeline: Of the model that will be asked, for its tokenizer.
        random: Decides lengths and words.
    """

    name = "generator"

    def __init__(self, pipeline: Pipeline, random: np.random.Generator) -> None:
        demo = resources.files("trunkline_train") / "demo" / "ner.train.conll"
        examples = _examples(_TOKENS, Path(str(demo)))
        words = [word for example in examples for word in example.text.split()][:_WORDS]
        known = list(dict.fromkeys(words))
        found = pipeline.encoder.tokenize_batch(known, known)
        tokens = dict(zip(known, map(len, found), strict=True))
        self._words = [(word, tokens[word]) for word in words]
        self._random = random
        self._most_asked = pipeline.encoder.max_question_tokens - max(tokens.values())

    def sentence(self) -> str:
        """Returns a text as long as a sentence."""
        return self._text(SENTENCES.draw(self._random))

    def paragraph(self) -> Paragraph:
        """Returns texts as long as a paragraph and a question."""
        asked = min(QUESTIONS.draw(self._random), self._most_asked)
        return Paragraph(self._text(PARAGRAPHS.draw(self._random)), f"{self._text(asked)}?")

    def _text(self, tokens: float) -> str:
        """Returns a text of about as many tokens, at least one word."""
        chosen: list[str] = []
        while tokens > 0 or not chosen:
            word, count = self._words[self._random.integers(len(self._words))]
            chosen.append(word)
            tokens -= count
        return " ".join(chosen)
