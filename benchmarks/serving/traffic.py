"""What is asked, by name: short sentences, a mix with questions, long texts, corpora, all tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.serving.corpora import Corpus, DataFolder, Generator, Lengths
from trunkline import Document, Question
from trunkline.bundle import Manifest
from trunkline.errors import ConfigError
from trunkline.pipeline import Pipeline, Prepared
from trunkline_serve.settings import Limits

_TOKENS, _ANSWERS = "token-classification", "question-answering"
_SENTENCES = 0.75  # of all documents of the mix
_QUESTIONS = 2  # most about a long text
_WINDOWS = Lengths(2.5, 0.4, 2, 1000)  # of a long text; the server's limit cuts it before the last
_BYTES = 4  # that a code point can have in UTF-8
_SPECIAL = 2  # tokens around a text


@dataclass(frozen=True)
class Traffic:
    """Documents to ask, in a fixed order.

    Attributes:
        name: Of the workload.
        documents: The documents.
        prepared: The same as rows.
        source: Where the texts are from.
        groups: What each document is counted under; empty for nothing.
    """

    name: str
    documents: tuple[Document, ...]
    prepared: tuple[Prepared, ...]
    source: str
    groups: tuple[int, ...] = ()

    @property
    def tokens(self) -> tuple[int, ...]:
        """Real tokens of each document, special ones included."""
        return tuple(sum(map(len, one.rows)) for one in self.prepared)


@dataclass(frozen=True)
class Asked:
    """What documents are made of: texts, and what the model can do with them.

    Attributes:
        corpus: Gives the texts.
        pipeline: Of the model, for its tokenizer.
        random: For all that is left to chance.
        taggers: Token-classification tasks.
        readers: All tasks that read a text by itself, these included.
        answerers: Question-answering tasks.
    """

    corpus: Corpus
    pipeline: Pipeline
    random: np.random.Generator
    taggers: tuple[str, ...]
    readers: tuple[str, ...]
    answerers: tuple[str, ...]


Draw = Callable[[Asked, int], Iterator[Document]]
"""Yields a number of documents."""


@dataclass(frozen=True)
class Workload:
    """A sort of traffic.

    Attributes:
        about: What it is, in a line.
        draw: Makes the documents.
        needs: Kinds of tasks without which there is none.
        documents: How many are made unless told otherwise.
        callers: How many of a closed loop keep a server busy with it.
    """

    about: str
    draw: Draw
    needs: tuple[str, ...]
    documents: int = 512
    callers: int = 64


def _short(asked: Asked, count: int) -> Iterator[Document]:
    for _ in range(count):
        yield _sentence(asked)


def _sentence(asked: Asked) -> Document:
    return Document(asked.corpus.sentence(), tasks=asked.taggers[:1])


def _mixed(asked: Asked, count: int) -> Iterator[Document]:
    sentences = asked.random.permutation(count) < round(_SENTENCES * count)
    for one in sentences:
        yield _sentence(asked) if one else _paragraph(asked, (), asked.answerers[:1])


def _paragraph(asked: Asked, tasks: tuple[str, ...], answerers: tuple[str, ...]) -> Document:
    """Returns a paragraph with its question to each of some tasks, and others besides."""
    text, question = asked.corpus.paragraph()
    questions = tuple(Question(question, task) for task in answerers)
    return Document(text, questions, (*tasks, *answerers))


def _long(asked: Asked, count: int) -> Iterator[Document]:
    window = asked.pipeline.encoder.max_length
    task = asked.answerers[0]
    for _ in range(count):
        paragraphs, left = [], _WINDOWS.draw(asked.random) * window
        while left > 0:
            paragraphs.append(asked.corpus.paragraph())
            left -= len(asked.pipeline.encoder.tokenize(paragraphs[-1].text))
        text = "\n\n".join(one.text for one in paragraphs)[: Limits().max_text_bytes // _BYTES]
        number = asked.random.integers(1, _QUESTIONS + 1)
        questions = [Question(one.question, task) for one in paragraphs[:number]]
        yield Document(text, tuple(questions), (*asked.taggers, task))


def _bulk(asked: Asked, count: int) -> Iterator[Document]:
    for number in range(count):
        corpus = asked.corpus
        text = corpus.sentence() if number % 2 else corpus.paragraph().text
        yield Document(text, tasks=asked.readers)


def _all_tasks(asked: Asked, count: int) -> Iterator[Document]:
    for _ in range(count):
        yield _paragraph(asked, asked.readers, asked.answerers)


WORKLOADS = {
    "short": Workload("sentences, for their entities", _short, (_TOKENS,)),
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
        "a corpus, half sentences, half paragraphs, for all that reads a text by itself",
        _bulk,
        (),
    ),
    "five-tasks": Workload(
        "paragraphs with a question each, for every task but those that read pairs of texts",
        _all_tasks,
        (),
        documents=128,
        callers=16,
    ),
}
"""By name."""


def workload(
    name: str,
    manifest: Manifest,
    pipeline: Pipeline,
    data: Path | None = None,
    *,
    count: int | None = None,
    seed: int = 0,
) -> Traffic:
    """Returns the traffic of a workload.

    Args:
        name: One of `WORKLOADS`.
        manifest: Of the model that will be asked.
        pipeline: That model's, for its tokenizer.
        data: Folder with CoNLL-2003 and SQuAD as `benchmarks.prepare` leaves them. None makes
            texts of the same lengths from words of the demo's corpus.
        count: Number of documents; None for the workload's own.
        seed: Decides which and in which order.

    Raises:
        ConfigError: There is no such workload, or the model lacks a task that it needs.
        DataError: The data cannot be read.
    """
    if name not in WORKLOADS:
        raise ConfigError(f"no workload {name!r}; known: {', '.join(WORKLOADS)}")
    wanted = WORKLOADS[name]
    asked = _asked(manifest, pipeline, data, seed)
    _check_tasks(name, wanted.needs, manifest)
    documents = tuple(wanted.draw(asked, wanted.documents if count is None else count))
    return Traffic(name, documents, _prepared(pipeline, documents), asked.corpus.name)


def mixed(
    manifest: Manifest, pipeline: Pipeline, data: Path | None, count: int, seed: int = 0
) -> Traffic:
    """Returns `count` documents of the workload `mixed`; see `workload`."""
    return workload("mixed", manifest, pipeline, data, count=count, seed=seed)


def by_length(
    manifest: Manifest,
    pipeline: Pipeline,
    lengths: Sequence[int],
    data: Path | None = None,
    *,
    each: int = 8,
    seed: int = 0,
) -> Traffic:
    """Returns texts of given lengths in turn, asked for their entities, and grouped by length.

    Args:
        manifest: Of the model that will be asked.
        pipeline: That model's, for its tokenizer.
        lengths: In tokens, special ones included; texts end at a word, so they may be shorter.
        data: As of `workload`.
        each: Number of texts of each length.
        seed: Decides which.

    Raises:
        ConfigError: The model finds no entities.
        DataError: The data cannot be read.
    """
    _check_tasks("length", (_TOKENS,), manifest)
    asked = _asked(manifest, pipeline, data, seed)
    groups = tuple(lengths) * each
    documents = tuple(
        Document(_text_of(asked, tokens - _SPECIAL), tasks=asked.taggers[:1]) for tokens in groups
    )
    prepared = _prepared(pipeline, documents)
    return Traffic("length", documents, prepared, asked.corpus.name, groups)


def _asked(manifest: Manifest, pipeline: Pipeline, data: Path | None, seed: int) -> Asked:
    random = np.random.default_rng(seed)
    corpus = Generator(pipeline, random) if data is None else DataFolder(data, random)
    return Asked(
        corpus=corpus,
        pipeline=pipeline,
        random=random,
        taggers=tuple(one.name for one in manifest.tasks if one.kind == _TOKENS),
        readers=tuple(one.name for one in manifest.tasks if one.kind != _ANSWERS and not one.pair),
        answerers=tuple(one.name for one in manifest.tasks if one.kind == _ANSWERS),
    )


def _check_tasks(name: str, needs: Sequence[str], manifest: Manifest) -> None:
    kinds = {spec.kind for spec in manifest.tasks}
    for kind in needs:
        if kind not in kinds:
            raise ConfigError(f"{manifest.name} has no {kind} task; {name} traffic needs one")


def _prepared(pipeline: Pipeline, documents: Sequence[Document]) -> tuple[Prepared, ...]:
    return tuple(pipeline.prepare(one) for one in documents)


def _text_of(asked: Asked, tokens: int) -> str:
    """Returns paragraphs cut at a word, of at most as many tokens but for a very long word."""
    text = asked.corpus.paragraph().text
    while len(found := asked.pipeline.encoder.tokenize(text)) < tokens:
        text += "\n\n" + asked.corpus.paragraph().text
    cut = int(found.ends[tokens - 1])
    if cut < len(text) and not text[cut].isspace():
        cut = max(text[:cut].rfind(" "), 0) or cut
    return text[:cut]
