"""Reads JSON files (an array, or values one after another) and spaCy's binary format."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from trunkline.errors import DataError
from trunkline.formats.notes import Notes
from trunkline.formats.rows import as_row
from trunkline_train.config import TaskConfig
from trunkline_train.data.files import opened, read_text
from trunkline_train.data.records import Record, by_name

_BLANK = re.compile(r"\s*")
_DECODER = json.JSONDecoder()


def read_json(path: Path, task: TaskConfig, notes: Notes) -> Iterator[Record]:
    """Yields the objects of a JSON file: an array of objects, one object, or one per line.

    Raises:
        DataError: The file is not JSON, or holds a value that is not an object.
    """
    for line, value in _items(path, read_text(path)):
        row = as_row(value)
        if row is None:
            raise DataError(path, f"is not a JSON object: {value!r:.60}", line)
        yield Record(by_name(row), f"{path}:{line}")


def _items(path: Path, text: str) -> Iterator[tuple[int, Any]]:
    """Yields (line, value) for each item of an array, or for each of several values in a row."""
    values = list(_values(path, text, 0))
    if len(values) != 1 or not isinstance(values[0][1], list) or as_row(values[0][1]) is not None:
        yield from values
        return
    begin = text.index("[") + 1
    yield from _values(path, text, begin)


def _values(path: Path, text: str, at: int) -> Iterator[tuple[int, Any]]:
    """Yields (line, value) from offset `at` on; skips commas and stops at a closing bracket."""
    line, counted = 1, 0
    while (at := _after_blanks(text, at)) < len(text) and text[at] != "]":
        line, counted = line + text.count("\n", counted, at), at
        try:
            value, at = _DECODER.raw_decode(text, at)
        except json.JSONDecodeError as error:
            raise DataError(path, f"is not JSON: {error.msg}", error.lineno) from None
        except (ValueError, RecursionError) as error:  # thousands of digits or brackets
            raise DataError(path, f"is not JSON: {error}", line) from None
        yield line, value
        at = _after_blanks(text, at)
        at += text[at : at + 1] == ","


def _after_blanks(text: str, at: int) -> int:
    found = _BLANK.match(text, at)
    return at if found is None else found.end()


def read_docbin(path: Path, task: TaskConfig, notes: Notes) -> Iterator[Record]:
    """Yields the documents of a spaCy `DocBin` file in the form of `Doc.to_json`.

    Raises:
        DataError: The file is not a `DocBin`, or spaCy is not installed.
    """
    try:
        tokens, spacy = import_module("spacy.tokens"), import_module("spacy")
    except ImportError:
        reason = "is read by spaCy, which is not installed; pip install spacy, or export JSON"
        raise DataError(path, reason) from None
    with opened(path) as file:
        packed = file.read()
    try:
        docs = list(tokens.DocBin().from_bytes(packed).get_docs(spacy.blank("xx").vocab))
    except Exception as error:  # anything from zlib, msgpack or numpy
        raise DataError(path, f"is not a whole file of spaCy: {error}; fetch it again") from None
    for at, doc in enumerate(docs):
        values = as_row(doc.to_json())
        assert values is not None
        yield Record(by_name(values), f"{path} document {at + 1}")
