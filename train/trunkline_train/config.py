"""The training configuration: one typed tree, read from TOML; unknown keys are refused."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from trunkline.errors import ConfigError
from trunkline.kinds import find_kind
from trunkline.structure import parse
from trunkline.tasks import Options, check_task_name

HUB = "hub:"
_SPLITS = ("train", "dev", "test")


@dataclass(frozen=True)
class Limit:
    """Most examples of each split; a larger split is sampled at random, always the same way."""

    train: int | None = None
    dev: int | None = None
    test: int | None = None

    def __post_init__(self) -> None:
        """Refuses splits of nothing."""
        if any(count is not None and count < 1 for count in (self.train, self.dev, self.test)):
            raise ValueError("a limit must be at least 1; leave it out for all")


@dataclass(frozen=True)
class TaskConfig:
    """One task and its data.

    Attributes:
        kind: A kind of task, e.g. `token-classification`.
        train, dev, test: A file (plain or .gz), or `hub:NAME#SPLIT` for a data set of the Hugging
            Face hub. Without `dev`, a part of `train` is held out, whole contexts at a time.
        column: Where token labels stand: in a file the column, counted from 0 or, if negative,
            from the end; on the hub the feature's name.
        batch_size: Rows per batch.
        weight: Factor of the task's mean loss.
        limit: Bounds on the number of examples.
        options: Decode defaults, by kind.
    """

    kind: str
    train: str
    dev: str | None = None
    test: str | None = None
    column: int | str | None = None
    batch_size: int = 16
    weight: float = 1.0
    limit: Limit = Limit()
    options: dict[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuses an unknown kind, options that are not its own, and empty batches."""
        self.decode_options()
        if self.batch_size < 1:
            raise ValueError("batch_size must be at least 1")

    def decode_options(self) -> Options:
        """Returns the kind's typed options."""
        return parse(find_kind(self.kind).options, self.options, "options")


@dataclass(frozen=True)
class RowsConfig:
    """How texts are cut: longest row and overlap of windows, in tokens."""

    max_length: int = 384
    overlap: int = 128


@dataclass(frozen=True)
class TrainingConfig:
    """How the model is trained.

    Attributes:
        epochs: Passes over the task with most batches; smaller tasks start over.
        learning_rate: Peak rate of the encoder, reached after warm-up, then falling to zero.
        head_learning_rate: Peak rate of the heads; None for the encoder's.
        warmup: Share of all steps with a rising rate.
        weight_decay: Of AdamW, on weight matrices only.
        clip_norm: Largest norm of the gradient of all tasks together.
        dropout: In front of the heads.
        attention_dropout: Inside the encoder's attention; None keeps the pretrained setting. 0
            lets fused attention kernels run, which take no dropout on the CPU.
        precision: Of the matrix products: `bf16` keeps fp32 weights and sums (autocast); `auto`
            takes it on CUDA devices that have it.
        seed: Of initial weights, order and dropout.
        save_steps: Steps between checkpoints inside an epoch.
        device: `auto`, `cpu`, `cuda` or another torch device.
    """

    epochs: int = 3
    learning_rate: float = 5e-5
    head_learning_rate: float | None = None
    warmup: float = 0.1
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    dropout: float = 0.1
    attention_dropout: float | None = None
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    seed: int = 13
    save_steps: int = 500
    device: str = "auto"

    def __post_init__(self) -> None:
        """Refuses values that could not train."""
        if self.epochs < 1 or self.save_steps < 1:
            raise ValueError("epochs and save_steps must be at least 1")
        if not 0.0 <= self.warmup <= 1.0:
            raise ValueError("warmup is a share of all steps, from 0 to 1")


@dataclass(frozen=True)
class Config:
    """A whole configuration.

    Attributes:
        name: Of the model; also of its bundle.
        encoder: A name on the Hugging Face hub, or a local folder.
        tasks: By task name; their order is the order of the heads.
        rows: How texts are cut.
        training: How the model is trained.
    """

    name: str
    encoder: str
    tasks: dict[str, TaskConfig]
    rows: RowsConfig = RowsConfig()
    training: TrainingConfig = TrainingConfig()

    def __post_init__(self) -> None:
        """Refuses a model without tasks, and unfit task names."""
        if not self.tasks:
            raise ValueError("tasks: at least one is needed")
        for name in self.tasks:
            check_task_name(name)


def load_config(path: Path, changes: Sequence[str] = ()) -> Config:
    """Reads a TOML configuration.

    Data files named in it are relative to it; those named in `changes` to the working folder.

    Args:
        path: The file.
        changes: `key.path=value` each, which replace what the file says; a value is read as TOML
            if it can be, else as a string.

    Raises:
        ConfigError: The file or a key is at fault; names which.
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}; check the path") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: is not valid TOML: {error}") from None
    _anchor_paths(data, path.parent)
    for change in changes:
        _apply(data, change)
    return parse_config(data, str(path))


def parse_config(data: Mapping[str, Any], source: str) -> Config:
    """Returns plain values as a configuration; `source` names them in errors.

    Raises:
        ConfigError: A key is unknown, missing or of the wrong type; names it.
    """
    try:
        return parse(Config, data)
    except ValueError as error:
        raise ConfigError(f"{source}: {error}") from None


def _anchor_paths(data: dict[str, Any], folder: Path) -> None:
    tasks = data.get("tasks")
    for task in tasks.values() if isinstance(tasks, dict) else ():
        for split in _SPLITS:
            source = task.get(split) if isinstance(task, dict) else None
            if isinstance(source, str) and not source.startswith(HUB):
                task[split] = str(folder / source)


def _apply(data: dict[str, Any], change: str) -> None:
    key, equals, value = change.partition("=")
    if not equals or not key:
        raise ConfigError(f"--set {change}: expected KEY=VALUE, e.g. training.epochs=2")
    *tables, last = key.split(".")
    for table in tables:
        data = data.setdefault(table, {})
        if not isinstance(data, dict):
            raise ConfigError(f"--set {change}: {table!r} is not a table")
    try:
        data[last] = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        data[last] = value
