"""Reads, samples and splits a task's data; holds out a dev split if none is configured."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from trunkline.errors import DataError
from trunkline.formats.notes import Notes
from trunkline_train.config import TaskConfig
from trunkline_train.data.answers import AnswerReader
from trunkline_train.data.doubts import alike, trained_on
from trunkline_train.data.examples import Example
from trunkline_train.data.reader import OTHER, Reader, check_labels, label_set
from trunkline_train.data.records import Record
from trunkline_train.data.tables import read_disk, read_hub
from trunkline_train.data.texts import TextReader
from trunkline_train.data.tokens import TokenReader
from trunkline_train.paths import HUB

# Scores on few examples are noisy, so a small data set holds out a larger share.
_HELD_OUT_SHARE, _HELD_OUT_MOST_SHARE = 0.05, 0.2
_HELD_OUT_LEAST, _HELD_OUT_MOST = 50, 1000
SAMPLE_SEED = 0  # independent of the training seed, so that all runs see the same data

E = TypeVar("E", bound=Example)

READERS: dict[str, type[Reader]] = {
    "token-classification": TokenReader,
    "question-answering": AnswerReader,
    "text-classification": TextReader,
}
_SUFFIXES = {suffix for reader in READERS.values() for suffix in reader.formats}


class Splits(NamedTuple):
    """Training and dev examples, sampled, and the labels of all training examples."""

    train: list[Example]
    dev: list[Example]
    labels: tuple[str, ...]


def read_splits(task: TaskConfig) -> Splits:
    """Reads the training and dev data of a task.

    Raises:
        DataError: A source is missing, broken or empty, or its labels are inconsistent.
    """
    reader = READERS[task.kind](task)
    train = _read(reader, "train")
    labels = label_set(reader, train)
    for unknown in task.label_names.keys() - reader.renamed:
        where = ", ".join(task.sources("train"))
        tell(f"{where}: no label is {unknown!r}, for which label_names has another name")
    # Configured labels are intended; for span types, checking the B- tag is enough.
    for line in () if task.labels else alike(filter(reader.needs_examples, labels)):
        tell(f"{', '.join(task.sources('train'))}: {line}")
    if task.sources("dev"):
        dev = read_dev(task, labels)
        for line in trained_on(train, dev, ", ".join(task.sources("dev"))):
            tell(line)
    else:
        train, held_out = _hold_out(train, task)
        dev = _sample(held_out, task, "dev")
    return Splits(_sample(train, task, "train"), dev, labels)


def read_dev(task: TaskConfig, labels: Sequence[str]) -> list[Example]:
    """Reads the dev data of a task that has a dev source.

    Raises:
        DataError: A source is missing, broken or empty, or has a label that is not in `labels`.
    """
    reader = READERS[task.kind](task)
    dev = _read(reader, "dev")
    check_labels(reader, dev, labels)
    return _sample(dev, task, "dev")


def load_test(task: TaskConfig, split: str) -> list[Example]:
    """Returns the examples of the split `dev` or `test`.

    Raises:
        DataError: The task has no such split, or its source is missing, broken or empty.
    """
    if task.sources(split):
        return _sample(_read(READERS[task.kind](task), split), task, split)
    if split == "dev":
        return read_splits(task).dev
    where = ", ".join(task.sources("train"))
    raise DataError(where, "the task has no test split; set test, or use --split dev")


def suffix(source: str) -> str:
    """Returns the lower-case suffix that indicates a file's format, ignoring `.gz`."""
    return Path(source.lower().removesuffix(".gz")).suffix


def _read(reader: Reader, split: str) -> list[Any]:
    sources = reader.task.sources(split)
    return [example for source in sources for example in _examples(source, reader)]


def _examples(source: str, reader: Reader) -> list[Any]:
    """Reads one source, and prints what was read and what was left out."""
    notes = Notes(source)
    examples: list[Any] = []
    read: Record | None = None
    for record in read_records(source, reader, notes):
        example = reader.example(record)
        if example is None or not example.document.strip():
            notes.add("rows without any text, which train nothing", record.where)
        if example is not None:
            _check_unicode(example)
            examples.append(example)
            read = record
    notes.check()
    if read is None:
        raise DataError(source, "; ".join(["holds no examples", *notes.reasons()]))
    tell(f"read {source}: {', '.join([reader.summary(read, examples), *notes.facts])}")
    for line in notes.lines():
        tell(line)
    return examples


