"""Loads a task: its labels, dev examples, and training rows, which are cached."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from trunkline.encode import TextEncoder
from trunkline.errors import ConfigError
from trunkline.tasks import TaskSpec
from trunkline_train.config import TaskConfig
from trunkline_train.data.examples import Example
from trunkline_train.data.fit import fit_spans
from trunkline_train.data.reader import check_names
from trunkline_train.data.source import read_dev, read_splits, tell
from trunkline_train.features.build import check_room, each_feature
from trunkline_train.features.cache import Cached, fingerprint, read_cached, write_cached
from trunkline_train.features.table import FeatureTable, tabled


@dataclass(frozen=True)
class LoadedTask:
    """A task with its training rows and dev examples.

    Attributes:
        spec: The task, with its labels.
        features: Its training rows.
        dev: Examples that score the model during training.
    """

    spec: TaskSpec
    features: FeatureTable
    dev: list[Example]


def load_task(name: str, task: TaskConfig, encoder: TextEncoder, cache: Path | None) -> LoadedTask:
    """Reads and encodes the data of a task, or loads encoded rows from the cache.

    Args:
        name: Name of the task.
        task: Its kind and sources.
        encoder: Splits texts into rows.
        cache: Folder of encoded rows; None disables the cache.

    Raises:
        ConfigError: The configured labels are invalid for the kind, or not distinct.
        DataError: A source is missing, broken or empty, or its labels are inconsistent.
    """
    check_names(name, task)
    file = None if cache is None else cache / f"{fingerprint(task, encoder)}.arrow"
    cached = None if file is None else read_cached(file)
    if cached is not None and task.sources("dev"):
        rows = f"{len(cached.features):,} rows that an earlier run encoded"
        tell(f"read {', '.join(task.sources('train'))}: {rows}, from {file}")
        dev = read_dev(task, cached.labels)
        check_room(dev, encoder)
        return LoadedTask(_spec(name, task, cached.labels), cached.features, dev)
    splits = read_splits(task)
    spec = _spec(name, task, splits.labels)
    check_room(splits.dev, encoder)
    if cached is None:
        train, lines = fit_spans(splits.train, encoder, ", ".join(task.sources("train")))
        for line in lines:
            tell(line)
        features = tabled(each_feature(spec, train, encoder))
        cached = Cached(splits.labels, features)
        if file is not None:
            write_cached(file, cached)
    return LoadedTask(spec, cached.features, splits.dev)


def _spec(name: str, task: TaskConfig, labels: tuple[str, ...]) -> TaskSpec:
    try:
        return TaskSpec(name, task.kind, labels, task.decode_options())
    except ValueError as error:
        raise ConfigError(f"tasks.{name}: {error}") from None
