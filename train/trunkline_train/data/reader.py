"""What every kind of task has to say about reading its data, and the labels in it."""

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

_NAMED = 10  # most labels that a summary names
OTHER = ""  # the suffix of files whose own belongs to no format
_NO_LABEL = ("", "nan", "NaN")


class Reader(ABC):
    """Makes examples of the records of one task.

    Attributes:
        formats: Of files, by suffix.
        task: The task.
        renamed: The labels that `label_names` has a name for, of those that were read.
    """

    formats: ClassVar[Mapping[str, Format]]

    def __init__(self, task: TaskConfig) -> None:
        self.task = task
        self.renamed: set[str] = set()

    def unpack(self, record: Record, notes: Notes) -> Iterable[Record]:
        """Returns the records in one of a source: itself, unless its format nests or omits some.

        What is left out is noted.

        Raises:
            DataError: It does not fit its format; names the place.
        """
        return (record,)

    @abstractmethod
    def summary(self, record: Record, examples: Sequence[Any]) -> str:
        """Returns what was made of a source: how much of what, from which columns.

        Args:
            record: One of the source, with a label.
            examples: All that were read from it.
        """

    @abstractmethod
    def column(self, record: Record) -> Column:
        """Returns the column of the labels; a record without a value there is not labelled."""

    def is_labelled(self, record: Record) -> bool:
        """Tells if a record has a value where the task's labels are.

        Raises:
            DataError: It says something about that which is not understood; names the place.
        """
        return record.values.get(self.column(record)) is not None

    @abstractmethod
    def example(self, record: Record) -> Example | None:
        """Returns the example of a labelled record; None if there is no text in it.

        Raises:
            DataError: Something is missing or does not fit; names the place.
        """

    def uses(self, example: Any) -> Iterable[str]:
        """Returns the labels an example cannot do without."""
        return ()

    def place(self, example: Any, label: str) -> str:
        """Returns where an example uses a label."""
        return str(example.where)

    def fault(self, examples: Sequence[Any], labels: Sequence[str]) -> str:
        """Returns why labels found in training data cannot be learned; nothing if they may be."""
        return ""

    def logits(self, labels: Sequence[str]) -> tuple[str, ...]:
        """Returns the labels of the task's logits, for those given or found in the data."""
        return tuple(labels)

    def needs_examples(self, label: str) -> bool:
        """Tells if a label of the logits makes no sense without an example."""
        return True

    def label(self, value: object, where: str) -> str:
        """Returns the label that a value of the data stands for.

        Raises:
            DataError: It is null, NaN, empty or a structure; names the place.
        """
        if isinstance(value, float) and value.is_integer():
            value = int(value)  # whole numbers with gaps become floats in many tools
        if isinstance(value, bool):
            value = str(value).lower()
        if not isinstance(value, str | int) or value in _NO_LABEL:
            raise DataError(where, f"has {value!r} for a label; give one, or leave the row out")
        return self.named(str(value))

    def named(self, label: str) -> str:
        """Returns what `label_names` has for a label, or the label."""
        name = self.task.label_names.get(label)
        if name is not None:
            self.renamed.add(label)
        return label if name is None else name


def counted(labels: Iterable[str], what: str) -> str:
    """Returns how many labels there are, and which if they are few, for a summary."""
    names = sorted(set(labels))
    shown = f": {', '.join(names)}" if 0 < len(names) <= _NAMED else ""
    return amount(len(names), what) + shown


def amount(number: int, what: str) -> str:
    """Returns how many there are of something, e.g. `1 row` or `1,000 rows`."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def label_set(reader: Reader, examples: Sequence[Example]) -> tuple[str, ...]:
    """Returns the labels of a task's logits: those given, else those of its training data, sorted.

    Raises:
        DataError: The data has a label that was not given, or none of one that was; or what it has
            for labels is none.
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
    """Refuses examples with a label that is not among the task's.

    Raises:
        DataError: Names the first such example.
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
    """Refuses labels that are given twice.

    Raises:
        ConfigError: Names the label and its key.
    """
    for at, label in enumerate(task.labels):
        if label in task.labels[:at]:
            reason = f"{label!r} stands there twice; labels must differ"
            raise ConfigError(f"tasks.{name}.labels: {reason}")
