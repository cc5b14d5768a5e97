"""Where a bundle comes from, as its manifest says."""

from __future__ import annotations

import datetime
import platform
from pathlib import Path

import onnx
import onnxruntime
import torch
import transformers

import trunkline
from trunkline_train.checkpoint import Checkpoint
from trunkline_train.config import TaskConfig
from trunkline_train.paths import without_folder


def provenance(checkpoint: Checkpoint) -> dict[str, object]:
    """Returns when, from what and with which versions a bundle is made."""
    config = checkpoint.config
    versions = {
        "trunkline": trunkline.__version__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "onnx": onnx.__version__,
        "onnxruntime": onnxruntime.__version__,
        "python": platform.python_version(),
    }
    return {
        "exported": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "encoder": _encoder(config.encoder, checkpoint.model.config.model_type),
        **({"encoder_commit": checkpoint.origin.commit} if checkpoint.origin.commit else {}),
        "trained": f"{checkpoint.progress.step} steps, seed {config.training.seed}",
        "data": {name: _sources(task) for name, task in config.tasks.items()},
        "versions": versions,
    }


def _encoder(name: str, model_type: str) -> str:
    return f"{model_type} from a local folder" if Path(name).is_absolute() else name


def _sources(task: TaskConfig) -> list[str]:
    limit = f" (at most {task.limit.train} examples)" if task.limit.train else ""
    train = [without_folder(source) + limit for source in task.sources("train")]
    return [*train, *(without_folder(s) for split in ("dev", "test") for s in task.sources(split))]
