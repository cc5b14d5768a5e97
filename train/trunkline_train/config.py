"""The training configuration: one typed tree, read from TOML; unknown keys are errors."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from trunkline.errors import ConfigError, did_you_mean
from trunkline.files import read_edited
from trunkline.kinds import find_kind
from trunkline.naming import check_model_name
from trunkline.ranges import Count, Positive, Share
from trunkline.structure import parse, plain
from trunkline.tasks import AnswerOptions, Options, TextOptions, check_task_name
from trunkline_train.hints import misplaced
from trunkline_train.paths import anchored
from trunkline_train.settings import (
    BalancingConfig,
    DistillationConfig,
    MixingConfig,
    ModelConfig,
    RowsConfig,
    TrainingConfig,
)

Sources = str | tuple[str, ...]
Column = int | str
Columns = Column | tuple[Column, ...]
# Keys that say where a task's examples are and how they are read.
_DATA_KEYS = (
    *("kind", "train", "dev", "test", "column", "text", "text_pair"),
    *("label_names", "offsets", "overlaps", "downsample", "limit"),
)


@dataclass(frozen=True)
class Limit:
    """Maximum examples per split; larger splits are sampled at random with a fixed seed."""

    train: Count | None = None
    dev: Count | None = None
    test: Count | None = None


@dataclass(frozen=True)
class TaskConfig:
    """One task and its data.

    Tasks with the same training data share it: the encoder processes each document once for all
    of them.

    Attributes:
        kind: A kind of task, e.g. `token-classification`.
        train, dev, test: A file (plain or .gz), or `hub:NAME[:SUBSET][@REVISION]#SPLIT` for a data
            set on the Hugging Face hub; a list reads several corpora as one. Without `dev`, a part
            of `train` is held out, in whole contexts.
        column: Column of the labels: a number from 0 or, if negative, from the end, or the name of
            a column, key or feature. None for the reader's default.
        text: Column, key or feature of the text; for text classification also a list of them,
            joined with blanks. Empty for the default.
        text_pair: Column, key or feature of the second text; only with the option `pair`.
        labels: The label set, in order; empty infers it from the training data.
        label_names: Names for labels in the data, e.g. `{"1" = "World"}`.
        offsets: Unit of span offsets: `code-point`, `utf16-unit` or `utf8-byte`; None for the unit
            of the format's own tool.
        overlaps: How to treat overlapping spans: `error`, or keep the `longest`.
        downsample: Share of every split's examples to keep, sampled with a fixed seed.
        limit: Maximum number of examples.
        batch_size: Rows per batch.
        weight: Weight of the task's mean loss.
        teacher: A run or checkpoint with a task of the same name, to distil logits from.
        options: Decode defaults, by kind.
    """

    kind: str
    train: Sources
    dev: Sources | None = None
    test: Sources | None = None
    column: Column | None = None
    text: Columns = ()
    text_pair: Column | None = None
    labels: tuple[str, ...] = ()
    label_names: dict[str, str] = field(default_factory=dict)
    offsets: Literal["code-point", "utf16-unit", "utf8-byte"] | None = None
    overlaps: Literal["error", "longest"] = "error"
    downsample: Share = 1.0
    limit: Limit = Limit()
    batch_size: Count = 16
    weight: Positive = 1.0
    teacher: str | None = None
    options: dict[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Checks the kind, its options, the sources and the columns."""
        options = self.decode_options()
        for split in ("train", "dev", "test"):
            if getattr(self, split) is not None and not all(self.sources(split) or [""]):
                raise ValueError(f"{split}: is empty; name a file, or leave it out")
        if len(self.texts) > 1 and not isinstance(options, TextOptions):
            raise ValueError(f"text: {self.kind} reads one column; give one")
        if self.text_pair is not None and not getattr(options, "pair", False):
            mend = "set options = { pair = true }, of text-classification, or leave it out"
            raise ValueError(f"text_pair: the task does not read pairs of texts; {mend}")
        if self.label_names and isinstance(options, AnswerOptions):
            raise ValueError(f"label_names: {self.kind} has no labels; leave it out")

    @property
    def texts(self) -> tuple[Column, ...]:
        """The columns of the text; empty for the default."""
        return self.text if isinstance(self.text, tuple) else (self.text,)

    def decode_options(self) -> Options:
        """Returns the kind's typed options."""
        return parse(find_kind(self.kind).options, self.options, "options")

    def sources(self, split: str) -> tuple[str, ...]:
        """Returns the sources of `train`, `dev` or `test`; empty if it is not set."""
        given: Sources | None = getattr(self, split)
        if given is None:
            return ()
        return (given,) if isinstance(given, str) else given


