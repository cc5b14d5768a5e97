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
Sources = str | tuple[str, ...]
Column = int | str
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

    Tasks that name the same training data share it: each document goes once through the encoder,
    for all of them.

    Attributes:
        kind: A kind of task, e.g. `token-classification`.
        train, dev, test: A file (plain or .gz), or `hub:NAME[:SUBSET][@REVISION]#SPLIT` for a data
            set of the Hugging Face hub; a list reads several corpora as one. Without `dev`, a part
            of `train` is held out, whole contexts at a time.
        column: Where labels stand: a column counted from 0 or, if negative, from the end; or the
            name of a column, key or feature. None takes the reader's default.
        text: Columns, keys or features of the text, joined by blanks; empty for the default.
        text_pair: Column, key or feature of the second text of a pair.
        labels: The label set, in order; empty infers it from the training data.
        label_names: What labels in the data stand for, e.g. `{"1" = "World"}`.
        downsample: Share of the examples of every split that is kept, the same at each run.
        limit: Bounds on the number of examples.
        batch_size: Rows per batch.
        weight: Factor of the task's mean loss.
        teacher: A run or checkpoint with a task of this name, whose logits are learned too.
        options: Decode defaults, by kind.
    """

    kind: str
    train: Sources
    dev: Sources | None = None
    test: Sources | None = None
    column: Column | None = None
    text: tuple[Column, ...] = ()
    text_pair: Column | None = None
    labels: tuple[str, ...] = ()
    label_names: dict[str, str] = field(default_factory=dict)
    downsample: float = 1.0
    limit: Limit = Limit()
    batch_size: int = 16
    weight: float = 1.0
    teacher: str | None = None
    options: dict[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuses an unknown kind, options that are not its own, and empty batches."""
        self.decode_options()
        if self.batch_size < 1:
            raise ValueError("batch_size must be at least 1")
        if not 0.0 < self.downsample <= 1.0:
            raise ValueError("downsample is a share, above 0 and at most 1")
        if self.weight < 0.0:
            raise ValueError("weight must not be negative")

    def decode_options(self) -> Options:
        """Returns the kind's typed options."""
        return parse(find_kind(self.kind).options, self.options, "options")

    def sources(self, split: str) -> tuple[str, ...]:
        """Returns the sources of `train`, `dev` or `test`; none if it is not given."""
        given: Sources | None = getattr(self, split)
        if given is None:
            return ()
        return (given,) if isinstance(given, str) else given


@dataclass(frozen=True)
class RowsConfig:
    """How texts are cut: longest row and overlap of windows, in tokens."""

    max_length: int = 384
    overlap: int = 128


