from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.export.changes import Change, add, drop, rename
from trunkline import Model
from trunkline.bundle import Graph
from trunkline.kinds import Output, task_outputs
from trunkline.pipeline import Pipeline
from trunkline.runner import OrtRunner, PackedRunner
from trunkline_export.graph import read_graph
from trunkline_export.parity import (
    VALUE_TOLERANCE,
    ParityError,
    check_answers,
    check_rows,
    check_signature,
    check_values,
    ragged_grid,
)
from trunkline_export.variants import PACKED, PADDED
from trunkline_export.write import sample_documents
from trunkline_train.checkpoint import Checkpoint


@pytest.fixture
def changed(exported: Path, tmp_path: Path) -> Callable[[Change], Path]:
    """Returns a function that writes the exported graph with a change."""

    def write(change: Change) -> Path:
        proto = onnx.load(exported / PADDED)
        change(proto)
        onnx.save(proto, tmp_path / "graph.onnx")
        return tmp_path / "graph.onnx"

    return write


def swap(proto: onnx.ModelProto) -> None:
    rename("qa.start_logits", "aside")(proto)
    rename("qa.end_logits", "qa.start_logits")(proto)
    rename("aside", "qa.end_logits")(proto)


def signature(path: Path) -> Graph:
    return read_graph(path.parent, path.name, "padded", "fp32")


def test_the_exported_graph_passes(exported: Path, checkpoint: Checkpoint) -> None:
    check_signature(read_graph(exported, PADDED, "padded", "fp32"), checkpoint)
    assert check_values(exported / PADDED, checkpoint) < VALUE_TOLERANCE / 10


@pytest.mark.parametrize(
    "change",
    [
        rename("ner.logits", "ner.scores"),
        drop("qa.end_logits"),
        lambda proto: proto.graph.output.reverse(),
        lambda proto: proto.graph.input.pop(),
    ],
    ids=["renamed", "dropped", "reordered", "input gone"],
)
def test_another_signature_fails(
    changed: Callable[[Change], Path], checkpoint: Checkpoint, change: Change
) -> None:
    with pytest.raises(ParityError, match=r"^(in|out)puts: expected"):
        check_signature(signature(changed(change)), checkpoint)


def test_fixed_axes_fail(exported: Path, checkpoint: Checkpoint) -> None:
    graph = read_graph(exported, PADDED, "padded", "fp32")
    fixed = tuple(replace(tensor, axes=("2", "8")) for tensor in graph.inputs)
    with pytest.raises(ParityError, match=r"^inputs: expected"):
        check_signature(replace(graph, inputs=fixed), checkpoint)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (add("task_ner.linear.bias", 0.01), "ner.logits: differs by 1.00e-02"),
        (add("task_qa.linear.bias", 0.01), "qa.end_logits: differs by 1.00e-02"),
        (add("position_embeddings", 1.0), "differs by .* at lengths"),
        (add("task_ner.linear.bias", np.nan), "ner.logits: NaN at lengths"),
        (add("layer.1.output.LayerNorm.bias", np.nan), "NaN at lengths"),
    ],
    ids=["ner", "qa", "last position", "nan in a head", "nan in the encoder"],
)
def test_another_value_fails(
    changed: Callable[[Change], Path], checkpoint: Checkpoint, change: Change, told: str
) -> None:
    with pytest.raises(ParityError, match=told):
        check_values(changed(change), checkpoint)


def packed_runner(exported: Path, folder: Path, change: Change) -> PackedRunner:
    """Returns a runner of the packed graph with a change."""
    proto = onnx.load(exported / PACKED)
    change(proto)
    onnx.save(proto, folder / "packed.onnx")
    outputs = [Output(name, TOKENS[name]) for name in TOKENS]
    return PackedRunner(folder / "packed.onnx", outputs, 1)


