"""A teacher's logits beside a task's targets: computed once, kept on disk, mapped from there."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from tqdm import tqdm

from trunkline.encode import Ints, TextEncoder
from trunkline.errors import ConfigError
from trunkline.files import replaced_file
from trunkline.kinds import find_kind, task_outputs
from trunkline.tasks import TaskSpec, TextOptions
from trunkline_train.checkpoint import Checkpoint, load_checkpoint
from trunkline_train.features.build import Feature
from trunkline_train.features.targets import TEACHER
from trunkline_train.pretrained import longest_row
from trunkline_train.streams import Features
from trunkline_train.torch_runner import TorchRunner

FORMAT = 1  # of the files: raise it with them
_AT_ONCE = 4096  # rows sorted by length together
_CHANCE = {"_name_or_path", "transformers_version"}  # what a configuration says beside the model

_log = logging.getLogger(__name__)


class TaughtFeatures(Sequence[Feature]):
    """Training rows whose targets also hold a teacher's logits.

    A row has `teacher.<suffix>` for each output of its kind: float32, without padding.

    Args:
        features: The rows.
        spec: Of their task.
        logits: All rows' logits in one, as `_sizes` counts them.

    Attributes:
        lengths: [N] tokens of each row.
    """

    def __init__(self, features: Features, spec: TaskSpec, logits: NDArray[np.float16]) -> None:
        self.lengths = features.lengths
        self._features = features
        self._spec = spec
        self._logits = logits
        self._ends = np.cumsum(_sizes(spec, self.lengths))

    def __len__(self) -> int:
        """Number of rows."""
        return len(self._features)

    def __getitem__(self, index: int) -> Feature:  # type: ignore[override]
        """Returns a row with its targets."""
        at = range(len(self))[index]
        feature = self._features[at]
        begin = int(self._ends[at - 1]) if at else 0
        targets: dict[str, NDArray[Any] | np.int64] = {**feature.targets}
        for suffix, shape in _shapes(self._spec, len(feature.row)).items():
            end = begin + int(np.prod(shape))
            targets[TEACHER + suffix] = self._logits[begin:end].reshape(shape).astype(np.float32)
            begin = end
        return Feature(feature.row, targets)


def attach_teacher(
    spec: TaskSpec,
    teacher: str,
    features: Features,
    encoder: TextEncoder,
    *,
    cache: Path | None,
    device: torch.device,
) -> TaughtFeatures:
    """Returns training rows with the teacher's logits among their targets.

    Args:
        spec: The task to learn.
        teacher: Folder of a run or checkpoint with a task of this name.
        features: Its training rows.
        encoder: What cut them.
        cache: Folder to keep the logits in; None to compute them anew.
        device: To run the teacher on.

    Raises:
        ConfigError: The teacher does not fit: another task, tokenizer or length of rows.
        CheckpointError: It is missing or broken.
    """
    found = _find(spec, teacher, features, encoder)
    file = None if cache is None else cache / f"{_fingerprint(found, features)}.teacher"
    logits = None if file is None else _mapped(file, spec, features)
    if logits is None:
        logits = _compute(found, features, device)
        if file is not None:
            _write(file, logits)
    return TaughtFeatures(features, spec, logits)


@dataclass(frozen=True)
class _Teacher:
    """A teacher of one task.

    Attributes:
        checkpoint: The model.
        spec: Its task.
        order: Where each of the student's labels stands among its own.
    """

    checkpoint: Checkpoint
    spec: TaskSpec
    order: list[int]


def _find(spec: TaskSpec, folder: str, features: Features, encoder: TextEncoder) -> _Teacher:
    """Loads the teacher, if it can teach the task over these rows."""
    key = f"tasks.{spec.name}.teacher: {folder}"
    checkpoint = load_checkpoint(Path(folder))
    specs = {own.name: own for own in checkpoint.tasks}
    if spec.name not in specs:
        raise ConfigError(f"{key}: has no task {spec.name!r}; it has: {', '.join(specs)}")
    own = specs[spec.name]
    _check_task(key, spec, own)
    if _vocabulary(checkpoint.encoder) != _vocabulary(encoder):
        raise ConfigError(
            f"{key}: is an encoder with a different tokenizer; choose one of the same"
        )
    longest = int(features.lengths.max(initial=0))
    most = longest_row(checkpoint.model.config, checkpoint.pad_id)
    if longest > most:
        raise ConfigError(
            f"{key}: reads {most} tokens, but rows have up to {longest}; lower rows.max_length"
        )
    return _Teacher(checkpoint, own, [own.labels.index(label) for label in spec.labels])


def _check_task(key: str, spec: TaskSpec, own: TaskSpec) -> None:
    """Refuses a teacher whose outputs mean something else."""
    if own.kind != spec.kind:
        raise ConfigError(f"{key}: its task {own.name!r} is of kind {own.kind}, not {spec.kind}")
    for label in sorted(set(own.labels) ^ set(spec.labels)):
        whose = "the teacher" if label in own.labels else "the data"
        raise ConfigError(f"{key}: only {whose} has label {label!r}; labels must be the same")
    options = own.options, spec.options
    several = [isinstance(one, TextOptions) and one.multi_label for one in options]
    if several[0] != several[1]:
        raise ConfigError(f"{key}: multi_label is {several[0]} there and {several[1]} here")


def _vocabulary(encoder: TextEncoder) -> dict[str, int]:
    return Tokenizer.from_str(encoder.to_json()).get_vocab()


def _fingerprint(teacher: _Teacher, features: Features) -> str:
    """Returns a hash of everything the logits follow from."""
    model = teacher.checkpoint.model
    shape = {key: value for key, value in model.config.to_dict().items() if key not in _CHANCE}
    about = [FORMAT, shape, teacher.spec.kind, teacher.order]
    digest = hashlib.sha256(json.dumps(about, sort_keys=True, default=str).encode())
    for part in (model.encoder, model.head(teacher.spec.name)):
        for name, tensor in part.state_dict().items():
            digest.update(name.encode())
            digest.update(tensor.numpy().tobytes())
    for at in range(len(features)):
        row = features[at].row
        digest.update(row.input_ids.tobytes())
        digest.update(row.token_type_ids.tobytes())
    return digest.hexdigest()[:32]


def _compute(teacher: _Teacher, features: Features, device: torch.device) -> NDArray[np.float16]:
    """Runs the teacher, without dropout, over all rows."""
    model = teacher.checkpoint.model.to(device)
    outputs = task_outputs(teacher.spec)
    runner = TorchRunner(model, teacher.checkpoint.pad_id)
    rows = (features[at].row for at in range(len(features)))
    parts: list[NDArray[np.float16]] = []
    with tqdm(total=len(features), desc=f"teacher of {teacher.spec.name}", disable=None) as bar:
        for some in iter(lambda: list(islice(rows, _AT_ONCE)), []):
            for values in runner.run(some, outputs):
                for output in outputs:
                    logits = _ordered(values[output.name], output.axes, teacher.order)
                    parts.append(logits.astype(np.float16).ravel())
            bar.update(len(some))
    return np.concatenate(parts)


def _ordered(
    logits: NDArray[np.float32], axes: Sequence[str], order: Sequence[int]
) -> NDArray[np.float32]:
    """Returns logits with the student's order of labels, where they have any."""
    return logits[..., list(order)] if axes[-1] == "labels" else logits


