"""Which products of an int8 graph to keep in fp32, where a task would lose too much."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx

from trunkline.bundle import Gate, Graph
from trunkline.decode.numeric import Floats
from trunkline.encode import Row
from trunkline.kinds import all_outputs
from trunkline.runner import PackedRunner, Runner
from trunkline_export.channels import Sizes
from trunkline_export.packed import product_names
from trunkline_export.trunk import read_trunk
from trunkline_export.variants import int8_model
from trunkline_train.checkpoint import Checkpoint
from trunkline_train.torch_runner import TorchRunner

Try = Callable[[tuple[str, ...]], tuple[Graph, tuple[Gate, ...]]]


def by_harm(checkpoint: Checkpoint, rows: Sequence[Row], sizes: Sizes) -> list[str]:
    """Returns the names of all products, the one that harms most by being int8 first.

    The harm of a product is how much nearer the outputs come to the model's, in mean square over
    real rows, when it alone stays in fp32.

    Args:
        checkpoint: The trained model.
        rows: Real ones.
        sizes: How large channels get, by `channel_sizes`.
    """
    names = product_names(read_trunk(checkpoint.model.encoder))
    wanted = _flat(TorchRunner(checkpoint.model, checkpoint.pad_id), checkpoint, rows)
    left = {}
    for name in names:
        found = _int8_outputs(checkpoint, rows, sizes, name)
        left[name] = float(np.mean((found - wanted) ** 2))
    return sorted(names, key=lambda name: left[name])


def smallest_keep(ranked: Sequence[str], attempt: Try) -> tuple[Graph, tuple[Gate, ...]] | None:
    """Returns the graph that keeps the fewest of the ranked products and passes; None if none does.

    Numbers are doubled until one passes, then halved between: what is kept is a beginning of
    `ranked`. All kept would be fp32, so half of them is the most that is tried.
    """
    most = len(ranked) // 2
    low, count, found = 0, min(1, most), None
    while low < count:
        found = _passing(attempt, ranked, count)
        if found is not None:
            break
        low, count = count, min(count * 2, most)
    while found is not None and count - low > 1:
        middle = (low + count) // 2
        nearer = _passing(attempt, ranked, middle)
        low, count = (middle, count) if nearer is None else (low, middle)
        found = nearer or found
    return found


def _passing(
    attempt: Try, ranked: Sequence[str], count: int
) -> tuple[Graph, tuple[Gate, ...]] | None:
    graph, gates = attempt(tuple(ranked[:count]))
    return (graph, gates) if all(gate.passed for gate in gates) else None


def _int8_outputs(checkpoint: Checkpoint, rows: Sequence[Row], sizes: Sizes, keep: str) -> Floats:
    model = int8_model(checkpoint, sizes, (keep,))
    with TemporaryDirectory() as aside:
        path = Path(aside) / "int8.onnx"
        onnx.save(model, path)
        return _flat(PackedRunner(path, all_outputs(checkpoint.tasks)), checkpoint, rows)


def _flat(runner: Runner, checkpoint: Checkpoint, rows: Sequence[Row]) -> Floats:
    """Returns all outputs of all rows as one vector."""
    found = runner.run(rows, all_outputs(checkpoint.tasks))
    return np.concatenate([values.ravel() for row in found for values in row.values()])
