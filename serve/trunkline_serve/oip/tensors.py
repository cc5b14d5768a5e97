"""Tensors of the protocol to numpy arrays and back.

Nothing that a caller says of a tensor is believed: its sizes are compared with its bytes before
anything of that size is made. Whatever does not fit is an InvalidInput.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trunkline.errors import InvalidInput, shown
from trunkline_serve.oip.v1 import open_inference_pb2 as pb

Array = NDArray[Any]

_SIZE_BYTES = 4  # in front of each byte string


@dataclass(frozen=True)
class Datatype:
    """One type of elements.

    Attributes:
        name: The protocol's name.
        number: Triton's, in a model's configuration.
        dtype: Of the arrays; byte strings are objects.
        field: Where InferTensorContents has such elements.
        read: (raw bytes, number of elements) to a flat array; raises ValueError.
        write: (array) to raw bytes.
    """

    name: str
    number: pb.DataType
    dtype: np.dtype[Any]
    field: str
    read: Callable[[bytes, int], Array]
    write: Callable[[Array], bytes]


@dataclass(frozen=True)
class Spec:
    """One tensor of a model.

    Attributes:
        name: Its name.
        datatype: Of its elements.
        shape: Its sizes, batch first; -1 for any from 1. A caller may leave out a last 1.
        optional: Whether a caller may leave it out.
    """

    name: str
    datatype: Datatype
    shape: tuple[int, ...]
    optional: bool = False


def _numbers(name: str, number: pb.DataType, dtype: str, field: str) -> Datatype:
    """Returns a type whose elements are numbers of a fixed size."""
    kind = np.dtype(dtype)

    def read(data: bytes, count: int) -> Array:
        if len(data) != count * kind.itemsize:
            raise ValueError(
                f"has {len(data)} bytes, {count} elements of {name} take {count * kind.itemsize}"
            )
        return np.frombuffer(data, kind)

    def write(values: Array) -> bytes:
        return np.ascontiguousarray(values, kind).tobytes()

    return Datatype(name, number, kind, field, read, write)


def _read_strings(data: bytes, count: int) -> Array:
    """Reads byte strings, each behind its length as a little-endian number."""
    strings: list[bytes] = []
    at = 0
    for index in range(count):
        begin = at + _SIZE_BYTES
        at = begin + int.from_bytes(data[at:begin], "little")
        if at > len(data):
            raise ValueError(f"ends inside element {index} of {count}")
        strings.append(data[begin:at])
    if at != len(data):
        raise ValueError(f"has {len(data) - at} bytes behind its {count} elements")
    return _objects(strings)


def _write_strings(values: Array) -> bytes:
    pieces = [(len(one).to_bytes(_SIZE_BYTES, "little"), one) for one in values.flat]
    return b"".join(piece for pair in pieces for piece in pair)


def _objects(strings: Sequence[bytes]) -> Array:
    """Returns byte strings as objects: numpy's own strings lose zero bytes at the end."""
    values = np.empty(len(strings), object)
    values[:] = strings
    return values


BYTES = Datatype(
    "BYTES", pb.TYPE_STRING, np.dtype(object), "bytes_contents", _read_strings, _write_strings
)
INT64 = _numbers("INT64", pb.TYPE_INT64, "<i8", "int64_contents")
FP32 = _numbers("FP32", pb.TYPE_FP32, "<f4", "fp32_contents")


def read_inputs(
    request: pb.ModelInferRequest, specs: Sequence[Spec], most: int
) -> dict[str, Array]:
    """Returns the inputs of a request by name, all of the same shape.

    Args:
        request: Has them raw or typed.
        specs: The inputs of the model.
        most: Largest batch.

    Raises:
        InvalidInput: An input is unknown, missing, given twice, or does not fit its description;
            names the field.
    """
    raw, given = len(request.raw_input_contents), len(request.inputs)
    if raw and raw != given:
        raise InvalidInput("raw_input_contents", f"holds {raw}, one for each of {given}")
    known = {spec.name: spec for spec in specs}
    found: dict[str, Array] = {}
    for at, tensor in enumerate(request.inputs):
        place = f"inputs[{at}]"
        check_known(tensor.name, known, found, f"{place}.name")
        refuse_parameters(tensor.parameters, place)
        if raw and tensor.HasField("contents"):
            reason = "is given beside raw_input_contents; give either"
            raise InvalidInput(f"{place}.contents", reason)
        _check_type(tensor, known[tensor.name], most, place)
        found[tensor.name] = _elements(request, at).reshape(tuple(tensor.shape))
    _check_complete(found, specs)
    return found


