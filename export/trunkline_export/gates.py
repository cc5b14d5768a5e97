"""Measures every task through a graph against the trained model, on the task's dev examples."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trunkline.annotations import DocumentResult
from trunkline.bundle import Gate, Graph
from trunkline.errors import ConfigError, DataError, TrunklineError
from trunkline.pipeline import Pipeline
from trunkline_export.parity import same_annotations
from trunkline_train.baseline import baseline
from trunkline_train.checkpoint import Checkpoint
from trunkline_train.data.source import SAMPLE_SEED, load_test, sampled
from trunkline_train.evaluate import predict, score
from trunkline_train.scores import Scores, compare

MOST_EXAMPLES = 1000
# Points that a task may lose.
DROP = {"fp32": 0.1, "fp16": 0.5, "bf16": 0.5, "int8": 0.5, "int8-dynamic": 0.5}


@dataclass(frozen=True)
class Sample:
    """The dev examples that a task is measured on, and which they are in words."""

    examples: Sequence[Any]
    name: str


@dataclass(frozen=True)
class Reference:
    """What the trained model itself gives for a task's dev examples.

    Attributes:
        sample: The examples.
        results: What it gives.
        scores: What that is worth.
        guess: The main metric, in points, of the best guess that does not read the texts.
        sha256: Of the examples.
    """

    sample: Sample
    results: Sequence[DocumentResult]
    scores: Scores
    guess: float
    sha256: str


class NoBetterThanGuessing(TrunklineError):
    """A trained model scores no better than a guess that does not read the texts."""


def dev_samples(checkpoint: Checkpoint) -> dict[str, Sample]:
    """Returns by task up to 1,000 of its dev examples, chosen at random, always the same.

    Raises:
        ConfigError: A task's dev data cannot be read; says how to name it.
    """
    return {spec.name: _sample(spec.name, checkpoint) for spec in checkpoint.tasks}


def _sample(task: str, checkpoint: Checkpoint) -> Sample:
    settings = checkpoint.config.tasks[task]
    try:
        examples = load_test(settings, "dev")
        if not examples:
            raise DataError(", ".join(settings.sources("train")), "has no dev examples")
    except DataError as error:
        mend = f"name it with --set tasks.{task}.dev=FILE, or export with --no-gate"
        raise ConfigError(f"the gates need dev data of {task!r}: {error}; {mend}") from None
    if len(examples) <= MOST_EXAMPLES:
        return Sample(examples, "dev")
    name = f"dev, {MOST_EXAMPLES} of {len(examples)} at random, seed {SAMPLE_SEED}"
    return Sample(sampled(examples, MOST_EXAMPLES), name)


def references(checkpoint: Checkpoint, samples: Mapping[str, Sample]) -> dict[str, Reference]:
    """Returns by task what the trained model gives for the examples.

    Raises:
        NoBetterThanGuessing: A task's score is that of the majority class or of an empty answer, or
            below.
    """
    pipeline = checkpoint.pipeline()
    found = {}
    for spec in checkpoint.tasks:
        sample = samples[spec.name]
        results = predict(spec, pipeline, sample.examples)
        scores = score(spec, sample.examples, results)
        guess = baseline(spec, sample.examples).value
        _check_floor(spec.name, scores, guess)
        digest = _digest(sample.examples)
        found[spec.name] = Reference(sample, results, scores, guess, digest)
    return found


def _check_floor(task: str, scores: Scores, guess: float) -> None:
    if scores.value > guess:
        return
    raise NoBetterThanGuessing(
        f"gate {task}: the trained model reaches {scores.main} {scores.value:.2f} on {scores.n} dev"
        f" examples, guessing without reading them {guess:.2f}; train longer or with other"
        " settings (docs/training.md), or export with --no-gate"
    )


def measure(
    graph: Graph, pipeline: Pipeline, references: Mapping[str, Reference]
) -> tuple[Gate, ...]:
    """Scores each task through a graph; returns a verdict for each."""
    return tuple(_gate(graph, pipeline, task, reference) for task, reference in references.items())


def _gate(graph: Graph, pipeline: Pipeline, task: str, reference: Reference) -> Gate:
    spec = pipeline.tasks[task]
    results = predict(spec, pipeline, reference.sample.examples)
    before, after = reference.scores, score(spec, reference.sample.examples, results)
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
        passed=before.value - after.value <= DROP[graph.precision]
        and after.value > reference.guess,
        data=reference.sample.name,
        data_sha256=reference.sha256,
    )


def _digest(examples: Sequence[Any]) -> str:
    """Returns a fingerprint of examples, texts and gold: their fields, not where they stood."""
    digest = hashlib.sha256()
    for example in examples:
        fields = {name: value for name, value in vars(example).items() if name != "where"}
        digest.update(repr(sorted(fields.items())).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()
