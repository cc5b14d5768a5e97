"""Text classification: a record's text, or pair of texts, and its label or labels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar

from trunkline.errors import DataError
from trunkline.tasks import TextOptions
from trunkline_train.config import Column, TaskConfig
from trunkline_train.data.examples import TextExample
from trunkline_train.data.reader import Format, Reader
from trunkline_train.data.records import Record, is_numbered
from trunkline_train.data.tables import LABEL, read_csv, read_jsonl, read_parquet, read_tsv

PAIR = "text_pair"  # the column of the second text


class TextReader(Reader):
    """Reads texts with a label each; with options, pairs of texts, or lists of labels."""

    formats: ClassVar[Mapping[str, Format]] = {
        ".csv": read_csv,
        ".jsonl": read_jsonl,
        ".parquet": read_parquet,
        ".tsv": read_tsv,
    }

    def __init__(self, task: TaskConfig) -> None:
        super().__init__(task)
        options = task.decode_options()
        assert isinstance(options, TextOptions)
        self._pair, self._multi_label = options.pair, options.multi_label

    def column(self, record: Record) -> Column:
        """Returns the column given; else `label`, or the first where columns have no names."""
        if self.task.column is not None:
            return self.task.column
        return 0 if is_numbered(record) else LABEL

    def example(self, record: Record) -> TextExample:
        """Returns the text: several columns of it are joined by blanks."""
        self._check_second(record)
        pair = _text(record, self._pair_column(record)) if self._pair else None
        text = " ".join(_text(record, column) for column in self._text_columns(record))
        labels = [self.label(value, record.where) for value in self._values(record)]
        return TextExample(text, pair, tuple(dict.fromkeys(labels)), record.where)

    def uses(self, example: TextExample) -> Iterable[str]:
        """Returns the labels of the text."""
        return example.labels

    def _check_second(self, record: Record) -> None:
        """Refuses rows that hold pairs where nobody said that one text is meant."""
        if not self._pair and not self.task.texts and record.values.get(PAIR) is not None:
            reason = f"has the column {PAIR!r}, but the task reads one text"
            mend = 'set options = { pair = true }, or text = "text" to read that alone'
            raise DataError(record.where, f"{reason}; {mend}")

    def _values(self, record: Record) -> list[object]:
        value = record.get(self.column(record))
        if isinstance(value, list) == self._multi_label:
            return value if isinstance(value, list) else [value]
        if self._multi_label:
            reason = f"has {value!r} for labels; a multi-label task needs a list of them"
            raise DataError(record.where, f"{reason} (JSON lines, Parquet or the hub)")
        reason = "has a list of labels; set options.multi_label to true, or give one label"
        raise DataError(record.where, reason)

    def _pair_column(self, record: Record) -> Column:
        if self.task.text_pair is not None:
            return self.task.text_pair
        if is_numbered(record):
            raise DataError(record.where, "columns have no names; set text_pair to a number")
        return PAIR

    def _text_columns(self, record: Record) -> Sequence[Column]:
        if self.task.texts:
            return self.task.texts
        if not is_numbered(record):
            return ("text",)
        width = len(record.values) // 2  # each stands there from the start and from the end
        taken = (self.column(record), self.task.text_pair)
        others = {column % width for column in taken if isinstance(column, int)}
        return [column for column in range(width) if column not in others]


def _text(record: Record, column: Column) -> str:
    text = record.get(column)
    if not isinstance(text, str):
        raise DataError(record.where, f"column {column!r} must be a text, not {text!r}")
    return text