def _mapped(file: Path, spec: TaskSpec, features: Features) -> NDArray[np.float16] | None:
    """Returns the logits of a file; None if it is missing or not as long as it should be."""
    total = int(_sizes(spec, features.lengths).sum())
    try:
        logits = np.memmap(file, np.float16, "r")
    except (OSError, ValueError):
        return None
    return logits if len(logits) == total else None


def _write(file: Path, logits: NDArray[np.float16]) -> None:
    """Writes the logits; where that cannot be, training goes on without the file."""
    try:
        with replaced_file(file) as aside:
            logits.tofile(aside)
    except OSError as error:
        _log.warning("%s: cannot be written (%s); the next run asks the teacher anew", file, error)


def _shapes(spec: TaskSpec, length: int) -> Mapping[str, tuple[int, ...]]:
    """Returns the shape of each of a row's outputs."""
    extent = {"sequence": length, "labels": len(spec.labels)}
    return {
        suffix: tuple(extent[axis] for axis in axes)
        for suffix, axes in find_kind(spec.kind).suffixes.items()
    }


def _sizes(spec: TaskSpec, lengths: Ints) -> Ints:
    """Returns how many numbers each row has, over all its outputs."""
    each = {int(length): 0 for length in np.unique(lengths)}
    for length in each:
        each[length] = sum(int(np.prod(shape)) for shape in _shapes(spec, length).values())
    return np.array([each[length] for length in lengths.tolist()], np.int64)
