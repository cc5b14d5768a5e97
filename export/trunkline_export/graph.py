"""The padded fp32 graph: one encoder, every head, outputs named `<task>.<tensor>`."""

from __future__ import annotations

import json
import logging
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import onnx
import torch
from torch import Tensor, nn

from trunkline.bundle import GOLDEN, Graph, Layout, Precision
from trunkline.bundle import Tensor as TensorInfo
from trunkline.device import CPU, CUDA
from trunkline.kinds import all_outputs
from trunkline.structure import plain
from trunkline.tasks import TaskSpec
from trunkline_export.families import named_failure, use_plain_attention
from trunkline_export.weights import save_together
from trunkline_train.model.multitask import MultitaskModel

OPSET = 20
_DTYPES: dict[int, str] = {
    onnx.TensorProto.INT64: "int64",
    onnx.TensorProto.INT32: "int32",
    onnx.TensorProto.FLOAT: "float32",
}
_CUDA_ALONE = "PackedMultiHeadAttention"  # no other part of onnxruntime has it
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


def padded_model(model: MultitaskModel) -> onnx.ModelProto:
    """Returns a model's padded graph, in operators of ONNX alone.

    Inputs are int64 [batch, sequence]: input_ids, attention_mask and, if the encoder takes it,
    token_type_ids. Both axes are dynamic.
    """
    model = model.float().cpu().eval()
    # Eager attention exports to plain MatMul and Softmax, which run everywhere; sdpa adds
    # reshapes and NaN guards that no runtime needs (docs/adr/0004-graph.md).
    use_plain_attention(model.encoder)
    axes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("sequence")}
    # The wrapper itself must be in evaluation mode: the exporter restores the mode it finds.
    with quiet(), named_failure(model.config.model_type):
        program = torch.onnx.export(
            _Flat(model).eval(),
            tuple(torch.ones(_EXAMPLE, dtype=torch.int64) for _ in model.inputs),
            dynamo=True,
            opset_version=OPSET,
            input_names=list(model.inputs),
            output_names=[output.name for output in all_outputs(model.tasks)],
            dynamic_shapes=tuple(axes for _ in model.inputs),
            verbose=False,
        )
    assert program is not None
    return _cleaned(program.model_proto)


def write_graphs(
    folder: Path, models: Mapping[str, onnx.ModelProto], tasks: Sequence[TaskSpec], weights: str
) -> None:
    """Writes graphs to their files below `folder`, with the tasks in each, and common weights.

    Args:
        folder: Of the bundle.
        models: By file.
        tasks: What the graphs do, for whoever has one without its bundle.
        weights: The file of their weights, beside them; empty keeps them inside.
    """
    said = {"trunkline.tasks": json.dumps(plain(tuple(tasks)), ensure_ascii=False)}
    for file, model in models.items():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        onnx.helper.set_model_props(model, said)
        onnx.checker.check_model(model, full_check=True)
    if weights:
        save_together({folder / file: model for file, model in models.items()}, folder / weights)
        return
    for file, model in models.items():
        onnx.save(model, folder / file)


def read_graph(
    folder: Path, file: str, layout: Layout, precision: Precision, keep: tuple[str, ...] = ()
) -> Graph:
    """Returns the entry of an existing graph, its signature read off the file itself."""
    proto = onnx.load(folder / file, load_external_data=False)
    return Graph(
        file=file,
        layout=layout,
        precision=precision,
        providers=_providers(proto),
        inputs=tuple(_info(value) for value in proto.graph.input),
        outputs=tuple(_info(value) for value in proto.graph.output),
        opset=next(
            entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")
        ),
        weights=_weights_file(proto, file),
        operators=dict(Counter(node.op_type for node in proto.graph.node)),
        golden=GOLDEN if precision == "fp32" else f"golden-{precision}.jsonl",
        keep_fp32=keep,
    )


def _weights_file(proto: onnx.ModelProto, file: str) -> str:
    """Returns the file below the bundle that holds a graph's weights, if it is another one."""
    for tensor in proto.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                return (PurePosixPath(file).parent / entry.value).as_posix()
    return ""


def _providers(proto: onnx.ModelProto) -> tuple[str, ...]:
    """Returns where a graph runs: everywhere, but for operators of one part of onnxruntime."""
    if any(node.op_type == _CUDA_ALONE for node in proto.graph.node):
        return (CUDA,)
    everywhere = all(node.domain in ("", "ai.onnx") for node in proto.graph.node)
    return (CPU, *([CUDA] if everywhere else []))


def _cleaned(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Returns the graph without the exporter's stack traces.

    They name folders of this machine, and are most of a small file.
    """
    graph = proto.graph
    for part in (graph, *graph.node, *graph.value_info, *graph.input, *graph.output):
        part.ClearField("metadata_props")
    return proto


def _info(value: onnx.ValueInfoProto) -> TensorInfo:
    tensor = value.type.tensor_type
    axes = tuple(dim.dim_param or str(dim.dim_value) for dim in tensor.shape.dim)
    return TensorInfo(value.name, _DTYPES[tensor.elem_type], axes)


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps the libraries' remarks about their own insides off the user's terminal."""
    loggers = [logging.getLogger(name) for name in (None, "torch.onnx", "onnxscript")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
