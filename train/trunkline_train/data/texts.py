"""Text classification: converts records to texts or pairs of texts with labels."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar, NamedTuple

from trunkline.errors import DataError
from trunkline.formats import label_studio
from trunkline.formats.classified import is_classified, read_classified
from trunkline.formats.notes import Notes
from trunkline.tasks import TextOptions
from trunkline_train.config import Column, TaskConfig
from trunkline_train.data.delimited import read_csv, read_tsv
from trunkline_train.data.documents import read_docbin, read_json
from trunkline_train.data.examples import TextExample
from trunkline_train.data.naming import LABEL, PAIR, TEXT, Unclear, label_column, text_columns
from trunkline_train.data.reader import Format, Reader, amount, counted
from trunkline_train.data.records import Record, by_name, is_numbered
from trunkline_train.data.tables import read_jsonl, read_parquet

_MISSING = ("", "nan", "NaN")  # how tables write a missing value
_UNDECIDED = {"gold_label": "-"}  # by column: no agreement of annotators, in SNLI and MultiNLI

_SEVERAL_ROWS = 10  # minimum number of rows to judge labels by
_MANY_NUMBERS = 20  # more values than a rating has
_SHOWN = 3  # labels in an error message
_LISTED = re.compile(r"\[\s*(['\"\d].*)?\]", re.DOTALL)  # a list written as text
_NUMBER = re.compile(r"-?\d+(\.\d+)?")


class Layout(NamedTuple):
    """The columns that a task reads."""

    texts: tuple[Column, ...]
    label: Column
    pair: Column | None


class TextReader(Reader):
    """Reads texts with one label each or, by options, pairs of texts or lists of labels."""

    formats: ClassVar[Mapping[str, Format]] = {
        ".csv": read_csv,
        ".json": read_json,
        ".jsonl": read_jsonl,
        ".parquet": read_parquet,
        ".spacy": read_docbin,
        ".tsv": read_tsv,
    }

    def __init__(self, task: TaskConfig) -> None:
        super().__init__(task)
        options = task.decode_options()
        assert isinstance(options, TextOptions)
        self._pair, self._multi_label = options.pair, options.multi_label
        self._layouts: dict[tuple[Column, ...], Layout] = {}

    def unpack(self, record: Record, notes: Notes) -> Iterable[Record]:
        """Converts annotation tools' rows to a text with its label; returns other rows as is."""
        values = {str(key): value for key, value in record.values.items()}
        if label_studio.is_minimal(values):
            return (Record(by_name(label_studio.without_facts(values)), record.where),)
        if is_numbered(record) or not is_classified(values):
            return (record,)
        text = str(self.task.texts[0]) if self.task.texts else None
        control = None if self.task.column is None else str(self.task.column)
        found = read_classified(values, record.where, text, control, notes)
        if found is None:
            return ()
        return (Record({text or TEXT: found.text, control or LABEL: found.labels}, record.where),)

    def summary(self, record: Record, examples: Sequence[TextExample]) -> str:
        """Describes a source: the number of texts, their columns and their labels."""
        texts, label, pair = self._layout(record)
        second = "" if pair is None else f", text_pair = {pair}"
        text = " + ".join(map(str, texts))
        classes = counted((one for example in examples for one in example.labels), "label")
        return f"{amount(len(examples), 'row')}, text = {text}{second}, label = {label} ({classes})"

    def column(self, record: Record) -> Column:
        """Returns the configured label column, else the one guessed by name or position."""
        return self._layout(record).label

    def is_labelled(self, record: Record) -> bool:
        """Returns whether a record has a label; empty fields and NaN do not count."""
        column = self.column(record)
        value = _stripped(record.values.get(column))
        missing = value is None or value != value  # NaN  # noqa: PLR0124
        missing = missing or (value == [] and not self._multi_label)  # nobody labelled this text
        return not missing and value not in _MISSING and value != _UNDECIDED.get(str(column))

    def example(self, record: Record) -> TextExample:
        """Converts a record to an example; several text columns are joined with blanks."""
        texts, _, second = self._layout(record)
        self._check_second(record)
        pair = None if second is None else _text(record, second)
        text = " ".join(_text(record, column) for column in texts)
        labels = [self.label(_stripped(value), record.where) for value in self._values(record)]
        return TextExample(text, pair, tuple(dict.fromkeys(labels)), record.where)

    def uses(self, example: TextExample) -> Iterable[str]:
        """Returns the labels of the text."""
        return example.labels

    def fault(self, examples: Sequence[TextExample], labels: Sequence[str]) -> str:
        """Returns why the label column is wrong, e.g. unique values, identifiers, measurements."""
        fault = self._fault(examples, labels)
        if not fault:
            return ""
        column = next(reversed(self._layouts.values())).label
        shown = ", ".join([*map(repr, labels[:_SHOWN]), "..."])
        reason = f"the column {column!r} has {len(labels):,} values in {len(examples):,} rows"
        mend = "set column, or give labels = [...] if they are classes"
        return f"{reason} ({shown}): {fault}; {mend}"

    def _fault(self, examples: Sequence[TextExample], labels: Sequence[str]) -> str:
        """Returns why the values cannot be labels, or an empty string."""
        several = len(examples) >= _SEVERAL_ROWS
        if several and self._multi_label and all(len(e.labels) == len(labels) for e in examples):
            return "every row has all of them"
        if several and not self._multi_label and 2 * len(labels) > len(examples):
            return "most stand in one row alone"
        return "they are numbers with gaps, as identifiers have" if _are_ids(labels) else ""

    def _layout(self, record: Record) -> Layout:
        names = tuple(record.values)
        if names not in self._layouts:
            find = self._numbers if is_numbered(record) else self._names
            try:
                self._layouts[names] = find(record)
            except Unclear as error:
                raise DataError(record.where, f"there are {record.known()}: {error}") from None
        return self._layouts[names]

    def _names(self, record: Record) -> Layout:
        """Returns the configured columns, else those guessed by name."""
        names = [str(name) for name in record.values]
        pair = (self.task.text_pair or PAIR) if self._pair else None
        taken = [str(one) for one in (*self.task.texts, pair) if one is not None]
        label = self.task.column
        if label is None:
            label = label_column(names, taken) or LABEL
        texts = self.task.texts
        if not texts and label in names:
            texts = text_columns(names, [*taken, str(label)])
        return Layout(texts or (TEXT,), label, pair)

    def _numbers(self, record: Record) -> Layout:
        """Returns the configured columns, by default the first as label and the rest as text."""
        width = len(record.values) // 2  # each column has two numbers, from start and end
        pair = self.task.text_pair if self._pair else None
        if self._pair and pair is None:
            raise DataError(record.where, "columns have no names; set text_pair to a number")
        label = 0 if self.task.column is None else self.task.column
        taken = {column % width for column in (label, pair) if isinstance(column, int)}
        others = tuple(column for column in range(width) if column not in taken)
        return Layout(self.task.texts or others, label, pair)

    def _check_second(self, record: Record) -> None:
        """Raises DataError for a row with a text_pair column if the task does not expect pairs."""
        if not self._pair and not self.task.texts and record.values.get(PAIR) is not None:
            reason = f"has the column {PAIR!r}, but the task reads one text"
            mend = 'set options = { pair = true }, or text = "text" to read that alone'
            raise DataError(record.where, f"{reason}; {mend}")

    def _values(self, record: Record) -> Sequence[object]:
        value = record.get(self.column(record))
        if isinstance(value, list) and len(value) == 1 and not self._multi_label:
            return value  # doccano writes one label as a list
        if isinstance(value, str) and _LISTED.fullmatch(value.strip()):
            mend = "JSON lines and Parquet have lists; set options.multi_label to true with them"
            raise DataError(record.where, f"has the text {value!r} for a label, a list; {mend}")
        if isinstance(value, list) == self._multi_label:
            return self._named(value, record) if isinstance(value, list) else [value]
        if self._multi_label:
            reason = f"has {value!r} for labels; a multi-label task needs a list of them"
            raise DataError(record.where, f"{reason} (JSON lines, Parquet or the hub)")
        reason = "has a list of labels; set options.multi_label to true, or give one label"
        raise DataError(record.where, reason)

    def _named(self, values: list[object], record: Record) -> list[object]:
        """Returns a list of labels; converts a 0/1 vector over the configured labels.

        A list of label names repeats no number and holds no booleans.
        """
        bits = [value for value in values if isinstance(value, int | float) and value in (0, 1)]
        if not len(bits) == len(values) > 1:
            return values
        labels, named = self.task.labels, {*self.task.labels, *self.task.label_names}
        if len(labels) == len(bits) and not named & {"0", "1"}:
            return [label for label, bit in zip(labels, bits, strict=True) if bit]
        if len(set(bits)) == len(bits) and not any(isinstance(value, bool) for value in values):
            return values
        reason = f"has {values} for labels, which says of each label if it fits"
        mend = f"name all {len(bits)} in their order: labels = [...]; or list those that fit"
        raise DataError(record.where, f"{reason}; {mend}")


def _are_ids(labels: Sequence[str]) -> bool:
    """Returns whether labels are many numbers with gaps or fractions, so not class indices."""
    if len(labels) <= _MANY_NUMBERS or not all(map(_NUMBER.fullmatch, labels)):
        return False
    values = [float(label) for label in labels]
    return any(value % 1 for value in values) or max(values) - min(values) > 2 * len(values)


def _stripped(value: object) -> object:
    return value.strip() if isinstance(value, str) else value


def _text(record: Record, column: Column) -> str:
    text = record.get(column)
    if not isinstance(text, str):
        raise DataError(record.where, f"column {column!r} must be a text, not {text!r}")
    return text
