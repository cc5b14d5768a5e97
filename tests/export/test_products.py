"""Numbers to bytes and back: how far off, and what never leaves the bytes' range."""

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from trunkline.session import session_options
from trunkline_export.nodes import Nodes, real
from trunkline_export.packed import OPSET
from trunkline_export.products import (
    ABOVE,
    EVEN,
    Fp32Products,
    Int8Products,
    Reach,
    quantise,
    smoothing,
)
from trunkline_export.trunk import Linear

Floats = NDArray[np.float32]
seeds = st.integers(0, 2**32 - 1)
sizes = st.integers(-6, 4).map(lambda power: 10.0**power)

ACTIVATIONS: dict[str, Any] = {
    "gelu": torch.nn.functional.gelu,
    "gelu_new": lambda x: torch.nn.functional.gelu(x, approximate="tanh"),
    "relu": torch.relu,
}


def weights(seed: int, size: float, shape: tuple[int, int] = (24, 10)) -> Floats:
    return (np.random.default_rng(seed).normal(0, size, shape)).astype(np.float32)


def linear(seed: int, inputs: int, outputs: int) -> Linear:
    return Linear(weights(seed, 0.5, (inputs, outputs)), weights(seed + 1, 0.5, (1, outputs))[0])


@given(seeds, sizes, st.sampled_from([0, 1]))
def test_a_number_comes_back_within_half_a_step(seed: int, size: float, axis: int) -> None:
    values = weights(seed, size)
    integers, scales = quantise(values, axis)
    assert (integers.dtype, scales.dtype) == (np.int8, np.float32)
    assert np.abs(integers.astype(int)).max() <= 127
    assert (np.abs(integers * scales - values) <= 0.5001 * scales).all()


@given(seeds, sizes, st.sampled_from([0, 1]))
def test_the_largest_number_of_each_scale_takes_the_whole_range(
    seed: int, size: float, axis: int
) -> None:
    integers, scales = quantise(weights(seed, size), axis)
    assert (np.abs(integers.astype(int)).max(axis=axis) == 127).all()
    assert scales.shape == ((1, 10) if axis == 0 else (24, 1))


def test_zeros_stay_zeros() -> None:
    values = weights(0, 1.0)
    values[3] = 0.0
    integers, scales = quantise(values, axis=1)
    assert (integers[3] == 0).all()
    assert np.isfinite(scales).all()
    assert (scales > 0).all()


@pytest.mark.parametrize("name", ABOVE)
def test_no_value_of_an_activation_is_below_what_is_said(name: str) -> None:
    reach = ABOVE[name]
    x = torch.linspace(-30, 30, 2_000_001, dtype=torch.float64)
    least = float(ACTIVATIONS[name](x).min())
    assert reach.least is not None
    assert reach.least <= least
    assert least - reach.least < 0.002, "more room below than needed is resolution lost above"


def test_every_activation_that_can_be_packed_has_a_reach() -> None:
    from trunkline_export import trunk

    assert set(ABOVE) == set(trunk._ACTIVATIONS) == set(ACTIVATIONS)


def run(model: onnx.ModelProto, x: Floats) -> Floats:
    # The runtime's options: without VNNI sums of bytes would overflow (ADR 0013).
    session = onnxruntime.InferenceSession(model.SerializeToString(), session_options(1))
    (values,) = session.run(None, {"x": x})
    return np.asarray(values)


def int8_graph(part: Linear, reach: Reach = EVEN, **options: Any) -> onnx.ModelProto:
    """Returns a graph of one product."""
    nodes = Nodes(OPSET)
    inputs, outputs = part.weight.shape
    product = Int8Products(nodes, **options).linear("one", "x", (part,), reach)
    nodes.rename(product, "y")
    return nodes.model([real("x", "tokens", inputs)], [real("y", "tokens", outputs)])


def exact(x: Floats, part: Linear, reach: Reach = EVEN) -> NDArray[np.float64]:
    """Returns what an int8 product is to give, in whole numbers."""
    least = 1e-12 if not reach.least else -reach.least / reach.zero
    size = np.abs(x) if reach.least is None else x
    scales = np.maximum(size.max(axis=1, keepdims=True) / np.float32(255 - reach.zero), least)
    rows = np.clip(np.rint(x / scales) + reach.zero, 0, 255) - reach.zero
    integers, columns = quantise(part.weight, axis=0)
    return (rows @ integers.astype(np.float64)) * columns * scales + part.bias


@given(seeds, st.sampled_from([1e-3, 1.0, 50.0]))
@settings(max_examples=15)
def test_a_product_is_that_of_whole_numbers(seed: int, size: float) -> None:
    part = linear(seed, 24, 10)
    x = weights(seed + 7, size, (5, 24))
    found = run(int8_graph(part), x)
    # A value halfway between two bytes may go either way.
    step = np.abs(x).max(axis=1, keepdims=True) / 127 * np.abs(part.weight).max()
    assert (np.abs(found - exact(x, part)) <= 2 * step).all()
    assert (np.abs(found - x @ part.weight - part.bias) <= 12 * step).all()


