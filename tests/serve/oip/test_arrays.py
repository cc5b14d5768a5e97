"""A model by its name with `.tensors`: token ids in, the graph's outputs out, over the wire."""

from typing import Any

import grpc
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy
from numpy.typing import NDArray

from tests.serve.oip.calling import Padded, Stub, computing, in_process, padded, tensor
from trunkline import Model
from trunkline.errors import InvalidInput
from trunkline_serve.oip.tensor_model import Bounds, bounds_of, rows_of
from trunkline_serve.oip.v1 import open_inference_pb2 as pb

BOUNDS = Bounds(ids=30, types=2, length=6)
ROWS = st_numpy.array_shapes(min_dims=2, max_dims=2, max_side=8)


def answered(response: pb.ModelInferResponse) -> dict[str, NDArray[np.float32]]:
    return {
        output.name: np.frombuffer(data, "<f4").reshape(tuple(output.shape))
        for output, data in zip(response.outputs, response.raw_output_contents, strict=True)
    }


def test_outputs_are_those_of_the_graph_padded_back(
    stub: Stub, model: Model, ragged: Padded
) -> None:
    response = stub.ModelInfer(computing(ragged))
    assert (response.model_name, response.model_version) == ("tiny.tensors", "1")
    assert all(output.datatype == "FP32" for output in response.outputs)
    found, wanted = answered(response), in_process(model, ragged)
    assert list(found) == list(wanted)
    for name, values in wanted.items():
        assert np.array_equal(found[name], values), name
    assert found["ner.logits"].shape == (3, 9, 5)
    assert np.ptp(found["ner.logits"][1]) > 0


def test_padding_changes_nothing(stub: Stub, ragged: Padded) -> None:
    wider = {name: np.pad(value, [(0, 0), (0, 7)]) for name, value in ragged.items()}
    wider["input_ids"][0, 5:] = -100
    narrow, wide = (answered(stub.ModelInfer(computing(one))) for one in (ragged, wider))
    assert np.array_equal(wide["ner.logits"][:, :9], narrow["ner.logits"])
    assert not wide["ner.logits"][:, 9:].any()
    assert np.array_equal(wide["topic.logits"], narrow["topic.logits"])


def test_outputs_can_be_named_in_any_order(stub: Stub, ragged: Padded) -> None:
    request = computing(ragged)
    for name in ("topic.logits", "ner.logits"):
        request.outputs.add(name=name)
    assert list(answered(stub.ModelInfer(request))) == ["topic.logits", "ner.logits"]


def test_typed_requests_get_typed_answers(stub: Stub, ragged: Padded) -> None:
    raw = answered(stub.ModelInfer(computing(ragged)))
    request = pb.ModelInferRequest(
        model_name="tiny.tensors",
        inputs=[
            tensor(name, "INT64", value.shape, int64_contents=value.ravel().tolist())
            for name, value in ragged.items()
        ],
    )
    typed = stub.ModelInfer(request)
    assert not typed.raw_output_contents
    for output in typed.outputs:
        values = np.array(output.contents.fp32_contents, np.float32)
        assert np.array_equal(values, raw[output.name].ravel())


def test_segments_may_be_given(stub: Stub, ragged: Padded) -> None:
    types = {"token_type_ids": ragged["attention_mask"].copy()}
    assert answered(stub.ModelInfer(computing({**ragged, **types})))


def changed(name: str, at: tuple[int, int], value: int) -> Padded:
    rows = padded([np.array([4, 5, 6]), np.array([4, 5])])
    arrays = {**rows, "token_type_ids": np.zeros_like(rows["input_ids"])}
    arrays[name][at] = value
    return arrays


MANY = 2**40


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        (changed("attention_mask", (0, 0), 0), "attention_mask: row 0 is not ones"),
        (changed("attention_mask", (1, 2), 2), "attention_mask: row 1 is not ones"),
        (changed("attention_mask", (0, 1), -1), "attention_mask: row 0 is not ones"),
        (changed("attention_mask", (0, 1), MANY), "attention_mask: row 0 is not ones"),
        (changed("input_ids", (1, 0), -1), "input_ids[1][0]: is -1, of 0 to "),
        (changed("input_ids", (0, 2), MANY), f"input_ids[0][2]: is {MANY}, of 0 to "),
        (changed("token_type_ids", (0, 1), 2), "token_type_ids[0][1]: is 2, of 0 to 1"),
        (padded([np.full(129, 4)]), "input_ids: has rows of 129 tokens, at most 128"),
        (padded([np.array([4])] * 257), "inputs[0].shape: is [257, 1]; a batch holds"),
        ({**changed("input_ids", (1, 2), 0), "position_ids": np.array([[1]])}, "inputs[3].name"),
        ({"input_ids": np.array([[4]])}, "inputs: attention_mask is missing"),
        (
            {"input_ids": np.array([[4, 5]]), "attention_mask": np.array([[1]])},
            "inputs: attention_mask has shape [1, 1], input_ids [1, 2]",
        ),
    ],
)
def test_what_is_wrong_is_named(stub: Stub, arrays: Padded, said: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        stub.ModelInfer(computing(arrays))
    error: Any = caught.value
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert error.details().startswith(said)


def test_an_empty_row_is_named(stub: Stub) -> None:
    arrays = padded([np.array([4, 5]), np.array([4])])
    arrays["attention_mask"][1] = 0
    with pytest.raises(grpc.RpcError) as caught:
        stub.ModelInfer(computing(arrays))
    error: Any = caught.value
    assert "attention_mask: row 1" in error.details()


def test_every_id_of_the_vocabulary_is_accepted(stub: Stub, model: Model) -> None:
    bounds = bounds_of(model.pipeline.encoder)
    ids = np.array([bounds.ids - 1, 4])
    assert answered(stub.ModelInfer(computing(padded([ids]))))
    with pytest.raises(grpc.RpcError):
        stub.ModelInfer(computing(padded([ids + 1])))


@given(data=st.data(), shape=ROWS)
def test_any_arrays_give_rows_in_bounds_or_a_named_input(
    data: st.DataObject, shape: tuple[int, ...]
) -> None:
    near, any_ = st.integers(-1, 31), st.integers(-(2**63), 2**63 - 1)
    inputs = {
        "input_ids": data.draw(st_numpy.arrays(np.int64, shape, elements=near | any_)),
        "attention_mask": data.draw(
            st_numpy.arrays(np.int64, shape, elements=st.integers(0, 1) | any_)
        ),
        "token_type_ids": data.draw(st_numpy.arrays(np.int64, shape, elements=st.integers(0, 2))),
    }
    try:
        rows = rows_of(inputs, BOUNDS)
    except InvalidInput as error:
        assert error.field.split("[")[0] in inputs
        return
    for at, row in enumerate(rows):
        assert 0 < len(row) <= BOUNDS.length
        assert len(row) == inputs["attention_mask"][at].sum()
        assert np.array_equal(row.input_ids, inputs["input_ids"][at, : len(row)])
        assert row.input_ids.min() >= 0
        assert row.input_ids.max() < BOUNDS.ids
        assert row.token_type_ids.max() < BOUNDS.types


@given(lengths=st.lists(st.integers(1, 6), min_size=1, max_size=5))
def test_right_padding_is_taken_off(lengths: list[int]) -> None:
    rows = [np.arange(length) for length in lengths]
    found = rows_of(padded(rows), BOUNDS)
    for row, wanted in zip(found, rows, strict=True):
        assert np.array_equal(row.input_ids, wanted)
        assert not row.token_type_ids.any()