@dataclass(frozen=True)
class Config:
    """A whole configuration.

    Attributes:
        name: Name of the model and its bundle.
        encoder: A local folder, a run or checkpoint, such as a teacher's, or the NAME or
            NAME@REVISION of a model on the Hugging Face hub.
        tasks: Tasks by name, in the order of the heads.
        rows: How texts are split into rows.
        model: How the pretrained encoder is changed.
        mixing: How batches of the tasks are mixed.
        balancing: How the tasks' losses are balanced.
        distillation: How tasks with a teacher learn from it.
        training: How the model is trained.
    """

    name: str
    encoder: str
    tasks: dict[str, TaskConfig]
    rows: RowsConfig = field(default_factory=RowsConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    mixing: MixingConfig = field(default_factory=MixingConfig)
    balancing: BalancingConfig = field(default_factory=BalancingConfig)
    distillation: DistillationConfig = field(default_factory=DistillationConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)

    def __post_init__(self) -> None:
        """Checks that names are valid, and that there is an encoder and a task."""
        check_model_name(self.name)
        if not self.encoder:
            raise ValueError("encoder: is empty; name a model of the hub, or a folder")
        if not self.tasks:
            raise ValueError("tasks: at least one is needed")
        for name in self.tasks:
            check_task_name(name)
        for name in self.mixing.ratios.keys() ^ self.tasks.keys() if self.mixing.ratios else ():
            raise ValueError(f"mixing.ratios: {name!r} must stand there and among the tasks")

    @property
    def weighed(self) -> bool:
        """Whether losses are weighted against each other, by hand or by a method."""
        weights = {task.weight for task in self.tasks.values()}
        return len(weights) > 1 or self.balancing.method != "static"


def load_config(path: Path, changes: Sequence[str] = ()) -> Config:
    """Reads a TOML configuration.

    Paths in the file are relative to it, those in `changes` to the working folder; all become
    absolute.

    Args:
        path: The file.
        changes: Overrides of the form `key.path=value`; a value that is not valid TOML is a string.

    Raises:
        ConfigError: The file is unreadable, or a key is invalid.
    """
    try:
        data = tomllib.loads(read_edited(path))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}; check the path") from None
    except (ValueError, RecursionError) as error:  # also for its encoding, or thousands of digits
        raise ConfigError(f"{path}: is not valid TOML: {error}") from None
    data = anchored(data, path.parent)
    for change in changes:
        _apply(data, change)
    return parse_config(data, str(path))


def changed(config: Config, changes: Sequence[str]) -> Config:
    """Returns a configuration with the same kind of `changes` applied as in `load_config`.

    Raises:
        ConfigError: A key is invalid.
    """
    if not changes:
        return config
    data = plain(config)
    for change in changes:
        _apply(data, change)
    return parse_config(data, "--set")


def parse_config(data: Mapping[str, Any], source: str) -> Config:
    """Parses a configuration from plain values; `source` names them in errors.

    Raises:
        ConfigError: A key is unknown, missing or of the wrong type.
    """
    try:
        return parse(Config, data)
    except ValueError as error:
        raise ConfigError(f"{source}: {misplaced(Config, TaskConfig, data) or error}") from None


def beyond_data(before: Config, after: Config, more: Sequence[str] = ()) -> str | None:
    """Returns the first key that differs, apart from keys that only concern data.

    Args:
        before: A configuration.
        after: Another configuration.
        more: Further keys of a configuration or task that may differ.
    """
    old, new = plain(before), plain(after)
    for key in new:
        if key != "tasks" and key not in more and old[key] != new[key]:
            return str(key)
    for name, task in new["tasks"].items():
        other = old["tasks"].get(name)
        if other is None or other["kind"] != task["kind"]:
            continue  # a different task; callers reject it
        for key, value in task.items():
            if other[key] != value and key not in (*_DATA_KEYS, *more):
                return f"tasks.{name}.{key}"
    return None


def _check_task(change: str, name: str, tasks: Mapping[str, Any]) -> None:
    if name not in tasks:
        reason = f"there is no task {name!r}{did_you_mean(name, tasks)}"
        raise ConfigError(f"--set {change}: {reason}; known: {', '.join(tasks)}")


def _apply(data: dict[str, Any], change: str) -> None:
    key, equals, value = change.partition("=")
    if not equals or not key:
        raise ConfigError(f"--set {change}: expected KEY=VALUE, e.g. training.epochs=2")
    *tables, last = key.split(".")
    tasks = data.get("tasks")
    if tables[:1] == ["tasks"] and tables[1:] and isinstance(tasks, dict):
        _check_task(change, tables[1], tasks)
    for table in tables:
        data = data.setdefault(table, {})
        if not isinstance(data, dict):
            raise ConfigError(f"--set {change}: {table!r} is not a table")
    try:
        new = tomllib.loads(f"value = {value}")["value"]
    except (ValueError, RecursionError):  # not TOML, or thousands of digits or brackets
        new = value
    data[last] = anchored(new, Path.cwd(), (*tables, last))
