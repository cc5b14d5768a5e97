"""Finds the reader of a source, samples, and holds out a dev split where none is given."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from trunkline.errors import DataError
from trunkline_train.config import HUB, TaskConfig
from trunkline_train.data.answers import read_answer_file, read_answer_hub
from trunkline_train.data.examples import Example
from trunkline_train.data.tokens import collect_labels, read_token_file, read_token_hub

_HELD_OUT_SHARE, _HELD_OUT_MOST = 0.05, 1000
_SAMPLE_SEED = 0  # never the training seed: runs with other seeds see the same data

E = TypeVar("E", bound=Example)


@dataclass(frozen=True)
class Readers:
    """How examples of one kind are read, from a file and from a hub data set, and their labels."""

    file: Callable[[Path, TaskConfig], Iterator[Any]]
    hub: Callable[[Any, str, TaskConfig], Iterator[Any]]
    labels: Callable[[Any, TaskConfig], tuple[str, ...]]


READERS = {
    "token-classification": Readers(read_token_file, read_token_hub, collect_labels),
    "question-answering": Readers(read_answer_file, read_answer_hub, lambda examples, task: ()),
}


def load_splits(task: TaskConfig) -> tuple[list[Example], list[Example]]:
    """Returns the training and dev examples of a task, sampled to its limits.

    Raises:
        DataError: A source is missing, broken or empty.
    """
    train = _read(task.train, task)
    if task.dev is None:
        train, dev = _hold_out(train, task)
    else:
        dev = _read(task.dev, task)
    return _sample(train, task.limit.train), _sample(dev, task.limit.dev)


def load_test(task: TaskConfig, split: str) -> list[Example]:
    """Returns the examples of the split `dev` or `test`.

    Raises:
        DataError: The task has no such split, or its source is missing, broken or empty.
    """
    if split == "dev":
        return load_splits(task)[1]
    if task.test is None:
        raise DataError(task.train, "the task has no test split; set test, or use --split dev")
    return _sample(_read(task.test, task), task.limit.test)


def _read(source: str, task: TaskConfig) -> list[Example]:
    readers = READERS[task.kind]
    if source.startswith(HUB):
        examples = list(readers.hub(_hub_rows(source), source, task))
    else:
        examples = list(readers.file(Path(source), task))
    if not examples:
        raise DataError(source, "holds no examples")
    return examples


def _hub_rows(source: str) -> Any:
    import datasets

    name, _, split = source.removeprefix(HUB).partition("#")
    try:
        return datasets.load_dataset(name, split=split or "train")
    except Exception as error:  # the hub client raises anything from OSError to ValueError
        reason = f"cannot be loaded from the hub: {str(error).splitlines()[0]}"
        raise DataError(source, f"{reason}; check the name and network, or give a file") from None


def _sample(examples: list[E], limit: int | None) -> list[E]:
    if limit is None or limit >= len(examples):
        return examples
    chosen = np.random.default_rng(_SAMPLE_SEED).permutation(len(examples))[:limit]
    return [examples[index] for index in sorted(chosen)]


def _hold_out(examples: list[E], task: TaskConfig) -> tuple[list[E], list[E]]:
    """Splits off whole groups (contexts), so that no held-out context was trained on."""
    groups = list(dict.fromkeys(example.group for example in examples))
    wanted = min(_HELD_OUT_MOST, max(1, int(_HELD_OUT_SHARE * len(examples))))
    if len(groups) < 2:  # noqa: PLR2004
        raise DataError(task.train, "has too little data to hold out a dev split; give dev")
    order = np.random.default_rng(_SAMPLE_SEED).permutation(len(groups))
    sizes = {group: 0 for group in groups}
    for example in examples:
        sizes[example.group] += 1
    held: set[str] = set()
    count = 0
    for index in order[: len(groups) - 1]:
        if count >= wanted:
            break
        held.add(groups[index])
        count += sizes[groups[index]]
    return (
        [example for example in examples if example.group not in held],
        [example for example in examples if example.group in held],
    )
