"""Checkpoints: safetensors and JSON, no pickle; written whole or not at all.

FOLDER/model.safetensors     encoder and heads
FOLDER/checkpoint.json       tasks with labels, rows, progress, scores, the whole configuration
FOLDER/tokenizer.json        the `tokenizers` file
FOLDER/config.json           the encoder's architecture
FOLDER/state.safetensors     optimiser moments and random state   (only where training can go on)
FOLDER/state.json            optimiser groups and scheduler
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from trunkline.encode import TextEncoder
from trunkline.errors import CheckpointError
from trunkline.files import recover_folder, replaced_folder
from trunkline.kinds import parse_task
from trunkline.pipeline import Pipeline
from trunkline.structure import plain
from trunkline.tasks import TaskSpec
from trunkline_train.config import Config, parse_config
from trunkline_train.model.multitask import MultitaskModel
from trunkline_train.model.pretrained import encoder_from_config
from trunkline_train.torch_runner import TorchRunner

_META, _WEIGHTS, _TOKENIZER = "checkpoint.json", "model.safetensors", "tokenizer.json"
_STATE, _STATE_META = "state.safetensors", "state.json"
FORMAT = 1


@dataclass
class Progress:
    """How far training is: finished steps, and the best mean dev score so far, in points."""

    step: int = 0
    best: float | None = None


@dataclass(frozen=True)
class Checkpoint:
    """A trained model with everything needed to run it.

    Attributes:
        model: Encoder and heads.
        encoder: Cuts texts into rows.
        pad_id: Vocabulary id of padding.
        config: The configuration it was trained by.
        progress: How far training was.
    """

    model: MultitaskModel
    encoder: TextEncoder
    pad_id: int
    config: Config
    progress: Progress

    @property
    def tasks(self) -> tuple[TaskSpec, ...]:
        """The model's tasks."""
        return self.model.tasks

    def pipeline(self) -> Pipeline:
        """Returns the pipeline of serving, over the torch model."""
        return Pipeline(self.tasks, self.encoder, TorchRunner(self.model, self.pad_id))


def save_checkpoint(
    folder: Path,
    checkpoint: Checkpoint,
    optimizer: Optimizer | None = None,
    scheduler: LRScheduler | None = None,
) -> None:
    """Writes a checkpoint; with optimiser and scheduler, training can go on from it."""
    meta = {
        "format": FORMAT,
        "tasks": plain(checkpoint.tasks),
        "pad_id": checkpoint.pad_id,
        "config": plain(checkpoint.config),
        "progress": plain(checkpoint.progress),
    }
    with replaced_folder(folder) as aside:
        tensors = {name: t.contiguous() for name, t in checkpoint.model.state_dict().items()}
        save_file(tensors, aside / _WEIGHTS)
        (aside / _TOKENIZER).write_text(checkpoint.encoder.to_json(), encoding="utf-8")
        checkpoint.model.config.save_pretrained(aside)
        if optimizer is not None and scheduler is not None:
            _save_state(aside, optimizer, scheduler)
        (aside / _META).write_text(json.dumps(meta, ensure_ascii=False, indent=2), encoding="utf-8")


def load_checkpoint(folder: Path) -> Checkpoint:
    """Loads a checkpoint, or the best one of a run's folder.

    Raises:
        CheckpointError: It is missing, broken or of another version; names the file.
    """
    recover_folder(folder)
    if not (folder / _META).exists():
        recover_folder(folder / "best")
        folder = folder / "best" if (folder / "best").exists() else folder
    meta = _read_json(folder / _META)
    if meta.get("format") != FORMAT:
        raise CheckpointError(folder / _META, f"has format {meta.get('format')!r}, not {FORMAT}")
    try:
        tasks = tuple(parse_task(task, f"tasks[{at}]") for at, task in enumerate(meta["tasks"]))
        config = parse_config(meta["config"], _META)
        tokenizer = Tokenizer.from_file(str(folder / _TOKENIZER))
        model = MultitaskModel(encoder_from_config(str(folder)), tasks, config.training.dropout)
        model.load_state_dict(load_file(folder / _WEIGHTS))
        progress = Progress(**meta["progress"])
        pad_id = int(meta["pad_id"])
        encoder = TextEncoder(tokenizer, config.rows.max_length, config.rows.overlap)
    except Exception as error:  # tokenizers, safetensors and transformers have no narrower base
        raise _broken(folder, error) from None
    return Checkpoint(model.eval(), encoder, pad_id, config, progress)


def load_state(folder: Path, optimizer: Optimizer, scheduler: LRScheduler) -> None:
    """Puts optimiser, scheduler and random state back as they were.

    Raises:
        CheckpointError: The checkpoint has no training state, or it is broken.
    """
    if not (folder / _STATE).exists():
        raise CheckpointError(folder, "holds no training state; resume from the folder 'last'")
    meta = _read_json(folder / _STATE_META)
    try:
        _restore(load_file(folder / _STATE), meta, optimizer, scheduler)
    except (KeyError, ValueError, TypeError, OSError, RuntimeError, SafetensorError) as error:
        raise _broken(folder / _STATE, error) from None


def _restore(
    tensors: dict[str, Tensor],
    meta: dict[str, Any],
    optimizer: Optimizer,
    scheduler: LRScheduler,
) -> None:
    torch.set_rng_state(tensors.pop("random.cpu"))
    if "random.cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["random.cuda"])
    tensors.pop("random.cuda", None)
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        index, _, part = name.partition(".")
        state.setdefault(int(index), {})[part] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": meta["param_groups"]})
    scheduler.load_state_dict(meta["scheduler"])


def _save_state(folder: Path, optimizer: Optimizer, scheduler: LRScheduler) -> None:
    packed = optimizer.state_dict()
    tensors = {
        f"{index}.{part}": torch.as_tensor(value).contiguous()
        for index, parts in packed["state"].items()
        for part, value in parts.items()
    }
    tensors["random.cpu"] = torch.get_rng_state()
    if torch.cuda.is_available():
        tensors["random.cuda"] = torch.cuda.get_rng_state()
    save_file(tensors, folder / _STATE)
    schedule = {
        name: value for name, value in scheduler.state_dict().items() if name != "lr_lambdas"
    }
    schedule["lr_lambdas"] = [None] * len(packed["param_groups"])
    meta = {"param_groups": packed["param_groups"], "scheduler": schedule}
    (folder / _STATE_META).write_text(json.dumps(meta), encoding="utf-8")


def _broken(path: Path, error: Exception) -> CheckpointError:
    reason = f"{type(error).__name__}: {error}".splitlines()[0]
    return CheckpointError(path, f"is broken: {reason}; train again or copy it anew")


def _read_json(file: Path) -> dict[str, Any]:
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except OSError:
        raise CheckpointError(file.parent, f"is not a checkpoint: it has no {file.name}") from None
    except ValueError as error:
        raise CheckpointError(file, f"is broken: {error}") from None
    if not isinstance(data, dict):
        raise CheckpointError(file, "is broken: it is not a JSON object")
    return data
