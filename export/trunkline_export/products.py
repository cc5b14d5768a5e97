"""Matrix products of a packed graph, in fp32 or in int8 with a scale for every token.

onnxruntime's dynamic quantisation takes one scale for a whole batch, so a text's answer changes
with its neighbours (onnxruntime issues 10111 and 8625). Here every row of activations has its own
scale: its integers, and their exact sums, are the same in any batch. Weights have a scale a column.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trunkline_export.nodes import Nodes
from trunkline_export.trunk import Array, Linear

_LARGEST = 127  # of signed weights
_LEAST_SCALE = 1e-12  # of a row of zeros


@dataclass(frozen=True)
class Reach:
    """How the values of a row become bytes: (value / scale) + zero point.

    Attributes:
        zero: The byte that stands for 0.
        least: What no value is below; None if as far below 0 as above.
    """

    zero: int
    least: float | None


EVEN = Reach(128, None)
# What an activation function gives lies nearly all above 0; so do its bytes, twice as fine.
ABOVE = {"gelu": Reach(16, -0.17), "gelu_new": Reach(16, -0.171), "relu": Reach(0, 0.0)}


class Products(ABC):
    """Writes embeddings and matrix products into a graph, one precision."""

    def __init__(self, nodes: Nodes) -> None:
        self._nodes = nodes

    @abstractmethod
    def rows(self, name: str, table: Array, ids: str) -> str:
        """Returns the rows [T, H] of a table [V, H] that ids [T] point to."""

    @abstractmethod
    def linear(self, name: str, x: str, parts: tuple[Linear, ...], reach: Reach = EVEN) -> str:
        """Returns x [T, K] times the weights of `parts` side by side plus bias, [T, N of all]."""


class Fp32Products(Products):
    """Writes them in fp32.

    Weights come to lie side by side when the graph is loaded: the file shares them with the padded
    graph, which has each by itself.
    """

    def rows(self, name: str, table: Array, ids: str) -> str:
        """Returns the rows [T, H] of a table [V, H] that ids [T] point to."""
        return self._nodes.add("Gather", self._nodes.weight(name, table), ids)

    def linear(self, name: str, x: str, parts: tuple[Linear, ...], reach: Reach = EVEN) -> str:
        """Returns x [T, K] times the weights of `parts` side by side plus bias, [T, N of all]."""
        bias = self._nodes.weight(f"{name}.bias", _biases(parts))
        return self._nodes.add("Gemm", x, self._beside(name, parts), bias)

    def _beside(self, name: str, parts: tuple[Linear, ...]) -> str:
        names = [
            self._nodes.weight(f"{name}.{at}.weight", part.weight) for at, part in enumerate(parts)
        ]
        if len(names) == 1:
            return names[0]
        return self._nodes.add("Concat", *names, axis=1)


class Int8Products(Products):
    """int8 by token, in operators that every onnxruntime has; sums are int32 and exact.

    Args:
        nodes: The graph.
        keep: Names of products that stay in fp32.
        sizes: By product, how large each channel [K] of what it reads gets; channels are evened
            out where that is given.
    """

    def __init__(
        self, nodes: Nodes, keep: Collection[str] = (), sizes: Mapping[str, Array] | None = None
    ) -> None:
        super().__init__(nodes)
        self._keep = frozenset(keep)
        self._sizes = sizes or {}
        self._fp32 = Fp32Products(nodes)
        self._quantised: dict[str, tuple[str, str]] = {}
        self._zero_points: dict[int, str] = {}

    def rows(self, name: str, table: Array, ids: str) -> str:
        """Returns the rows [T, H] of a table [V, H], stored as int8 with a scale per row."""
        add = self._nodes.add
        integers, scales = quantise(table, axis=1)
        rows = add("Cast", add("Gather", self._nodes.weight(name, integers), ids), to=1)
        scale = add("Gather", self._nodes.weight(f"{name}.scale", scales), ids)
        return add("Mul", rows, scale)

    def linear(self, name: str, x: str, parts: tuple[Linear, ...], reach: Reach = EVEN) -> str:
        """Returns x [T, K] times the weights of `parts` side by side plus bias, [T, N of all]."""
        if name in self._keep:
            return self._fp32.linear(name, x, parts)
        product, biases = self._product(name, x, parts, reach), _biases(parts)
        if not biases.any():
            return product
        return self._nodes.add("Add", product, self._nodes.weight(f"{name}.bias", biases))

    def _product(self, name: str, x: str, parts: tuple[Linear, ...], reach: Reach) -> str:
        nodes = self._nodes
        weight = np.concatenate([part.weight for part in parts], axis=1)
        if name in self._sizes:
            factors = smoothing(self._sizes[name], weight)
            x = nodes.add("Mul", x, nodes.weight(f"{name}.factors", factors))
            weight = weight / factors[:, None]
        integers, scales = quantise(weight, axis=0)
        rows, row_scales = self._rows_of(x, reach)
        sums = nodes.fused(
            "MatMulIntegerToFloat",
            rows,
            nodes.weight(f"{name}.weight", integers),
            nodes.constant(1.0),
            nodes.weight(f"{name}.scale", scales.reshape(-1)),
            self._byte(reach.zero),
        )
        return nodes.add("Mul", sums, row_scales)

    def _rows_of(self, x: str, reach: Reach) -> tuple[str, str]:
        """Returns x [T, K] as bytes, and their scales [T, 1]; once for all that read x."""
        if x not in self._quantised:
            add, constant = self._nodes.add, self._nodes.constant
            scales = self._scales(x, reach)
            flat = add("Squeeze", scales, constant([1]))
            rows = add("QuantizeLinear", x, flat, self._zeros(flat, reach.zero), axis=0)
            self._quantised[x] = rows, scales
        return self._quantised[x]

    def _scales(self, x: str, reach: Reach) -> str:
        add, constant = self._nodes.add, self._nodes.constant
        largest = add("ReduceMax", x, constant([1]), keepdims=1)
        if reach.least is None:  # cheaper than the size of every value
            below = add("Neg", add("ReduceMin", x, constant([1]), keepdims=1))
            largest = add("Max", largest, below)
        scale = add("Mul", largest, constant(1.0 / (255 - reach.zero)))
        least = -reach.least / reach.zero if reach.least else _LEAST_SCALE
        return add("Max", scale, constant(least))

    def _zeros(self, scales: str, zero: int) -> str:
        """Returns the zero point for every row, [T]; one tensor serves the whole graph."""
        if zero not in self._zero_points:
            shape = self._nodes.add("Shape", scales)
            self._zero_points[zero] = self._nodes.add("Expand", self._byte(zero), shape)
        return self._zero_points[zero]

    def _byte(self, value: int) -> str:
        return self._nodes.constant(np.array(value, np.uint8))


def _biases(parts: tuple[Linear, ...]) -> Array:
    return np.concatenate([part.bias for part in parts])


def quantise(values: Array, axis: int) -> tuple[NDArray[np.int8], Array]:
    """Returns integers in [-127, 127] and scales, one for all values along `axis` (kept as 1)."""
    largest = np.abs(values).max(axis=axis, keepdims=True)
    scales = np.maximum(largest / _LARGEST, _LEAST_SCALE).astype(np.float32)
    return np.rint(values / scales).astype(np.int8), scales


def smoothing(sizes: Array, weight: Array) -> Array:
    """Returns what to multiply each channel [K] with, given its largest size, for weights [K, N].

    A few channels of normalised hidden states are ten times as large as the others, which leaves
    the others few of a row's 255 steps. Half of that goes over into the weights (SmoothQuant with
    alpha 0.5; Xiao et al. 2022, arXiv 2211.10438).
    """
    weights = np.abs(weight).max(axis=1)
    factors = np.sqrt(np.maximum(weights, 1e-3) / np.maximum(sizes, 1e-3))
    smoothed: Array = (factors / np.exp(np.log(factors).mean())).astype(np.float32)
    return smoothed
