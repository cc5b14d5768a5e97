"""TLS and mutual TLS, with certificates that may be replaced while the server runs."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import grpc

from trunkline.errors import ConfigError
from trunkline_serve.security.reloading import Reloaded
from trunkline_serve.settings import Tls


def server_credentials(tls: Tls) -> grpc.ServerCredentials:
    """Returns the credentials of one secure port.

    Every new connection looks whether the files changed. Those that are open keep theirs.

    Args:
        tls: With a certificate. With `client_ca`, clients without a certificate of one of those
            authorities are not let in.

    Raises:
        ConfigError: A file cannot be read, is not PEM, or the key is of another certificate.
    """
    paths = [path for path in (tls.certificate, tls.key, tls.client_ca) if path is not None]
    files = Reloaded(paths, lambda: _configuration(tls))

    def changed() -> Any:  # gRPC takes None for "no change"; its types do not say so
        return files.value if files.refresh() else None

    return grpc.dynamic_ssl_server_credentials(files.value, changed, tls.client_ca is not None)


def check_files(tls: Tls) -> None:
    """Raises ConfigError unless the files can be read and fit each other."""
    _configuration(tls)


def _configuration(tls: Tls) -> grpc.ServerCertificateConfiguration:
    """Reads and checks the files: gRPC itself would tell of bad ones only in its own log."""
    assert tls.certificate is not None
    assert tls.key is not None
    chain, key = _content("certificate", tls.certificate), _content("key", tls.key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # Without a password OpenSSL would ask for one on the terminal.
        context.load_cert_chain(tls.certificate, tls.key, password=lambda: b"")
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"tls: {tls.certificate} and {tls.key} do not work ({_reason(error)}); give a PEM "
            "certificate chain and the key of its first certificate, without a password"
        ) from None
    roots = None if tls.client_ca is None else _roots(context, tls.client_ca)
    return grpc.ssl_server_certificate_configuration([(key, chain)], roots)


def _roots(context: ssl.SSLContext, path: str) -> bytes:
    data = _content("client_ca", path)
    try:
        context.load_verify_locations(cadata=data.decode("ascii", "ignore"))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"tls.client_ca: {path} does not work ({_reason(error)}); "
            "give PEM certificates of authorities"
        ) from None
    return data


def _content(name: str, path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(
            f"tls.{name}: cannot read {path}: {error.strerror}; check the path and who may read it"
        ) from None


def _reason(error: OSError | ValueError) -> str:
    """Returns OpenSSL's short name of what is wrong, or what Python says."""
    name = getattr(error, "reason", None)
    return str(name or error).lower().replace("_", " ")
