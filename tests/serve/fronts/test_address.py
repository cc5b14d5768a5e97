import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest

from trunkline.errors import ConfigError
from trunkline_serve.fronts.address import Port
from trunkline_serve.settings import Listen


@contextmanager
def listening(port: int, *options: int) -> Iterator[None]:
    with socket.socket() as one:
        for option in options:
            one.setsockopt(socket.SOL_SOCKET, option, 1)
        one.bind(("127.0.0.1", port))
        one.listen()
        yield


def test_several_may_listen_on_a_held_port() -> None:
    with (
        closing(Port(Listen(port=0))) as port,
        listening(port.number, socket.SO_REUSEPORT),
        listening(port.number, socket.SO_REUSEPORT),
        socket.create_connection(("127.0.0.1", port.number)),
    ):
        pass


def test_a_held_port_is_taken_for_everybody_else() -> None:
    with closing(Port(Listen(port=0))) as port:
        with pytest.raises(OSError, match="in use"), listening(port.number):
            pass
        with pytest.raises(ConfigError, match=f"cannot listen on 127.0.0.1:{port.number}"):
            Port(Listen(port=port.number))


def test_a_port_that_others_share_is_taken() -> None:
    with closing(Port(Listen(port=0))) as port:
        number = port.number
    with (
        listening(number, socket.SO_REUSEPORT),
        pytest.raises(ConfigError, match="in use or not of this machine"),
    ):
        Port(Listen(port=number))


def test_a_port_is_free_again() -> None:
    with closing(Port(Listen(port=0))) as port:
        number = port.number
    with closing(Port(Listen(port=number))) as again:
        assert again.number == number


def test_a_host_elsewhere_is_told() -> None:
    with pytest.raises(ConfigError, match=r"cannot listen on 192\.0\.2\.1:"):
        Port(Listen(host="192.0.2.1", port=0))


def test_a_port_that_cannot_be_is_told() -> None:
    with pytest.raises(ConfigError, match=r"cannot listen on .*:70000"):
        Port(Listen(port=70_000))
