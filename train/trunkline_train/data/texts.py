"""Text classification: a record's text, or pair of texts, and its label or labels."""

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

_MISSING = ("", "nan", "NaN")  # what tables have where there is no value
_UNDECIDED = {"gold_label": "-"}  # by column: annotators did not agree, in SNLI and MultiNLI

_SEVERAL_ROWS = 10  # by which labels may be judged
_MANY_NUMBERS = 20  # more than ratings have
_SHOWN = 3  # labels
_LISTED = re.compile(r"\[\s*(['\"\d].*)?\]", re.DOTALL)  # a list that a table has as text
_NUMBER = re.compile(r"-?\d+(\.\d+)?")


class Layout(NamedTuple):
    """The columns that a task reads."""

    texts: tuple[Column, ...]
    label: Column
    pair: Column | None


class TextReader(Reader):
    """Reads texts with a label each; with options, pairs of texts, or lists of labels."""

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
        """Returns what annotation tools wrote as a text with its label; other rows as they are."""
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
        """Returns how many texts there are, and which labels they have."""
        texts, label, pair = self._layout(record)
        second = "" if pair is None else f", text_pair = {pair}"
        text = " + ".join(map(str, texts))
        classes = counted((one for example in examples for one in example.labels), "label")
        return f"{amount(len(examples), 'row')}, text = {text}{second}, label = {label} ({classes})"

    def column(self, record: Record) -> Column:
        """Returns the column given; else the one that its name, or its place, tells."""
        return self._layout(record).label

    def is_labelled(self, record: Record) -> bool:
        """Tells if a record has a label; empty fields and NaN are none."""
        column = self.column(record)
        value = _stripped(record.values.get(column))
        missing = value is None or value != value  # NaN  # noqa: PLR0124
        missing = missing or (value == [] and not self._multi_label)  # a text nobody labelled
        return not missing and value not in _MISSING and value != _UNDECIDED.get(str(column))

    def example(self, record: Record) -> TextExample:
        """Returns the text: several columns of it are joined by blanks."""
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
        """Returns what is wrong with labels such as one for each row, identifiers, measurements."""
        fault = self._fault(examples, labels)
        if not fault:
            return ""
        column = next(reversed(self._layouts.values())).label
        shown = ", ".join([*map(repr, labels[:_SHOWN]), "..."])
        reason = f"the column {column!r} has {len(labels):,} values in {len(examples):,} rows"
        mend = "set column, or give labels = [...] if they are classes"
        return f"{reason} ({shown}): {fault}; {mend}"

    def _fault(self, examples: Sequence[TextExample], labels: Sequence[str]) -> str:
        """Returns why the labels found are none; nothing if they may be."""
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
        """Returns the columns given, else those that their names tell."""
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
        """Returns the columns given, else the first for the label and all others for the text."""
        width = len(record.values) // 2  # each stands there from the start and from the end
        pair = self.task.text_pair if self._pair else None
        if self._pair and pair is None:
            raise DataError(record.where, "columns have no names; set text_pair to a number")
        label = 0 if self.task.column is None else self.task.column
        taken = {column % width for column in (label, pair) if isinstance(column, int)}
        others = tuple(column for column in range(width) if column not in taken)
        return Layout(self.task.texts or others, label, pair)

    def _check_second(self, record: Record) -> None:
        """Refuses rows that hold pairs where nobody said that one text is meant."""
        if not self._pair and not self.task.texts and record.values.get(PAIR) is not None:
            reason = f"has the column {PAIR!r}, but the task reads one text"
            mend = 'set options = { pair = true }, or text = "text" to read that alone'
            raise DataError(record.where, f"{reason}; {mend}")

    def _values(self, record: Record) -> Sequence[object]:
        value = record.get(self.column(record))
        if isinstance(value, list) and len(value) == 1 and not self._multi_label:
            return value  # as doccano writes it
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
        """Returns a list of labels; of ones and zeros, one for each label, those that are one.

        A list that names labels repeats no number, and holds no truth values.
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
    """Tells if labels are many numbers that do not count classes: those have no gaps."""
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
