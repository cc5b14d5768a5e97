"""Attention of a packed graph on CPUs: heads' vectors of tokens, gathered into rows and back."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from trunkline_export.nodes import Nodes
from trunkline_export.trunk import Norm

MASKED = -1e9  # added to the scores of places without a token: their share is 0 exactly


@dataclass(frozen=True)
class _Places:
    """Where heads' vectors stand: names of index tensors.

    Attributes:
        query, key, value: [B, heads, W], rows among all heads' vectors of all tokens.
        tokens: [T, heads], rows of attention's result.
        mask: [B, 1, 1, W], 0 or `MASKED`.
    """

    query: str
    key: str
    value: str
    tokens: str
    mask: str


class Attention:
    """Writes attention. Where vectors are read and written is written once for all layers.

    Args:
        nodes: The graph.
        heads: Of attention.
        width: Of the hidden states.

    Attributes:
        mask: [B, 1, 1, W], 0 or `MASKED`, of places with and without a token.
    """

    def __init__(self, nodes: Nodes, heads: int, width: int) -> None:
        self._nodes = nodes
        self._heads = heads
        self._width = width
        self._places = self._write_places()
        self.mask = self._places.mask

    def write(
        self, product: str, mask: str = "", turn: Callable[[str], str] = lambda vectors: vectors
    ) -> str:
        """Writes attention of rows [B, heads, W, H / heads].

        Args:
            product: Query, key and value of each token, [T, 3 * H].
            mask: Added to the scores [B, heads, W, W]; by default `mask` of this object.
            turn: Writes what becomes of queries and of keys first.

        Returns:
            The result, [T, H].
        """
        add, places = self._nodes.add, self._places
        size = self._width // self._heads
        vectors = add("Reshape", product, self._as(size))
        query, key, value = (
            add("Gather", vectors, index) for index in (places.query, places.key, places.value)
        )
        scores = self._nodes.fused(
            "FusedMatMul", turn(query), turn(key), transB=1, alpha=1.0 / math.sqrt(size)
        )
        shares = add("Softmax", add("Add", scores, mask or self.mask), axis=-1)
        result = add("Reshape", add("MatMul", shares, value), self._as(size))
        return add("Reshape", add("Gather", result, places.tokens), self._as(self._width))

    def _as(self, width: int) -> str:
        return self._nodes.constant([-1, width])

    def _write_places(self) -> _Places:
        """Writes where each head's vectors are read and written.

        A token's query, key and value are 3 x heads vectors, one behind the other.
        """
        add, constant, heads = self._nodes.add, self._nodes.constant, self._heads
        none = add("Less", "padded_index", constant(0))
        mask = add("Where", none, constant(MASKED), constant(0.0))
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
        add, constant, heads = self._nodes.add, self._nodes.constant, self._heads
        width = add("Shape", "padded_index", start=1)
        row = add("Div", "token_index", width)
        # Token row * W + s has its head h at (row * heads + h) * W + s.
        first = add("Add", "token_index", add("Mul", add("Mul", row, width), constant(heads - 1)))
        by_head = add("Mul", constant(np.arange(heads)), width)
        return add("Add", add("Unsqueeze", first, constant([1])), by_head)


def write_norm(nodes: Nodes, name: str, x: str, norm: Norm) -> str:
    """Writes norm(x), [T, H]."""
    scale = nodes.weight(f"{name}.norm.weight", norm.weight)
    bias = nodes.weight(f"{name}.norm.bias", norm.bias)
    return nodes.add("LayerNormalization", x, scale, bias, epsilon=norm.epsilon)


_ACTIVATIONS: dict[str, tuple[str, dict[str, str]]] = {
    "gelu": ("Gelu", {}),
    "gelu_new": ("Gelu", {"approximate": "tanh"}),
    "relu": ("Relu", {}),
}


def write_activation(nodes: Nodes, name: str, x: str) -> str:
    """Writes an activation, by one of the names that `trunk` knows."""
    operator, attributes = _ACTIVATIONS[name]
    return nodes.add(operator, x, **attributes)
