"""The settings of a run, section by section; config.py has the tasks and the whole tree."""

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
    """How texts are split into rows: maximum length and window overlap, in tokens."""

    max_length: Count = 384
    overlap: CountOrZero = 128


@dataclass(frozen=True)
class ModelConfig:
    """How the pretrained encoder is changed.

    Attributes:
        layers: Number of evenly spaced layers to keep; None keeps all.
        dropout: Dropout before the heads.
        hidden_dropout, attention_dropout: Dropout inside the encoder; None keeps the pretrained
            setting. Fused kernels do not support attention dropout on a CPU, so 0 enables them.
        freeze_embeddings: Do not train the embeddings.
        freeze_layers: Number of lowest layers that are not trained.
        lora_rank: Rank of low-rank updates (LoRA) to a frozen encoder; 0 trains the encoder itself.
        lora_alpha: Scale of the updates, which is divided by the rank.
        lora_dropout: Dropout before the updates.
        lora_targets: Names of the linear layers to update; empty for all of the encoder's.
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
    """How batches of the tasks are mixed; docs/training.md compares the samplers.

    Attributes:
        sampler: `round-robin` takes tasks in turn and repeats the small ones; `proportional` draws
            them by number of batches, `temperature` by that number to the power of 1/temperature,
            and `ratios` as given.
        batches_per_step: Batches per optimiser step. None for one, or for one of each data set if
            losses are weighted: weights mean nothing in steps of a single task.
        temperature: Temperature of `temperature`: 1 is proportional, higher is more equal.
        ratios: Ratio of each task, for `ratios`.
    """

    sampler: Literal["round-robin", "proportional", "temperature", "ratios"] = "round-robin"
    batches_per_step: Count | None = None
    temperature: Positive = 2.0
    ratios: dict[str, Positive] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Checks that ratios are set if and only if the sampler is `ratios`."""
        if (self.sampler == "ratios") != bool(self.ratios):
            raise ValueError("sampler 'ratios' and the table ratios go together")


@dataclass(frozen=True)
class BalancingConfig:
    """How the tasks' losses are balanced, on top of each task's own weight.

    Attributes:
        method: `static` keeps the weights. `normalized` and `gradnorm` use each task's gradient,
            which needs memory for one gradient per task.
        rate: Learning rate of the weights in `gradnorm`.
        alpha: How strongly `gradnorm` favours slow tasks.
    """

    method: Literal["static", "normalized", "gradnorm"] = "static"
    rate: Positive = 0.025
    alpha: NotNegative = 1.5


@dataclass(frozen=True)
class DistillationConfig:
    """How tasks with a teacher learn from it.

    Attributes:
        temperature: Temperature that softens both distributions.
        share: The teacher's share in the loss at the start of training.
        final_share: Its share at the end; it changes linearly in between (teacher annealing).
    """

    temperature: Positive = 2.0
    share: Probability = 1.0
    final_share: Probability = 0.0


@dataclass(frozen=True)
class TrainingConfig:
    """How the model is trained.

    Attributes:
        epochs: Number of epochs. With `round-robin`, an epoch is a pass over the task with the most
            batches; else it has as many batches as all tasks together. None for three epochs, each
            of as many whole passes as `min_steps` requires, so that small data is read more often.
        min_steps: Minimum batches of each data set in the whole run if `epochs` is not set.
        learning_rate: Peak rate of the encoder, reached after warm-up; it then falls to zero. None
            chooses one by the encoder's width, higher for narrow encoders.
        head_learning_rate: Peak rate of the heads; None for 1e-3, or the encoder's if it is higher.
        layer_decay: Rate of each encoder layer as a share of the rate of the layer above.
        warmup: Share of all steps with a rising rate.
        weight_decay: AdamW's weight decay, on weight matrices only.
        clip_norm: Maximum norm of the gradient of all tasks together.
        precision: Precision of matrix products. `bf16` keeps weights and sums in fp32 (autocast);
            `auto` chooses it if the hardware supports it (CUDA, or a CPU with AMX).
        seed: Seed of initial weights, order and dropout.
        batch_tokens: Maximum padded tokens per batch, instead of a fixed number of rows.
        gradient_checkpointing: Recompute activations instead of storing them, to save memory.
        compile: Run the encoder through torch.compile.
        save_steps: Steps between checkpoints within an epoch.
        patience: Stop after this many epochs without a better mean dev score; None never stops.
        best_per_task: Also keep the best checkpoint of each task.
        diagnose_steps: Steps between measurements of each task's gradient; 0 for none.
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
