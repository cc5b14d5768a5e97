"""gRPC calls by hand, over a bare socket: for what a well-behaved library never does.

Just enough of HTTP/2 (RFC 9113) and HPACK (RFC 7541) for one call on a connection.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RESET, _SETTINGS, _PING, _WINDOW = 0, 1, 3, 4, 6, 8
_END_STREAM, _ACK, _END_HEADERS = 1, 1, 4
_INITIAL_WINDOW = 4  # the setting
_STREAM = 1
_MOST = 16_384  # bytes of a frame
_SECONDS = 60.0


@dataclass
class Wire:
    """A connection with at most one call on it.

    Attributes:
        socket: The connection.
        window: Bytes of replies that the server may send before it is told that more are taken.
        received: Bytes of replies so far, with gRPC's five in front of each.
        ended: Whether the server has ended the call.
    """

    socket: socket.socket
    window: int
    received: bytearray = field(default_factory=bytearray)
    ended: bool = False

    def greet(self) -> None:
        """Sends what a client says first."""
        settings = struct.pack(">HI", _INITIAL_WINDOW, self.window)
        self.socket.sendall(PREFACE + _frame(_SETTINGS, 0, 0, settings))

    def open(self, path: str) -> None:
        """Begins a call."""
        headers = _headers(path)
        self.socket.sendall(_frame(_HEADERS, _END_HEADERS, _STREAM, headers))

    def open_many(self, path: str, count: int, message: bytes | None = None) -> None:
        """Begins so many calls; without a message, their requests never come."""
        for stream in range(_STREAM, _STREAM + 2 * count, 2):
            call = _frame(_HEADERS, _END_HEADERS, stream, _headers(path))
            if message is not None:
                call += _frame(_DATA, _END_STREAM, stream, framed(message))
            self.socket.sendall(call)

    def send(self, message: bytes, *, last: bool = True) -> None:
        """Sends a message of the call."""
        self.send_bytes(framed(message), last=last)

    def send_bytes(self, data: bytes, *, last: bool) -> None:
        """Sends any bytes of the call's body."""
        for at in range(0, len(data), _MOST):
            part = data[at : at + _MOST]
            flags = _END_STREAM if last and at + _MOST >= len(data) else 0
            self.socket.sendall(_frame(_DATA, flags, _STREAM, part))

    def take(self) -> bytes:
        """Lets the server send all of its replies; returns the bytes of them.

        Raises:
            OSError: The connection broke.
            TimeoutError: The end did not come.
        """
        plenty = struct.pack(">I", 2**30)
        self.socket.sendall(_frame(_WINDOW, 0, 0, plenty) + _frame(_WINDOW, 0, _STREAM, plenty))
        while not self.ended:
            self._hear(*self._frame())
        return bytes(self.received)

    def vanish(self) -> None:
        """Breaks the connection off: the server gets a reset, not an end."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def _frame(self) -> tuple[int, int, int, bytes]:
        head = self._exactly(9)
        kind, flags, stream = struct.unpack(">BBI", head[3:])
        return kind, flags, stream, self._exactly(int.from_bytes(head[:3]))

    def _hear(self, kind: int, flags: int, stream: int, body: bytes) -> None:
        if kind in (_SETTINGS, _PING) and not flags & _ACK:
            answer = body if kind == _PING else b""
            self.socket.sendall(_frame(kind, _ACK, 0, answer))
        if stream == _STREAM:
            self.received += body if kind == _DATA else b""
            self.ended |= kind == _RESET or (kind <= _HEADERS and bool(flags & _END_STREAM))

    def _exactly(self, count: int) -> bytes:
        data = bytearray()
        while len(data) < count:
            more = self.socket.recv(count - len(data))
            if not more:
                raise ConnectionError("the server hung up")
            data += more
        return bytes(data)


@contextmanager
def wire_to(address: str, window: int = 65_535) -> Iterator[Wire]:
    """Opens a connection, on which nothing has been said."""
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), _SECONDS) as connection:
        yield Wire(connection, window)


def framed(message: bytes) -> bytes:
    """Returns a message as it stands in a body."""
    return struct.pack(">BI", 0, len(message)) + message


def unframed(body: bytes) -> list[bytes]:
    """Returns the whole messages of a body."""
    found, at = [], 0
    while at + 5 <= len(body):
        size = int.from_bytes(body[at + 1 : at + 5])
        if at + 5 + size <= len(body):
            found.append(body[at + 5 : at + 5 + size])
        at += 5 + size
    return found


def _frame(kind: int, flags: int, stream: int, body: bytes) -> bytes:
    return len(body).to_bytes(3) + struct.pack(">BBI", kind, flags, stream) + body


def _headers(path: str) -> bytes:
    fields = {
        ":method": "POST",
        ":scheme": "http",
        ":path": path,
        ":authority": "localhost",
        "te": "trailers",
        "content-type": "application/grpc",
    }
    return b"".join(_literal(name.encode(), value.encode()) for name, value in fields.items())


def _literal(name: bytes, value: bytes) -> bytes:
    """Returns a header that is neither compressed nor remembered."""
    return b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value
