"""onnxruntime as it comes, but for the number of threads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import onnxruntime
from numpy.typing import NDArray

from benchmarks.graph_peers.turns import Batch, Run, Task, take_turns


def load(task: Task) -> Run:
    """Returns what runs the padded graph; there is one precision, the graph's own."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = task.threads
    session = onnxruntime.InferenceSession(task.path, options, providers=["CPUExecutionProvider"])
    inputs = [one.name for one in session.get_inputs()]
    outputs = [one.name for one in session.get_outputs()]

    def run(batch: Batch) -> Mapping[str, NDArray[Any]]:
        values = session.run(outputs, {name: batch[name] for name in inputs})
        return dict(zip(outputs, values, strict=True))

    return run


if __name__ == "__main__":
    take_turns(load)
