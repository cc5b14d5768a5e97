"""What both clients are made of."""

from __future__ import annotations

from typing import Any

from trunkline_serve.client.messages import Stubs
from trunkline_serve.client.options import Options, Tls
from trunkline_serve.client.retry import Attempts
from trunkline_serve.description import Limits

LOAD_SECONDS = 300.0  # to read, test and warm a model, where a call takes milliseconds


class Base:
    """Options, connection and the start of each call.

    Args:
        target: Address of the server, e.g. `127.0.0.1:50051`.
        timeout: Seconds that each call may take, with all tries and the waits between them.
        retries: Most new tries of a call that met `Unavailable` or `Overloaded`.
        concurrency: Most calls at a time that a long list of texts is cut into.
        keepalive: Seconds between pings that find a dead connection; at least 10; None for none.
        wait_for_ready: Whether calls wait for a server that is not there yet, until the deadline.
        tls: Encrypts the connection.
        token: Sent with each call as bearer token.
        insecure_token: Whether it may be sent unencrypted to another machine.

    Raises:
        ConfigError: A value is out of range, a file cannot be read, or the token would travel in
            the open.
    """

    _module: Any
    """`grpc` or `grpc.aio`."""

    def __init__(
        self,
        target: str,
        timeout: float = 30.0,
        *,
        retries: int = 3,
        concurrency: int = 2,
        keepalive: float | None = 30.0,
        wait_for_ready: bool = False,
        tls: Tls | None = None,
        token: str | None = None,
        insecure_token: bool = False,
    ) -> None:
        self._options = Options(
            target=target,
            timeout=timeout,
            retries=retries,
            concurrency=concurrency,
            keepalive=keepalive,
            wait_for_ready=wait_for_ready,
            tls=tls,
            token=token,
            insecure_token=insecure_token,
        )
        self._channel = self._options.channel(self._module)
        self._stubs = Stubs.over(self._channel)
        self._limits: Limits | None = None

    def _attempts(self, again: bool, timeout: float | None = None) -> Attempts:
        retries = self._options.retries if again else 0
        return Attempts(self._options.timeout if timeout is None else timeout, retries)

    def _arguments(self, timeout: float | None) -> dict[str, Any]:
        """Returns what goes with a call beside its request."""
        return {
            "timeout": timeout,
            "metadata": self._options.metadata,
            "wait_for_ready": self._options.wait_for_ready,
        }
