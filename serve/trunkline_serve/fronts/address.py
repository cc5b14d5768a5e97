"""One port for several processes: found, checked and kept by their supervisor."""

from __future__ import annotations

import socket
from contextlib import ExitStack

from trunkline.errors import ConfigError
from trunkline_serve.settings import Listen


class Port:
    """A port that other processes of this user may listen on, all at once.

    It is held by sockets that are bound but never listen, so that nobody else gets it while no
    front is alive.

    Args:
        listen: Host and port; port 0 takes a free one.

    Attributes:
        number: The port.

    Raises:
        ConfigError: It is in use, or the host is not of this machine.
    """

    def __init__(self, listen: Listen) -> None:
        self.number = listen.port
        with ExitStack() as stack:
            try:
                for family, host in _hosts(listen.host):
                    self._take(stack, family, host)
            except (OSError, OverflowError):
                raise ConfigError(
                    f"cannot listen on {listen.host}:{self.number}; it is in use or not of this "
                    "machine, choose another host or port"
                ) from None
            self._held = stack.pop_all()

    def close(self) -> None:
        """Lets it go."""
        self._held.close()

    def _take(self, stack: ExitStack, family: int, host: str) -> None:
        with socket.socket(family) as alone:
            # It passes over what the system still remembers of a server that has ended. Unlike the
            # option below it does not bear with one that runs.
            alone.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            alone.bind((host, self.number))
            self.number = alone.getsockname()[1]
        held = stack.enter_context(socket.socket(family))
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held.bind((host, self.number))


def _hosts(host: str) -> list[tuple[int, str]]:
    """Returns the addresses that a name stands for, each with its family."""
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return [(family, str(address[0])) for family, _, _, _, address in found]