def write_outputs(
    response: pb.ModelInferResponse, outputs: Iterable[tuple[Spec, Array]], *, raw: bool
) -> None:
    """Adds outputs to a response, raw or typed."""
    for spec, values in outputs:
        tensor = response.outputs.add(
            name=spec.name, datatype=spec.datatype.name, shape=values.shape
        )
        if raw:
            response.raw_output_contents.append(spec.datatype.write(values))
        else:
            held = getattr(tensor.contents, spec.datatype.field)
            # A row at a time: nothing else runs in Python during one call of `extend`.
            for row in values.reshape(len(values), -1):
                held.extend(row.tolist())


def check_known(name: str, known: Iterable[str], given: Iterable[str], field: str) -> None:
    """Raises InvalidInput unless a tensor's name is known and was not yet given."""
    names = list(known)
    if name not in names:
        raise InvalidInput(field, f"is {shown(name)}; known: {', '.join(names)}")
    if name in given:
        raise InvalidInput(field, f"{name} is given twice")


def refuse_parameters(parameters: Mapping[str, pb.InferParameter], place: str) -> None:
    """Raises InvalidInput if a tensor has any: shared memory and classification are not served."""
    for name in parameters:
        raise InvalidInput(f"{place}.parameters", f"{shown(name)} is not supported; leave it out")


def _check_type(
    tensor: pb.ModelInferRequest.InferInputTensor, spec: Spec, most: int, place: str
) -> None:
    if tensor.datatype != spec.datatype.name:
        reason = f"is {shown(tensor.datatype)}, {spec.name} takes {spec.datatype.name}"
        raise InvalidInput(f"{place}.datatype", reason)
    _check_shape(tensor.shape, spec, most, f"{place}.shape")


def _check_shape(shape: Sequence[int], spec: Spec, most: int, field: str) -> None:
    wanted = spec.shape[:-1] if len(shape) < len(spec.shape) and spec.shape[-1] == 1 else spec.shape
    if len(shape) != len(wanted):
        reason = f"has {len(shape)} dimensions, {spec.name} takes {list(spec.shape)}"
        raise InvalidInput(field, reason)
    if any(size < 1 or limit not in (-1, size) for size, limit in zip(shape, wanted, strict=True)):
        raise InvalidInput(field, f"is {list(shape)}, {spec.name} takes {list(spec.shape)}")
    if shape[0] > most:
        raise InvalidInput(field, f"is {list(shape)}; a batch holds at most {most}")


def _elements(request: pb.ModelInferRequest, at: int) -> Array:
    """Returns the elements of an input whose name, type and shape are checked."""
    tensor = request.inputs[at]
    datatype = _BY_NAME[tensor.datatype]
    count = prod(tensor.shape)
    if not request.raw_input_contents:
        return _typed(tensor.contents, datatype, count, f"inputs[{at}].contents")
    try:
        return datatype.read(request.raw_input_contents[at], count)
    except ValueError as error:
        raise InvalidInput(f"raw_input_contents[{at}]", str(error)) from None


def _typed(contents: pb.InferTensorContents, datatype: Datatype, count: int, field: str) -> Array:
    for given, _ in contents.ListFields():
        if given.name != datatype.field:
            reason = f"is given, {datatype.name} stands in {datatype.field}"
            raise InvalidInput(f"{field}.{given.name}", reason)
    values = getattr(contents, datatype.field)
    if len(values) != count:
        reason = f"holds {len(values)} elements, its shape says {count}"
        raise InvalidInput(f"{field}.{datatype.field}", reason)
    return _objects(values) if datatype is BYTES else np.array(values, datatype.dtype)


def _check_complete(found: Mapping[str, Array], specs: Sequence[Spec]) -> None:
    missing = [spec.name for spec in specs if not spec.optional and spec.name not in found]
    if missing:
        raise InvalidInput("inputs", f"{missing[0]} is missing")
    first, *others = found
    for name in others:
        if found[name].shape != found[first].shape:
            shapes = f"{list(found[name].shape)}, {first} {list(found[first].shape)}"
            raise InvalidInput("inputs", f"{name} has shape {shapes}; they must be equal")


_BY_NAME = {datatype.name: datatype for datatype in (BYTES, INT64, FP32)}
