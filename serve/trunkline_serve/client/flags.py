"""How a command reaches a server: flags that all commands share that are clients of one."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping

from trunkline.errors import ConfigError
from trunkline.options import path
from trunkline_serve.client.options import Options, Tls

TOKEN = "TRUNKLINE_TOKEN"
"""The environment variable that a token is taken from."""


def add_tls_flags(parser: argparse.ArgumentParser) -> None:
    """Adds `--tls` and its files."""
    group = parser.add_argument_group("TLS", "Any of these asks by TLS.")
    add = group.add_argument
    add("--tls", action="store_true", help="trust the well-known authorities")
    add("--tls-ca", metavar="FILE", help="PEM file of the server's authorities")
    add("--tls-name", metavar="NAME", help="the name in its certificate, if not HOST")
    add("--tls-certificate", metavar="FILE", help="PEM file of the client's certificate")
    add("--tls-key", metavar="FILE", help="PEM file of its private key")


def add_token_flags(parser: argparse.ArgumentParser) -> None:
    """Adds where a token is read from: a command line is seen by everybody on the machine."""
    group = parser.add_argument_group("token", f"By default what {TOKEN} holds, if anything.")
    add = group.add_argument
    add("--token-file", type=path, metavar="FILE", help="file that holds the token and no more")
    add(
        "--insecure-token",
        action="store_true",
        help="send it to another machine without TLS: whoever is on the way can read it",
    )


def client_options(
    given: argparse.Namespace,
    target: str,
    environ: Mapping[str, str] | None = None,
    *,
    timeout: float = 30.0,
) -> Options:
    """Returns what the flags say.

    Args:
        given: Of a parser with `add_tls_flags`, and perhaps `add_token_flags`.
        target: Address of the server.
        environ: Environment variables; None takes this process's own.
        timeout: Seconds that each call may take.

    Raises:
        ConfigError: A file cannot be read, or options do not go together.
    """
    tls = Tls(given.tls_ca, given.tls_certificate, given.tls_key, given.tls_name)
    return Options(
        target=target,
        timeout=timeout,
        retries=0,
        concurrency=1,
        keepalive=None,
        wait_for_ready=False,
        tls=tls if given.tls or tls != Tls() else None,
        token=_token(given, os.environ if environ is None else environ),
        insecure_token=vars(given).get("insecure_token", False),
    )


def _token(given: argparse.Namespace, environ: Mapping[str, str]) -> str | None:
    if "token_file" not in given:
        return None
    if given.token_file is None:
        return environ.get(TOKEN) or None
    try:
        return str(given.token_file.read_text(encoding="utf-8-sig")).strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not a text"
        raise ConfigError(f"--token-file: cannot read {given.token_file}: {reason}") from None
