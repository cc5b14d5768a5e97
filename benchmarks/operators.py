"""Operators of onnxruntime that do the same: which is the quicker on a CPU.

    python -m benchmarks.operators --json benchmarks/results/operators.json

The sum of a residual with normalisation, and bias with activation, of 512 tokens of a 384 wide
encoder, one thread: as onnxruntime's fused operator, and as the operators it stands for.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import onnxruntime

from benchmarks.record import record
from trunkline.files import write_whole
from trunkline.session import open_session, session_options
from trunkline_export.nodes import Nodes, real
from trunkline_export.speed import Work, in_turn

_TOKENS, _REPEATS = 512, 20
_TOLERANCE = 1e-4
Write = Callable[[Nodes, str], str]


def _weights(nodes: Nodes, width: int) -> list[str]:
    random = np.random.default_rng(0)
    return [
        nodes.weight(name, random.random(width).astype(np.float32))
        for name in ("scale", "shift", "bias")
    ]


def skip_norm(nodes: Nodes, width: int) -> str:
    """Writes onnxruntime's fused operator."""
    scale, shift, bias = _weights(nodes, width)
    inputs = ("x", "skip", scale, shift, bias)
    return nodes.fused("SkipLayerNormalization", *inputs, epsilon=1e-12)


def add_norm(nodes: Nodes, width: int) -> str:
    """Writes two sums and ONNX's normalisation."""
    scale, shift, bias = _weights(nodes, width)
    summed = nodes.add("Add", nodes.add("Add", "x", bias), "skip")
    return nodes.add("LayerNormalization", summed, scale, shift, epsilon=1e-12)


def bias_gelu(nodes: Nodes, width: int) -> str:
    """Writes onnxruntime's fused operator."""
    return nodes.fused("BiasGelu", "x", _weights(nodes, width)[2])


def add_gelu(nodes: Nodes, width: int) -> str:
    """Writes a sum and ONNX's activation."""
    return nodes.add("Gelu", nodes.add("Add", "x", _weights(nodes, width)[2]))


PAIRS: dict[str, tuple[int, Write, Write]] = {
    "SkipLayerNormalization": (384, skip_norm, add_norm),
    "BiasGelu": (1536, bias_gelu, add_gelu),
}


def _session(write: Write, width: int) -> onnxruntime.InferenceSession:
    nodes = Nodes(20)
    last = write(nodes, width)
    options = session_options(1)
    # As written: onnxruntime would fuse again.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    inputs = [real(name, "tokens", width) for name in ("x", "skip")]
    model = nodes.model(inputs, [real(last, "tokens", width)]).SerializeToString()
    return open_session(model, options)


def _repeat(session: onnxruntime.InferenceSession, given: dict[str, np.ndarray]) -> None:
    for _ in range(_REPEATS):
        session.run(None, given)


def main(argv: Sequence[str] | None = None) -> int:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", type=Path, required=True)
    arguments = sys.argv[1:] if argv is None else list(argv)
    given = parser.parse_args(arguments)
    table = {}
    for name, (width, *writers) in PAIRS.items():
        random = np.random.default_rng(1)
        values = {part: random.standard_normal((_TOKENS, width)) for part in ("x", "skip")}
        feed = {part: value.astype(np.float32) for part, value in values.items()}
        fused, apart = (_session(write, width) for write in writers)
        difference = np.abs(fused.run(None, feed)[0] - apart.run(None, feed)[0]).max()
        assert difference < _TOLERANCE
        works: dict[str, Work] = {
            "fused": partial(_repeat, fused, feed),
            "apart": partial(_repeat, apart, feed),
        }
        times = in_turn(works, given.rounds)
        if not times.seconds["fused"]:
            raise SystemExit("too much CPU time was stolen; try again later")
        row = {side: round(times.best(side) / _REPEATS * 1e6, 1) for side in works}
        table[name] = row | {"fused_over_apart": round(times.ratio("apart", "fused"), 2)}
        print(f"{name}: fused takes {table[name]['fused_over_apart']} times as long as apart")
    head = record("benchmarks.operators", arguments)
    write_whole(given.json, json.dumps(head | {"microseconds": table}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
