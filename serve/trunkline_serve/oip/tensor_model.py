"""A model by its name with `.tensors` behind it: token ids in, the graph's own outputs out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from trunkline.encode import Row, TextEncoder, bare_row
from trunkline.errors import InvalidInput
from trunkline.kinds import task_outputs
from trunkline.naming import TENSORS
from trunkline.runner import RowOutputs
from trunkline.tasks import TaskSpec
from trunkline_serve.aside import aside
from trunkline_serve.engine import Engine
from trunkline_serve.models import Served
from trunkline_serve.oip.answers import Answered, requested
from trunkline_serve.oip.tensors import FP32, INT64, Array, Spec, read_inputs
from trunkline_serve.oip.v1 import open_inference_pb2 as pb

IDS, MASK, TYPES = "input_ids", "attention_mask", "token_type_ids"

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Bounds:
    """What a graph can take: a greater id would be looked up outside its tables.

    Attributes:
        ids: Number of vocabulary ids.
        types: Number of segments.
        length: Longest row, in tokens.
    """

    ids: int
    types: int
    length: int


def bounds_of(encoder: TextEncoder) -> Bounds:
    """Returns the bounds of what an encoder gives."""
    one = encoder.tokenize("a")
    (pair,) = encoder.rows(one, one)
    return Bounds(
        ids=encoder.ids,
        types=int(pair.token_type_ids.max()) + 1,
        length=encoder.max_length,
    )


class TensorModel:
    """Answers requests to a model for the outputs of its graph.

    Args:
        engine: Computes.
        served: The model.
        bounds: What its graph can take.

    Attributes:
        name, version: What it is called.
        platform: What runs it.
        inputs, outputs: What it takes and gives.
    """

    platform: str = "onnxruntime_onnx"

    def __init__(self, engine: Engine, served: Served, bounds: Bounds) -> None:
        self._engine = engine
        self._model = served.id.name
        self._bounds = bounds
        self.name, self.version = served.id.name + TENSORS, served.id.version
        typed = any(tensor.name == TYPES for tensor in served.model.graph.inputs)
        types = (_input(TYPES, optional=True),) if typed else ()
        self.inputs: tuple[Spec, ...] = (_input(IDS), _input(MASK), *types)
        self.outputs = tuple(
            spec for task in served.model.manifest.tasks for spec in _outputs(task)
        )

    async def infer(self, request: pb.ModelInferRequest, deadline: float | None) -> Answered:
        """Returns the outputs wanted, with zeros where a row is padded.

        Args:
            request: Has token ids, padded on the right.
            deadline: On `time.monotonic`'s clock; None for none.

        Raises:
            InvalidInput: Something in the request is at fault; names the field.
            TrunklineError: As of `Engine.infer`.
        """
        most = self._engine.settings.limits.max_documents
        inputs = read_inputs(request, self.inputs, most)
        names = requested(request, self.outputs)
        wanted = [spec for spec in self.outputs if spec.name in names or not names]
        rows = rows_of(inputs, self._bounds)
        inference = await self._engine.infer(
            rows,
            [spec.name for spec in wanted],
            model=self._model,
            version=self.version,
            deadline=deadline,
        )
        batch, width = inputs[IDS].shape

        def gather() -> dict[str, tuple[Spec, Array]]:
            values = inference.outputs
            return {spec.name: (spec, _padded(spec, values, width)) for spec in wanted}

        found = await aside(batch * width * len(wanted), gather)
        return [found[name] for name in names or found]


def rows_of(inputs: Mapping[str, Ints], bounds: Bounds) -> list[Row]:
    """Returns the real tokens of padded rows.

    Raises:
        InvalidInput: A row is too long, empty or not padded on the right, or an id is out of
            bounds; names the input.
    """
    ids, mask = inputs[IDS], inputs[MASK]
    width = ids.shape[1]
    if width > bounds.length:
        raise InvalidInput(IDS, f"has rows of {width} tokens, at most {bounds.length} are read")
    lengths = np.count_nonzero(mask, axis=1)
    real = np.arange(width) < lengths[:, None]
    wrong = (mask != real).any(axis=1) | (lengths == 0)
    if wrong.any():
        reason = "is not ones and then zeros; pad rows on the right, and leave none empty"
        raise InvalidInput(MASK, f"row {int(wrong.argmax())} {reason}")
    types = inputs.get(TYPES, np.zeros_like(ids))
    _check_range(ids, real, bounds.ids, IDS)
    _check_range(types, real, bounds.types, TYPES)
    return [
        replace(bare_row(ids[at, :length]), token_type_ids=types[at, :length])
        for at, length in enumerate(lengths.tolist())
    ]


def _check_range(values: Ints, real: NDArray[np.bool_], limit: int, name: str) -> None:
    outside = real & ((values < 0) | (values >= limit))
    if outside.any():
        row, column = (int(at) for at in np.argwhere(outside)[0])
        reason = f"is {values[row, column]}, of 0 to {limit - 1}"
        raise InvalidInput(f"{name}[{row}][{column}]", reason)


def _input(name: str, *, optional: bool = False) -> Spec:
    return Spec(name, INT64, (-1, -1), optional)


def _outputs(task: TaskSpec) -> list[Spec]:
    sizes = {"batch": -1, "sequence": -1, "labels": len(task.labels)}
    return [
        Spec(output.name, FP32, tuple(sizes[axis] for axis in output.axes))
        for output in task_outputs(task)
    ]


def _padded(spec: Spec, outputs: Sequence[RowOutputs], width: int) -> Array:
    """Returns one output of all rows, with zeros behind the real tokens if it is per token."""
    values = [row[spec.name] for row in outputs]
    per_token = spec.shape[1:2] == (-1,)
    if not per_token:
        return np.stack(values)
    padded = np.zeros((len(values), width, *spec.shape[2:]), np.float32)
    for at, value in enumerate(values):
        padded[at, : len(value)] = value
    return padded
