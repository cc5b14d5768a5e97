"""Which form of attention is the quickest in a packed graph on a CPU, and how large packs must be.

    python -m benchmarks.attention --json benchmarks/results/attention.json

One layer's attention, one thread, rows of equal length that lie one behind the other, [T, 3 x H]:

    heads         heads' vectors are gathered into rows, as the packed graph does it, with a mask
    heads, bare   the same without a mask, which only rows of one length could do without
    fused         tokens are gathered, then onnxruntime's MultiHeadAttention with its mask
    fused, bare   the same without a mask

All forms give the same. Times are shares of the layer's four matrix products on the same tokens,
whose speed in GFLOP/s stands beside: how fast products of so few rows are.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper

from benchmarks.record import record
from trunkline.files import write_whole
from trunkline.session import open_session, session_options
from trunkline_export.nodes import Nodes
from trunkline_export.speed import Times, Work, in_turn

_HEADS, _SIZE = 12, 32  # of all-MiniLM-L6-v2
_WIDTH = _HEADS * _SIZE
_SHAPES = ((1, 20), (16, 20), (8, 64), (1, 170), (3, 170), (1, 256), (1, 384))
_REPEATS = 10  # of each piece of work in a round
_TOLERANCE = 1e-4
FORMS = {
    "heads": (True, True),
    "heads, bare": (True, False),
    "fused": (False, True),
    "fused, bare": (False, False),
}
PRODUCTS = "products"


def _session(nodes: Nodes, given: dict[str, int], last: str) -> onnxruntime.InferenceSession:
    inputs = [helper.make_tensor_value_info(name, kind, None) for name, kind in given.items()]
    output = helper.make_tensor_value_info(last, TensorProto.FLOAT, None)
    model = nodes.model(inputs, [output]).SerializeToString()
    return open_session(model, session_options(1))


def attention(*, by_head: bool, masked: bool) -> onnxruntime.InferenceSession:
    """Returns a graph of one form: vectors [T, 3 x H] and indices in, [T, H] out."""
    nodes = Nodes(20)
    size = _SIZE if by_head else _WIDTH
    vectors = nodes.add("Reshape", "vectors", nodes.constant([-1, size]))
    parts = [nodes.add("Gather", vectors, name) for name in ("query", "key", "value")]
    if by_head:
        scores = nodes.fused("FusedMatMul", *parts[:2], transB=1, alpha=1.0 / math.sqrt(_SIZE))
        scores = nodes.add("Add", scores, "mask") if masked else scores
        result = nodes.add("MatMul", nodes.add("Softmax", scores, axis=-1), parts[2])
    else:
        mask = ["", "mask"] if masked else []
        result = nodes.fused("MultiHeadAttention", *parts, *mask, num_heads=_HEADS)
    result = nodes.add("Reshape", result, nodes.constant([-1, size]))
    back = nodes.add("Gather", result, "tokens")
    last = nodes.add("Reshape", back, nodes.constant([-1, _WIDTH]))
    kinds = dict.fromkeys(("query", "key", "value", "tokens"), TensorProto.INT64)
    kinds["vectors"] = TensorProto.FLOAT
    if masked:
        kinds["mask"] = TensorProto.FLOAT if by_head else TensorProto.INT32
    return _session(nodes, kinds, last)


def inputs(rows: int, length: int, *, by_head: bool, masked: bool) -> dict[str, NDArray]:
    """Returns what `attention` takes for rows of one length."""
    token = np.arange(rows * length).reshape(rows, length)
    vectors = np.random.default_rng(0).standard_normal((token.size, 3 * _WIDTH))
    heads = np.arange(_HEADS)
    given: dict[str, NDArray] = {"vectors": vectors.astype(np.float32)}
    for part, name in enumerate(("query", "key", "value")):
        index = token[:, None, :] * 3 * _HEADS + (part * _HEADS + heads)[:, None]
        given[name] = index if by_head else token * 3 + part
    place = np.arange(rows)[:, None, None] * _HEADS + heads
    by_token = place * length + np.arange(length)[:, None]
    given["tokens"] = by_token.reshape(-1, _HEADS) if by_head else token.reshape(-1)
    if masked and by_head:
        given["mask"] = np.zeros((rows, 1, 1, length), np.float32)
    elif masked:
        given["mask"] = np.ones((rows, length), np.int32)
    return given


def products() -> onnxruntime.InferenceSession:
    """Returns a graph of a layer's four matrix products."""
    nodes, random = Nodes(20), np.random.default_rng(0)

    def product(x: str, name: str, depth: int, columns: int) -> str:
        weight = random.standard_normal((depth, columns)).astype(np.float32)
        return nodes.add("MatMul", x, nodes.weight(name, weight))

    parts = product("x", "qkv", _WIDTH, 3 * _WIDTH), product("x", "output", _WIDTH, _WIDTH)
    down = product(product("x", "up", _WIDTH, 4 * _WIDTH), "down", 4 * _WIDTH, _WIDTH)
    last = nodes.add("Concat", *parts, down, axis=1)
    return _session(nodes, {"x": TensorProto.FLOAT}, last)


def _repeat(session: onnxruntime.InferenceSession, given: dict[str, NDArray]) -> None:
    for _ in range(_REPEATS):
        session.run(None, given)


def measure(rows: int, length: int, rounds: int) -> Times:
    """Returns the times of all forms and of the products, in turn."""
    works: dict[str, Work] = {}
    found = []
    for name, (by_head, masked) in FORMS.items():
        session = attention(by_head=by_head, masked=masked)
        given = inputs(rows, length, by_head=by_head, masked=masked)
        found.append(session.run(None, given)[0])
        works[name] = partial(_repeat, session, given)
    assert all(np.abs(one - found[0]).max() < _TOLERANCE for one in found)
    x = found[0][:, :_WIDTH].copy()
    works[PRODUCTS] = partial(_repeat, products(), {"x": x})
    return in_turn(works, rounds)


def main(argv: Sequence[str] | None = None) -> int:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", type=Path, required=True)
    arguments = sys.argv[1:] if argv is None else list(argv)
    given = parser.parse_args(arguments)
    print(f"{'rows x length':16}{'GFLOP/s':>9}" + "".join(f"{name:>14}" for name in FORMS))
    table = []
    for rows, length in _SHAPES:
        times = measure(rows, length, given.rounds)
        if not times.seconds[PRODUCTS]:
            raise SystemExit("too much CPU time was stolen; try again later")
        seconds = times.best(PRODUCTS)
        speed = 24.0 * rows * length * _WIDTH**2 * _REPEATS / seconds / 1e9
        shares = {name: round(times.best(name) / seconds, 4) for name in FORMS}
        print(
            f"{rows:3} x {length:<10}{speed:9.0f}" + "".join(f"{x:14.3f}" for x in shares.values())
        )
        table.append({"rows": rows, "length": length, "gflops": round(speed, 1), "shares": shares})
    head = record("benchmarks.attention", arguments)
    write_whole(given.json, json.dumps(head | {"table": table}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