def tell(line: str) -> None:
    """Prints a line to standard error, in the first of several training processes only."""
    if os.environ.get("RANK", "0") == "0":
        print(line, file=sys.stderr)


def read_records(source: str, reader: Reader, notes: Notes) -> Iterator[Record]:
    """Yields the labelled records of a source; notes those left out.

    Raises:
        DataError: The source is missing or broken, or no row has a label.
    """
    found = 0
    last: Record | None = None
    for record in _records(source, reader, notes):
        for one in reader.unpack(record, notes):
            last = one
            if reader.is_labelled(one):
                found += 1
                yield one
            else:
                notes.add(f"rows left out, which have no {reader.column(one)!r}", one.where)
    if not found:
        raise DataError(source, _nothing(last, reader, notes))


def _nothing(last: Record | None, reader: Reader, notes: Notes) -> str:
    """Returns why no row of a source is usable, judged by its `last` record."""
    if last is None:
        return "; ".join(["holds no examples", *notes.reasons()])
    column = reader.column(last)
    if column in last.values:
        return f"no row has a value in the column {column!r}; set column"
    if {"question", "answers"} <= last.values.keys():
        return 'holds questions with answers; give kind = "question-answering"'
    return f"no row has the column {column!r}; there are {last.known()}; set column"


def _check_unicode(example: Example) -> None:
    try:
        f"{example.document}{example.beside}".encode()
    except UnicodeEncodeError:
        reason = "is not valid Unicode (it holds lone surrogates); mend the text"
        raise DataError(example.where, reason) from None


def _records(source: str, reader: Reader, notes: Notes) -> Iterator[Record]:
    if source.startswith(HUB):
        return read_hub(source)
    if Path(source).is_dir():
        return read_disk(source)
    end = suffix(source)
    read = reader.formats.get(end if end in _SUFFIXES else OTHER)
    if read is None:
        named = ", ".join(sorted(known for known in reader.formats if known != OTHER))
        columns = (
            ", CoNLL columns from files of any other suffix" if OTHER in reader.formats else ""
        )
        reason = f"{reader.task.kind} is read from {named} (also .gz) and {HUB}NAME{columns}"
        raise DataError(source, f"{reason}, not from {end or 'a file without a suffix'}")
    return read(Path(source), reader.task, notes)


def _sample(examples: list[E], task: TaskConfig, split: str) -> list[E]:
    """Samples the task's share of the examples, then at most as many as its limit allows."""
    limit: int | None = getattr(task.limit, split)
    share = max(1, round(task.downsample * len(examples)))
    return sampled(sampled(examples, share), len(examples) if limit is None else limit)


def sampled(examples: list[E], count: int) -> list[E]:
    """Samples at most `count` examples with `SAMPLE_SEED`, in their original order."""
    if count >= len(examples):
        return examples
    chosen = np.random.default_rng(SAMPLE_SEED).permutation(len(examples))[:count]
    return [examples[index] for index in sorted(chosen)]


def _held_out(count: int) -> int:
    """Returns how many of `count` examples to hold out: a twentieth, within bounds."""
    least = min(_HELD_OUT_LEAST, int(_HELD_OUT_MOST_SHARE * count))
    return min(_HELD_OUT_MOST, max(1, least, int(_HELD_OUT_SHARE * count)))


def _hold_out(examples: list[E], task: TaskConfig) -> tuple[list[E], list[E]]:
    """Splits off whole groups (e.g. contexts), so that no held-out context is trained on."""
    sizes: dict[str, int] = {}
    for example in examples:
        sizes[example.group] = sizes.get(example.group, 0) + 1
    groups = list(sizes)
    wanted = _held_out(len(examples))
    if len(groups) < 2:  # noqa: PLR2004
        where = ", ".join(task.sources("train"))
        raise DataError(where, "has too little data to hold out a dev split; give dev")
    order = np.random.default_rng(SAMPLE_SEED).permutation(len(groups))
    held: set[str] = set()
    count = 0
    for index in order[: len(groups) - 1]:
        if count >= wanted:
            break
        held.add(groups[index])
        count += sizes[groups[index]]
    return (
        [example for example in examples if example.group not in held],
        [example for example in examples if example.group in held],
    )
