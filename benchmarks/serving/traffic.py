"""What is asked, by name: short sentences, a mix with questions, long texts, corpora, all tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from trunkline import Document, Model, Question
from trunkline.errors import ConfigError
from trunkline.pipeline import Pipeline, Prepared
from trunkline_serve.settings import Limits
from trunkline_train.config import TaskConfig
from trunkline_train.data.source import load_test

_TOKENS, _ANSWERS = "token-classification", "question-answering"
_SENTENCES = 0.75  # of all documents of the mix
_QUESTIONS = 2  # most about a long text
_BYTES = 4  # that a code point can have in UTF-8
_SPECIAL = 2  # tokens around a text
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
_WINDOWS = Lengths(2.5, 0.4, 2, 1000)  # of a long text; the server's limit cuts it before the last


class Paragraph(NamedTuple):
    """A paragraph and a question about it."""

    text: str
    question: str


class Corpus(NamedTuple):
    """Texts without end, in an order that a seed decides, and where they are from."""

    name: str
    sentences: Iterator[str]
    paragraphs: Iterator[Paragraph]


def _read(folder: Path, random: np.random.Generator) -> Corpus:
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


def _generated(pipeline: Pipeline, random: np.random.Generator) -> Corpus:
    """Returns random words of the demo's corpus, in texts as long as those of `_read` are."""
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


@dataclass(frozen=True)
class Traffic:
    """Documents to ask, in a fixed order."""

    name: str  # of the workload
    documents: tuple[Document, ...]
    prepared: tuple[Prepared, ...]  # the same as rows
    source: str  # where the texts are from
    groups: tuple[int, ...] = ()  # what each document is counted under; empty for nothing

    @property
    def tokens(self) -> tuple[int, ...]:
        """Real tokens of each document, special ones included."""
        return tuple(sum(map(len, one.rows)) for one in self.prepared)


@dataclass(frozen=True)
class Asked:
    """What documents are made of: texts, and what the model can do with them."""

    corpus: Corpus
    pipeline: Pipeline  # of the model, for its tokenizer
    random: np.random.Generator
    taggers: tuple[str, ...]  # token-classification tasks
    readers: tuple[str, ...]  # all tasks that read a text by itself, these included
    answerers: tuple[str, ...]  # question-answering tasks

    def sentence(self) -> Document:
        """Returns a sentence, asked for its entities."""
        return Document(next(self.corpus.sentences), tasks=self.taggers[:1])

    def paragraph(self, tasks: tuple[str, ...], answerers: tuple[str, ...]) -> Document:
        """Returns a paragraph with its question to each of some tasks, and others besides."""
        text, question = next(self.corpus.paragraphs)
        questions = tuple(Question(question, task) for task in answerers)
        return Document(text, questions, (*tasks, *answerers))


@dataclass(frozen=True)
class Workload:
    """A sort of traffic."""

    about: str
    draw: Callable[[Asked, int], Iterator[Document]]  # yields a number of documents
    needs: tuple[str, ...] = ()  # kinds of tasks without which there is none
    documents: int = 512  # how many are made unless told otherwise
    callers: int = 64  # how many of a closed loop keep a server busy with it


def _mixed(asked: Asked, count: int) -> Iterator[Document]:
    sentences = asked.random.permutation(count) < round(_SENTENCES * count)
    for one in sentences:
        yield asked.sentence() if one else asked.paragraph((), asked.answerers[:1])


