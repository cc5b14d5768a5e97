"""The graphs of a bundle: each built, checked against the trained model, ready to be gated."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import onnx
from onnxruntime.quantization import QuantType, quantize_dynamic

from trunkline.bundle import Graph
from trunkline.cuda_runner import open_cuda_runner
from trunkline.device import CUDA, ON_CPU, USUAL, Devices
from trunkline.errors import ConfigError
from trunkline.kinds import all_outputs
from trunkline.pipeline import Pipeline
from trunkline.runner import Runner, open_runner
from trunkline_export.channels import Sizes
from trunkline_export.fusions import check_cuda_fusions, check_fusions
from trunkline_export.graph import padded_model, quiet, read_graph, write_graphs
from trunkline_export.packed import packed_model
from trunkline_export.packed_cuda import packed_cuda_model
from trunkline_export.parity import check_rows, check_same_alone, check_signature, check_values
from trunkline_export.products import Int8Products
from trunkline_export.trunk import Unpackable, read_trunk
from trunkline_train.checkpoint import Checkpoint

PADDED = "graphs/padded-fp32.onnx"
PACKED = "graphs/packed-fp32.onnx"
INT8 = "graphs/packed-int8.onnx"
FP16 = "graphs/packed-fp16.onnx"
DYNAMIC = "graphs/padded-int8-dynamic.onnx"
PRECISIONS = ("fp32", "int8", "fp16", "int8-dynamic")
WEIGHTS = "graphs/fp32.weights"
FP16_WEIGHTS = "graphs/fp16.weights"


def is_packable(checkpoint: Checkpoint) -> str:
    """Returns an empty string, or why the encoder has no packed graph."""
    try:
        read_trunk(checkpoint.model.encoder)
    except Unpackable as error:
        return str(error)
    return ""


def check_precision(precision: str, checkpoint: Checkpoint) -> None:
    """Refuses a precision that the encoder has no graph for, before anything is measured.

    Raises:
        ConfigError: There is no such precision.
        Unpackable: The encoder's architecture has no graph for it.
        NotHalf: A weight is beyond what fp16 can hold.
    """
    if precision not in PRECISIONS:
        raise ConfigError(f"no precision {precision!r}; known: {', '.join(PRECISIONS)}")
    try:
        if precision == "int8":
            read_trunk(checkpoint.model.encoder)
        if precision == "fp16":
            packed_cuda_model(checkpoint.model)
    except Unpackable as error:
        raise Unpackable(f"precision {precision}: {error}") from None


def write_fp32(checkpoint: Checkpoint, folder: Path) -> list[Graph]:
    """Writes the padded graph and, where the encoder has one, the packed graph.

    Raises:
        ParityError: A graph does not give what the model gives.
    """
    model = checkpoint.model
    models = {PADDED: padded_model(model)}
    if not is_packable(checkpoint):
        models[PACKED] = packed_model(model)
    write_graphs(folder, models, checkpoint.tasks, WEIGHTS)
    padded = read_graph(folder, PADDED, "padded", "fp32")
    check_signature(padded, checkpoint)
    check_values(folder / PADDED, checkpoint)
    return [padded, *([_packed(checkpoint, folder)] if PACKED in models else [])]


def _packed(checkpoint: Checkpoint, folder: Path) -> Graph:
    graph = read_graph(folder, PACKED, "packed", "fp32")
    check_fusions(folder / PACKED, checkpoint.model)
    check_rows(open_graph(checkpoint, folder, graph), checkpoint)
    return graph


def write_int8(
    checkpoint: Checkpoint, folder: Path, sizes: Sizes, keep: Collection[str] = ()
) -> Graph:
    """Writes the packed int8 graph.

    Args:
        checkpoint: The trained model.
        folder: Of the bundle.
        sizes: How large channels get, by `channel_sizes`.
        keep: Names of products that stay in fp32.

    Raises:
        Unpackable: The encoder has no packed graph.
        ParityError: A row's outputs depend on what runs beside it.
    """
    model = int8_model(checkpoint, sizes, keep)
    write_graphs(folder, {INT8: model}, checkpoint.tasks, "")
    graph = read_graph(folder, INT8, "packed", "int8", keep=tuple(sorted(keep)))
    check_fusions(folder / INT8, checkpoint.model, kept=len(keep), int8=True)
    check_same_alone(open_graph(checkpoint, folder, graph), checkpoint)
    return graph


def int8_model(checkpoint: Checkpoint, sizes: Sizes, keep: Collection[str] = ()) -> onnx.ModelProto:
    """Returns the packed int8 graph, as `write_int8` writes it."""
    return packed_model(checkpoint.model, partial(Int8Products, keep=keep, sizes=sizes))


def write_fp16(checkpoint: Checkpoint, folder: Path) -> Graph:
    """Writes the packed fp16 graph for CUDA.

    Raises:
        Unpackable: The encoder has no packed graph.
        NotHalf: A weight is beyond what fp16 can hold.
        ParityError: An operator is missing, or one too many.
    """
    model = packed_cuda_model(checkpoint.model)
    write_graphs(folder, {FP16: model}, checkpoint.tasks, FP16_WEIGHTS)
    check_cuda_fusions(folder / FP16, checkpoint.model)
    return read_graph(folder, FP16, "packed", "fp16")


def write_dynamic(checkpoint: Checkpoint, folder: Path) -> Graph:
    """Writes what onnxruntime's own dynamic quantisation makes of the padded graph."""
    (folder / DYNAMIC).parent.mkdir(parents=True, exist_ok=True)
    model = padded_model(checkpoint.model)
    # Shapes noted for weights that get another type would contradict them.
    del model.graph.value_info[:]
    with TemporaryDirectory() as aside:
        onnx.save(model, Path(aside) / "fp32.onnx")
        with quiet():
            quantize_dynamic(
                Path(aside) / "fp32.onnx",
                folder / DYNAMIC,
                per_channel=True,
                weight_type=QuantType.QInt8,
            )
    write_graphs(folder, {DYNAMIC: onnx.load(folder / DYNAMIC)}, checkpoint.tasks, "")
    return read_graph(folder, DYNAMIC, "padded", "int8-dynamic")


def open_graph(
    checkpoint: Checkpoint, folder: Path, graph: Graph, devices: Devices = ON_CPU
) -> Runner:
    """Returns a runner of a graph that was just written."""
    path, outputs = folder / graph.file, all_outputs(checkpoint.tasks)
    if graph.provider == CUDA:
        return open_cuda_runner(path, outputs, checkpoint.encoder.max_length, devices, USUAL)
    return open_runner(path, graph.layout, checkpoint.pad_id, outputs)


def graph_pipeline(
    checkpoint: Checkpoint, folder: Path, graph: Graph, devices: Devices = ON_CPU
) -> Pipeline:
    """Returns the path of a document through a graph that was just written."""
    runner = open_graph(checkpoint, folder, graph, devices)
    return Pipeline(checkpoint.tasks, checkpoint.encoder, runner)
