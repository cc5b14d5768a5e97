"""What goes to a terminal: text of others must not move its cursor, or ring its bell."""

from __future__ import annotations

import json
import os
import re
from typing import Any, TextIO

# Control characters, among them those that begin escape sequences, and what reverses a line.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def printable(text: str, keep: str = "") -> str:
    """Returns a text with control characters escaped as Python does, but for those of `keep`."""
    return _UNSAFE.sub(lambda found: _escaped(found[0], keep), text)


def json_line(value: object) -> str:
    """Returns a value as JSON in one line, readable in any script, without control characters."""
    text = json.dumps(value, ensure_ascii=False)
    return _UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


class Lasting:
    """A stream that goes on, into nothing, when its reader has gone.

    Work that was asked for is done whether or not somebody still reads about it.

    Args:
        stream: Over a file descriptor; has all the rest.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Writes a text; returns how many characters."""
        try:
            return self._stream.write(text)
        except BrokenPipeError:
            self._discard()
            return len(text)

    def flush(self) -> None:
        """Writes what is buffered."""
        try:
            self._stream.flush()
        except BrokenPipeError:
            self._discard()

    def _discard(self) -> None:
        discard(self._stream)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def discard(stream: TextIO) -> None:
    """Sends all that is still written to a stream, what it has buffered too, to nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def _escaped(letter: str, keep: str) -> str:
    return letter if letter in keep else ascii(letter)[1:-1]
