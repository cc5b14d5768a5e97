"""Tells a service manager how far the server is: systemd's `Type=notify`."""

from __future__ import annotations

import logging
import os
import socket

_log = logging.getLogger("trunkline_serve")


def ready() -> None:
    """Says that the server answers."""
    _send("READY=1")


def stopping() -> None:
    """Says that the server drains."""
    _send("STOPPING=1")


def _send(state: str) -> None:
    """Sends a state to the socket that the manager named, if it named one."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):  # a name that is in no file system begins with NUL
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            channel.sendto(state.encode(), address)
    except OSError as error:
        _log.warning("the service manager was not told %s: %s", state, error)
