"""The training loop, all of it: read, step, evaluate, save, resume."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from trunkline.batching import pad
from trunkline.encode import Ints
from trunkline.errors import CheckpointError, ConfigError, DataError
from trunkline.tasks import TaskSpec
from trunkline_train.batches import TaskBatches
from trunkline_train.checkpoint import (
    Checkpoint,
    Progress,
    load_checkpoint,
    load_state,
    save_checkpoint,
)
from trunkline_train.config import Config, TaskConfig, TrainingConfig
from trunkline_train.data.examples import Example
from trunkline_train.data.source import READERS, load_splits
from trunkline_train.evaluate import Scores, evaluate
from trunkline_train.features import IGNORE, Feature, build_features
from trunkline_train.hardware import pick_device, use_bf16
from trunkline_train.model.multitask import MultitaskModel
from trunkline_train.model.pretrained import load_pretrained, text_encoder
from trunkline_train.report import Report

# Kernels are built for each shape when it first comes: few shapes, few builds.
_WIDTH_STEP = 16


@dataclass(frozen=True)
class TaskData:
    """One task with what it trains and is scored on.

    Attributes:
        spec: The task.
        features: Training rows with targets.
        batches: Which rows form the batch of a step.
        dev: Examples scored after each epoch.
        weight: Factor of the mean loss.
    """

    spec: TaskSpec
    features: list[Feature]
    batches: TaskBatches
    dev: list[Example]
    weight: float


def train(config: Config, out: Path, *, resume: bool = False) -> Checkpoint:
    """Trains a model and returns the best checkpoint, by the mean of the tasks' dev scores.

    Writes `last/` (resumable) and `best/` checkpoints, `log.jsonl` and `curves.png` into `out`.

    Args:
        config: What to train on what.
        out: Folder of the run; must not hold one unless `resume`.
        resume: Go on from `out/last`, exactly where it stopped.

    Raises:
        ConfigError: The configuration does not fit the model, or the run exists.
        DataError: A data file is missing or broken.
        CheckpointError: There is nothing to resume, or it is broken.
    """
    settings = config.training
    if not resume and (out / "last").exists():
        raise ConfigError(f"{out}: holds a run; use --resume to go on, or another --out")
    torch.manual_seed(settings.seed)
    device = pick_device(settings.device)
    precision = torch.autocast(
        device.type, torch.bfloat16, enabled=use_bf16(settings.precision, device)
    )
    data, checkpoint = _prepare(config, out / "last" if resume else None)
    model, progress = checkpoint.model.to(device), checkpoint.progress
    per_epoch = max(task.batches.per_pass for task in data)
    total = per_epoch * settings.epochs
    optimizer = _optimizer(model, settings)
    scheduler = LambdaLR(optimizer, _schedule(total, settings.warmup))
    if resume:
        load_state(out / "last", optimizer, scheduler)

    with Report(out, total, progress) as report:
        for task in data:
            report.say(
                f"  {task.spec.name:<12} {len(task.features)} rows, {len(task.dev)} dev examples"
            )
        while progress.step < total:
            losses, tokens = _step(checkpoint, data, progress.step, precision)
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad(set_to_none=True)
            progress.step += 1
            report.step(losses, tokens, scheduler.get_last_lr()[0])
            if progress.step % per_epoch == 0:
                scores = _evaluate(checkpoint, data)
                report.epoch(progress.step // per_epoch, scores)
                mean = sum(score.value for score in scores.values()) / len(scores)
                if progress.best is None or mean > progress.best:
                    progress.best = mean
                    save_checkpoint(out / "best", checkpoint)
            if progress.step % settings.save_steps == 0 or progress.step % per_epoch == 0:
                save_checkpoint(out / "last", checkpoint, optimizer, scheduler)
    return load_checkpoint(out / "best")


def _step(
    checkpoint: Checkpoint, data: Sequence[TaskData], step: int, precision: torch.autocast
) -> tuple[dict[str, float], int]:
    """Adds up every task's gradient of one step, clipped together; returns losses and tokens.

    All tasks feed each optimiser step: a weight would have no effect on a step of one task alone,
    since clipping and Adam's normalisation cancel a constant factor.
    """
    model = checkpoint.model.train()
    device = next(model.parameters()).device
    losses: dict[str, Tensor] = {}
    tokens = 0
    for task in data:
        batch = [task.features[index] for index in task.batches.at(step)]
        inputs, targets = collate(batch, checkpoint.pad_id, device, checkpoint.encoder.max_length)
        head = model.head(task.spec.name)
        with precision:
            outputs = head(model.hidden(**inputs))
        outputs = tuple(output.float() for output in outputs)
        loss = head.loss(outputs, {**targets, "mask": inputs["attention_mask"]})
        (task.weight * loss).backward()
        losses[task.spec.name] = loss.detach()
        tokens += sum(len(feature.row) for feature in batch)
    torch.nn.utils.clip_grad_norm_(model.parameters(), checkpoint.config.training.clip_norm)
    return {name: float(loss) for name, loss in losses.items()}, tokens


def collate(
    batch: Sequence[Feature], pad_id: int, device: torch.device, most: int = 0
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Pads a batch to its longest row; returns inputs [B, S] and targets [B, ...].

    The width is rounded up a little, but never above `most` tokens.
    """
    rows = [feature.row for feature in batch]
    longest = max(len(row) for row in rows)
    width = max(longest, min(-(-longest // _WIDTH_STEP) * _WIDTH_STEP, most))
    inputs = pad(rows, pad_id, width)
    targets = {
        name: np.stack([_padded(feature.targets[name], width) for feature in batch])
        for name in batch[0].targets
    }
    return _to_device(inputs, device), _to_device(targets, device)


def _to_device(arrays: Mapping[str, Ints], device: torch.device) -> dict[str, Tensor]:
    return {name: torch.from_numpy(array).to(device) for name, array in arrays.items()}


def _padded(target: Ints, width: int) -> Ints:
    if np.ndim(target) == 0:
        return target
    return np.pad(target, (0, width - len(target)), constant_values=IGNORE)


def _evaluate(checkpoint: Checkpoint, data: Sequence[TaskData]) -> dict[str, Scores]:
    pipeline = checkpoint.pipeline()
    return {task.spec.name: evaluate(task.spec, pipeline, task.dev) for task in data}


def _prepare(config: Config, last: Path | None) -> tuple[list[TaskData], Checkpoint]:
    """Reads all data; builds the model anew, or loads it from the checkpoint `last`."""
    splits = {name: load_splits(task) for name, task in config.tasks.items()}
    specs = [_spec(name, config.tasks[name], train) for name, (train, _) in splits.items()]
    if last is None:
        pretrained = load_pretrained(config.encoder, config.training.attention_dropout)
        encoder = text_encoder(pretrained, config.rows)
        model = MultitaskModel(pretrained.encoder, specs, config.training.dropout)
        checkpoint = Checkpoint(model, encoder, pretrained.pad_id, config, Progress())
    else:
        checkpoint = load_checkpoint(last)
        if checkpoint.config != config or checkpoint.tasks != tuple(specs):
            reason = "was trained by another configuration or other labels"
            raise CheckpointError(last, f"{reason}; resume with the same, or use another --out")
    data = []
    for spec in specs:
        train, dev = splits[spec.name]
        features = build_features(spec, train, checkpoint.encoder)
        if not features:
            raise DataError(config.tasks[spec.name].train, "holds no text to train on")
        task = config.tasks[spec.name]
        # Tasks of one seed must not share an order: the index of the task joins the seed.
        seed = (config.training.seed, len(data))
        lengths = [len(feature.row) for feature in features]
        batches = TaskBatches(lengths, task.batch_size, seed)
        data.append(TaskData(spec, features, batches, dev, task.weight))
    return data, checkpoint


def _spec(name: str, task: TaskConfig, examples: Sequence[Example]) -> TaskSpec:
    labels = READERS[task.kind].labels(examples, task)
    return TaskSpec(name, task.kind, labels, task.decode_options())


def _optimizer(model: MultitaskModel, settings: TrainingConfig) -> AdamW:
    """AdamW; biases and norms do not decay, heads may have their own rate."""
    head_rate = settings.head_learning_rate or settings.learning_rate
    groups = []
    for module, rate in ((model.encoder, settings.learning_rate), (model.heads, head_rate)):
        parameters = list(module.parameters())
        matrices = [p for p in parameters if p.ndim > 1]
        vectors = [p for p in parameters if p.ndim <= 1]
        groups.append({"params": matrices, "lr": rate, "weight_decay": settings.weight_decay})
        groups.append({"params": vectors, "lr": rate, "weight_decay": 0.0})
    return AdamW(groups, fused=True)


def _schedule(total: int, warmup: float) -> Callable[[int], float]:
    """Returns the factor of the rate by step: rising over the warm-up, then falling to zero."""
    rising = max(1, int(warmup * total))

    def factor(step: int) -> float:
        return min((step + 1) / rising, (total - step) / max(1, total - rising), 1.0)

    return factor
