"""Open Inference requests, right ones and ones with a fault."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np

from tests.faults.serving.oracle import Oracle, apart
from trunkline_serve.oip.v1 import open_inference_pb2 as pb

INFER = "/inference.GRPCInferenceService/ModelInfer"
BAD = frozenset({grpc.StatusCode.INVALID_ARGUMENT})
MISSING = frozenset({grpc.StatusCode.NOT_FOUND})
_EITHER = BAD | MISSING
_ODD_SIZES = (-1, -(2**63), 0, 2**31, 2**62, 2**63 - 1)
_NOT_UTF_8 = (b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xc0\x80", b"Z\xfcrich")

Request = pb.ModelInferRequest
Codes = frozenset[grpc.StatusCode]


@dataclass(frozen=True)
class Malformed:
    """A request with a fault: its bytes, what the fault is, and what may be said to it."""

    data: bytes
    fault: str
    codes: Codes


class Requests:
    """Makes requests to a model, the same ones for the same seed.

    Args:
        oracle: The model, and the texts it is asked about.
        seed: Decides on the requests.
    """

    def __init__(self, oracle: Oracle, seed: int) -> None:
        self._oracle = oracle
        self._random = np.random.default_rng(seed)
        # Every task that reads nothing but the text.
        self._tasks = [spec.name for spec in oracle.tasks if not spec.pair and spec.labels]

    def good(self) -> tuple[bytes, list[str]]:
        """Returns a request with no fault, and the texts in it."""
        request, texts = self._texts()
        return request.SerializeToString(), texts

    def complaint(self, response: pb.ModelInferResponse, texts: Sequence[str]) -> str:
        """Returns what is wrong with the answer to a good request; empty if nothing is."""
        versions = {str(version): version for version in self._oracle.versions}
        if response.model_version not in versions:
            return f"answered by version {response.model_version!r}"
        wanted = self._oracle.annotations(texts, self._tasks, versions[response.model_version])
        try:
            found = _annotations_of(response)
        except ValueError as error:
            return f"answered with what is no JSON: {error}"
        return apart(wanted, found, "annotations")

    def malformed(self) -> Malformed:
        """Returns a request with one fault."""
        if self._random.random() < _SHARE_OF_BYTES:
            return self._pick(_BYTES)(self)
        spoil, codes, tensors = self._pick(_FAULTS)
        request = self._tensors() if tensors else self._texts()[0]
        spoil(request, self)
        return Malformed(request.SerializeToString(), spoil.__name__.strip("_"), codes)

    def integer(self, most: int) -> int:
        """Returns a number below `most`."""
        return int(self._random.integers(most))

    def junk(self, most: int) -> bytes:
        """Returns up to `most` random bytes."""
        return self._random.bytes(1 + self.integer(most))

    def one_of(self, things: Sequence[Any]) -> Any:
        """Returns one of some things."""
        return self._pick(things)

    def _pick(self, things: Sequence[Any]) -> Any:
        return things[self.integer(len(things))]

    def _texts(self) -> tuple[Request, list[str]]:
        documents = self._oracle.documents
        texts = [self._pick(documents).text for _ in range(1 + self.integer(3))]
        request = Request(model_name=self._oracle.name)
        request.parameters["tasks"].string_param = ",".join(self._tasks)
        request.inputs.add(name="TEXT", datatype="BYTES", shape=[len(texts)])
        request.raw_input_contents.append(strings(*(text.encode() for text in texts)))
        return request, texts

    def _tensors(self) -> Request:
        shape = [1 + self.integer(3), 2 + self.integer(6)]
        request = Request(model_name=f"{self._oracle.name}.tensors")
        for name in ("input_ids", "attention_mask"):
            request.inputs.add(name=name, datatype="INT64", shape=shape)
            request.raw_input_contents.append(np.ones(shape, "<i8").tobytes())
        return request


def strings(*texts: bytes) -> bytes:
    """Returns byte strings as they stand in a raw tensor."""
    return b"".join(len(text).to_bytes(4, "little") + text for text in texts)


def _annotations_of(response: pb.ModelInferResponse) -> dict[str, Any]:
    """Returns what an answer says, by task."""
    outputs = zip(response.outputs, response.raw_output_contents, strict=True)
    return {one.name: [json.loads(text) for text in _strings_of(raw)] for one, raw in outputs}


def _strings_of(raw: bytes) -> list[bytes]:
    found, at = [], 0
    while at < len(raw):
        size = int.from_bytes(raw[at : at + 4], "little")
        found.append(raw[at + 4 : at + 4 + size])
        at += 4 + size
    return found


def _cut_short(request: Request, by: Requests) -> None:
    raw = request.raw_input_contents[0]
    request.raw_input_contents[0] = raw[: by.integer(len(raw))]


def _too_long(request: Request, by: Requests) -> None:
    request.raw_input_contents[0] += by.junk(9)


def _lying_length(request: Request, by: Requests) -> None:
    lie = by.one_of((2**32 - 1, 2**31, 10**6))
    request.raw_input_contents[0] = lie.to_bytes(4, "little") + request.raw_input_contents[0][4:]


def _odd_size(request: Request, by: Requests) -> None:
    request.inputs[0].shape[0] = by.one_of(_ODD_SIZES)


def _huge_shape(request: Request, by: Requests) -> None:
    request.inputs[0].shape[:] = [by.one_of((2**31, 2**62))] * by.one_of((1, 2, 64))


def _other_size(request: Request, by: Requests) -> None:
    request.inputs[0].shape[0] += 1 + by.integer(50)


def _more_dimensions(request: Request, by: Requests) -> None:
    request.inputs[0].shape.extend([2] * (1 + by.integer(30)))


def _no_shape(request: Request, by: Requests) -> None:
    del request.inputs[0].shape[:]


def _other_type(request: Request, by: Requests) -> None:
    request.inputs[0].datatype = by.one_of(("FP32", "BOOL", "INT8", "", "bytes", "x" * 1000))


def _other_input(request: Request, by: Requests) -> None:
    request.inputs[0].name = by.one_of(("", "text", "TEXT ", "../TEXT", "x" * 1000))


def _same_input_twice(request: Request, by: Requests) -> None:
    request.inputs.append(request.inputs[0])
    request.raw_input_contents.append(request.raw_input_contents[0])


def _no_inputs(request: Request, by: Requests) -> None:
    del request.inputs[:]
    del request.raw_input_contents[:]


def _more_raw_than_inputs(request: Request, by: Requests) -> None:
    request.raw_input_contents.extend([by.junk(30)] * (1 + by.integer(5)))


def _raw_and_typed(request: Request, by: Requests) -> None:
    request.inputs[0].contents.bytes_contents.append(b"Ada")


def _typed_as_other(request: Request, by: Requests) -> None:
    del request.raw_input_contents[:]
    for tensor in request.inputs:
        tensor.contents.fp32_contents.extend([1.0] * int(np.prod(tensor.shape)))


def _typed_and_short(request: Request, by: Requests) -> None:
    del request.raw_input_contents[:]
    request.inputs[0].contents.SetInParent()


def _not_utf_8(request: Request, by: Requests) -> None:
    request.inputs[0].shape[:] = [1]
    request.raw_input_contents[0] = strings(by.one_of(_NOT_UTF_8))


def _other_model(request: Request, by: Requests) -> None:
    request.model_name = by.one_of(("none", "../tiny", "x" * 5000, "tiny\0", "\u0422INY"))


def _other_version(request: Request, by: Requests) -> None:
    request.model_version = by.one_of(("99", "12345678901234567"))


def _no_version(request: Request, by: Requests) -> None:
    request.model_version = by.one_of(("-1", "0", "1.0", "one", "9" * 400, "\uff11", " 1"))


def _other_output(request: Request, by: Requests) -> None:
    request.outputs.add(name=by.one_of(("none", "", "x" * 1000)))


def _other_task(request: Request, by: Requests) -> None:
    request.parameters["tasks"].string_param = by.one_of(("none", "none,other", "x" * 2000))


def _no_task(request: Request, by: Requests) -> None:
    request.parameters["tasks"].string_param = by.one_of(("", ",", " , "))


def _task_of_other_type(request: Request, by: Requests) -> None:
    request.parameters["tasks"].int64_param = by.integer(9)


def _timeout_of_other_type(request: Request, by: Requests) -> None:
    request.parameters["timeout"].double_param = 1e9


def _shared_memory(request: Request, by: Requests) -> None:
    request.inputs[0].parameters["shared_memory_region"].string_param = "/dev/shm/x"


def _odd_ids(request: Request, by: Requests) -> None:
    ids = np.frombuffer(request.raw_input_contents[0], "<i8").copy()
    ids[by.integer(len(ids))] = by.one_of((-1, 2**40, 2**63 - 1, -(2**63)))
    request.raw_input_contents[0] = ids.tobytes()


def _odd_mask(request: Request, by: Requests) -> None:
    mask = np.frombuffer(request.raw_input_contents[1], "<i8").copy()
    mask[by.integer(len(mask))] = by.one_of((-1, 2, 2**62))
    request.raw_input_contents[1] = mask.tobytes()


def _empty_rows(request: Request, by: Requests) -> None:
    request.raw_input_contents[1] = bytes(len(request.raw_input_contents[1]))


def _endless_rows(request: Request, by: Requests) -> None:
    size = 20_000 + by.integer(20_000)
    for at, tensor in enumerate(request.inputs):
        tensor.shape[:] = [1, size]
        request.raw_input_contents[at] = np.ones(size, "<i8").tobytes()


def _shapes_that_differ(request: Request, by: Requests) -> None:
    size = request.inputs[1].shape[1] + 1 + by.integer(5)
    shape = [request.inputs[1].shape[0], size]
    request.inputs[1].shape[:] = shape
    request.raw_input_contents[1] = np.ones(shape, "<i8").tobytes()


Spoil = Callable[[Request, Requests], None]
_OF_ANY: tuple[tuple[Spoil, Codes], ...] = (
    (_cut_short, BAD),
    (_too_long, BAD),
    (_odd_size, BAD),
    (_huge_shape, BAD),
    (_other_size, BAD),
    (_more_dimensions, BAD),
    (_no_shape, BAD),
    (_other_type, BAD),
    (_other_input, BAD),
    (_same_input_twice, BAD),
    (_no_inputs, BAD),
    (_more_raw_than_inputs, BAD),
    (_raw_and_typed, BAD),
    (_typed_as_other, BAD),
    (_typed_and_short, BAD),
    (_other_model, MISSING),
    (_other_version, MISSING),
    (_no_version, BAD),
    (_other_output, _EITHER),
    (_timeout_of_other_type, BAD),
    (_shared_memory, BAD),
)
_OF_TEXTS: tuple[tuple[Spoil, Codes], ...] = (
    (_lying_length, BAD),
    (_not_utf_8, BAD),
    (_other_task, MISSING),
    (_no_task, BAD),
    (_task_of_other_type, BAD),
)
_OF_TENSORS: tuple[tuple[Spoil, Codes], ...] = (
    (_odd_ids, BAD),
    (_odd_mask, BAD),
    (_empty_rows, BAD),
    (_endless_rows, BAD),
    (_shapes_that_differ, BAD),
)
_FAULTS = [
    *((spoil, codes, False) for spoil, codes in (*_OF_ANY, *_OF_TEXTS)),
    *((spoil, codes, True) for spoil, codes in (*_OF_ANY, *_OF_TENSORS)),
]


def _torn(by: Requests) -> Malformed:
    """Cuts the bytes of a request inside its last field."""
    data = by.good()[0]
    return Malformed(data[: len(data) - 1 - by.integer(4)], "torn", BAD)


def _wrong_name_bytes(by: Requests) -> Malformed:
    """Names a model in bytes that are no string."""
    name = by.one_of(_NOT_UTF_8)
    return Malformed(bytes([10, len(name)]) + name, "name is not UTF-8", BAD)


def _endless_field(by: Requests) -> Malformed:
    """Announces a field longer than everything."""
    return Malformed(b"\x0a\xff\xff\xff\xff\x0f" + by.junk(20), "endless field", BAD)


def _deep_groups(by: Requests) -> Malformed:
    """Opens groups in groups, thousands deep."""
    return Malformed(b"\x7b" * (1000 + by.integer(5000)), "deep groups", BAD)


_BYTES: tuple[Callable[[Requests], Malformed], ...] = (
    _torn,
    _wrong_name_bytes,
    _endless_field,
    _deep_groups,
)
_SHARE_OF_BYTES = 0.1
