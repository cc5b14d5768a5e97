"""OpenVINO's runtime on the padded graph, in fp32 or in the precision it would take itself.

By itself it takes bf16 where the processor multiplies such matrices (AMX), else fp32.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import openvino
from numpy.typing import NDArray

from benchmarks.graph_peers.turns import Batch, Run, Task, take_turns

_HINTS = {"fp32": {"INFERENCE_PRECISION_HINT": "f32"}, "its own": {}}


def load(task: Task) -> Run:
    """Returns what runs the padded graph, compiled for the least time of one call."""
    settings = {
        "INFERENCE_NUM_THREADS": task.threads,
        "PERFORMANCE_HINT": "LATENCY",
        **_HINTS[task.precision],
    }
    model = openvino.Core().compile_model(task.path, "CPU", settings)
    request = model.create_infer_request()
    inputs = [one.any_name for one in model.inputs]
    outputs = [one.any_name for one in model.outputs]

    def run(batch: Batch) -> Mapping[str, NDArray[Any]]:
        found = request.infer({name: batch[name] for name in inputs})
        return {name: found[name] for name in outputs}

    return run


if __name__ == "__main__":
    take_turns(load)
