"""Writes the padded fp32 graph: one encoder, every head, outputs named `<task>.<tensor>`."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn

from trunkline.bundle import Graph
from trunkline.bundle import Tensor as TensorInfo
from trunkline.kinds import Output, task_outputs
from trunkline.structure import plain
from trunkline_train.model.multitask import MultitaskModel

OPSET = 20
_DTYPES = {onnx.TensorProto.INT64: "int64", onnx.TensorProto.FLOAT: "float32"}
# Lengths 0 and 1 are special to torch.export; an example must avoid them in every dynamic axis.
_EXAMPLE = (2, 8)


class _Flat(nn.Module):
    """Gives a tuple instead of a dict, in the order of the task's outputs."""

    def __init__(self, model: MultitaskModel) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        return tuple(self.model(input_ids, attention_mask, token_type_ids).values())


def write_padded_graph(model: MultitaskModel, folder: Path, file: str) -> Graph:
    """Exports a model as `folder/file` and returns the graph's entry for the manifest.

    Inputs are int64 [batch, sequence]: input_ids, attention_mask and, if the encoder takes it,
    token_type_ids. Both axes are dynamic.
    """
    path = folder / file
    path.parent.mkdir(parents=True, exist_ok=True)
    model = model.float().cpu().eval()
    # Eager attention exports to plain MatMul and Softmax, which run everywhere; sdpa adds
    # reshapes and NaN guards that no runtime needs (docs/adr/0004-graph.md).
    model.encoder.set_attn_implementation("eager")
    axes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("sequence")}
    # The wrapper itself must be in evaluation mode: the exporter restores the mode it finds.
    with _quiet():
        torch.onnx.export(
            _Flat(model).eval(),
            tuple(torch.ones(_EXAMPLE, dtype=torch.int64) for _ in model.inputs),
            path,
            dynamo=True,
            opset_version=OPSET,
            input_names=list(model.inputs),
            output_names=[output.name for output in _outputs(model)],
            dynamic_shapes=tuple(axes for _ in model.inputs),
            external_data=False,
            verbose=False,
        )
    _describe(path, model)
    return read_graph(folder, file)


def read_graph(folder: Path, file: str) -> Graph:
    """Returns the entry of an existing padded fp32 graph, read off the file itself."""
    proto = onnx.load(folder / file, load_external_data=False)
    return Graph(
        file=file,
        layout="padded",
        precision="fp32",
        providers=("CPUExecutionProvider", "CUDAExecutionProvider"),
        inputs=tuple(_info(value) for value in proto.graph.input),
        outputs=tuple(_info(value) for value in proto.graph.output),
        opset=next(
            entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")
        ),
    )


def _outputs(model: MultitaskModel) -> list[Output]:
    return [output for spec in model.tasks for output in task_outputs(spec)]


def _describe(path: Path, model: MultitaskModel) -> None:
    """Puts the tasks into the file, for whoever has the graph without its bundle.

    The exporter's stack traces go: they name folders of this machine, and are most of a small file.
    """
    proto = onnx.load(path)
    graph = proto.graph
    for part in (graph, *graph.node, *graph.value_info, *graph.input, *graph.output):
        part.ClearField("metadata_props")
    tasks = json.dumps(plain(model.tasks), ensure_ascii=False)
    onnx.helper.set_model_props(proto, {"trunkline.tasks": tasks})
    onnx.checker.check_model(proto, full_check=True)
    onnx.save(proto, path)


def _info(value: onnx.ValueInfoProto) -> TensorInfo:
    tensor = value.type.tensor_type
    axes = tuple(dim.dim_param or str(dim.dim_value) for dim in tensor.shape.dim)
    return TensorInfo(value.name, _DTYPES[tensor.elem_type], axes)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the exporter's remarks about its own insides off the user's terminal."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
