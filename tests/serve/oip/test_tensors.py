"""Tensors to arrays and back, whatever the caller says of them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy
from numpy.typing import NDArray

from tests.serve.oip.calling import strings, tensor
from trunkline.errors import InvalidInput
from trunkline_serve.oip.tensors import (
    BYTES,
    FP32,
    INT64,
    Array,
    Datatype,
    Spec,
    read_inputs,
    write_outputs,
)
from trunkline_serve.oip.v1 import open_inference_pb2 as pb

MOST = 8
SPECS = (Spec("a", BYTES, (-1, 1)), Spec("b", BYTES, (-1, 1), optional=True))
NUMBERS = (Spec("n", INT64, (-1, -1)),)
DATATYPES = st.sampled_from(["BYTES", "INT64", "FP32", "INT32", "", "BF16"])
SIZES = st.one_of(st.integers(-2, 4), st.sampled_from([2**62, 2**63 - 1, -(2**63)]))


def reply_as_request(response: pb.ModelInferResponse) -> pb.ModelInferRequest:
    return pb.ModelInferRequest(
        inputs=[
            pb.ModelInferRequest.InferInputTensor.FromString(one.SerializeToString())
            for one in response.outputs
        ],
        raw_input_contents=response.raw_output_contents,
    )


def objects(values: list[bytes]) -> Array:
    array = np.empty(len(values), object)
    array[:] = values
    return array


def there_and_back(values: Array, datatype: Datatype, raw: bool) -> Array:
    spec = Spec("x", datatype, (-1,) * values.ndim)
    response = pb.ModelInferResponse()
    write_outputs(response, [(spec, values)], raw=raw)
    assert bool(response.raw_output_contents) == raw
    return read_inputs(reply_as_request(response), [spec], len(values))["x"]


@given(values=st.lists(st.binary(max_size=20), min_size=1, max_size=MOST), raw=st.booleans())
def test_byte_strings_come_back_as_they_were(values: list[bytes], raw: bool) -> None:
    assert list(there_and_back(objects(values), BYTES, raw)) == values


@given(
    values=st_numpy.arrays(np.int64, st_numpy.array_shapes(min_dims=2, max_dims=2, max_side=5)),
    raw=st.booleans(),
)
def test_integers_come_back_as_they_were(values: NDArray[np.int64], raw: bool) -> None:
    assert np.array_equal(there_and_back(values, INT64, raw), values)


@given(
    values=st_numpy.arrays(
        np.float32,
        st_numpy.array_shapes(min_dims=1, max_dims=3, max_side=5),
        elements=st.floats(width=32),
    ),
    raw=st.booleans(),
)
def test_numbers_come_back_as_they_were(values: NDArray[np.float32], raw: bool) -> None:
    assert np.array_equal(there_and_back(values, FP32, raw), values, equal_nan=True)


def test_what_is_raw_is_what_the_protocol_says() -> None:
    assert strings("hé", b"\0") == b"\x03\0\0\0h\xc3\xa9\x01\0\0\0\0"
    assert INT64.write(np.array([[1, -2]])) == b"\1" + b"\0" * 7 + b"\xfe" + b"\xff" * 7


@given(
    inputs=st.lists(
        st.builds(
            tensor,
            st.sampled_from(["a", "b", "n", "other"]),
            DATATYPES,
            st.lists(SIZES, max_size=3),
        ),
        max_size=3,
    ),
    raw=st.lists(st.one_of(st.binary(max_size=64), st.just(strings("x"))), max_size=3),
    specs=st.sampled_from([SPECS, NUMBERS]),
)
def test_any_request_gives_arrays_or_a_named_field(
    inputs: list[pb.ModelInferRequest.InferInputTensor], raw: list[bytes], specs: tuple[Spec, ...]
) -> None:
    request = pb.ModelInferRequest(inputs=inputs, raw_input_contents=raw)
    try:
        found = read_inputs(request, specs, MOST)
    except InvalidInput as error:
        assert error.field.startswith(("inputs", "raw_input_contents"))
        assert "\n" not in str(error)
    else:
        assert {spec.name for spec in specs if not spec.optional} <= set(found)
        for one in inputs:
            assert found[one.name].shape == tuple(one.shape)


@given(data=st.binary(max_size=40), count=st.integers(1, 4))
def test_any_bytes_are_byte_strings_or_refused(data: bytes, count: int) -> None:
    try:
        found = BYTES.read(data, count)
    except ValueError:
        return
    assert len(found) == count
    assert BYTES.write(found) == data


GOOD = tensor("a", "BYTES", [2])
TWO = strings("x", "y")


@pytest.mark.parametrize(
    ("inputs", "raw", "field", "reason"),
    [
        ([], [], "inputs", "a is missing"),
        ([GOOD], [], "inputs[0].contents.bytes_contents", "holds 0 elements"),
        ([GOOD, GOOD], [TWO, TWO], "inputs[1].name", "given twice"),
        ([tensor("z", "BYTES", [2])], [TWO], "inputs[0].name", "known: a, b"),
        ([tensor("a", "INT64", [2])], [TWO], "inputs[0].datatype", "takes BYTES"),
        ([tensor("a", "BYTES", [])], [TWO], "inputs[0].shape", "0 dimensions"),
        ([tensor("a", "BYTES", [2, 1, 1])], [TWO], "inputs[0].shape", "3 dimensions"),
        ([tensor("a", "BYTES", [1, 2])], [TWO], "inputs[0].shape", "is [1, 2], a takes [-1, 1]"),
        ([tensor("a", "BYTES", [0])], [b""], "inputs[0].shape", "is [0], a takes"),
        ([tensor("a", "BYTES", [-1])], [TWO], "inputs[0].shape", "is [-1], a takes"),
        ([tensor("a", "BYTES", [2**62])], [TWO], "inputs[0].shape", "at most 8"),
        ([tensor("a", "BYTES", [3])], [TWO], "raw_input_contents[0]", "ends inside element 2"),
        ([tensor("a", "BYTES", [1])], [TWO], "raw_input_contents[0]", "behind its 1"),
        ([GOOD], [TWO[:-1]], "raw_input_contents[0]", "ends inside element 1"),
        ([GOOD], [b"\xff" * 9], "raw_input_contents[0]", "ends inside element 0"),
        ([GOOD], [TWO, TWO], "raw_input_contents", "holds 2"),
        (
            [tensor("a", "BYTES", [1], bytes_contents=[b"x"])],
            [strings("x")],
            "inputs[0].contents",
            "beside raw_input_contents",
        ),
        (
            [tensor("a", "BYTES", [1], bytes_contents=[b"x", b"y"])],
            [],
            "inputs[0].contents.bytes_contents",
            "its shape says 1",
        ),
        (
            [tensor("a", "BYTES", [1], int_contents=[1])],
            [],
            "inputs[0].contents.int_contents",
            "BYTES stands in bytes_contents",
        ),
        (
            [GOOD, tensor("b", "BYTES", [1])],
            [TWO, strings("x")],
            "inputs",
            "b has shape [1], a [2]",
        ),
    ],
)
def test_what_does_not_fit_is_named(
    inputs: list[pb.ModelInferRequest.InferInputTensor], raw: list[bytes], field: str, reason: str
) -> None:
    request = pb.ModelInferRequest(inputs=inputs, raw_input_contents=raw)
    with pytest.raises(InvalidInput) as caught:
        read_inputs(request, SPECS, MOST)
    assert caught.value.field == field
    assert reason in caught.value.reason


def test_huge_sizes_are_refused_before_anything_is_made_of_them() -> None:
    request = pb.ModelInferRequest(
        inputs=[tensor("n", "INT64", [MOST, 2**63 - 1])], raw_input_contents=[b"\0" * 8]
    )
    with pytest.raises(InvalidInput, match=r"raw_input_contents\[0\]: has 8 bytes"):
        read_inputs(request, NUMBERS, MOST)


def test_parameters_of_tensors_are_refused() -> None:
    request = pb.ModelInferRequest(inputs=[GOOD], raw_input_contents=[TWO])
    request.inputs[0].parameters["shared_memory_region"].string_param = "x"
    with pytest.raises(InvalidInput, match=r"inputs\[0\].parameters: 'shared_memory_region'"):
        read_inputs(request, SPECS, MOST)
