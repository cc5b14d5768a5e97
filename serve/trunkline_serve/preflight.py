"""What can be told of a server's settings at once: before models are loaded, which takes long."""

from __future__ import annotations

import socket
from contextlib import suppress
from pathlib import Path

from trunkline.bundle import MANIFEST
from trunkline.device import parse_devices
from trunkline.errors import ConfigError
from trunkline_serve.observe.tracing import check_installed
from trunkline_serve.security.tls import check_files
from trunkline_serve.security.tokens import check_tokens
from trunkline_serve.settings import Settings


def check_settings(settings: Settings) -> None:
    """Refuses settings that the server would refuse once its models are loaded.

    Raises:
        ConfigError: A device is unknown, the folder of models is none, a file cannot be used, or an
            address cannot be listened on.
        MissingExtra: Traces are asked for, and OpenTelemetry is not installed.
    """
    parse_devices(settings.compute.device)
    if settings.models.folder is not None:
        _check_models(Path(settings.models.folder))
    if settings.auth.tokens is not None:
        check_tokens(settings.auth.tokens)
    if settings.tls.certificate is not None:
        check_files(settings.tls)
    if settings.tracing.endpoint is not None:
        check_installed()
    _check_free("listen", settings.listen.host, settings.listen.port)
    if settings.metrics.port is not None:
        _check_free("metrics", settings.metrics.host, settings.metrics.port)


def _check_models(folder: Path) -> None:
    """Raises ConfigError unless it is a folder that bundles can be found in."""
    if (folder / MANIFEST).is_file():
        mend = f"serve it as a BUNDLE, or give the folder that holds it, {folder.resolve().parent}"
        raise ConfigError(f"models.folder: {folder} is a bundle; {mend}")
    try:
        next(folder.iterdir(), None)
    except OSError as error:
        mend = "check the path"
        raise ConfigError(f"models.folder: {folder}: {error.strerror}; {mend}") from None


def _check_free(section: str, host: str, port: int) -> None:
    """Raises ConfigError unless one of the addresses that a host stands for can be listened on."""
    try:
        found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise ConfigError(
            f"{section}.host: {host!r} is no address of this machine; choose another"
        ) from None
    for family, _, _, _, address in found:
        with suppress(OSError), socket.socket(family) as probe:
            # It passes over what the system still remembers of a server that has ended.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            return
    raise ConfigError(
        f"cannot listen on {host}:{port} ({section}); it is in use or not of this machine,"
        " choose another host or port"
    )