@dataclass(frozen=True)
class ModelConfig:
    """What becomes of the pretrained encoder.

    Attributes:
        layers: Keep this many of its layers, evenly spaced; None keeps all.
        dropout: In front of the heads.
        hidden_dropout, attention_dropout: Inside the encoder; None keeps the pretrained setting.
            An attention dropout of 0 lets fused kernels run, which take none on a CPU.
        freeze_embeddings: Leave the embeddings as they are.
        freeze_layers: Leave this many of the lowest layers as they are.
        lora_rank: Train low-rank updates of this rank beside the frozen encoder; 0 trains it whole.
        lora_alpha: Scale of the updates, over the rank.
        lora_dropout: In front of the updates.
        lora_targets: Names of the linear layers that get one; empty for all of the encoder's.
    """

    layers: int | None = None
    dropout: float = 0.1
    hidden_dropout: float | None = None
    attention_dropout: float | None = None
    freeze_embeddings: bool = False
    freeze_layers: int = 0
    lora_rank: int = 0
    lora_alpha: float = 16.0
    lora_dropout: float = 0.0
    lora_targets: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuses counts and shares that could not be."""
        if self.layers is not None and self.layers < 1:
            raise ValueError("layers must be at least 1; leave it out for all")
        if self.freeze_layers < 0 or self.lora_rank < 0:
            raise ValueError("freeze_layers and lora_rank must not be negative")
        for name in ("dropout", "hidden_dropout", "attention_dropout", "lora_dropout"):
            share = getattr(self, name)
            if share is not None and not 0.0 <= share < 1.0:
                raise ValueError(f"{name} is a share, at least 0 and below 1")


@dataclass(frozen=True)
class MixingConfig:
    """Which tasks' batches make an optimiser step. docs/training.md compares the ways.

    Attributes:
        sampler: `round-robin` takes the tasks in turn and starts the small ones over;
            `proportional` by their number of batches; `temperature` by that number, at most `cap`,
            to the power of 1/temperature; `annealed` from proportional to nearly equal over the
            run; `ratios` as given.
        batches_per_step: Batches that feed one optimiser step. None for one, or one of each data
            set where tasks are weighed against each other: weights mean nothing in steps of one
            task alone.
        temperature: Of `temperature`; 1 is proportional, higher is more equal.
        cap: Most batches a task counts for in `temperature`.
        ratios: By task, for `ratios`.
    """

    sampler: Literal["round-robin", "proportional", "temperature", "annealed", "ratios"] = (
        "round-robin"
    )
    batches_per_step: int | None = None
    temperature: float = 2.0
    cap: int | None = None
    ratios: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuses values that no batch could be drawn by."""
        if self.batches_per_step is not None and self.batches_per_step < 1:
            raise ValueError("batches_per_step must be at least 1")
        if self.temperature <= 0.0:
            raise ValueError("temperature must be above 0")
        if self.cap is not None and self.cap < 1:
            raise ValueError("cap must be at least 1")
        if any(ratio <= 0.0 for ratio in self.ratios.values()):
            raise ValueError("ratios must be above 0")
        if (self.sampler == "ratios") != bool(self.ratios):
            raise ValueError("sampler 'ratios' and the table ratios go together")


@dataclass(frozen=True)
class BalancingConfig:
    """How the tasks' losses are weighed against each other, on top of each task's own weight.

    Attributes:
        method: `static` leaves the weights alone. `uncertainty`, `dwa`, `famo` and `random` set
            them from the losses, at no cost; `normalized`, `gradnorm` and `pcgrad` look at each
            task's gradient, which takes memory for one gradient per task.
        rate: Learning rate of the weights, of `uncertainty`, `famo` and `gradnorm`.
        temperature: Of `dwa`; higher is more equal.
        alpha: Of `gradnorm`: how strongly slow tasks are pulled along.
        window: Steps that `dwa` averages losses over.
    """

    method: Literal[
        "static", "uncertainty", "dwa", "famo", "random", "normalized", "gradnorm", "pcgrad"
    ] = "static"
    rate: float = 0.025
    temperature: float = 2.0
    alpha: float = 1.5
    window: int = 50

    def __post_init__(self) -> None:
        """Refuses values the methods could not work with."""
        if self.rate <= 0.0 or self.temperature <= 0.0 or self.window < 1:
            raise ValueError("rate and temperature must be above 0, window at least 1")


@dataclass(frozen=True)
class DistillationConfig:
    """How tasks that have a teacher learn from it.

    Attributes:
        temperature: Both distributions are softened by it.
        share: Of the teacher in the loss when training starts.
        final_share: And when it ends; in between it moves linearly (teacher annealing).
    """

    temperature: float = 2.0
    share: float = 1.0
    final_share: float = 0.0

    def __post_init__(self) -> None:
        """Refuses shares outside 0 to 1."""
        if self.temperature <= 0.0:
            raise ValueError("temperature must be above 0")
        if not (0.0 <= self.share <= 1.0 and 0.0 <= self.final_share <= 1.0):
            raise ValueError("share and final_share are shares, from 0 to 1")


