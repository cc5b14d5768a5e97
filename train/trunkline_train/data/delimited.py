"""Reads CSV and TSV, and detects the delimiter and the header."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import chain, islice
from pathlib import Path
from typing import Any

from trunkline.errors import DataError
from trunkline.formats.notes import Notes
from trunkline_train.config import Column, TaskConfig
from trunkline_train.data.files import read_lines
from trunkline_train.data.naming import is_known
from trunkline_train.data.records import Record, numbered

_LONGEST_FIELD = 2**31 - 1  # characters; Python's own limit is 131,072
_DELIMITERS = {",": "','", ";": "';'", "\t": "a tab", "|": "'|'"}
_TSV = {"delimiter": "\t", "quoting": csv.QUOTE_NONE}
_LOOKED_AT = 1000  # rows read to detect delimiter and header
_MANY_ROWS = 10
_LONGEST_NAME, _MOST_WORDS = 40, 5  # characters and words in a column name
_NUMBER = re.compile(r"[-+]?[\d.,]*\d%?")
_SENTENCE = re.compile(r"[.!?,;\"\n]")

Row = tuple[int, list[str]]  # first line number, fields


def read_csv(path: Path, task: TaskConfig, notes: Notes) -> Iterator[Record]:
    """Yields the rows of a CSV file (RFC 4180: a quoted field may contain line breaks).

    The delimiter is a comma, semicolon, tab or bar, whichever gives all rows the same number of
    columns. `_header` decides whether the first row is a header; without one, columns are numbered.

    Raises:
        DataError: A row has a different number of fields, a quote is not closed, or the delimiter
            or header is ambiguous.
    """
    delimiter = _delimiter(path, task)
    if delimiter != ",":
        notes.fact(f"columns apart by {_DELIMITERS[delimiter]}")
    return _records(path, task, notes, {"strict": True, "delimiter": delimiter})


def read_tsv(path: Path, task: TaskConfig, notes: Notes) -> Iterator[Record]:
    """Yields the rows of a TSV file: like CSV, but with one row per line and no quoting.

    Raises:
        DataError: As for `read_csv`.
    """
    return _records(path, task, notes, _TSV)


def _records(
    path: Path, task: TaskConfig, notes: Notes, dialect: Mapping[str, Any]
) -> Iterator[Record]:
    rows = _rows(path, dialect)
    head = list(islice(rows, _LOOKED_AT))
    if not head:
        return
    header = _header(path, [fields for _, fields in head], task)
    if header is None:
        notes.fact("no header")
    width = len(head[0][1])
    for line, fields in islice(chain(head, rows), 0 if header is None else 1, None):
        where = f"{path}:{line}"
        if len(fields) != width:
            reason = f"has {len(fields)} fields, the first row has {width}"
            raise DataError(path, f"{reason}; each row needs as many", line)
        if fields == header:
            raise DataError(path, "repeats the header; delete the line", line)
        if header is not None and any(map(_is_lost, header, fields)):
            notes.add("rows with something in a column without a name, which is not read", where)
        yield Record(_values(fields, header, task), where)


def _values(
    fields: Sequence[str], header: Sequence[str] | None, task: TaskConfig
) -> dict[Column, Any]:
    """Returns a row by column name, without unnamed columns, or by number if there are no names."""
    if header is None or any(isinstance(column, int) for column in _given(task)):
        return numbered(fields)
    return {name.strip(): value for name, value in zip(header, fields, strict=True) if name.strip()}


def _is_lost(name: str, value: str) -> bool:
    return bool(value.strip()) and not name.strip()


def _rows(path: Path, dialect: Mapping[str, Any]) -> Iterator[Row]:
    """Yields the rows that are not empty."""
    csv.field_size_limit(_LONGEST_FIELD)
    rows = csv.reader((line for _, line in read_lines(path, ends=True)), **dialect)
    line = 1
    try:
        for row in rows:
            if row:
                yield line, row
            line = rows.line_num + 1
    except csv.Error as error:
        raise DataError(path, f"is not CSV: {error}; check the quotes", line) from None


def _delimiter(path: Path, task: TaskConfig) -> str:
    """Detects the delimiter of a CSV file."""
    cut = {one: _head(path, one) for one in _DELIMITERS}
    even = [one for one, rows in cut.items() if len({len(row) for row in rows}) == 1]
    fit = [one for one in even if len(cut[one][0]) > 1]
    named = [one for one in fit if _names_columns(cut[one][0], task)]
    if len(fit) == 1 or len(named) == 1:
        return (named or fit)[0]
    if fit:
        between = " or ".join(_DELIMITERS[one] for one in fit)
        reason = f"cannot tell if {between} stands between columns"
        raise DataError(path, f"{reason}; put fields that hold either in quotes", 1)
    first = [one for one, rows in cut.items() if rows and len(rows[0]) > 1]
    if not first and any(cut.values()):
        between = ", ".join(_DELIMITERS.values())
        raise DataError(path, f"has one column; columns are apart by {between}", 1)
    return first[0] if first else ","  # reading then reports the row that does not fit


def _head(path: Path, delimiter: str) -> list[list[str]]:
    """Splits the first rows at a delimiter; stops at the first row that is not valid CSV."""
    rows: list[list[str]] = []
    with suppress(DataError):
        dialect = {"strict": True, "delimiter": delimiter}
        rows.extend(fields for _, fields in islice(_rows(path, dialect), _LOOKED_AT))
    return rows


def _header(path: Path, rows: Sequence[list[str]], task: TaskConfig) -> list[str] | None:
    """Returns the first row if it is a header, else None.

    It is one if the configuration names columns. Otherwise it is none if it holds a number, or a
    value (such as a label) that occurs again below. It is one if it holds a usual column name or
    stands above numbers.

    Raises:
        DataError: The header is ambiguous, or names a column twice.
    """
    first, rest = rows[0], rows[1:]
    if not _is_header(path, first, rest, task):
        return None
    names = [name.strip() for name in first if name.strip()]
    if len(set(names)) != len(names):
        raise DataError(path, f"the header names a column twice: {', '.join(names)}", 1)
    return first


def _is_header(
    path: Path, first: Sequence[str], rest: Sequence[Sequence[str]], task: TaskConfig
) -> bool:
    given = _given(task)
    named = [isinstance(column, str) for column in given]
    if any(named) and not all(named):
        raise DataError(path, "column, text and text_pair must all be names, or all numbers")
    if any(named):
        return True
    usual = any(map(is_known, first))
    like = [row for row in rest if len(row) == len(first) and not (usual and row == first)]
    columns = list(zip(*like, strict=True))
    if any(map(_is_number, first)) or any(
        cell.strip() and cell in column for cell, column in zip(first, columns, strict=False)
    ):
        return False
    if usual or any(len(one) > 1 and all(map(_is_number, one)) for one in columns):
        return True
    if not _may_be_names(first):
        return False
    if given:  # by number: in this many rows of data a label would have recurred
        return len(rest) >= _MANY_ROWS
    shown = ", ".join(first)
    reason = f"cannot tell if the first row ({shown}) names the columns"
    names = f"as names (text = {first[-1]!r})"
    mend = f"set column and text, {names} or as numbers (0 is the first column, -1 the last)"
    raise DataError(path, f"{reason}; {mend}", 1)


def _names_columns(first: Sequence[str], task: TaskConfig) -> bool:
    """Returns whether a row holds all configured column names, or any usual name if none are set.

    Used to choose between two possible delimiters.
    """
    given = [column for column in _given(task) if isinstance(column, str)]
    cells = [cell.strip() for cell in first]
    return all(name in cells for name in given) if given else any(map(is_known, cells))


def _given(task: TaskConfig) -> list[Column]:
    """Returns the columns that the configuration sets."""
    return [one for one in (task.column, *task.texts, task.text_pair) if one is not None]


def _may_be_names(cells: Sequence[str]) -> bool:
    filled = [cell.strip() for cell in cells if cell.strip()]
    short = all(len(c) <= _LONGEST_NAME and len(c.split()) <= _MOST_WORDS for c in filled)
    return short and len(set(filled)) == len(filled) and not any(map(_SENTENCE.search, filled))


def _is_number(cell: str) -> bool:
    return _NUMBER.fullmatch(cell.strip()) is not None
