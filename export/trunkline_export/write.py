"""A checkpoint to a bundle: graph, checks, golden file, gates, card. Nothing half-written."""

from __future__ import annotations

import datetime
import json
import platform
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import torch
import transformers

import trunkline
from trunkline.bundle import (
    GOLDEN,
    SCHEMA_VERSION,
    TOKENIZER,
    Bundle,
    Manifest,
    open_bundle,
    seal,
    written_bundle,
)
from trunkline.errors import DataError
from trunkline.golden import write_golden
from trunkline.kinds import find_kind, task_outputs
from trunkline.pipeline import Document, Pipeline, Question
from trunkline.runner import OrtRunner
from trunkline_export.card import model_card
from trunkline_export.gates import dev_examples, measure
from trunkline_export.graph import write_padded_graph
from trunkline_export.parity import ParityError, check_answers, check_signature, check_values
from trunkline_train.checkpoint import Checkpoint, load_checkpoint
from trunkline_train.config import HUB, TaskConfig

GRAPH = "graphs/padded-fp32.onnx"
Say = Callable[[str], None]


@dataclass(frozen=True)
class ExportOptions:
    """What to export.

    Attributes:
        name: Of the bundle; None takes the configuration's.
        version: From 1.
        gate: Whether to measure every task on dev data.
    """

    name: str | None = None
    version: int = 1
    gate: bool = True


def export_bundle(
    checkpoint_folder: Path, out: Path, options: ExportOptions, say: Say = print
) -> Bundle:
    """Exports a checkpoint as a bundle, checked against the trained model.

    Args:
        checkpoint_folder: A checkpoint, or a run's folder (its best one).
        out: The bundle; an existing bundle is replaced, anything else is left alone.
        options: What to export.
        say: Takes a line per finished step.

    Raises:
        CheckpointError: The checkpoint is missing or broken.
        ParityError: The graph does not give what the model gives.
        BundleError: Something else stands at `out`.
    """
    checkpoint = load_checkpoint(checkpoint_folder)
    with written_bundle(out) as folder:
        graph = write_padded_graph(checkpoint.model, folder, GRAPH)
        say(f"graph: opset {graph.opset}, {(folder / GRAPH).stat().st_size / 1e6:.1f} MB")
        pipeline = _graph_pipeline(checkpoint, folder / GRAPH)
        documents = sample_documents(checkpoint)
        reference = checkpoint.pipeline().analyze(documents)
        check_signature(graph, checkpoint)
        worst = check_values(folder / GRAPH, checkpoint)
        count = check_answers(reference, pipeline, documents)
        say(f"parity: values within {worst:.1e}, {count} annotations equal")
        gates = _gates(checkpoint, pipeline, options, say)
        (folder / TOKENIZER).write_text(checkpoint.encoder.to_json(), encoding="utf-8")
        checkpoint.model.config.save_pretrained(folder)
        write_golden(folder / GOLDEN, reference)
        manifest = Manifest(
            schema_version=SCHEMA_VERSION,
            name=options.name or checkpoint.config.name,
            version=options.version,
            encoder=_facts(checkpoint),
            tasks=checkpoint.tasks,
            graphs=(graph,),
            gates=gates,
            provenance=_provenance(checkpoint, worst),
        )
        (folder / "README.md").write_text(model_card(manifest), encoding="utf-8")
        seal(folder, manifest)
    return open_bundle(out)


def sample_documents(checkpoint: Checkpoint) -> list[Document]:
    """Returns the sample texts that ship with the exporter, with what the model's tasks read.

    That is questions if the model answers, and second texts if a task reads pairs.
    """
    asking = [spec.name for spec in checkpoint.tasks if find_kind(spec.kind).asks]
    others = [spec for spec in checkpoint.tasks if not find_kind(spec.kind).asks]
    reads_pairs = any(spec.pair for spec in others)
    lines = resources.files("trunkline_export").joinpath("samples.jsonl").read_text("utf-8")
    documents = []
    for line in map(json.loads, lines.splitlines()):
        text, pair = line["text"] * line.get("times", 1), line["pair"] if reads_pairs else None
        questions = [Question(text, task) for text in line["questions"] for task in asking]
        wanted = tuple(spec.name for spec in others if pair is not None or not spec.pair)
        documents.append(Document(text, tuple(questions), wanted, pair))
    return documents


def _graph_pipeline(checkpoint: Checkpoint, path: Path) -> Pipeline:
    outputs = [output for spec in checkpoint.tasks for output in task_outputs(spec)]
    runner = OrtRunner(path, checkpoint.pad_id, outputs)
    return Pipeline(checkpoint.tasks, checkpoint.encoder, runner)


def _gates(checkpoint: Checkpoint, pipeline: Pipeline, options: ExportOptions, say: Say) -> Any:
    if not options.gate:
        say("gates: not measured, as asked")
        return ()
    try:
        examples = dev_examples(checkpoint)
    except DataError as error:
        say(f"gates: not measured, the dev data is not at hand ({error})")
        return ()
    gates = measure(GRAPH, "fp32", checkpoint, pipeline, examples)
    for gate in gates:
        numbers = f"{gate.metric} {gate.value:.2f}, torch {gate.reference:.2f}, n={gate.n}"
        say(f"gate {gate.task}: {'passed' if gate.passed else 'FAILED'}: {numbers}")
        if not gate.passed:
            raise ParityError(f"task {gate.task} lost more than allowed: {numbers}")
    return gates


def _facts(checkpoint: Checkpoint) -> Any:
    rows = checkpoint.config.rows
    return checkpoint.model.facts(rows.max_length, rows.overlap, checkpoint.pad_id)


def _provenance(checkpoint: Checkpoint, worst: float) -> dict[str, object]:
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
        "trained": f"{config.training.epochs} epochs, {checkpoint.progress.step} steps,"
        f" seed {config.training.seed}",
        "data": {name: _sources(task) for name, task in config.tasks.items()},
        "largest_difference": worst,
        "versions": versions,
    }


def _encoder(name: str, model_type: str) -> str:
    return f"{model_type} from a local folder" if _is_local(name) else name


def _sources(task: TaskConfig) -> list[str]:
    limit = f" (at most {task.limit.train} examples)" if task.limit.train else ""
    train = [_public(source) + limit for source in task.sources("train")]
    return [*train, *(_public(s) for split in ("dev", "test") for s in task.sources(split))]


def _public(source: str) -> str:
    """Returns a hub name whole, and of a local path only its last part."""
    name = source.removeprefix(HUB)
    return Path(name).name if _is_local(name) else source


def _is_local(name: str) -> bool:
    """Tells a path, also one that has since gone, from a name on the hub."""
    return Path(name).is_absolute() or Path(name).exists()
