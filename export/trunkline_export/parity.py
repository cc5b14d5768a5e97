"""Checks a graph against the torch model: names, axes, shapes, values, then decoded answers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from trunkline.annotations import Answer, DocumentResult, Label, Span
from trunkline.bundle import Graph
from trunkline.decode.numeric import Floats
from trunkline.documents import Document
from trunkline.encode import Row, bare_row
from trunkline.errors import TrunklineError
from trunkline.kinds import Output, all_outputs, task_outputs
from trunkline.pipeline import Pipeline
from trunkline.runner import Runner
from trunkline_train.checkpoint import Checkpoint
from trunkline_train.torch_runner import TorchRunner

# fp32 sums in another order: logits of size 10 after 12 layers stay within this.
VALUE_TOLERANCE = 1e-3
SCORE_TOLERANCE = 1e-3

Inputs = dict[str, NDArray[np.int64]]
Annotation = Span | Label | Answer


class ParityError(TrunklineError):
    """A graph does not give what the trained model gives; the message says where."""


def check_signature(graph: Graph, checkpoint: Checkpoint) -> None:
    """Compares the graph's input and output names, types and axes with what the tasks say.

    Raises:
        ParityError: They differ.
    """
    inputs = [(name, "int64", ("batch", "sequence")) for name in checkpoint.model.inputs]
    _same("inputs", inputs, [(t.name, t.dtype, t.axes) for t in graph.inputs])
    outputs = []
    for spec in checkpoint.tasks:
        for output in task_outputs(spec):
            labels = str(len(spec.labels))
            axes = tuple(labels if axis == "labels" else axis for axis in output.axes)
            outputs.append((output.name, "float32", axes))
    _same("outputs", outputs, [(t.name, t.dtype, t.axes) for t in graph.outputs])


def check_values(path: Path, checkpoint: Checkpoint) -> float:
    """Compares raw outputs on a grid of ragged batches; returns the largest difference.

    The grid holds batch 1, length 1 and the longest row, mixed lengths under a mask, and a row
    that is all padding, whose values may be anything but NaN.

    Raises:
        ParityError: A shape or value differs.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    outputs = all_outputs(checkpoint.tasks)
    names = [output.name for output in outputs]
    reference = TorchRunner(checkpoint.model, checkpoint.pad_id)
    worst = 0.0
    for inputs in ragged_grid(checkpoint):
        given = {name: inputs[name] for name in checkpoint.model.inputs}
        wanted = reference.forward(given, names)
        for output, want, got in zip(outputs, wanted, session.run(names, given), strict=True):
            worst = max(worst, _difference(output, inputs["attention_mask"], want, got))
    return worst


def ragged_grid(checkpoint: Checkpoint) -> Iterable[Inputs]:
    """Yields padded batches of random ids, one per shape of the grid."""
    longest = checkpoint.encoder.max_length
    random = np.random.default_rng(0)
    vocabulary = checkpoint.model.config.vocab_size
    for wanted in ((1,), (2, 1), (longest,), (5, 31, 1), (longest, 7), (128, 127, 64), (9, 0)):
        lengths = [min(length, longest) for length in wanted]
        shape = (len(lengths), max(lengths))
        mask = np.arange(shape[1]) < np.array(lengths)[:, None]
        ids = np.where(mask, random.integers(0, vocabulary, shape), checkpoint.pad_id)
        types = np.zeros(shape, np.int64)
        yield {
            "input_ids": ids.astype(np.int64),
            "attention_mask": mask.astype(np.int64),
            "token_type_ids": types,
        }


def check_rows(runner: Runner, checkpoint: Checkpoint) -> float:
    """Compares a runner's outputs with the model's, row by row; returns the largest difference.

    Raises:
        ParityError: A shape or value differs, or something is not finite.
    """
    rows, outputs = random_rows(checkpoint), all_outputs(checkpoint.tasks)
    reference = TorchRunner(checkpoint.model, checkpoint.pad_id)
    worst = 0.0
    pairs = zip(rows, reference.run(rows, outputs), runner.run(rows, outputs), strict=True)
    for row, want, got in pairs:
        mask = np.ones((1, len(row)), np.int64)
        for output in outputs:
            values = (want[output.name][None], got[output.name][None])
            worst = max(worst, _difference(output, mask, *values))
    return worst


