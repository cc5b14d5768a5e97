"""Optimum's exporter over our checkpoints, and its runtime over our bundles.

optimum-onnx takes no transformers 5: this is for an environment of its own, with
`pip install '.[optimum]'` (docs/adr/0007-no-optimum.md).
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path, PurePosixPath
from typing import Any

import onnx
from torch.jit import TracerWarning  # type: ignore[attr-defined]  # not in its __all__

from trunkline.bundle import TOKENIZER, Bundle, Graph, open_bundle
from trunkline.errors import BundleError, CheckpointError
from trunkline.extras import explained
from trunkline.files import replaced_folder
from trunkline.kinds import task_outputs
from trunkline.structure import plain
from trunkline_export.parity import ParityError
from trunkline_train.checkpoint import Checkpoint, load_checkpoint
from trunkline_train.model.multitask import MultitaskModel

try:
    from optimum.exporters.onnx import export, validate_model_outputs
    from optimum.exporters.onnx.config import TextEncoderOnnxConfig
    from optimum.onnxruntime import ORTModelForCustomTasks
    from optimum.utils import NormalizedTextConfig
except ModuleNotFoundError as error:
    raise explained(error, "optimum") from None

FILE = "model.onnx"  # the name that ORTModel looks for
_Axes = dict[str, dict[int, str]]
# Optimum compares values at the shape it traced. Such a graph may fail at others.
_SHAPES = ((2, 16), (1, 2), (3, 7))


class MultitaskOnnxConfig(TextEncoderOnnxConfig):
    """Tells optimum's exporter the inputs of an encoder and the outputs of all its heads.

    Args:
        model: What is to be exported.
    """

    NORMALIZED_CONFIG_CLASS = NormalizedTextConfig
    ATOL_FOR_VALIDATION = 1e-4

    def __init__(self, model: MultitaskModel) -> None:
        super().__init__(model.config)
        # The tracer drops what no layer reads: segments, of an encoder that knows none (DeBERTa).
        without = {"token_type_ids"} if getattr(model.config, "type_vocab_size", 1) == 0 else ()
        self._inputs = [name for name in model.inputs if name not in without]
        self._outputs = [output for spec in model.tasks for output in task_outputs(spec)]

    @property
    def inputs(self) -> _Axes:
        """Names of the inputs, with their dynamic axes."""
        return {name: {0: "batch", 1: "sequence"} for name in self._inputs}

    @property
    def outputs(self) -> _Axes:
        """Names `<task>.<tensor>` of the outputs, with their dynamic axes."""
        dynamic = ("batch", "sequence")
        return {
            output.name: {at: axis for at, axis in enumerate(output.axes) if axis in dynamic}
            for output in self._outputs
        }

    def generate_dummy_inputs(self, framework: str = "pt", **shapes: int) -> dict[str, Any]:
        """Returns random inputs by name, [batch, sequence]."""
        inputs: dict[str, Any] = super().generate_dummy_inputs(framework, **shapes)
        if "token_type_ids" in inputs:
            # Optimum draws 0 and 1; RoBERTa knows only 0.
            inputs["token_type_ids"] *= 0
        return inputs


def export_with_optimum(checkpoint_folder: Path, out: Path) -> Path:
    """Exports a checkpoint by optimum, as a folder that `ORTModelForCustomTasks` loads.

    The graph has the outputs and the metadata of a bundle's padded graph.

    Args:
        checkpoint_folder: A checkpoint, or a run's folder (its best one).
        out: The folder of model.onnx, config.json and tokenizer.json; must not exist.

    Raises:
        CheckpointError: The checkpoint is missing, broken or not for this transformers.
        BundleError: Something stands at `out`.
        ParityError: Optimum finds that the graph does not give what the model gives.
    """
    if out.exists():
        raise BundleError(out, "exists", "choose another folder")
    checkpoint = load_checkpoint(checkpoint_folder)
    if hasattr(checkpoint.model.config, "rope_parameters"):
        # Older transformers would pass over them without a word and take its defaults.
        reason = "has rotary embeddings as only transformers 5 reads them; use `trunkline export`"
        raise CheckpointError(checkpoint_folder, reason)
    with replaced_folder(out) as folder:
        _write_graph(checkpoint, folder / FILE)
        checkpoint.model.config.save_pretrained(folder)
        (folder / TOKENIZER).write_text(checkpoint.encoder.to_json(), encoding="utf-8")
    return out


def load_bundle(folder: Path | str, **options: Any) -> ORTModelForCustomTasks:
    """Opens a bundle, checks its hashes and gives its padded graph to optimum's runtime.

    Args:
        folder: The bundle.
        options: Of `ORTModelForCustomTasks.from_pretrained`, such as `provider`.

    Raises:
        BundleError: The bundle is missing, broken or altered, or has no padded fp32 graph.
    """
    bundle = open_bundle(folder)
    file = PurePosixPath(_padded(bundle).file)
    return ORTModelForCustomTasks.from_pretrained(
        bundle.path, subfolder=file.parent.as_posix(), file_name=file.name, **options
    )


def _padded(bundle: Bundle) -> Graph:
    for graph in bundle.manifest.graphs:
        if (graph.layout, graph.precision) == ("padded", "fp32"):
            return graph
    raise BundleError(bundle.path, "has no padded fp32 graph for optimum", "export it with one")


def _write_graph(checkpoint: Checkpoint, path: Path) -> None:
    model = checkpoint.model.eval()
    if model.encoder._can_set_attn_implementation():
        # The tracer does not know the attention of training.
        model.encoder.set_attn_implementation("eager")
    config = MultitaskOnnxConfig(model)
    with warnings.catch_warnings():
        # Constants that are the same for every input; the checks below would show any other.
        warnings.simplefilter("ignore", TracerWarning)
        _, outputs = export(model, config, path)
    for batch, sequence in _SHAPES:
        shapes = {"batch_size": batch, "sequence_length": sequence}
        _check_values(config, model, path, outputs, shapes)
    proto = onnx.load(path, load_external_data=False)
    tasks = json.dumps(plain(checkpoint.tasks), ensure_ascii=False)
    onnx.helper.set_model_props(proto, {"trunkline.tasks": tasks})
    onnx.save(proto, path)


def _check_values(
    config: MultitaskOnnxConfig,
    model: MultitaskModel,
    path: Path,
    outputs: list[str],
    shapes: dict[str, int],
) -> None:
    try:
        validate_model_outputs(
            config, model, path, outputs, input_shapes=shapes, use_subprocess=False
        )
    except ValueError as error:  # base of all that optimum raises here, in several lines
        raise ParityError(f"{path.name}: {' '.join(str(error).split())}") from None
