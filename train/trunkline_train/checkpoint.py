"""Checkpoints: safetensors and JSON, no pickle; written atomically.

FOLDER/model.safetensors     encoder and heads; low-rank updates are merged in
FOLDER/checkpoint.json       tasks with labels, progress, scores, the whole configuration
FOLDER/tokenizer.json        the `tokenizers` file
FOLDER/config.json           the encoder's architecture
FOLDER/state.safetensors     optimiser moments and unmerged weights (resumable checkpoints only)
FOLDER/state.json            optimiser groups (resumable checkpoints only)

Order, dropout and learning rates depend only on the step, so they are not saved.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor
from torch.optim import Optimizer

from trunkline.bundle import CHECKPOINT, MANIFEST
from trunkline.encode import TextEncoder
from trunkline.errors import CheckpointError
from trunkline.files import left_aside, read_edited, read_steadily, replaced_folder
from trunkline.kinds import parse_task
from trunkline.pipeline import Pipeline
from trunkline.structure import plain
from trunkline.tasks import TaskSpec
from trunkline_train.config import Config, parse_config
from trunkline_train.model.encoder import encoder_from_config
from trunkline_train.model.lora import plain_state
from trunkline_train.model.multitask import MultitaskModel
from trunkline_train.paths import is_place, without_folder
from trunkline_train.torch_runner import TorchRunner

_META, _WEIGHTS, _TOKENIZER = CHECKPOINT, "model.safetensors", "tokenizer.json"
_STATE, _STATE_META = "state.safetensors", "state.json"
_MODEL = "model."  # prefix of unmerged weights in the state
FORMAT = 3
_PAIRS_REVERSED = 2  # in this format, models of text pairs read the second text first


@dataclass
class Progress:
    """Progress of training.

    Attributes:
        step: Finished optimiser steps.
        drawn: Batches drawn of each data set.
        best: Best mean dev score so far, in points.
        by_task: Best dev score of each task, in points.
        stale: Epochs since the best one.
        balancer: State of the loss weights.
    """

    step: int = 0
    drawn: dict[str, int] = field(default_factory=dict)
    best: float | None = None
    by_task: dict[str, float] = field(default_factory=dict)
    stale: int = 0
    balancer: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Origin:
    """Exact versions of what a model is made from.

    Attributes:
        commit: Commit of the encoder's repository on the hub; empty for a local encoder.
        data: By task, a fingerprint of the contents of its training and dev files.
    """

    commit: str = ""
    data: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Checkpoint:
    """A trained model with everything needed to run it.

    Attributes:
        model: Encoder and heads.
        encoder: Splits texts into rows.
        pad_id: Vocabulary id of padding.
        config: The configuration it was trained with.
        progress: Progress of training.
        origin: Exact versions of encoder and data.
    """

    model: MultitaskModel
    encoder: TextEncoder
    pad_id: int
    config: Config
    progress: Progress
    origin: Origin = Origin()

    @property
    def tasks(self) -> tuple[TaskSpec, ...]:
        """The model's tasks."""
        return self.model.tasks

    def pipeline(self) -> Pipeline:
        """Returns the serving pipeline, running the torch model."""
        return Pipeline(self.tasks, self.encoder, TorchRunner(self.model, self.pad_id))


def save_checkpoint(
    folder: Path, checkpoint: Checkpoint, optimizer: Optimizer | None = None
) -> None:
    """Writes a checkpoint; training can be resumed from it if the optimiser is given."""
    meta = {
        "format": FORMAT,
        "tasks": plain(checkpoint.tasks),
        "pad_id": checkpoint.pad_id,
        "config": plain(checkpoint.config),
        "progress": plain(checkpoint.progress),
        "origin": plain(checkpoint.origin),
    }
    with replaced_folder(folder) as aside:
        _save_tensors(plain_state(checkpoint.model), aside / _WEIGHTS)
        (aside / _TOKENIZER).write_text(checkpoint.encoder.to_json(), encoding="utf-8")
        checkpoint.model.config.save_pretrained(aside)
        if optimizer is not None:
            _save_state(aside, checkpoint.model, optimizer)
        (aside / _META).write_text(json.dumps(meta, ensure_ascii=False, indent=2), encoding="utf-8")


def load_checkpoint(folder: Path) -> Checkpoint:
    """Loads a checkpoint, or the best checkpoint in a run's folder.

    Raises:
        CheckpointError: The checkpoint is missing, broken or of another format.
    """
    best = folder / "best"
    if not (folder / _META).exists() and (best.exists() or left_aside(best)):
        folder = best
    return read_steadily(folder, lambda: _load(folder))


def _load(folder: Path) -> Checkpoint:
    if left := left_aside(folder):
        reason = "is missing: a writer died while it was being replaced"
        raise CheckpointError(folder, f"{reason}; move the one before back: mv {left} {folder}")
    if not folder.exists():
        raise CheckpointError(folder, "does not exist; check the path")
    if (folder / MANIFEST).exists():
        raise CheckpointError(folder, "is a bundle; give the run or checkpoint it was made from")
    meta = _read_json(folder / _META)
    if meta.get("format") not in (FORMAT, _PAIRS_REVERSED):
        raise CheckpointError(folder / _META, f"has format {meta.get('format')!r}, not {FORMAT}")
    try:
        tasks = tuple(parse_task(task, f"tasks[{at}]") for at, task in enumerate(meta["tasks"]))
        config = parse_config(meta["config"], _META)
        tokenizer = Tokenizer.from_file(str(folder / _TOKENIZER))
        model = MultitaskModel(encoder_from_config(str(folder)), tasks, config.model.dropout)
        model.load_state_dict(load_file(folder / _WEIGHTS))
        progress = Progress(**meta["progress"])
        origin = Origin(**meta.get("origin", {}))
        pad_id = int(meta["pad_id"])
        encoder = TextEncoder(tokenizer, config.rows.max_length, config.rows.overlap)
    except Exception as error:  # tokenizers, safetensors and transformers have no narrower base
        raise _broken(folder, error) from None
    if meta["format"] == _PAIRS_REVERSED and any(task.pair for task in tasks):
        reason = "learned pairs with text_pair in front of the text, not behind it; train again"
        raise CheckpointError(folder / _META, reason)
    return Checkpoint(model.eval(), encoder, pad_id, config, progress, origin)