def _long(asked: Asked, count: int) -> Iterator[Document]:
    window = asked.pipeline.encoder.max_length
    task = asked.answerers[0]
    for _ in range(count):
        paragraphs, left = [], _WINDOWS.draw(asked.random) * window
        while left > 0:
            paragraphs.append(next(asked.corpus.paragraphs))
            left -= len(asked.pipeline.encoder.tokenize(paragraphs[-1].text))
        text = "\n\n".join(one.text for one in paragraphs)[: Limits().max_text_bytes // _BYTES]
        number = asked.random.integers(1, _QUESTIONS + 1)
        questions = [Question(one.question, task) for one in paragraphs[:number]]
        yield Document(text, tuple(questions), (*asked.taggers, task))


def _bulk(asked: Asked, count: int) -> Iterator[Document]:
    sentences, paragraphs = asked.corpus.sentences, asked.corpus.paragraphs
    for number in range(count):
        text = next(sentences) if number % 2 else next(paragraphs).text
        yield Document(text, tasks=asked.readers)


WORKLOADS = {
    "short": Workload(
        "sentences, for their entities",
        lambda asked, count: (asked.sentence() for _ in range(count)),
        (_TOKENS,),
    ),
    "mixed": Workload(
        "three sentences for their entities to one question about a paragraph",
        _mixed,
        (_TOKENS, _ANSWERS),
    ),
    "long": Workload(
        "texts of several windows, for all that tags them and one or two questions",
        _long,
        (_TOKENS, _ANSWERS),
        documents=32,
        callers=2,
    ),
    "bulk": Workload(
        "a corpus, half sentences, half paragraphs, for all that reads a text by itself", _bulk
    ),
    "five-tasks": Workload(
        "paragraphs with a question each, for every task but those that read pairs of texts",
        lambda asked, n: (asked.paragraph(asked.readers, asked.answerers) for _ in range(n)),
        documents=128,
        callers=16,
    ),
}
"""By name."""


def workload(
    name: str, model: Model, data: Path | None = None, *, count: int | None = None, seed: int = 0
) -> Traffic:
    """Returns the traffic of a workload.

    `data` is a folder with CoNLL-2003 and SQuAD as `experiments.prepare` leaves them; None makes
    texts of the same lengths from words of the demo's corpus.

    Raises:
        ConfigError: There is no such workload, or the model lacks a task that it needs.
        DataError: The data cannot be read.
    """
    if name not in WORKLOADS:
        raise ConfigError(f"no workload {name!r}; known: {', '.join(WORKLOADS)}")
    wanted = WORKLOADS[name]
    asked = _asked(name, wanted.needs, model, data, seed)
    documents = tuple(wanted.draw(asked, wanted.documents if count is None else count))
    return _traffic(name, documents, asked)


def by_length(
    model: Model, lengths: Sequence[int], data: Path | None = None, *, each: int = 8
) -> Traffic:
    """Returns texts of given lengths in turn, asked for their entities, and grouped by length.

    Lengths are in tokens, special ones included; texts end at a word, so they may be shorter.

    Raises:
        ConfigError: The model finds no entities.
        DataError: The data cannot be read.
    """
    asked = _asked("length", (_TOKENS,), model, data, 0)
    groups = tuple(lengths) * each
    texts = [_text_of(asked, tokens - _SPECIAL) for tokens in groups]
    documents = tuple(Document(text, tasks=asked.taggers[:1]) for text in texts)
    return _traffic("length", documents, asked, groups)


def _asked(name: str, needs: Sequence[str], model: Model, data: Path | None, seed: int) -> Asked:
    specs = model.manifest.tasks
    for kind in needs:
        if kind not in {spec.kind for spec in specs}:
            raise ConfigError(f"{model.manifest.name} has no {kind} task; {name} traffic needs one")
    random, pipeline = np.random.default_rng(seed), model.pipeline
    return Asked(
        corpus=_generated(pipeline, random) if data is None else _read(data, random),
        pipeline=pipeline,
        random=random,
        taggers=tuple(one.name for one in specs if one.kind == _TOKENS),
        readers=tuple(one.name for one in specs if one.kind != _ANSWERS and not one.pair),
        answerers=tuple(one.name for one in specs if one.kind == _ANSWERS),
    )


def _traffic(
    name: str, documents: tuple[Document, ...], asked: Asked, groups: tuple[int, ...] = ()
) -> Traffic:
    prepared = tuple(asked.pipeline.prepare(one) for one in documents)
    return Traffic(name, documents, prepared, asked.corpus.name, groups)


def _text_of(asked: Asked, tokens: int) -> str:
    """Returns paragraphs cut at a word, of at most as many tokens but for a very long word."""
    text = next(asked.corpus.paragraphs).text
    while len(found := asked.pipeline.encoder.tokenize(text)) < tokens:
        text += "\n\n" + next(asked.corpus.paragraphs).text
    cut = int(found.ends[tokens - 1])
    if cut < len(text) and not text[cut].isspace():
        cut = max(text[:cut].rfind(" "), 0) or cut
    return text[:cut]
