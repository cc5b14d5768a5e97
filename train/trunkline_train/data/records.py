"""Rows of any source, before they are converted to a task's examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trunkline.errors import DataError
from trunkline.formats.marked import Marked
from trunkline_train.config import Column


@dataclass(frozen=True)
class Record:
    """One row of a table, or one sentence of a column file.

    Attributes:
        values: Values by column. Unnamed columns have numbers, from 0 up and from -1 down. For a
            sentence, each value is the list of its tokens' values.
        where: File and line, or source and row, for errors.
        lines: Line number of each token of a sentence in a file; else empty.
        marked: The text with its spans, if the labels are spans.
    """

    values: Mapping[Column, Any]
    where: str
    lines: tuple[int, ...] = ()
    marked: Marked | None = None

    def get(self, column: Column) -> Any:
        """Returns a required value.

        Raises:
            DataError: The value is missing or null.
        """
        value = self.values.get(column)
        if value is None:
            state = "is null" if column in self.values else f"is missing; there are {self.known()}"
            raise DataError(self.where, f"column {column!r} {state}")
        return value

    def known(self) -> str:
        """Returns the existing columns, for errors."""
        shown = (str(key) for key in self.values if isinstance(key, str) or key >= 0)
        return ", ".join(shown) or "none"

    def place(self, index: int) -> str:
        """Returns the location of token `index` of the sentence, for errors."""
        return token_place(self.where, self.lines, index)


def token_place(where: str, lines: Sequence[int], index: int) -> str:
    """Returns the location of a token: its line, or the sentence's location and its index."""
    if not lines:
        return f"{where}, token {index}"
    return f"{where.rpartition(':')[0]}:{lines[index]}"


def by_name(values: Mapping[str, Any]) -> dict[Column, Any]:
    """Returns a row's values as `Record.values`."""
    return dict(values.items())


def numbered(values: Sequence[Any]) -> dict[Column, Any]:
    """Returns values by position, counted from both the start and the end."""
    return {
        **dict(enumerate(values)),
        **{at - len(values): value for at, value in enumerate(values)},
    }


def is_numbered(record: Record) -> bool:
    """Returns whether the record's columns are unnamed."""
    return 0 in record.values and not any(isinstance(key, str) for key in record.values)
