"""Rows of any source, before a task makes examples of them."""

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
        values: By column. Files whose columns have no names count them from 0, and from -1 for
            the last; of a sentence, each value is the list of its tokens' values.
        where: File and line, or source and row, for errors.
        lines: Of a sentence in a file, the line of each token.
        marked: Where labels are spans of a text: that text with them, which `values` then is not.
    """

    values: Mapping[Column, Any]
    where: str
    lines: tuple[int, ...] = ()
    marked: Marked | None = None

    def get(self, column: Column) -> Any:
        """Returns a value that must be there.

        Raises:
            DataError: It is missing or null; names the columns that are there.
        """
        value = self.values.get(column)
        if value is None:
            state = "is null" if column in self.values else f"is missing; there are {self.known()}"
            raise DataError(self.where, f"column {column!r} {state}")
        return value

    def known(self) -> str:
        """Returns the columns that are there, for errors."""
        shown = (str(key) for key in self.values if isinstance(key, str) or key >= 0)
        return ", ".join(shown) or "none"

    def place(self, index: int) -> str:
        """Returns where token `index` of the sentence stands."""
        return token_place(self.where, self.lines, index)


def token_place(where: str, lines: Sequence[int], index: int) -> str:
    """Returns where a token stands: its line, or its number behind the place of the sentence."""
    if not lines:
        return f"{where}, token {index}"
    return f"{where.rpartition(':')[0]}:{lines[index]}"


def by_name(values: Mapping[str, Any]) -> dict[Column, Any]:
    """Returns values by the names of their columns."""
    return dict(values.items())


def numbered(values: Sequence[Any]) -> dict[Column, Any]:
    """Returns values by position, counted from the start and from the end."""
    return {
        **dict(enumerate(values)),
        **{at - len(values): value for at, value in enumerate(values)},
    }


def is_numbered(record: Record) -> bool:
    """Tells if the record's columns have no names."""
    return 0 in record.values and not any(isinstance(key, str) for key in record.values)