@pytest.mark.parametrize("name", ABOVE)
def test_bytes_above_zero_are_finer_and_lose_nothing_below(name: str) -> None:
    part, reach = linear(3, 24, 10), ABOVE[name]
    given_ = torch.from_numpy(weights(5, 2.0, (40, 24)))
    x = ACTIVATIONS[name](given_).numpy()
    wanted = x @ part.weight
    fine = np.abs(run(int8_graph(part, reach), x) - wanted)
    even = np.abs(run(int8_graph(part), x) - wanted)
    assert fine.mean() < even.mean()
    assert (fine <= 24 * 0.5 * np.abs(part.weight).max() * (x.max() / 100)).all()


def test_a_row_of_zeros_gives_the_bias() -> None:
    x = np.zeros((3, 24), np.float32)
    x[1] = weights(2, 1.0, (1, 24))
    for reach in (EVEN, *ABOVE.values()):
        part = linear(1, 24, 10)
        found = run(int8_graph(part, reach), np.abs(x))
        assert (found[[0, 2]] == part.bias).all()
        assert np.isfinite(found).all()


@given(seeds)
@settings(max_examples=15)
def test_a_rows_product_is_the_same_beside_any_other(seed: int) -> None:
    random = np.random.default_rng(seed)
    graph = int8_graph(linear(seed % 5, 24, 10))
    x = (random.normal(size=(9, 24)) * 10 ** random.uniform(-4, 4, (9, 1))).astype(np.float32)
    together = run(graph, x)
    order = random.permutation(9)
    assert np.array_equal(run(graph, x[order]), together[order])
    for at in range(9):
        assert np.array_equal(run(graph, x[at : at + 1])[0], together[at])


@given(seeds, st.sampled_from([1e-3, 1.0, 30.0]))
def test_smoothing_leaves_the_product_as_it_is(seed: int, size: float) -> None:
    weight, x = weights(seed, 1.0), weights(seed + 1, size, (6, 24))
    factors = smoothing(np.abs(x).max(axis=0), weight)
    assert (factors > 0).all()
    smoothed = (x * factors).astype(np.float64) @ (weight / factors[:, None])
    bound = 1e-5 * (np.abs(x) @ np.abs(weight))
    assert (np.abs(smoothed - x.astype(np.float64) @ weight) <= bound).all()


def test_smoothing_evens_out_a_channel_that_is_much_larger() -> None:
    weight, x = weights(1, 1.0), weights(2, 1.0, (50, 24))
    x[:, 7] *= 100
    sizes_ = np.abs(x).max(axis=0)
    smoothed = np.abs(x * smoothing(sizes_, weight)).max(axis=0)
    assert smoothed.max() / np.median(smoothed) < 0.2 * sizes_.max() / np.median(sizes_)
    graphs = [int8_graph(linear_of(weight), sizes=given_) for given_ in ({}, {"one": sizes_})]
    wanted = x @ weight
    rough, smooth = (np.abs(run(graph, x) - wanted).mean() for graph in graphs)
    assert smooth < 0.5 * rough


def linear_of(weight: Floats) -> Linear:
    return Linear(weight, np.zeros(weight.shape[1], np.float32))


def test_smoothing_of_a_channel_without_values_or_weights_is_finite() -> None:
    weight = weights(1, 1.0)
    weight[3] = 0.0
    sizes_ = np.ones(24, np.float32)
    sizes_[5] = 0.0
    factors = smoothing(sizes_, weight)
    assert np.isfinite(factors).all()
    assert (factors > 0).all()


def test_what_is_kept_is_fp32_to_the_last_bit() -> None:
    part, x = linear(4, 24, 10), weights(9, 1.0, (6, 24))
    nodes = Nodes(OPSET)
    nodes.rename(Fp32Products(nodes).linear("one", "x", (part,)), "y")
    wanted = nodes.model([real("x", "tokens", 24)], [real("y", "tokens", 10)])
    kept = int8_graph(part, keep={"one"})
    assert np.array_equal(run(kept, x), run(wanted, x))
    assert not np.array_equal(run(int8_graph(part), x), run(wanted, x))


def test_rows_of_a_table_come_back_within_half_a_step() -> None:
    table = weights(6, 1.0) * np.logspace(-3, 3, 24, dtype=np.float32)[:, None]
    nodes = Nodes(OPSET)
    nodes.rename(Int8Products(nodes).rows("words", table, "ids"), "y")
    ids = onnx.helper.make_tensor_value_info("ids", onnx.TensorProto.INT64, ["tokens"])
    session = onnxruntime.InferenceSession(
        nodes.model([ids], [real("y", "tokens", 10)]).SerializeToString()
    )
    chosen = np.array([0, 23, 5, 5, 11])
    (found,) = session.run(None, {"ids": chosen})
    steps = np.abs(table[chosen]).max(axis=1, keepdims=True) / 127
    assert (np.abs(found - table[chosen]) <= 0.5001 * steps).all()
