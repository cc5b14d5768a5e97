"""Weights of several graphs in one file: each array once, each at the start of a page."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from trunkline_export.weights import save_together

PAGE, LEAST = 4096, 1024


def graph(*arrays: NDArray[np.generic]) -> onnx.ModelProto:
    """Returns a graph that gives its weights back."""
    names = [f"w{at}" for at in range(len(arrays))]
    nodes = [helper.make_node("Identity", [name], [f"{name}.out"]) for name in names]
    outputs = [
        helper.make_tensor_value_info(
            f"{name}.out", helper.np_dtype_to_tensor_dtype(array.dtype), array.shape
        )
        for name, array in zip(names, arrays, strict=True)
    ]
    weights = [
        numpy_helper.from_array(array, name) for name, array in zip(names, arrays, strict=True)
    ]
    body = helper.make_graph(nodes, "weights", [], outputs, weights)
    return helper.make_model(body, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def random(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def places(path: Path) -> list[dict[str, str]]:
    """Returns where each weight lies; empty if it is inside."""
    weights = onnx.load(path, load_external_data=False).graph.initializer
    return [{entry.key: entry.value for entry in one.external_data} for one in weights]


def given_back(path: Path) -> list[NDArray[np.generic]]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return list(session.run(None, {}))


def test_every_graph_reads_its_own_weights(tmp_path: Path) -> None:
    own, shared, tiny = random(20, 30), random(40, 50, seed=1), random(3)
    arrays = {"a.onnx": [own, shared, tiny], "b.onnx": [shared, random(33, 9, seed=2)]}
    models = {tmp_path / name: graph(*given) for name, given in arrays.items()}
    save_together(models, tmp_path / "weights")
    for name, given in arrays.items():
        onnx.checker.check_model(str(tmp_path / name), full_check=True)
        for want, got in zip(given, given_back(tmp_path / name), strict=True):
            assert np.array_equal(want, got)


def test_an_array_is_stored_once_whatever_its_shape(tmp_path: Path) -> None:
    one, turned = random(40, 50), random(40, 50).reshape(50, 40)
    models = {tmp_path / "a.onnx": graph(one, turned), tmp_path / "b.onnx": graph(one, one)}
    save_together(models, tmp_path / "weights")
    found = [place for path in models for place in places(path)]
    assert len({tuple(place.items()) for place in found}) == 1
    assert (tmp_path / "weights").stat().st_size == one.nbytes


def test_equal_bytes_of_another_type_are_another_array(tmp_path: Path) -> None:
    zeros = [np.zeros(2000, np.float32), np.zeros(2000, np.int32)]
    save_together({tmp_path / "a.onnx": graph(*zeros)}, tmp_path / "weights")
    first, second = places(tmp_path / "a.onnx")
    assert first["offset"] != second["offset"]
    assert [one.dtype for one in given_back(tmp_path / "a.onnx")] == [np.float32, np.int32]


def test_large_arrays_begin_at_a_page_and_small_ones_stay_inside(tmp_path: Path) -> None:
    arrays = [random(LEAST // 4 - 1), random(LEAST // 4), random(5000, seed=3), random(777, seed=4)]
    save_together({tmp_path / "a.onnx": graph(*arrays)}, tmp_path / "weights")
    small, *large = places(tmp_path / "a.onnx")
    assert small == {}
    assert [int(place["offset"]) % PAGE for place in large] == [0, 0, 0]
    assert [int(place["length"]) for place in large] == [array.nbytes for array in arrays[1:]]
    assert {place["location"] for place in large} == {"weights"}
    inside = onnx.load(tmp_path / "a.onnx", load_external_data=False).graph.initializer
    assert [one.data_location for one in inside] == [
        TensorProto.DEFAULT,
        *[TensorProto.EXTERNAL] * 3,
    ]