@dataclass(frozen=True)
class TrainingConfig:
    """How the model is trained.

    Attributes:
        epochs: With `round-robin`, passes over the task with most batches; else the number of all
            tasks' batches together counts as one.
        learning_rate: Peak rate of the encoder, reached after warm-up, then falling to zero.
        head_learning_rate: Peak rate of the heads; None for the encoder's.
        layer_decay: Each encoder layer learns at this share of the rate of the one above.
        warmup: Share of all steps with a rising rate.
        weight_decay: Of AdamW, on weight matrices only.
        clip_norm: Largest norm of the gradient of all tasks together.
        precision: Of the matrix products: `bf16` keeps fp32 weights and sums (autocast); `auto`
            takes it where the hardware has it, CUDA or a CPU with AMX.
        seed: Of initial weights, order and dropout.
        batch_tokens: Fill batches up to this many padded tokens rather than by rows.
        gradient_checkpointing: Compute activations twice rather than keep them: less memory.
        compile: Run the encoder through torch.compile.
        save_steps: Steps between checkpoints inside an epoch.
        patience: Epochs without a better mean dev score after which training stops; None for all.
        best_per_task: Also keep the best checkpoint of each task.
        diagnose_steps: Steps between looks at each task's gradient; 0 never looks.
        cache: Folder of encoded data sets; None for the user's cache folder, empty for no cache.
        device: `auto`, `cpu`, `cuda` or another torch device.
    """

    epochs: int = 3
    learning_rate: float = 5e-5
    head_learning_rate: float | None = None
    layer_decay: float = 1.0
    warmup: float = 0.1
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    seed: int = 13
    batch_tokens: int | None = None
    gradient_checkpointing: bool = False
    compile: bool = False
    save_steps: int = 500
    patience: int | None = None
    best_per_task: bool = False
    diagnose_steps: int = 0
    cache: str | None = None
    device: str = "auto"

    def __post_init__(self) -> None:
        """Refuses values that could not train."""
        if self.epochs < 1 or self.save_steps < 1:
            raise ValueError("epochs and save_steps must be at least 1")
        if not 0.0 <= self.warmup <= 1.0:
            raise ValueError("warmup is a share of all steps, from 0 to 1")
        if not 0.0 < self.layer_decay <= 1.0:
            raise ValueError("layer_decay is a share, above 0 and at most 1")
        if self.patience is not None and self.patience < 1:
            raise ValueError("patience must be at least 1; leave it out to train to the end")
        if self.batch_tokens is not None and self.batch_tokens < 1:
            raise ValueError("batch_tokens must be at least 1")


@dataclass(frozen=True)
class Config:
    """A whole configuration.

    Attributes:
        name: Of the model; also of its bundle.
        encoder: A name on the Hugging Face hub, a local folder, or a run or checkpoint, such as a
            teacher's.
        tasks: By task name; their order is the order of the heads.
        rows: How texts are cut.
        model: What becomes of the pretrained encoder.
        mixing: Which tasks' batches make a step.
        balancing: How their losses are weighed.
        distillation: How tasks with a teacher learn from it.
        training: How the model is trained.
    """

    name: str
    encoder: str
    tasks: dict[str, TaskConfig]
    rows: RowsConfig = RowsConfig()
    model: ModelConfig = ModelConfig()
    mixing: MixingConfig = MixingConfig()
    balancing: BalancingConfig = BalancingConfig()
    distillation: DistillationConfig = DistillationConfig()
    training: TrainingConfig = TrainingConfig()

    def __post_init__(self) -> None:
        """Refuses a model without tasks, and unfit task names."""
        if not self.tasks:
            raise ValueError("tasks: at least one is needed")
        for name in self.tasks:
            check_task_name(name)
        for name in self.mixing.ratios.keys() ^ self.tasks.keys() if self.mixing.ratios else ():
            raise ValueError(f"mixing.ratios: {name!r} must stand there and among the tasks")


def weighed(config: Config) -> bool:
    """Returns whether losses are weighed against each other, by hand or by a method."""
    weights = {task.weight for task in config.tasks.values()}
    return len(weights) > 1 or config.balancing.method != "static"


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
            if isinstance(source, str):
                task[split] = _anchored(source, folder)
            elif isinstance(source, list):
                task[split] = [_anchored(one, folder) for one in source]


def _anchored(source: object, folder: Path) -> object:
    local = isinstance(source, str) and not source.startswith(HUB)
    return str(folder / str(source)) if local else source


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
