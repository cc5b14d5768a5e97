"""Fields are counted as the parser would find them, before it makes anything of them."""

from typing import Any

import pytest
from google.protobuf.message import Message
from hypothesis import given, settings
from hypothesis import strategies as some

from trunkline.v1 import analysis_service_pb2 as pb
from trunkline_serve.oip.v1 import open_inference_pb2 as oip
from trunkline_serve.rpc.counting import holds_more

texts = some.text(min_size=1, max_size=200)
questions = some.builds(pb.Question, text=texts)
documents = some.builds(
    pb.Document,
    text=texts,
    tasks=some.lists(some.text(max_size=3), max_size=3),
    questions=some.lists(questions, max_size=2),
    text_pair=some.none() | texts,
)
requests = some.builds(
    pb.AnalyzeRequest,
    model=texts,
    model_version=some.integers(-(2**63), 2**63 - 1).filter(bool),
    documents=some.lists(documents, max_size=4),
)


def fields(message: Message) -> int:
    """Returns how many fields a message has, those of messages in it included."""
    count = 0
    for described, value in message.ListFields():
        values: Any = value if described.is_repeated else [value]
        count += len(values)
        if described.message_type is not None:
            count += sum(map(fields, values))
    return count


@settings(deadline=None)
@given(request=requests)
def test_every_field_counts_once(request: pb.AnalyzeRequest) -> None:
    data, count = request.SerializeToString(), fields(request)
    assert not holds_more(data, pb.AnalyzeRequest.DESCRIPTOR, count)
    assert holds_more(data, pb.AnalyzeRequest.DESCRIPTOR, count - 1)


@settings(deadline=None)
@given(data=some.binary(max_size=300))
def test_any_bytes_can_be_counted(data: bytes) -> None:
    assert not holds_more(data, pb.AnalyzeRequest.DESCRIPTOR, 300)


@pytest.mark.parametrize(
    "data",
    [b"\x1a\x00" * 9, b"\x78\x01" * 9, b"\x7b\x7c" * 5, b"\x7d1234" * 9, b"\x79" * 81],
    ids=["messages", "numbers", "groups", "four bytes", "eight bytes"],
)
def test_fields_of_any_type_count(data: bytes) -> None:
    assert holds_more(data, pb.AnalyzeRequest.DESCRIPTOR, 8)


def test_packed_numbers_are_one_field() -> None:
    packed = oip.InferTensorContents(int64_contents=range(10_000)).SerializeToString()
    assert not holds_more(packed, oip.InferTensorContents.DESCRIPTOR, 1)
