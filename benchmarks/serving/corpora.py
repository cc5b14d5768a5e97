"""Texts for the traffic: those of a data folder, or words of a generator with the same lengths."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from trunkline.pipeline import Pipeline
from trunkline_train.config import TaskConfig
from trunkline_train.data.source import load_test

_TOKENS, _ANSWERS = "token-classification", "question-answering"
_WORDS = 2000  # to choose from, repeated ones included: as many again would take as long again
_SENTENCE_FILE, _PARAGRAPH_FILE = "ner.test.conll", "qa.dev.json"


@dataclass(frozen=True)
class Lengths:
    """A log-normal distribution of lengths; what is beyond `least` and `most` is drawn in."""

    median: float
    sigma: float  # standard deviation of the logarithms
    least: float
    most: float

    def draw(self, random: np.random.Generator) -> float:
        """Returns a length."""
        length = self.median * np.exp(self.sigma * random.standard_normal())
        return float(np.clip(length, self.least, self.most))


# In tokens of all-MiniLM-L6-v2, special ones not counted: medians, standard deviations of the
# logarithms, and extremes of the sentences of CoNLL-2003's test set, and of the paragraphs and
# questions of the 1,000 of SQuAD that experiments.prepare holds out.
SENTENCES = Lengths(12, 0.78, 2, 138)
PARAGRAPHS = Lengths(130, 0.46, 40, 527)
QUESTIONS = Lengths(12, 0.32, 6, 29)


class Paragraph(NamedTuple):
    """A paragraph and a question about it."""

    text: str
    question: str


class Corpus(NamedTuple):
    """Texts without end, in an order that a seed decides, and where they are from."""

    name: str
    sentences: Iterator[str]
    paragraphs: Iterator[Paragraph]


def read(folder: Path, random: np.random.Generator) -> Corpus:
    """Returns CoNLL-2003 and SQuAD as `experiments.prepare` leaves them, shuffled.

    Raises:
        DataError: The files cannot be read.
    """
    sentences = _shuffled(_examples(_TOKENS, folder / _SENTENCE_FILE), random)
    paragraphs = _shuffled(_examples(_ANSWERS, folder / _PARAGRAPH_FILE), random)
    return Corpus(
        f"{_SENTENCE_FILE}, {_PARAGRAPH_FILE}",
        (str(one.text) for one in sentences),
        (Paragraph(one.context, one.question) for one in paragraphs),
    )


def _examples(kind: str, path: Path) -> Sequence[Any]:
    return load_test(TaskConfig(kind, train=str(path), test=str(path)), "test")


def _shuffled(examples: Sequence[Any], random: np.random.Generator) -> Iterator[Any]:
    while True:
        for index in random.permutation(len(examples)):
            yield examples[index]


def generated(pipeline: Pipeline, random: np.random.Generator) -> Corpus:
    """Returns random words of the demo's corpus, in texts as long as those of `read` are.

    Args:
        pipeline: Of the model that will be asked, for its tokenizer.
        random: Decides lengths and words.
    """
    demo = resources.files("trunkline_train") / "demo" / "ner.train.conll"
    examples = _examples(_TOKENS, Path(str(demo)))
    words = [word for example in examples for word in example.text.split()][:_WORDS]
    known = list(dict.fromkeys(words))
    tokens = dict(zip(known, map(len, pipeline.encoder.tokenize_batch(known, known)), strict=True))
    most_asked = pipeline.encoder.max_question_tokens - max(tokens.values())

    def text(wanted: float) -> str:
        chosen: list[str] = []
        while wanted > 0 or not chosen:
            chosen.append(words[random.integers(len(words))])
            wanted -= tokens[chosen[-1]]
        return " ".join(chosen)

    def sentences() -> Iterator[str]:
        while True:
            yield text(SENTENCES.draw(random))

    def paragraphs() -> Iterator[Paragraph]:
        while True:
            asked = min(QUESTIONS.draw(random), most_asked)
            yield Paragraph(text(PARAGRAPHS.draw(random)), f"{text(asked)}?")

    return Corpus("generator", sentences(), paragraphs())
