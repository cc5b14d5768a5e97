"""Counts the fields of a message before it is parsed.

Two bytes can stand for a document, and a parsed one takes eighty: four megabytes of them would
become three hundred, and hold up everybody else while they do.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from google.protobuf.descriptor import Descriptor

Inner = Mapping[int, Descriptor]
"""Keys of the fields that hold messages, and what they hold."""

_VARINT, _EIGHT, _BYTES, _FOUR = 0, 1, 2, 5  # wire types; groups begin and end with no value
_MORE = 0x80  # a byte of a number has one behind it
_MOST_SHIFT = 63
_SIZES = {_EIGHT: 8, _FOUR: 4}


def holds_more(data: bytes, kind: Descriptor, most: int) -> bool:
    """Returns whether a message has more fields than that, those of messages in it included.

    Where the bytes are no message, it counts as far as they can be read: so does the parser.
    """
    try:
        return _count(data, 0, len(data), kind, most) < 0
    except IndexError:
        return False


def _count(data: bytes, at: int, end: int, kind: Descriptor, left: int) -> int:
    """Returns what is left of `left` behind the fields from `at` to `end`; negative if too few."""
    inner = _inner(kind)
    while at < end and left >= 0:
        left -= 1
        key, at = _varint(data, at)
        wire = key & 7
        if wire == _BYTES:
            size, at = _varint(data, at)
            held = inner.get(key)
            if held is not None:
                left = _count(data, at, min(at + size, end), held, left)
            at += size
        elif wire == _VARINT:
            _, at = _varint(data, at)
        else:
            at += _SIZES.get(wire, 0)
    return left


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Returns a number, and where the next byte is."""
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & ~_MORE) << shift
        if byte < _MORE:
            return value, at
        shift += 7
        if shift > _MOST_SHIFT:
            raise IndexError


@cache
def _inner(kind: Descriptor) -> Inner:
    return {
        field.number << 3 | _BYTES: field.message_type
        for field in kind.fields
        if field.message_type is not None
    }
