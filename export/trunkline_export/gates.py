"""Measures every task through a graph against the trained model, on the task's dev examples."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trunkline.annotations import DocumentResult
from trunkline.bundle import Gate, Graph
from trunkline.errors import DataError
from trunkline.pipeline import Pipeline
from trunkline_export.parity import same_annotations
from trunkline_train.checkpoint import Checkpoint
from trunkline_train.data.source import load_test
from trunkline_train.evaluate import predict, score
from trunkline_train.scores import Scores, compare

MOST_EXAMPLES = 1000
# Points that a task may lose.
DROP = {"fp32": 0.1, "fp16": 0.5, "bf16": 0.5, "int8": 0.5, "int8-dynamic": 0.5}


@dataclass(frozen=True)
class Reference:
    """What the trained model itself gives for a task's dev examples."""

    examples: Sequence[Any]
    results: Sequence[DocumentResult]
    scores: Scores
    sha256: str


def references(checkpoint: Checkpoint) -> dict[str, Reference]:
    """Returns by task what the trained model gives for up to 1,000 dev examples.

    Raises:
        DataError: The data is no longer where the configuration says, or a task has no examples.
    """
    pipeline = checkpoint.pipeline()
    found = {}
    for spec in checkpoint.tasks:
        settings = checkpoint.config.tasks[spec.name]
        examples = load_test(settings, "dev")[:MOST_EXAMPLES]
        if not examples:
            raise DataError(", ".join(settings.sources("train")), "has no dev examples")
        results = predict(spec, pipeline, examples)
        scores = score(spec, examples, results)
        found[spec.name] = Reference(examples, results, scores, _digest(examples))
    return found


def measure(
    graph: Graph, pipeline: Pipeline, references: Mapping[str, Reference]
) -> tuple[Gate, ...]:
    """Scores each task through a graph; returns a verdict for each."""
    return tuple(_gate(graph, pipeline, task, reference) for task, reference in references.items())


def _gate(graph: Graph, pipeline: Pipeline, task: str, reference: Reference) -> Gate:
    spec = pipeline.tasks[task]
    results = predict(spec, pipeline, reference.examples)
    before, after = reference.scores, score(spec, reference.examples, results)
    change = compare(before, after)[before.main]
    pairs = zip(reference.results, results, strict=True)
    return Gate(
        graph=graph.file,
        task=task,
        metric=before.main,
        reference=round(before.value, 4),
        value=round(after.value, 4),
        low=round(change.low, 4),
        high=round(change.high, 4),
        agreement=round(100.0 * sum(same_annotations(*pair) for pair in pairs) / before.n, 2),
        n=before.n,
        passed=before.value - after.value <= DROP[graph.precision],
        data="dev",
        data_sha256=reference.sha256,
    )


def _digest(examples: Sequence[Any]) -> str:
    """Returns a fingerprint of examples, texts and gold: their fields, not where they stood."""
    digest = hashlib.sha256()
    for example in examples:
        fields = {name: value for name, value in vars(example).items() if name != "where"}
        digest.update(repr(sorted(fields.items())).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()
