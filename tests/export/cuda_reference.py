"""What onnxruntime's CUDA operators compute, written down twice, so that a CPU can run their graph.

`reference` runs the graph itself, in fp16, with each operator in numpy. `on_cpu` is the same graph
in fp32 with attention in plain ONNX: onnxruntime's CPU part runs that, bindings and all.
"""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

Array = NDArray[Any]


class _Contrib(OpRun):
    op_domain = "com.microsoft"


class SkipLayerNormalization(_Contrib):
    def _run(
        self, x: Array, skip: Array, scale: Array, shift: Array, bias: Any = None, *, epsilon: float
    ) -> tuple[Array]:
        summed = x.astype(np.float32) + skip + (0.0 if bias is None else bias)
        mean, variance = summed.mean(-1, keepdims=True), summed.var(-1, keepdims=True)
        return (((summed - mean) / np.sqrt(variance + epsilon) * scale + shift).astype(x.dtype),)


class BiasGelu(_Contrib):
    def _run(self, x: Array, bias: Array) -> tuple[Array]:
        value = x.astype(np.float32) + bias
        share = np.vectorize(math.erf, otypes=[np.float32])(value / math.sqrt(2))
        return ((value * (1 + share) / 2).astype(x.dtype),)


class FastGelu(_Contrib):
    def _run(self, x: Array, bias: Array) -> tuple[Array]:
        value = x.astype(np.float32) + bias
        inner = math.sqrt(2 / math.pi) * (value + 0.044715 * value**3)
        return ((value * (1 + np.tanh(inner)) / 2).astype(x.dtype),)


class PackedMultiHeadAttention(_Contrib):
    """Query, key and value stand head by head: [T, heads, 3, size]; the bias part by part, [3H]."""

    def _run(  # noqa: PLR0917  # the operator's own inputs
        self,
        query: Array,
        key: Any,
        value: Any,
        bias: Array,
        token_offset: Array,
        cumulative_sequence_length: Array,
        *,
        num_heads: int,
    ) -> tuple[Array]:
        tokens, heads, three, size = query.shape
        rows, width = token_offset.shape
        assert (key, value, heads, three) == (None, None, num_heads, 3)
        assert token_offset.dtype == cumulative_sequence_length.dtype == np.int32
        assert cumulative_sequence_length.shape == (rows + 1,)
        bounds = cumulative_sequence_length.tolist()
        assert (bounds[0], bounds[-1]) == (0, tokens)
        assert sorted(token_offset.ravel().tolist()) == list(range(rows * width))
        qkv = query.astype(np.float32) + bias.reshape(3, heads, size).transpose(1, 0, 2)
        found = np.zeros((tokens, heads, size), np.float32)
        for row, (begin, end) in enumerate(pairwise(bounds)):
            places = token_offset.reshape(-1)[begin:end]
            assert places.tolist() == [row * width + at for at in range(end - begin)]
            q, k, v = qkv[begin:end].transpose(2, 1, 0, 3)
            scores = q @ k.transpose(0, 2, 1) / math.sqrt(size)
            shares = np.exp(scores - scores.max(-1, keepdims=True, initial=-np.inf))
            found[begin:end] = (shares / shares.sum(-1, keepdims=True) @ v).transpose(1, 0, 2)
        return (found.reshape(tokens, -1).astype(query.dtype),)


OPERATORS: tuple[type[OpRun], ...] = (
    SkipLayerNormalization,
    BiasGelu,
    FastGelu,
    PackedMultiHeadAttention,
)


def reference(model: onnx.ModelProto) -> ReferenceEvaluator:
    """Returns an evaluator of the fp16 graph in numpy."""
    return ReferenceEvaluator(model, new_ops=list(OPERATORS))


def on_cpu(model: onnx.ModelProto, path: Path) -> Path:
    """Writes the graph in fp32 with attention in plain ONNX; returns its path."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    for tensor in changed.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT16:
            value = numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
    for node in changed.graph.node:
        if node.op_type == "PackedMultiHeadAttention":
            query, _, _, bias, _, cumulative = node.input
            node.CopyFrom(helper.make_node("Attend", [query, bias, cumulative], node.output))
            node.domain = "tests"
    changed.opset_import.append(helper.make_opsetid("tests", 1))
    changed.functions.append(_attend(model))
    onnx.save(changed, path)
    return path


def _attend(model: onnx.ModelProto) -> onnx.FunctionProto:
    """Returns attention over tokens one behind the other, under a mask of blocks."""
    shapes = [
        numpy_helper.to_array(one).tolist()
        for one in model.graph.initializer
        if one.name.startswith("constant_int64_-1_")
    ]
    (shape,) = [one for one in shapes if len(one) == 4]
    _, heads, _, size = shape
    text = f"""
        <opset_import: ["" : 20], domain: "tests">
        Attend (query, bias, cumulative) => (found) {{
            parts = Constant <value_ints = [3, {heads}, {size}]> ()
            by_part = Reshape (bias, parts)
            by_head = Transpose <perm = [1, 0, 2]> (by_part)
            qkv = Add (query, by_head)
            zero = Constant <value_int = 0> ()
            one = Constant <value_int = 1> ()
            two = Constant <value_int = 2> ()
            first = Constant <value_ints = [0]> ()
            second = Constant <value_ints = [1]> ()
            end = Constant <value_ints = [9223372036854775807]> ()
            q = Gather <axis = 2> (qkv, zero)
            k = Gather <axis = 2> (qkv, one)
            v = Gather <axis = 2> (qkv, two)
            qh = Transpose <perm = [1, 0, 2]> (q)
            kh = Transpose <perm = [1, 2, 0]> (k)
            vh = Transpose <perm = [1, 0, 2]> (v)
            product = MatMul (qh, kh)
            scale = Constant <value_float = {1 / math.sqrt(size)}> ()
            scores = Mul (product, scale)
            ends = Slice (cumulative, second, end)
            wide = Cast <to = 7> (ends)
            column = Unsqueeze (wide, second)
            shape = Shape <start = 0, end = 1> (query)
            count = Squeeze (shape)
            places = Range (zero, count, one)
            before = LessOrEqual (column, places)
            counted = Cast <to = 7> (before)
            row = ReduceSum <keepdims = 0> (counted, first)
            rows = Unsqueeze (row, second)
            same = Equal (rows, row)
            nothing = Constant <value_float = 0.0> ()
            never = Constant <value_float = -1e30> ()
            mask = Where (same, nothing, never)
            masked = Add (scores, mask)
            shares = Softmax <axis = -1> (masked)
            context = MatMul (shares, vh)
            by_token = Transpose <perm = [1, 0, 2]> (context)
            flat = Constant <value_ints = [-1, {heads * size}]> ()
            found = Reshape (by_token, flat)
        }}
    """
    return onnx.parser.parse_function(text)
