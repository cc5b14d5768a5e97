"""The packed graph for CPUs: real tokens only through every product, any number of rows at once.

The tokens of all rows stand one after the other, [T]. Only attention must know which belong
together: around it the heads' vectors are gathered into rows of equal width [B, W], and back. That
costs nothing, since attention has to put heads in front of positions anyway.

    input_ids, position_ids [, token_type_ids]   [tokens]
    padded_index   [rows, width]   which token stands at each place of a row; -1 where none does
    token_index    [tokens]        where each token stands in padded_index, counted through
    outputs        [tokens, ...] per token, [rows, ...] per row

Built from the weights, not rewritten from an exported graph: every fusion is there because it is
written here, and `wanted_counts` says how many to find.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from trunkline.kinds import Output, all_outputs, task_outputs
from trunkline.tasks import TaskSpec
from trunkline_export.nodes import Nodes, real, whole
from trunkline_export.products import ABOVE, Fp32Products, Products
from trunkline_export.trunk import Layer, Norm, Trunk, linear, read_trunk
from trunkline_train.model.multitask import MultitaskModel

OPSET = 20
_MASKED = -1e9  # added to the scores of places without a token: their share is 0 exactly

MakeProducts = Callable[[Nodes], Products]


def packed_model(model: MultitaskModel, products: MakeProducts = Fp32Products) -> onnx.ModelProto:
    """Returns a model's packed graph.

    Args:
        model: Encoder and heads; dropout is not written.
        products: Makes the writer of matrix products, which decides their precision.

    Raises:
        Unpackable: The encoder's architecture has no packed form.
    """
    trunk, nodes = read_trunk(model.encoder), Nodes(OPSET)
    hidden = _Encoder(nodes, products(nodes), trunk).write()
    first = nodes.add("Gather", "padded_index", nodes.constant(0), axis=1)
    outputs = write_heads(nodes, model, hidden, first)
    names = ("input_ids", "position_ids", *(["token_type_ids"] if trunk.takes_types else []))
    inputs = [*(whole(name, "tokens") for name in names)]
    inputs += [whole("padded_index", "rows", "width"), whole("token_index", "tokens")]
    return nodes.model(inputs, outputs)


def product_names(trunk: Trunk) -> list[str]:
    """Returns the names under which `Products` writes the encoder's matrix products."""
    parts = ("attention.qkv", "attention.output", "up", "down")
    names = [f"layer{at}.{part}" for at in range(len(trunk.layers)) for part in parts]
    return [*([] if trunk.projection is None else ["embeddings.projection"]), *names]


def wanted_counts(trunk: Trunk) -> Counter[str]:
    """Returns how often operators must stand in a graph of this trunk.

    All products but that of attention's shares have their bias inside (Gemm) or are int8, so only
    one plain product a layer is left. `SkipLayerNormalization` must not come back: onnxruntime's
    kernel for CPUs is several times slower than the two operators it stands for
    (benchmarks/results/operators.json).
    """
    layers = len(trunk.layers)
    counts = Counter({"FusedMatMul": layers, "MatMul": layers, "SkipLayerNormalization": 0})
    counts["LayerNormalization"] = 2 * layers + 1
    if trunk.activation != "relu":  # that one may become part of the product
        counts["Gelu"] = layers
    return counts


_ACTIVATIONS: dict[str, tuple[str, dict[str, str]]] = {
    "gelu": ("Gelu", {}),
    "gelu_new": ("Gelu", {"approximate": "tanh"}),
    "relu": ("Relu", {}),
}


@dataclass(frozen=True)
class _Places:
    """Where heads' vectors stand: names of index tensors.

    Attributes:
        query, key, value: [B, heads, W], rows among all heads' vectors of all tokens.
        tokens: [T, heads], rows of attention's result.
        mask: [B, 1, 1, W], 0 or `_MASKED`.
    """

    query: str
    key: str
    value: str
    tokens: str
    mask: str


