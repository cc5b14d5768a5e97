"""Rows that go through the encoder together, with the targets of one task or several."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trunkline.batching import pad
from trunkline.encode import Ints
from trunkline.kinds import task_outputs
from trunkline.tasks import TaskSpec
from trunkline_train.batches import Batches
from trunkline_train.config import Config, TaskConfig
from trunkline_train.features.build import Feature
from trunkline_train.features.targets import IGNORE, MASK
from trunkline_train.model.heads import Targets

# Kernels are built for each shape when it first comes: few shapes, few builds.
_WIDTH_STEP = 16


class Features(Protocol):
    """A task's training rows, in memory or in a mapped file."""

    @property
    def lengths(self) -> Ints:
        """Tokens of each row."""
        ...

    def __len__(self) -> int:
        """Number of rows."""
        ...

    def __getitem__(self, index: int, /) -> Feature:
        """Returns a row with its targets."""
        ...


@dataclass(frozen=True)
class Part:
    """One task's share of a batch.

    Attributes:
        rows: [R] rows of the batch that have targets of the task; None for all of them.
        targets: By name, [R, ...] each.
    """

    rows: Tensor | None
    targets: Targets


@dataclass(frozen=True)
class Batch:
    """Rows for one pass of the encoder.

    Attributes:
        inputs: Inputs of the encoder by name, [B, S] each.
        parts: By task.
        tokens: Real tokens, without padding.
    """

    inputs: Mapping[str, Tensor]
    parts: Mapping[str, Part]
    tokens: int

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and width, padding included."""
        rows, width = self.inputs["input_ids"].shape
        return rows, width

    def to(self, device: torch.device) -> Batch:
        """Returns the batch on a device."""
        parts = {
            task: Part(
                None if part.rows is None else part.rows.to(device), _moved(part.targets, device)
            )
            for task, part in self.parts.items()
        }
        return Batch(_moved(self.inputs, device), parts, self.tokens)

    def share(self, rank: int, count: int) -> Batch | None:
        """Returns every `count`-th row from `rank` on; None if that is none."""
        if count == 1:  # as it is: indexing all rows would copy the hidden states in every step
            return self
        if rank >= self.shape[0]:
            return None
        rows = torch.arange(rank, self.shape[0], count)
        inputs = {name: tensor[rows] for name, tensor in self.inputs.items()}
        parts = {}
        for task, part in self.parts.items():
            held = torch.arange(self.shape[0]) if part.rows is None else part.rows
            mine = held % count == rank
            if mine.any():
                targets = {name: tensor[mine] for name, tensor in part.targets.items()}
                parts[task] = Part(held[mine] // count, targets)
        return Batch(inputs, parts, int(inputs["attention_mask"].sum()))


class Stream:
    """The rows of one data set, and the order of its batches.

    Args:
        specs: Of the tasks that share the data set.
        features: By task.
        size: Rows per batch.
        seed: Of the order.
        tokens: Fill batches up to this many padded tokens, rather than by rows.
    """

    def __init__(
        self,
        specs: Sequence[TaskSpec],
        features: Mapping[str, Features],
        *,
        size: int,
        seed: Sequence[int],
        tokens: int | None = None,
    ) -> None:
        self.tasks = tuple(spec.name for spec in specs)
        self._by_token = {spec.name for spec in specs if _by_token(spec)}
        self._features = features
        self._index = _merged([features[task] for task in self.tasks])
        self.batches = Batches(self._lengths(), size, seed, tokens)

    def __len__(self) -> int:
        """Number of rows; one that several tasks share counts once."""
        return len(self._index)

    def rows(self, task: str) -> int:
        """Returns the number of rows with targets of a task."""
        return len(self._features[task])

    def batch(self, number: int, pad_id: int, most: int) -> Batch:
        """Returns the n-th batch, padded to its longest row.

        The width is rounded up a little, but never above `most` tokens.
        """
        chosen = self._index[self.batches.at(number)]
        features = [
            {
                task: self._features[task][at]
                for task, at in zip(self.tasks, row, strict=True)
                if at >= 0
            }
            for row in chosen.tolist()
        ]
        rows = [next(iter(one.values())).row for one in features]
        longest = max(len(row) for row in rows)
        width = max(longest, min(-(-longest // _WIDTH_STEP) * _WIDTH_STEP, most))
        inputs = {name: torch.from_numpy(a) for name, a in pad(rows, pad_id, width).items()}
        parts = dict(self._parts(features, inputs["attention_mask"]))
        return Batch(inputs, parts, sum(len(row) for row in rows))

    def _parts(
        self, features: Sequence[Mapping[str, Feature]], mask: Tensor
    ) -> Iterator[tuple[str, Part]]:
        for task in self.tasks:
            held = [at for at, one in enumerate(features) if task in one]
            if held:
                mine = [features[at][task] for at in held]
                rows = None if len(held) == len(features) else torch.tensor(held)
                targets = _stacked(mine, mask.shape[1] if task in self._by_token else None)
                targets[MASK] = mask if rows is None else mask[rows]
                yield task, Part(rows, targets)

    def _lengths(self) -> Ints:
        lengths = np.zeros(len(self._index), np.int64)
        for column, task in enumerate(self.tasks):
            held = self._index[:, column] >= 0
            lengths[held] = self._features[task].lengths[self._index[held, column]]
        return lengths


def build_streams(
    specs: Sequence[TaskSpec], features: Mapping[str, Features], config: Config
) -> list[Stream]:
    """Returns the data sets of all tasks; tasks with the same training data share one.

    A stream's batches are as large as the largest batch size among its tasks.
    """
    groups: dict[object, list[TaskSpec]] = {}
    for spec in specs:
        groups.setdefault(_data(config.tasks[spec.name]), []).append(spec)
    return [
        Stream(
            group,
            features,
            size=max(config.tasks[spec.name].batch_size for spec in group),
            # Data sets of one seed must not share an order: the index joins the seed.
            seed=(config.training.seed, index),
            tokens=config.training.batch_tokens,
        )
        for index, group in enumerate(groups.values())
    ]


def _data(task: TaskConfig) -> object:
    return task.sources("train"), task.texts, task.text_pair


def _by_token(spec: TaskSpec) -> bool:
    return all("sequence" in output.axes for output in task_outputs(spec))


def _merged(features: Sequence[Features]) -> NDArray[np.int64]:
    """Returns [rows, tasks]: where each task has the row; -1 where it does not.

    Rows are the same if their tokens are; the n-th of several equal rows is the n-th of each task.
    """
    if len(features) == 1:
        return np.arange(len(features[0]))[:, None]
    found: dict[tuple[bytes, int], list[int]] = {}
    for column, table in enumerate(features):
        seen: Counter[bytes] = Counter()
        for at in range(len(table)):
            content = table[at].row.input_ids.tobytes()
            place = found.setdefault((content, seen[content]), [-1] * len(features))
            place[column] = at
            seen[content] += 1
    return np.array(list(found.values()), np.int64)


def _stacked(features: Sequence[Feature], width: int | None) -> dict[str, Tensor]:
    """Stacks targets; those with a value per token are padded to `width`, unless it is None."""
    names = features[0].targets
    columns: dict[str, list[NDArray[Any]]] = {
        name: [np.asarray(one.targets[name]) for one in features] for name in names
    }
    if width is not None:
        columns = {name: [_padded(t, width) for t in column] for name, column in columns.items()}
    return {name: torch.from_numpy(np.stack(column)) for name, column in columns.items()}


def _padded(target: NDArray[np.generic], width: int) -> NDArray[np.generic]:
    """Pads integers with IGNORE, a teacher's numbers with 0; a position has nothing to pad."""
    if target.ndim == 0:
        return target
    value = IGNORE if np.issubdtype(target.dtype, np.integer) else 0
    missing = [(0, width - len(target))] + [(0, 0)] * (target.ndim - 1)
    return np.pad(target, missing, constant_values=value)


def _moved(tensors: Mapping[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    return {name: tensor.to(device, non_blocking=True) for name, tensor in tensors.items()}
