"""How a client reaches its server: what both clients are told, checked before anything is sent."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any

import grpc

from trunkline.errors import ConfigError
from trunkline.ranges import Count, CountOrZero, Positive, Range
from trunkline.structure import check_fields

# The server bounds requests. A response grows with the text, and only the caller's own.
OPTIONS = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]

# Seconds; a server of ours hangs up on clients that ping more often.
_Keepalive = Annotated[float, Range(least=10.0, most=86_400.0)]
_PING_PATIENCE_MS = 10_000
# By default gRPC waits 1 s before it connects again, and up to 2 min: longer than our retries.
_RECONNECT = [("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 5_000)]
_LOCAL_SOCKETS = ("unix:", "unix-abstract:")
_URLS = ("http://", "https://", "grpc://")
_LAST_PORT = 65_535
_SCHEMES = ("dns:", "ipv4:", "ipv6:")


@dataclass(frozen=True)
class Tls:
    """Encryption; without any file the server must be vouched for by a well-known authority.

    Attributes:
        ca: PEM file of the authorities that vouch for the server.
        certificate: PEM file of the client's own certificate chain, for a server that asks for it.
        key: PEM file of its private key.
        server_name: The name in the server's certificate, where it is not that of the target.

    Raises:
        ConfigError: A certificate comes without its key, or the other way round, or what is given
            is no path.
    """

    ca: str | Path | None = None
    certificate: str | Path | None = None
    key: str | Path | None = None
    server_name: str | None = None

    def __post_init__(self) -> None:
        """Refuses half a pair."""
        for name in ("ca", "certificate", "key", "server_name"):
            if not isinstance(value := getattr(self, name), str | Path | None) or value == "":
                raise ConfigError(f"tls.{name}: expected a string, got {value!r}")
        if (self.certificate is None) != (self.key is None):
            raise ConfigError("tls: a certificate and its key go together; give both")

    def credentials(self) -> grpc.ChannelCredentials:
        """Reads the files.

        Raises:
            ConfigError: A file cannot be read.
        """
        return grpc.ssl_channel_credentials(
            _read(self.ca, "tls.ca"),
            _read(self.key, "tls.key"),
            _read(self.certificate, "tls.certificate"),
        )


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a client is told; see `Client`.

    Raises:
        ConfigError: A value is out of range, or a token would travel in the open.
    """

    target: str
    timeout: Positive
    retries: CountOrZero
    concurrency: Count
    keepalive: _Keepalive | None
    wait_for_ready: bool
    tls: Tls | None
    token: str | None
    insecure_token: bool

    def __post_init__(self) -> None:
        """Refuses what could not work or is not safe."""
        try:
            check_fields(self)
        except ValueError as error:
            raise ConfigError(str(error)) from None
        _check_target(self.target)
        if self.token is not None:
            self._check_token(self.token)

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What goes with each call."""
        return () if self.token is None else (("authorization", f"Bearer {self.token}"),)

    def channel(self, module: Any) -> Any:
        """Returns a channel of `grpc` or `grpc.aio`, whichever is given.

        Raises:
            ConfigError: A file of certificates cannot be read.
        """
        if self.tls is None:
            return module.insecure_channel(self.target, options=self._arguments())
        return module.secure_channel(self.target, self.tls.credentials(), options=self._arguments())

    def _arguments(self) -> list[tuple[str, Any]]:
        arguments: list[tuple[str, Any]] = [*OPTIONS, *_RECONNECT]
        if self.keepalive is not None:
            arguments += [
                ("grpc.keepalive_time_ms", int(self.keepalive * 1000)),
                ("grpc.keepalive_timeout_ms", _PING_PATIENCE_MS),
                # A stream may wait long for its next document; gRPC stops pinging after two pings.
                ("grpc.http2.max_pings_without_data", 0),
            ]
        if self.tls is not None and self.tls.server_name is not None:
            arguments.append(("grpc.ssl_target_name_override", self.tls.server_name))
        if is_loopback(self.target):
            arguments.append(("grpc.enable_http_proxy", 0))  # it would carry the token off
        return arguments

    def _check_token(self, token: str) -> None:
        _check(
            token.isascii() and token.isprintable() and token.split() == [token],
            "token: is empty, or holds a blank or a character that cannot be sent",
        )
        _check(
            self.tls is not None or self.insecure_token or is_loopback(self.target),
            f"token: {self.target} is not of this machine and the connection is not encrypted, "
            "anybody on the way could read the token; give tls, or insecure_token=True",
        )


def _check_target(target: str) -> None:
    """Refuses what gRPC would take for another address than was meant."""
    port = target.rpartition(":")[2]
    _check(target != "", "target: is empty; give HOST:PORT")
    _check(
        not target.startswith(_URLS),
        f"target: {target} is a URL; give HOST:PORT, and tls for https",
    )
    _check(
        not port.isdecimal() or int(port) <= _LAST_PORT or target.count(":") > 1,
        f"target: {target} has a port above {_LAST_PORT}",
    )


def is_loopback(target: str) -> bool:
    """Tells whether a gRPC target is on this machine, for sure."""
    if target.startswith(_LOCAL_SOCKETS):
        return True
    address = target.rpartition("/")[2]
    for scheme in _SCHEMES:
        address = address.removeprefix(scheme)
    return all(_is_local(_host(one)) for one in address.split(","))


def _host(address: str) -> str:
    if address.startswith("["):
        return address[1:].partition("]")[0]
    bare_ipv6 = address.count(":") > 1
    return address if bare_ipv6 else address.partition(":")[0]


def _is_local(host: str) -> bool:
    try:
        return host.lower() == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _check(fine: bool, message: str) -> None:
    if not fine:
        raise ConfigError(message)


def _read(path: str | Path | None, name: str) -> bytes | None:
    if path is None:
        return None
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"{name}: cannot read {path} ({error.strerror})") from None