class _Encoder:
    """Writes the encoder."""

    def __init__(self, nodes: Nodes, products: Products, trunk: Trunk) -> None:
        self._nodes = nodes
        self._products = products
        self._trunk = trunk

    def write(self) -> str:
        """Returns the name of the last hidden states, [T, H]."""
        places = self._places()
        hidden = self._embed()
        for number, layer in enumerate(self._trunk.layers):
            hidden = self._layer(f"layer{number}", layer, hidden, places)
        return hidden

    def _places(self) -> _Places:
        """Writes, once for all layers, where each head's vectors are read and written.

        A token's query, key and value are 3 x heads vectors, one behind the other.
        """
        add, constant, heads = self._nodes.add, self._nodes.constant, self._trunk.heads
        none = add("Less", "padded_index", constant(0))
        mask = add("Where", none, constant(_MASKED), constant(0.0))
        token = add("Max", "padded_index", constant(0))
        first = add("Unsqueeze", add("Mul", token, constant(3 * heads)), constant([1]))
        query, key, value = (
            add("Add", first, constant(np.arange(part * heads, (part + 1) * heads)[:, None]))
            for part in range(3)
        )
        mask = add("Unsqueeze", mask, constant([1, 2]))
        return _Places(query, key, value, self._token_places(), mask)

    def _token_places(self) -> str:
        """Writes the rows of [B, heads, W] that hold each token's heads, [T, heads]."""
        add, constant, heads = self._nodes.add, self._nodes.constant, self._trunk.heads
        width = add("Shape", "padded_index", start=1)
        row = add("Div", "token_index", width)
        # Token row * W + s has its head h at (row * heads + h) * W + s.
        first = add("Add", "token_index", add("Mul", add("Mul", row, width), constant(heads - 1)))
        by_head = add("Mul", constant(np.arange(heads)), width)
        return add("Add", add("Unsqueeze", first, constant([1])), by_head)

    def _embed(self) -> str:
        nodes, trunk, add = self._nodes, self._trunk, self._nodes.add
        positions = "position_ids"
        if trunk.first_position:
            positions = add("Add", positions, nodes.constant(trunk.first_position))
        table = nodes.weight("embeddings.positions", trunk.positions)
        words = self._products.rows("embeddings.words", trunk.words, "input_ids")
        summed = add("Add", words, add("Gather", table, positions))
        if trunk.types is not None:
            types = nodes.weight("embeddings.types", trunk.types)
            summed = add("Add", summed, add("Gather", types, "token_type_ids"))
        norm = self._norm("embeddings", trunk.norm)
        hidden: str = add("LayerNormalization", summed, *norm, epsilon=trunk.norm.epsilon)
        if trunk.projection is not None:
            hidden = self._products.linear("embeddings.projection", hidden, (trunk.projection,))
        return hidden

    def _layer(self, name: str, layer: Layer, hidden: str, places: _Places) -> str:
        linear = self._products.linear
        context = self._attention(f"{name}.attention", layer, hidden, places)
        summed = linear(f"{name}.attention.output", context, (layer.output,))
        hidden = self._add_and_norm(f"{name}.attention", summed, hidden, layer.attention_norm)
        inner = self._activate(linear(f"{name}.up", hidden, (layer.up,)))
        reach = ABOVE[self._trunk.activation]
        summed = linear(f"{name}.down", inner, (layer.down,), reach)
        return self._add_and_norm(name, summed, hidden, layer.output_norm)

    def _attention(self, name: str, layer: Layer, hidden: str, places: _Places) -> str:
        """Writes attention of rows [B, heads, W, H / heads]; returns its result, [T, H]."""
        nodes, add = self._nodes, self._nodes.add
        width = self._trunk.width
        size = width // self._trunk.heads
        parts = (layer.query, layer.key, layer.value)
        vectors = add(
            "Reshape", self._products.linear(f"{name}.qkv", hidden, parts), self._as(size)
        )
        query, key, value = (
            add("Gather", vectors, index) for index in (places.query, places.key, places.value)
        )
        scores = nodes.fused("FusedMatMul", query, key, transB=1, alpha=1.0 / math.sqrt(size))
        shares = add("Softmax", add("Add", scores, places.mask), axis=-1)
        result = add("Reshape", add("MatMul", shares, value), self._as(size))
        return add("Reshape", add("Gather", result, places.tokens), self._as(width))

    def _as(self, width: int) -> str:
        return self._nodes.constant([-1, width])

    def _add_and_norm(self, name: str, x: str, skip: str, norm: Norm) -> str:
        """Writes norm(x + skip), [T, H]."""
        summed = self._nodes.add("Add", x, skip)
        return self._nodes.add(
            "LayerNormalization", summed, *self._norm(name, norm), epsilon=norm.epsilon
        )

    def _activate(self, x: str) -> str:
        operator, attributes = _ACTIVATIONS[self._trunk.activation]
        return self._nodes.add(operator, x, **attributes)

    def _norm(self, name: str, norm: Norm) -> tuple[str, str]:
        scale = self._nodes.weight(f"{name}.norm.weight", norm.weight)
        return scale, self._nodes.weight(f"{name}.norm.bias", norm.bias)


def write_heads(
    nodes: Nodes, model: MultitaskModel, hidden: str, first: str
) -> list[onnx.ValueInfoProto]:
    """Writes all heads, those that read the same rows as one product; in fp32, being small.

    Args:
        nodes: The graph.
        model: Whose heads.
        hidden: The last hidden states, [T, H] in fp32.
        first: Where each row begins, [B].

    Returns:
        The graph's outputs, in the order of the tasks.
    """
    infos = []
    for per_token, axis in ((True, "tokens"), (False, "rows")):
        chosen = [
            spec for spec in model.tasks if ("sequence" in task_outputs(spec)[0].axes) is per_token
        ]
        if not chosen:
            continue
        read = hidden if per_token else nodes.add("Gather", hidden, first)
        parts = tuple(linear(model.head(spec.name).linear) for spec in chosen)
        columns = Fp32Products(nodes).linear(f"heads.{axis}", read, parts)
        outputs = [output for spec in chosen for output in _widths(spec)]
        infos += _split(nodes, columns, outputs, axis)
    order = [output.name for output in all_outputs(model.tasks)]
    return sorted(infos, key=lambda info: order.index(info.name))


def _widths(spec: TaskSpec) -> list[tuple[Output, int]]:
    """Returns a task's outputs with their columns of the head's product; 1 has no axis."""
    return [
        (output, len(spec.labels) if "labels" in output.axes else 0)
        for output in task_outputs(spec)
    ]


def _split(
    nodes: Nodes, columns: str, outputs: Sequence[tuple[Output, int]], axis: str
) -> list[onnx.ValueInfoProto]:
    """Cuts [rows, all columns] into the named outputs."""
    infos, begin = [], 0
    for output, width in outputs:
        end = begin + (width or 1)
        if width:
            bounds = nodes.constant([begin]), nodes.constant([end])
            part = nodes.add("Slice", columns, *bounds, nodes.constant([1]))
        else:
            part = nodes.add("Gather", columns, nodes.constant(begin), axis=1)
        nodes.rename(part, output.name)
        infos.append(real(output.name, axis, *([width] if width else [])))
        begin = end
    return infos
