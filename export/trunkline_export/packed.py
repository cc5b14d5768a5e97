"""The packed graph for CPUs: real tokens only through every product, any number of rows at once.

The tokens of all rows stand one after the other, [T]. Only attention must know which belong
together: around it the heads' vectors are gathered into rows of equal width [B, W], and back. That
costs nothing, since attention has to put heads in front of positions anyway.

    input_ids [, position_ids, token_type_ids]   [tokens]
    padded_index   [rows, width]   which token stands at each place of a row; -1 where none does
    token_index    [tokens]        where each token stands in padded_index, counted through
    outputs        [tokens, ...] per token, [rows, ...] per row

Built from the weights, not rewritten from an exported graph: every fusion is there because it is
written here, and `wanted_counts` says how many to find.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import onnx

from trunkline.kinds import Output, all_outputs, task_outputs
from trunkline.tasks import TaskSpec
from trunkline_export.attention import Attention, write_activation, write_norm
from trunkline_export.nodes import Nodes, real, whole
from trunkline_export.packed_modern import ModernEncoder
from trunkline_export.products import ABOVE, Fp32Products, Products
from trunkline_export.trunk import (
    AnyTrunk,
    Layer,
    ModernTrunk,
    Norm,
    Trunk,
    linear,
    read_trunk,
)
from trunkline_train.model.multitask import MultitaskModel

OPSET = 20

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
    if isinstance(trunk, ModernTrunk):
        hidden = ModernEncoder(nodes, products(nodes), trunk).write()
        names = ["input_ids"]
    else:
        hidden = _Encoder(nodes, products(nodes), trunk).write()
        names = ["input_ids", "position_ids", *(["token_type_ids"] if trunk.takes_types else [])]
    first = nodes.add("Gather", "padded_index", nodes.constant(0), axis=1)
    outputs = write_heads(nodes, model, hidden, first)
    inputs = [whole(name, "tokens") for name in names]
    inputs += [whole("padded_index", "rows", "width"), whole("token_index", "tokens")]
    return nodes.model(inputs, outputs)


def product_names(trunk: AnyTrunk) -> list[str]:
    """Returns the names under which `Products` writes the encoder's matrix products."""
    parts = ("attention.qkv", "attention.output", "up", "down")
    names = [f"layer{at}.{part}" for at in range(len(trunk.layers)) for part in parts]
    projected = isinstance(trunk, Trunk) and trunk.projection is not None
    return [*(["embeddings.projection"] if projected else []), *names]


def wanted_counts(trunk: AnyTrunk) -> Counter[str]:
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
    if isinstance(trunk, ModernTrunk):
        counts["RotaryEmbedding"] = 2 * layers
    return counts


class _Encoder:
    """Writes an encoder of BERT's form."""

    def __init__(self, nodes: Nodes, products: Products, trunk: Trunk) -> None:
        self._nodes = nodes
        self._products = products
        self._trunk = trunk
        self._attention = Attention(nodes, trunk.heads, trunk.width)

    def write(self) -> str:
        """Returns the name of the last hidden states, [T, H]."""
        hidden = self._embed()
        for number, layer in enumerate(self._trunk.layers):
            hidden = self._layer(f"layer{number}", layer, hidden)
        return hidden

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
        hidden = write_norm(nodes, "embeddings", summed, trunk.norm)
        if trunk.projection is not None:
            hidden = self._products.linear("embeddings.projection", hidden, (trunk.projection,))
        return hidden

    def _layer(self, name: str, layer: Layer, hidden: str) -> str:
        linear = self._products.linear
        parts = (layer.query, layer.key, layer.value)
        context = self._attention.write(linear(f"{name}.attention.qkv", hidden, parts))
        summed = linear(f"{name}.attention.output", context, (layer.output,))
        hidden = self._add_and_norm(f"{name}.attention", summed, hidden, layer.attention_norm)
        activation = self._trunk.activation
        inner = write_activation(self._nodes, activation, linear(f"{name}.up", hidden, (layer.up,)))
        summed = linear(f"{name}.down", inner, (layer.down,), ABOVE[activation])
        return self._add_and_norm(name, summed, hidden, layer.output_norm)

    def _add_and_norm(self, name: str, x: str, skip: str, norm: Norm) -> str:
        """Writes norm(x + skip), [T, H]."""
        return write_norm(self._nodes, name, self._nodes.add("Add", x, skip), norm)


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
