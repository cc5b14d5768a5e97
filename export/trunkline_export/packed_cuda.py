"""The packed graph for CUDA: fp16, real tokens only, attention with cumulative lengths.

Where the CPU's graph gathers rows around attention (`packed`), onnxruntime's CUDA part attends over
tokens that stand one after the other, once it is told where each row begins.

    input_ids, position_ids [, token_type_ids]   [tokens]
    token_offset                 [rows, width]   the places of tokens in rows of equal width,
                                                 counted through; behind them the places without
    cumulative_sequence_length   [rows_and_one]  where each row begins, and where the last one ends
    first_index                  [rows]          the token that stands for its row
    outputs                      [tokens, ...] per token, [rows, ...] per row, in fp32

Nothing in it asks for a shape or reads a value on the host: the host never waits in the middle, and
CUDA may capture it whole. Weights and hidden states are fp16; products, attention and layer
normalisation add up in fp32, and the heads are fp32 throughout. Why these operators: docs/adr/0018.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper
from transformers import PreTrainedModel

from trunkline.errors import TrunklineError
from trunkline_export.nodes import Nodes
from trunkline_export.packed import OPSET, write_heads
from trunkline_export.trunk import (
    Array,
    Layer,
    Linear,
    ModernTrunk,
    Norm,
    Trunk,
    Unpackable,
    read_trunk,
)
from trunkline_train.model.multitask import MultitaskModel

Half = NDArray[np.float16]

_OFFSET, _CUMULATIVE, _FIRST = "token_offset", "cumulative_sequence_length", "first_index"
_NOT_THERE = ("Shape", "Softmax", "LayerNormalization", "Transpose", "Gelu", "If", "Loop")
_LARGEST = float(np.finfo(np.float16).max)
_ACTIVATIONS = {"gelu": "BiasGelu", "gelu_new": "FastGelu", "relu": "Relu"}


class NotHalf(TrunklineError):
    """A weight that fp16 cannot hold; the message names it."""


def packed_cuda_model(model: MultitaskModel) -> onnx.ModelProto:
    """Returns a model's packed fp16 graph for CUDA.

    Raises:
        Unpackable: The encoder's architecture has no packed form.
        NotHalf: A weight is beyond what fp16 can hold.
    """
    trunk, nodes = read_cuda_trunk(model.encoder), Nodes(OPSET)
    hidden = _CudaEncoder(nodes, trunk).write()
    outputs = write_heads(nodes, model, nodes.add("Cast", hidden, to=TensorProto.FLOAT), _FIRST)
    tokens = ("input_ids", "position_ids", *(["token_type_ids"] if trunk.takes_types else []))
    inputs = [
        *(_index(name, "tokens") for name in tokens),
        _index(_OFFSET, "rows", "width"),
        _index(_CUMULATIVE, "rows_and_one"),
        _index(_FIRST, "rows"),
    ]
    return nodes.model(inputs, outputs)


def read_cuda_trunk(encoder: PreTrainedModel) -> Trunk:
    """Returns an encoder's weights, if the CUDA graph can be built of them.

    Raises:
        Unpackable: It cannot.
    """
    trunk = read_trunk(encoder)
    if isinstance(trunk, ModernTrunk):
        kind = encoder.config.model_type
        why = "its rotary positions and local attention are written for CPUs only"
        raise Unpackable(f"no packed graph for {kind!r} on CUDA: {why}")
    return trunk


def wanted_cuda_counts(trunk: Trunk) -> Counter[str]:
    """Returns how often operators must stand in the CUDA graph of this trunk.

    Every bias is inside the operator behind its product. What would run on the host, or compute
    attention and sums apart, must not be there at all.
    """
    layers = len(trunk.layers)
    projected = 0 if trunk.projection is None else 1
    counts = Counter(
        PackedMultiHeadAttention=layers,
        SkipLayerNormalization=2 * layers + 1,
        MatMul=4 * layers + projected,
        Reshape=layers,
        Cast=1,
    )
    counts[_ACTIVATIONS[trunk.activation]] = layers
    counts.update(dict.fromkeys(_NOT_THERE, 0))
    return counts


class _CudaEncoder:
    """Writes the encoder."""

    def __init__(self, nodes: Nodes, trunk: Trunk) -> None:
        self._nodes = nodes
        self._trunk = trunk

    def write(self) -> str:
        """Returns the name of the last hidden states, [T, H] in fp16."""
        hidden = self._embed()
        for number, layer in enumerate(self._trunk.layers):
            hidden = self._layer(f"layer{number}", layer, hidden)
        return hidden

    def _embed(self) -> str:
        add, trunk = self._nodes.add, self._trunk
        words = add("Gather", self._half("embeddings.words", trunk.words), "input_ids")
        places = add("Gather", self._half("embeddings.places", _places(trunk)), self._place())
        hidden = self._add_and_norm("embeddings", words, places, trunk.norm, None)
        if trunk.projection is not None:
            name = "embeddings.projection"
            product = self._product(name, hidden, trunk.projection.weight)
            hidden = add("Add", product, self._half(f"{name}.bias", trunk.projection.bias))
        return hidden

    def _place(self) -> str:
        """Writes the rows of `_places` that tokens read, [T]."""
        if not self._trunk.takes_types:
            return "position_ids"
        add, count = self._nodes.add, np.array(_position_count(self._trunk), np.int32)
        kind = add("Mul", "token_type_ids", self._nodes.constant(count))
        return add("Add", kind, "position_ids")

    def _layer(self, name: str, layer: Layer, hidden: str) -> str:
        context = self._attention(f"{name}.attention", layer, hidden)
        summed = self._product(f"{name}.attention.output", context, layer.output.weight)
        hidden = self._add_and_norm(
            f"{name}.attention", summed, hidden, layer.attention_norm, layer.output.bias
        )
        inner = self._activate(f"{name}.up", layer.up, hidden)
        summed = self._product(f"{name}.down", inner, layer.down.weight)
        return self._add_and_norm(name, summed, hidden, layer.output_norm, layer.down.bias)

    def _attention(self, name: str, layer: Layer, hidden: str) -> str:
        """Writes attention; returns its result, [T, H].

        A token's query, key and value stand head by head in one product, [T, heads, 3, size]; the
        biases, [3 * H], are added where the kernel lays the three apart.
        """
        nodes, heads = self._nodes, self._trunk.heads
        size = self._trunk.width // heads
        parts = (layer.query, layer.key, layer.value)
        product = self._product(f"{name}.qkv", hidden, _by_head(parts, heads))
        biases = np.concatenate([part.bias for part in parts])
        return nodes.fused(
            "PackedMultiHeadAttention",
            nodes.add("Reshape", product, nodes.constant([-1, heads, 3, size])),
            "",
            "",
            self._half(f"{name}.qkv.bias", biases),
            _OFFSET,
            _CUMULATIVE,
            num_heads=heads,
        )

    def _activate(self, name: str, up: Linear, hidden: str) -> str:
        product = self._product(name, hidden, up.weight)
        bias = self._half(f"{name}.bias", up.bias)
        operator = _ACTIVATIONS[self._trunk.activation]
        if operator == "Relu":
            return self._nodes.add("Relu", self._nodes.add("Add", product, bias))
        return self._nodes.fused(operator, product, bias)

    def _add_and_norm(self, name: str, x: str, skip: str, norm: Norm, bias: Array | None) -> str:
        """Writes norm(x + skip + bias), [T, H]."""
        biases = [] if bias is None else [self._half(f"{name}.summed.bias", bias)]
        scale = self._half(f"{name}.norm.weight", norm.weight)
        shift = self._half(f"{name}.norm.bias", norm.bias)
        inputs = (x, skip, scale, shift, *biases)
        return self._nodes.fused("SkipLayerNormalization", *inputs, epsilon=norm.epsilon)

    def _product(self, name: str, x: str, weight: Array) -> str:
        return self._nodes.add("MatMul", x, self._half(f"{name}.weight", weight))

    def _half(self, name: str, value: Array) -> str:
        return self._nodes.weight(name, _as_half(name, value))


def _as_half(name: str, value: Array) -> Half:
    largest = float(np.abs(value).max(initial=0.0))
    if not largest <= _LARGEST:
        raise NotHalf(f"{name}: a weight of size {largest:.3g} is beyond fp16; export fp32 instead")
    return value.astype(np.float16)


def _position_count(trunk: Trunk) -> int:
    return len(trunk.positions) - trunk.first_position


def _places(trunk: Trunk) -> Array:
    """Returns what a token's place adds, [types * positions, H]: segment and position summed.

    One table instead of two halves what is read, and rounds the sum to fp16 once.
    """
    places: Array = trunk.positions[trunk.first_position :]
    if trunk.types is None:
        return places
    if not trunk.takes_types:
        places = places + trunk.types[0]
        return places
    places = (trunk.types[:, None] + places).reshape(-1, places.shape[1])
    return places


def _by_head(parts: tuple[Linear, ...], heads: int) -> Array:
    """Returns the weights of query, key and value as one, [H, heads * 3 * size]."""
    width = len(parts[0].weight)
    beside = np.stack([part.weight.reshape(width, heads, -1) for part in parts], axis=2)
    weights: Array = beside.reshape(width, -1)
    return weights


def _index(name: str, *axes: str) -> onnx.ValueInfoProto:
    """Returns an int32 input, half of what int64 takes on its way to the device."""
    return helper.make_tensor_value_info(name, TensorProto.INT32, list(axes))
