"""Metrics over HTTP, from a thread of their own."""

from __future__ import annotations

import logging
import socket
import threading
import time
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.exposition import ThreadingWSGIServer

from trunkline.errors import ConfigError

_log = logging.getLogger("trunkline_serve")
_ACCEPT_AGAIN = 0.1  # seconds
_PATIENCE = 5.0  # seconds to wait for a request, or for its reply to be read


class MetricsServer:
    """Serves a registry at `/metrics` until it is closed.

    Args:
        registry: What to serve.
        host: Address to listen on.
        port: Port to listen on; 0 takes a free one.

    Attributes:
        address: `host:port` with the real port.

    Raises:
        ConfigError: The address cannot be listened on.
    """

    def __init__(self, registry: CollectorRegistry, host: str, port: int) -> None:
        try:
            self._server = make_server(
                host, port, make_wsgi_app(registry), _server_of(host, port), _Handler
            )
        except (OSError, OverflowError):
            raise ConfigError(
                f"cannot serve metrics on {host}:{port}; it is in use or not of this machine, "
                "choose another metrics.host or metrics.port"
            ) from None
        shown = f"[{host}]" if ":" in host else host
        self.address = f"{shown}:{self._server.server_port}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, name="trunkline-metrics", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Ends it."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingWSGIServer):
    def get_request(self) -> Any:
        """Takes a connection. Where there is no descriptor for it, it waits and so do others."""
        try:
            return super().get_request()
        except OSError:
            time.sleep(_ACCEPT_AGAIN)
            raise

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A reader that has gone, or never asked, is nothing to worry about."""
        _log.debug("a reader of metrics failed", exc_info=True)


class _SixServer(_Server):
    address_family = socket.AF_INET6


class _Handler(WSGIRequestHandler):
    timeout = _PATIENCE

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing about each request."""


def _server_of(host: str, port: int) -> type[_Server]:
    """Returns the kind of server for a host's family of addresses."""
    family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
    return _SixServer if family is socket.AF_INET6 else _Server
