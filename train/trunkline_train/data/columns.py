"""Reads sentences from CoNLL column files and CoNLL-U."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from trunkline.errors import DataError
from trunkline.formats.notes import Notes
from trunkline_train.config import Column, TaskConfig
from trunkline_train.data.files import read_lines
from trunkline_train.data.records import Record, numbered

CONLLU = ("id", "form", "lemma", "upos", "xpos", "feats", "head", "deprel", "deps", "misc")
_ANNOTATED = ("lemma", "upos", "xpos", "head", "deprel", "deps")  # where `_` means: not annotated
_UNSPECIFIED = "_"
_DOCUMENT = "-DOCSTART-"
_BLANKS = re.compile(r"[ \t]+")  # other white space, e.g. no-break, may be in a token
_COMMENT = re.compile(r"#(begin|end) document\b|# \S+ = ")
_IOB = re.compile(r"O|[A-Z]-.+")

Line = tuple[int, list[str]]  # number, fields


def read_columns(path: Path, task: TaskConfig, notes: Notes) -> Iterator[Record]:
    """Yields the sentences of a CoNLL column file, with columns by number.

    Each line is a token. Blanks or tabs separate columns, empty lines separate sentences.
    `-DOCSTART-` lines and comments are skipped.

    Raises:
        DataError: A line has a different number of columns than the first.
    """
    lines = list(read_lines(path))
    shape = _shape(lines)
    if shape.width == 1:
        raise DataError(path, "has one column; words and labels need two", shape.first)
    for sentence in _sentences(lines):
        tokens = list(_tokens(path, sentence, shape, notes))
        for number, fields in tokens:
            if len(fields) != shape.width:
                reason = f"has {len(fields)} columns, the lines before have {shape.width}"
                hint = "; a comment begins with '# '" if fields[0].startswith("#") else ""
                raise DataError(path, f"{reason}{hint}", number)
        if tokens:
            yield _record(path, tokens)


class _Shape(NamedTuple):
    """Format of the rows in a column file, judged by the rows that cannot be comments.

    Attributes:
        first: Line number of the first row.
        width: Its number of columns.
        tabs: Whether tabs separate its columns.
        labels: All values in the last column.
    """

    first: int
    width: int
    tabs: bool
    labels: frozenset[str]


def _shape(lines: Iterable[tuple[int, str]]) -> _Shape:
    filled = [(number, line) for number, line in lines if _filled(line)]
    rows = [(n, line) for n, line in filled if not line.startswith(("#", _DOCUMENT))] or filled
    if not rows:
        return _Shape(1, 0, False, frozenset())
    first, line = rows[0]
    labels = frozenset(_fields(row)[-1] for _, row in rows)
    return _Shape(first, len(_fields(line)), "\t" in line, labels)


def _tokens(
    path: Path, sentence: Iterable[tuple[int, str]], shape: _Shape, notes: Notes
) -> Iterator[Line]:
    """Yields the lines of a sentence, without comments and document starts."""
    begun = False
    for number, line in sentence:
        fields = _fields(line)
        if fields[0] == _DOCUMENT:
            notes.add("lines skipped, which begin a document", f"{path}:{number}")
        elif _is_comment(line, fields, shape, begun):
            notes.add("lines skipped, which are comments", f"{path}:{number}")
        else:
            begun = True
            yield number, fields


def _is_comment(line: str, fields: list[str], shape: _Shape, begun: bool) -> bool:
    """Distinguishes a comment from a token that begins with `#`.

    `#` and a blank begin a comment unless the line looks like the other rows: `# SYM` may be one.
    """
    if _COMMENT.match(line):
        return True
    if fields[0] != "#":
        return False
    if len(fields) != shape.width or ("\t" in line) != shape.tabs:
        return True
    label = fields[-1]
    known = label in shape.labels or label == "#" or _IOB.fullmatch(label) is not None
    return not known and not begun


def read_conllu(path: Path, task: TaskConfig, notes: Notes) -> Iterator[Record]:
    """Yields the sentences of a CoNLL-U file, with columns by name and by number.

    Keeps the syntactic words: comments, multiword token ranges and empty nodes are skipped. A
    column is null if any word has `_` (not annotated) in it, except in `feats` and `misc`, where
    `_` means empty.

    Raises:
        DataError: A line does not have ten columns.
    """
    for lines in _sentences(read_lines(path)):
        sentence = [(number, _fields(line)) for number, line in lines if not line.startswith("#")]
        for number, fields in sentence:
            if len(fields) != len(CONLLU):
                reason = f"has {len(fields)} columns, CoNLL-U has {len(CONLLU)}, apart by tabs"
                raise DataError(path, reason, number)
        words = [(number, fields) for number, fields in sentence if fields[0].isdecimal()]
        for number, fields in sentence:
            if not fields[0].isdecimal():
                notes.add(_not_a_word(fields[0]), f"{path}:{number}")
        if words:
            yield _annotated(_record(path, words))


def _not_a_word(name: str) -> str:
    what = "empty nodes" if "." in name else "tokens of several words, read one by one"
    return f"lines skipped, which are {what}"


def _annotated(record: Record) -> Record:
    """Adds columns by name to a CoNLL-U sentence; columns not annotated become null."""
    values = dict(record.values)
    for at, name in enumerate(CONLLU):
        forms, given = record.values[CONLLU.index("form")], record.values[at]
        blank = any(one == _UNSPECIFIED != form for one, form in zip(given, forms, strict=True))
        if name in _ANNOTATED and blank:
            values[at] = values[at - len(CONLLU)] = None
    named: dict[Column, list[str]] = {name: values[at] for at, name in enumerate(CONLLU)}
    return Record(named | values, record.where, record.lines)


def _sentences(lines: Iterable[tuple[int, str]]) -> Iterator[list[tuple[int, str]]]:
    """Yields runs of lines that are separated by empty lines."""
    sentence: list[tuple[int, str]] = []
    for number, line in lines:
        if _filled(line):
            sentence.append((number, line))
            continue
        if sentence:
            yield sentence
        sentence = []
    if sentence:
        yield sentence


def _filled(line: str) -> bool:
    return bool(line.strip(" \t"))


def _fields(line: str) -> list[str]:
    return line.split("\t") if "\t" in line else _BLANKS.split(line.strip(" "))


def _record(path: Path, tokens: list[Line]) -> Record:
    columns = [list(column) for column in zip(*(fields for _, fields in tokens), strict=True)]
    lines = tuple(number for number, _ in tokens)
    return Record(numbered(columns), f"{path}:{lines[0]}", lines)
