import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.runtime.samples import texts
from trunkline.offsets import OffsetMap, OffsetUnit

LENGTHS = {
    OffsetUnit.CODE_POINT: len,
    OffsetUnit.UTF8_BYTE: lambda text: len(text.encode()),
    OffsetUnit.UTF16_UNIT: lambda text: len(text.encode("utf-16-le")) // 2,
}


@pytest.mark.parametrize("unit", OffsetUnit)
@given(text=texts | st.text())
def test_every_offset_is_the_length_of_the_text_before_it(unit: OffsetUnit, text: str) -> None:
    offsets = OffsetMap(text, unit)
    for at in range(len(text) + 1):
        assert offsets(at) == LENGTHS[unit](text[:at])
        assert type(offsets(at)) is int


@pytest.mark.parametrize("point", [0x7F, 0x80, 0x7FF, 0x800, 0xFFFF, 0x10000, 0x10FFFF])
@pytest.mark.parametrize("unit", OffsetUnit)
def test_the_borders_of_the_encodings_are_kept(unit: OffsetUnit, point: int) -> None:
    text = chr(point) * 3
    assert [OffsetMap(text, unit)(at) for at in range(4)] == [
        at * LENGTHS[unit](chr(point)) for at in range(4)
    ]