TOKENS = {
    "ner.logits": ("batch", "sequence", "labels"),
    "qa.start_logits": ("batch", "sequence"),
    "qa.end_logits": ("batch", "sequence"),
}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (add("heads.tokens.bias", 0.01), "qa.end_logits: differs by 1.00e-02 at lengths"),
        (add("embeddings.positions", 1.0), "differs by .* at lengths .64"),
        (add("layer1.norm.bias", np.nan), "ner.logits: NaN at lengths .2"),
    ],
    ids=["a head", "last position", "nan"],
)
def test_another_value_of_the_packed_graph_fails(
    exported: Path, checkpoint: Checkpoint, tmp_path: Path, change: Change, told: str
) -> None:
    with pytest.raises(ParityError, match=told):
        check_rows(packed_runner(exported, tmp_path, change), checkpoint)


def test_the_packed_graph_unchanged_passes(
    exported: Path, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    runner = packed_runner(exported, tmp_path, lambda proto: None)
    assert check_rows(runner, checkpoint) < VALUE_TOLERANCE / 10


def test_outputs_under_each_others_names_fail(
    changed: Callable[[Change], Path], checkpoint: Checkpoint
) -> None:
    with pytest.raises(ParityError, match="logits: differs by"):
        check_values(changed(swap), checkpoint)


def test_a_difference_within_tolerance_passes(
    changed: Callable[[Change], Path], checkpoint: Checkpoint
) -> None:
    path = changed(add("task_ner.linear.bias", VALUE_TOLERANCE / 2))
    assert check_values(path, checkpoint) == pytest.approx(VALUE_TOLERANCE / 2, rel=0.1)


def test_the_grid_stays_within_the_longest_row(checkpoint: Checkpoint) -> None:
    shapes = [inputs["input_ids"].shape for inputs in ragged_grid(checkpoint)]
    assert max(width for _, width in shapes) == checkpoint.encoder.max_length == 64
    assert (1, 1) in shapes
    masks = [inputs["attention_mask"].sum(axis=1).tolist() for inputs in ragged_grid(checkpoint)]
    assert any(0 in lengths for lengths in masks)
    assert any(len(set(lengths)) > 2 for lengths in masks)


def answers(checkpoint: Checkpoint, path: Path) -> int:
    outputs = [output for spec in checkpoint.tasks for output in task_outputs(spec)]
    pipeline = Pipeline(
        checkpoint.tasks, checkpoint.encoder, OrtRunner(path, checkpoint.pad_id, outputs, 1)
    )
    documents = sample_documents(checkpoint)
    return check_answers(checkpoint.pipeline().analyze(documents), pipeline, documents)


def test_answers_of_the_exported_graph_are_equal(
    exported: Path, checkpoint: Checkpoint, small_model: Model
) -> None:
    assert answers(checkpoint, exported / PADDED) > 20


@pytest.mark.parametrize(
    ("change", "told"),
    [(add("task_ner.linear.bias", 9.0), "answers differ"), (swap, "differ on")],
    ids=["ner", "qa"],
)
def test_other_answers_fail(
    changed: Callable[[Change], Path], checkpoint: Checkpoint, change: Change, told: str
) -> None:
    with pytest.raises(ParityError, match=told):
        answers(checkpoint, changed(change))


def test_other_scores_fail(changed: Callable[[Change], Path], checkpoint: Checkpoint) -> None:
    with pytest.raises(ParityError, match="scores differ"):
        answers(checkpoint, changed(add("task_ner.linear.bias", 0.05)))


def test_samples_are_asked_of_every_task(checkpoint: Checkpoint) -> None:
    documents = sample_documents(checkpoint)
    assert len(documents) > 10
    assert {document.tasks for document in documents} == {("ner",)}
    assert {asked.task for document in documents for asked in document.questions} == {"qa"}
    long = max(documents, key=lambda document: len(document.text))
    tokens = checkpoint.encoder.tokenize(long.text)
    assert len(checkpoint.encoder.rows(tokens)) > 1