def resumable(folder: Path, saved: Checkpoint, fresh: Checkpoint) -> Checkpoint:
    """Returns `fresh` with the weights and progress of `saved`.

    Args:
        folder: Folder of `saved`.
        saved: The checkpoint to resume from.
        fresh: The model built from the configuration, before training.

    Raises:
        CheckpointError: The checkpoint has another configuration, labels or data, or is broken.
    """
    other = _difference(saved, fresh)
    if other:
        mend = "resume with the same, or use another --out"
        raise CheckpointError(folder, f"was trained by another configuration: {other}; {mend}")
    raw = _split(_load_state(folder), _MODEL)[0] or saved.model.state_dict()
    try:
        fresh.model.load_state_dict(raw)
    except RuntimeError as error:
        raise _broken(folder / _STATE, error) from None
    return replace(fresh, progress=saved.progress)


def _difference(saved: Checkpoint, fresh: Checkpoint) -> str:
    """Returns the difference that prevents resuming, or an empty string if there is none."""
    before, now = (dict(_settings(plain(one.config))) for one in (saved, fresh))
    for key in [key for key in {**before, **now} if before.get(key) != now.get(key)]:
        return f"{key} was {before.get(key)!r}, is {now.get(key)!r}"
    for old, new in zip(saved.tasks, fresh.tasks, strict=True):
        if old.labels != new.labels:
            return f"{new.name!r} has other labels"
    for name in saved.origin.data:
        if saved.origin.data[name] != fresh.origin.data[name]:
            return f"the data of {name!r} has changed"
    return ""


def _settings(value: Any, key: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Yields (key, value) of all settings that affect training, with only the ends of paths.

    Paths of data are left out: data may have moved, so its contents are compared instead.
    """
    if isinstance(value, dict) and value:
        for name, one in value.items():
            yield from _settings(one, (*key, name))
    elif not is_place(key):
        yield ".".join(key), value
    elif key[-1] in ("encoder", "teacher"):
        yield ".".join(key), value and without_folder(value)


def load_state(folder: Path, optimizer: Optimizer) -> None:
    """Restores the state of the optimiser.

    Raises:
        CheckpointError: The checkpoint has no training state, or it is broken.
    """
    _, tensors = _split(_load_state(folder), _MODEL)
    groups = _read_json(folder / _STATE_META)
    state: dict[int, dict[str, Tensor]] = {}
    try:
        for name, tensor in tensors.items():
            index, _, part = name.partition(".")
            state.setdefault(int(index), {})[part] = tensor
        optimizer.load_state_dict({"state": state, "param_groups": groups["param_groups"]})
    except (KeyError, ValueError, TypeError, RuntimeError) as error:
        raise _broken(folder / _STATE, error) from None


def _save_state(folder: Path, model: MultitaskModel, optimizer: Optimizer) -> None:
    packed = optimizer.state_dict()
    tensors = {
        f"{index}.{part}": torch.as_tensor(value)
        for index, parts in packed["state"].items()
        for part, value in parts.items()
    }
    raw = model.state_dict()
    if raw.keys() != plain_state(model).keys():
        tensors |= {_MODEL + name: tensor for name, tensor in raw.items()}
    _save_tensors(tensors, folder / _STATE)
    meta = {"param_groups": packed["param_groups"]}
    (folder / _STATE_META).write_text(json.dumps(meta), encoding="utf-8")


def _load_state(folder: Path) -> dict[str, Tensor]:
    if not (folder / _STATE).exists():
        raise CheckpointError(folder, "holds no training state; resume from the folder 'last'")
    try:
        return load_file(folder / _STATE)
    except (OSError, ValueError, SafetensorError) as error:
        raise _broken(folder / _STATE, error) from None


def _save_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    try:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    except SafetensorError as error:  # not an OSError, even if the disk is full
        raise OSError(f"{path}: cannot be written: {error}") from None


def _split(
    tensors: Mapping[str, Tensor], prefix: str
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Splits tensors into those with a prefix, which is removed, and the others."""
    ours = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
    return ours, {name: t for name, t in tensors.items() if not name.startswith(prefix)}


def _broken(path: Path, error: Exception) -> CheckpointError:
    reason = f"{type(error).__name__}: {error}".splitlines()[0]
    return CheckpointError(path, f"is broken: {reason}; train again or copy it anew")


def _read_json(file: Path) -> dict[str, Any]:
    try:
        data = json.loads(read_edited(file))
    except OSError:
        reason = f"is neither a run nor a checkpoint: it has no {file.name}; check the path"
        raise CheckpointError(file.parent, reason) from None
    except (ValueError, RecursionError) as error:
        raise CheckpointError(file, f"is broken: {error}") from None
    if not isinstance(data, dict):
        raise CheckpointError(file, "is broken: it is not a JSON object")
    return data
