"""Reads sentences: CoNLL columns and CoNLL-U."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from trunkline.errors import DataError
from trunkline_train.config import Column, TaskConfig
from trunkline_train.data.files import read_lines
from trunkline_train.data.records import Record, numbered

CONLLU = ("id", "form", "lemma", "upos", "xpos", "feats", "head", "deprel", "deps", "misc")
_DOCUMENT = "-DOCSTART-"

Line = tuple[int, list[str]]  # number, fields


def read_columns(path: Path, task: TaskConfig) -> Iterator[Record]:
    """Yields the sentences of a CoNLL column file, their columns by number.

    One token a line, columns apart by blanks or tabs, sentences by empty lines; `-DOCSTART-` lines
    are skipped.

    Raises:
        DataError: A line has another number of columns than the first; names it.
    """
    width = 0
    for sentence in _sentences(path):
        tokens = [(number, fields) for number, fields in sentence if fields[0] != _DOCUMENT]
        for number, fields in tokens:
            width = width or len(fields)
            if len(fields) != width:
                reason = f"has {len(fields)} columns, the lines before have {width}"
                raise DataError(path, reason, number)
        if width == 1:
            raise DataError(path, "has one column; words and labels need two", sentence[0][0])
        if tokens:
            yield _record(path, tokens)


def read_conllu(path: Path, task: TaskConfig) -> Iterator[Record]:
    """Yields the sentences of a CoNLL-U file, their columns by name and by number.

    Comments, ranges of multiword tokens and empty nodes are skipped: what is left are the
    syntactic words.

    Raises:
        DataError: A line does not have ten columns; names it.
    """
    for sentence in _sentences(path, comment="#"):
        for number, fields in sentence:
            if len(fields) != len(CONLLU):
                reason = f"has {len(fields)} columns, CoNLL-U has {len(CONLLU)}, apart by tabs"
                raise DataError(path, reason, number)
        words = [(number, fields) for number, fields in sentence if fields[0].isdecimal()]
        if words:
            record = _record(path, words)
            named: dict[Column, list[str]] = {
                name: record.values[at] for at, name in enumerate(CONLLU)
            }
            yield Record(named | dict(record.values), record.where, record.lines)


def _sentences(path: Path, comment: str | None = None) -> Iterator[list[Line]]:
    """Yields runs of lines between empty ones."""
    sentence: list[Line] = []
    for number, line in read_lines(path):
        if not line.strip():
            if sentence:
                yield sentence
            sentence = []
        elif comment is None or not line.startswith(comment):
            sentence.append((number, line.split("\t") if "\t" in line else line.split()))
    if sentence:
        yield sentence


def _record(path: Path, tokens: list[Line]) -> Record:
    columns = [list(column) for column in zip(*(fields for _, fields in tokens), strict=True)]
    lines = tuple(number for number, _ in tokens)
    return Record(numbered(columns), f"{path}:{lines[0]}", lines)
