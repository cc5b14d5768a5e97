"""Measures every task through a graph against the trained model, on the task's dev examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from trunkline.bundle import Gate
from trunkline.errors import DataError
from trunkline.pipeline import Pipeline
from trunkline_train.checkpoint import Checkpoint
from trunkline_train.data.source import load_test
from trunkline_train.evaluate import evaluate

MOST_EXAMPLES = 1000
DROP = {"fp32": 0.1, "fp16": 0.5, "bf16": 0.5, "int8": 0.5}  # points


def dev_examples(checkpoint: Checkpoint) -> dict[str, list[Any]]:
    """Returns up to 1,000 dev examples per task, from the data the model was trained on.

    Raises:
        DataError: The data is no longer where the configuration says.
    """
    return {
        name: load_test(task, "dev")[:MOST_EXAMPLES]
        for name, task in checkpoint.config.tasks.items()
    }


def measure(
    graph: str,
    precision: str,
    checkpoint: Checkpoint,
    pipeline: Pipeline,
    examples: Mapping[str, Sequence[Any]],
) -> tuple[Gate, ...]:
    """Scores each task through torch and through the graph; returns a verdict for each.

    Raises:
        DataError: A task has no examples.
    """
    reference = checkpoint.pipeline()
    gates = []
    for spec in checkpoint.tasks:
        given = examples[spec.name]
        if not given:
            where = ", ".join(checkpoint.config.tasks[spec.name].sources("train"))
            raise DataError(where, "has no dev examples")
        before, after = (evaluate(spec, one, given) for one in (reference, pipeline))
        gates.append(
            Gate(
                graph=graph,
                task=spec.name,
                metric=before.main,
                reference=round(before.value, 4),
                value=round(after.value, 4),
                n=before.n,
                passed=before.value - after.value <= DROP[precision],
                data="dev",
            )
        )
    return tuple(gates)
