"""The settings of a run, section by section; those of tasks and the whole stand in config.py."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from trunkline.ranges import (
    BelowOne,
    Count,
    CountOrZero,
    NotNegative,
    Positive,
    Probability,
    Seed,
    Share,
)


@dataclass(frozen=True)
class RowsConfig:
    """How texts are cut: longest row and overlap of windows, in tokens."""

    max_length: Count = 384
    overlap: CountOrZero = 128


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

    layers: Count | None = None
    dropout: BelowOne = 0.1
    hidden_dropout: BelowOne | None = None
    attention_dropout: BelowOne | None = None
    freeze_embeddings: bool = False
    freeze_layers: CountOrZero = 0
    lora_rank: CountOrZero = 0
    lora_alpha: Positive = 16.0
    lora_dropout: BelowOne = 0.0
    lora_targets: tuple[str, ...] = ()


@dataclass(frozen=True)
class MixingConfig:
    """Which tasks' batches make an optimiser step. docs/training.md compares the ways.

    Attributes:
        sampler: `round-robin` takes the tasks in turn and starts the small ones over;
            `proportional` by their number of batches; `temperature` by that number to the power of
            1/temperature; `ratios` as given.
        batches_per_step: Batches that feed one optimiser step. None for one, or one of each data
            set where tasks are weighed against each other: weights mean nothing in steps of one
            task alone.
        temperature: Of `temperature`; 1 is proportional, higher is more equal.
        ratios: By task, for `ratios`.
    """

    sampler: Literal["round-robin", "proportional", "temperature", "ratios"] = "round-robin"
    batches_per_step: Count | None = None
    temperature: Positive = 2.0
    ratios: dict[str, Positive] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuses ratios without their sampler, and the sampler without them."""
        if (self.sampler == "ratios") != bool(self.ratios):
            raise ValueError("sampler 'ratios' and the table ratios go together")


@dataclass(frozen=True)
class BalancingConfig:
    """How the tasks' losses are weighed against each other, on top of each task's own weight.

    Attributes:
        method: `static` leaves the weights alone. `normalized` and `gradnorm` look at each task's
            gradient, which takes memory for one gradient per task.
        rate: Learning rate of the weights, of `gradnorm`.
        alpha: Of `gradnorm`: how strongly slow tasks are pulled along.
    """

    method: Literal["static", "normalized", "gradnorm"] = "static"
    rate: Positive = 0.025
    alpha: NotNegative = 1.5


@dataclass(frozen=True)
class DistillationConfig:
    """How tasks that have a teacher learn from it.

    Attributes:
        temperature: Both distributions are softened by it.
        share: Of the teacher in the loss when training starts.
        final_share: And when it ends; in between it moves linearly (teacher annealing).
    """

    temperature: Positive = 2.0
    share: Probability = 1.0
    final_share: Probability = 0.0


@dataclass(frozen=True)
class TrainingConfig:
    """How the model is trained.

    Attributes:
        epochs: With `round-robin`, passes over the task with most batches; else the number of all
            tasks' batches together counts as one. None for three epochs, each of as many whole
            passes as `min_steps` asks for: small data is read more often.
        min_steps: Batches of each data set in the whole run, at least, where `epochs` is not set.
        learning_rate: Peak rate of the encoder, reached after warm-up, then falling to zero. None
            for one that fits its width: narrow encoders take higher ones.
        head_learning_rate: Peak rate of the heads; None for 1e-3, or the encoder's if it is higher.
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

    epochs: Count | None = None
    min_steps: Count = 600
    learning_rate: Positive | None = None
    head_learning_rate: Positive | None = None
    layer_decay: Share = 1.0
    warmup: Probability = 0.1
    weight_decay: NotNegative = 0.01
    clip_norm: Positive = 1.0
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    seed: Seed = 13
    batch_tokens: Count | None = None
    gradient_checkpointing: bool = False
    compile: bool = False
    save_steps: Count = 500
    patience: Count | None = None
    best_per_task: bool = False
    diagnose_steps: CountOrZero = 0
    cache: str | None = None
    device: str = "auto"
