"""ModernBERT in the packed graph for CPUs (Warner et al. 2024, arXiv 2412.13663).

What differs from BERT's form: queries and keys are turned by their place in the row; most layers
attend to near tokens only; normalisation stands in front of each product; a gate multiplies what
the activation gives.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np

from trunkline_export.attention import MASKED, Attention, write_activation, write_norm
from trunkline_export.nodes import Nodes
from trunkline_export.products import Products
from trunkline_export.trunk import Array, ModernLayer, ModernTrunk

_STEP = 16  # rows' widths are rounded up to it (trunkline.packing), so the last may be beyond all


@dataclass(frozen=True)
class _Reach:
    """How layers of one kind attend: names of tensors.

    Attributes:
        mask: [B, 1, 1 or W, W].
        cosines, sines: [places, H / heads / 2].
    """

    mask: str
    cosines: str
    sines: str


class ModernEncoder:
    """Writes the encoder.

    Args:
        nodes: The graph.
        products: Writes its matrix products.
        trunk: The weights.
    """

    def __init__(self, nodes: Nodes, products: Products, trunk: ModernTrunk) -> None:
        self._nodes = nodes
        self._products = products
        self._trunk = trunk
        self._attention = Attention(nodes, trunk.heads, trunk.width)

    def write(self) -> str:
        """Returns the name of the last hidden states, [T, H]."""
        nodes, trunk = self._nodes, self._trunk
        reaches = self._reaches()
        words = self._products.rows("embeddings.words", trunk.words, "input_ids")
        hidden = write_norm(nodes, "embeddings", words, trunk.norm)
        for number, layer in enumerate(trunk.layers):
            hidden = self._layer(f"layer{number}", layer, hidden, reaches[layer.is_local])
        return write_norm(nodes, "last", hidden, trunk.last_norm)

    def _reaches(self) -> dict[bool, _Reach]:
        """Writes, once for all layers of a kind, how they attend; by whether that is locally."""
        found = {}
        for local in sorted({layer.is_local for layer in self._trunk.layers}):
            name = "local" if local else "global"
            angles = self._angles(self._trunk.thetas[local])
            cosines = self._nodes.weight(f"{name}.cosines", np.cos(angles))
            sines = self._nodes.weight(f"{name}.sines", np.sin(angles))
            mask = self._near() if local else self._attention.mask
            found[local] = _Reach(mask, cosines, sines)
        return found

    def _angles(self, theta: float) -> Array:
        """Returns how far each pair of channels is turned at each place, [places, size / 2]."""
        size = self._trunk.width // self._trunk.heads
        powers = np.arange(0, size, 2, dtype=np.float32) / np.float32(size)
        speeds = np.float32(1.0) / np.float32(theta) ** powers
        places = -(-self._trunk.longest // _STEP) * _STEP
        return np.outer(np.arange(places, dtype=np.float32), speeds)

    def _near(self) -> str:
        """Writes the mask of local layers, [B, 1, W, W]: what is too far is not there either."""
        add, constant = self._nodes.add, self._nodes.constant
        width = add("Squeeze", add("Shape", "padded_index", start=1), constant([0]))
        places = add("Range", constant(0), width, constant(1))
        distance = add("Abs", add("Sub", add("Unsqueeze", places, constant([1])), places))
        far = add("Greater", distance, constant(self._trunk.window))
        band = add("Where", far, constant(MASKED), constant(0.0))
        return add("Min", self._attention.mask, band)

    def _layer(self, name: str, layer: ModernLayer, hidden: str, reach: _Reach) -> str:
        nodes, linear = self._nodes, self._products.linear
        x = hidden
        if layer.attention_norm is not None:
            x = write_norm(nodes, f"{name}.attention", hidden, layer.attention_norm)
        product = linear(f"{name}.attention.qkv", x, (layer.qkv,))
        context = self._attention.write(product, reach.mask, partial(self._turned, reach))
        hidden = nodes.add(
            "Add", hidden, linear(f"{name}.attention.output", context, (layer.output,))
        )
        inner = self._gated(name, layer, write_norm(nodes, name, hidden, layer.norm))
        return nodes.add("Add", hidden, linear(f"{name}.down", inner, (layer.down,)))

    def _gated(self, name: str, layer: ModernLayer, x: str) -> str:
        """Writes activation(x @ first half) * (x @ second half), [T, inner]."""
        nodes = self._nodes
        both = self._products.linear(f"{name}.up", x, (layer.up,))
        half = layer.up.weight.shape[1] // 2
        first, gate = (
            nodes.add("Slice", both, *map(nodes.constant, ([begin], [begin + half], [1])))
            for begin in (0, half)
        )
        return nodes.add("Mul", write_activation(nodes, self._trunk.activation, first), gate)

    def _turned(self, reach: _Reach, vectors: str) -> str:
        """Writes queries or keys [B, heads, W, size], each turned by its place in the row."""
        first = self._nodes.constant([0])
        return self._nodes.fused("RotaryEmbedding", vectors, first, reach.cosines, reach.sines)