def check_same_alone(runner: Runner, checkpoint: Checkpoint) -> None:
    """Runs rows together and each alone.

    Raises:
        ParityError: A row's outputs are not the same to the last bit.
    """
    rows, outputs = random_rows(checkpoint), all_outputs(checkpoint.tasks)
    for row, together in zip(rows, runner.run(rows, outputs), strict=True):
        (alone,) = runner.run([row], outputs)
        for name, values in together.items():
            if not np.array_equal(values, alone[name]):
                worst = float(np.abs(values - alone[name]).max())
                raise ParityError(
                    f"{name}: a row of {len(row)} tokens differs by {worst:.1e} in company"
                )


def random_rows(checkpoint: Checkpoint) -> list[Row]:
    """Returns rows of random ids: the shortest, the longest, and lengths around attention's."""
    random = np.random.default_rng(0)
    longest = checkpoint.encoder.max_length
    vocabulary = checkpoint.model.config.vocab_size
    rows = []
    for wanted in (2, 3, 15, 16, 17, 18, 31, 33, 47, 64, 65, 120, 128, 129, 250, longest):
        length = min(wanted, longest)
        # Padding is no token of a row: RoBERTa, for one, gives it no position.
        ids = random.integers(0, vocabulary - 1, length)
        ids += ids >= checkpoint.pad_id
        rows.append(bare_row(ids))
    return rows


def check_answers(
    reference: Sequence[DocumentResult], pipeline: Pipeline, documents: Sequence[Document]
) -> int:
    """Compares decoded annotations and their scores on real texts; returns how many annotations.

    Raises:
        ParityError: An annotation differs, or its score by more than `SCORE_TOLERANCE`.
    """
    count = 0
    for want, got in zip(reference, pipeline.analyze(documents), strict=True):
        for a, b in zip(_annotations(want), _annotations(got), strict=True):
            count += len(a)
            if [_place(one) for one in a] != [_place(one) for one in b]:
                raise ParityError(f"answers differ on {want.text[:60]!r}: {a} became {b}")
            if any(abs(x.score - y.score) > SCORE_TOLERANCE for x, y in zip(a, b, strict=True)):
                raise ParityError(f"scores differ on {want.text[:60]!r}: {a} became {b}")
    return count


def same_annotations(one: DocumentResult, other: DocumentResult) -> bool:
    """Returns whether two results of a text hold the same annotations, whatever their scores."""
    pairs = zip(_annotations(one), _annotations(other), strict=True)
    return all([_place(x) for x in a] == [_place(y) for y in b] for a, b in pairs)


def _annotations(result: DocumentResult) -> list[Sequence[Annotation]]:
    answers = (question.answers for question in result.questions)
    return [*(_in_order(found) for found in result.tasks.values()), *answers]


def _in_order(found: Sequence[Span | Label]) -> list[Span | Label]:
    """Returns labels by name, spans as they are: labels of near scores may change places."""
    return sorted(found, key=lambda one: one.label if isinstance(one, Label) else "")


def _place(one: Annotation) -> tuple[int, int, str]:
    if isinstance(one, Label):
        return 0, 0, one.label
    return one.start, one.end, one.label if isinstance(one, Span) else ""


def _difference(output: Output, mask: NDArray[np.int64], want: Floats, got: Floats) -> float:
    name = output.name
    if want.shape != got.shape:
        raise ParityError(f"{name}: shape {want.shape} became {got.shape}")
    if np.isnan(got).any():
        raise ParityError(f"{name}: NaN at lengths {mask.sum(axis=1).tolist()}")
    # Of an output per row, all rows count that are not padding alone.
    real = mask.astype(bool) if "sequence" in output.axes else mask.any(axis=1)
    difference = float(np.abs(want[real] - got[real]).max(initial=0.0))
    if difference > VALUE_TOLERANCE:
        lengths = mask.sum(axis=1).tolist()
        raise ParityError(f"{name}: differs by {difference:.2e} at lengths {lengths}")
    return difference


def _same(what: str, want: object, got: object) -> None:
    if want != got:
        raise ParityError(f"{what}: expected {want}, the graph has {got}")
