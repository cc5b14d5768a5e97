"""Base class of the readers, one per kind of task, and checks of their labels."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from trunkline.errors import ConfigError, DataError
from trunkline.formats.notes import Notes
from trunkline_train.config import Column, TaskConfig
from trunkline_train.data.examples import Example
from trunkline_train.data.records import Record

Format = Callable[[Path, TaskConfig, Notes], Iterator[Record]]

_NAMED = 10  # a summary lists at most this many labels
OTHER = ""  # key of the format for files with any other suffix
_NO_LABEL = ("", "nan", "NaN")


class Reader(ABC):
    """Converts the records of one task to examples.

    Attributes:
        formats: File formats by suffix.
        task: The task.
        renamed: Labels read so far that `label_names` renames.
    """

    formats: ClassVar[Mapping[str, Format]]

    def __init__(self, task: TaskConfig) -> None:
        self.task = task
        self.renamed: set[str] = set()

    def unpack(self, record: Record, notes: Notes) -> Iterable[Record]:
        """Returns the records that a source's record contains, by default just itself.

        Records left out are noted.

        Raises:
            DataError: The record does not fit its format.
        """
        return (record,)

    @abstractmethod
    def summary(self, record: Record, examples: Sequence[Any]) -> str:
        """Describes what was read from a source: the amounts, the columns and the labels.

        Args:
            record: A labelled record of the source.
            examples: All examples read from it.
        """

    @abstractmethod
    def column(self, record: Record) -> Column:
        """Returns the label column; a record without a value there is not labelled."""

    def is_labelled(self, record: Record) -> bool:
        """Returns whether a record has a value in the label column.

        Raises:
            DataError: A value that tells whether it is labelled, such as `is_impossible`, is bad.
        """
        return record.values.get(self.column(record)) is not None

    @abstractmethod
    def example(self, record: Record) -> Example | None:
        """Converts a labelled record to an example; returns None if it has no text.

        Raises:
            DataError: A value is missing or invalid.
        """

    def uses(self, example: Any) -> Iterable[str]:
        """Returns the labels that the task must have for an example."""
        return ()

    def place(self, example: Any, label: str) -> str:
        """Returns the location of a label in an example, for errors."""
        return str(example.where)

    def fault(self, examples: Sequence[Any], labels: Sequence[str]) -> str:
        """Returns why the labels of the training data cannot be learned, or an empty string."""
        return ""

    def logits(self, labels: Sequence[str]) -> tuple[str, ...]:
        """Returns the label of each logit, given the labels configured or found in the data."""
        return tuple(labels)

    def needs_examples(self, label: str) -> bool:
        """Returns whether at least one training example must have this label."""
        return True

    def label(self, value: object, where: str) -> str:
        """Converts a value of the data to a label.

        Raises:
            DataError: The value is null, NaN, empty, a list or a mapping.
        """
        if isinstance(value, float) and value.is_integer():
            value = int(value)  # whole numbers with gaps become floats in many tools
        if isinstance(value, bool):
            value = str(value).lower()
        if not isinstance(value, str | int) or value in _NO_LABEL:
            raise DataError(where, f"has {value!r} for a label; give one, or leave the row out")
        return self.named(str(value))

    def named(self, label: str) -> str:
        """Returns the name that `label_names` gives a label, or the label itself."""
        name = self.task.label_names.get(label)
        if name is not None:
            self.renamed.add(label)
        return label if name is None else name


def counted(labels: Iterable[str], what: str) -> str:
    """Describes labels for a summary: their number, and their names if they are few."""
    names = sorted(set(labels))
    shown = f": {', '.join(names)}" if 0 < len(names) <= _NAMED else ""
    return amount(len(names), what) + shown


def amount(number: int, what: str) -> str:
    """Formats a count with its noun, e.g. `1 row` or `1,000 rows`."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def label_set(reader: Reader, examples: Sequence[Example]) -> tuple[str, ...]:
    """Returns the labels of a task's logits: configured ones, else those in the data, sorted.

    Raises:
        DataError: The data has a label that is not configured, lacks an example of a configured
            one, or has labels that cannot be learned.
    """
    found = {label for example in examples for label in reader.uses(example)}
    if not reader.task.labels:
        fault = reader.fault(examples, sorted(found))
        if fault:
            raise DataError(", ".join(reader.task.sources("train")), fault)
        return reader.logits(sorted(found))
    labels = reader.logits(reader.task.labels)
    check_labels(reader, examples, labels)
    for label in labels:
        if label not in found and reader.needs_examples(label):
            reason = f"no example has the label {label!r}; add some, or take it out of labels"
            raise DataError(", ".join(reader.task.sources("train")), reason)
    return labels


def check_labels(reader: Reader, examples: Sequence[Example], labels: Sequence[str]) -> None:
    """Checks that examples have only the task's labels.

    Raises:
        DataError: An example has another label; names the first one.
    """
    known = frozenset(labels)
    for example in examples:
        for label in reader.uses(example):
            if label not in known:
                reason = f"label {label!r} is not in the training data ({', '.join(labels)})"
                mend = "mend it, or train on examples that have it"
                if reader.task.labels:
                    reason = f"label {label!r} is not among the labels given ({', '.join(labels)})"
                    mend = "mend it, or add it to labels"
                raise DataError(reader.place(example, label), f"{reason}; {mend}")


def check_names(name: str, task: TaskConfig) -> None:
    """Checks that the configured labels differ.

    Raises:
        ConfigError: A label is given twice.
    """
    for at, label in enumerate(task.labels):
        if label in task.labels[:at]:
            reason = f"{label!r} stands there twice; labels must differ"
            raise ConfigError(f"tasks.{name}.labels: {reason}")
