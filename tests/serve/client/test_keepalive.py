"""Pings that keep a connection known to be alive."""

import threading
from collections.abc import Iterator

import pytest

from trunkline_serve.client import Client

pytestmark = pytest.mark.slow


def test_the_server_permits_the_clients_pings(address: str) -> None:
    def source() -> Iterator[str]:
        yield "Ada"
        threading.Event().wait(45)  # the fourth ping too early would end the connection
        yield "Rome"

    with Client(address, keepalive=10) as client:
        assert len(list(client.analyze_stream(source()))) == 2
