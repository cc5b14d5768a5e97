"""`trunkline health`: asks a server whether it serves, for probes that can run a command."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from trunkline.errors import ConfigError
from trunkline.options import seconds
from trunkline.terminal import printable
from trunkline_serve.client.flags import add_tls_flags, client_options

_STATUS = health_pb2.HealthCheckResponse.ServingStatus


def health(argv: Sequence[str]) -> int:
    """Prints a server's health; returns 0 if it serves, 1 if it does not or cannot be reached.

    Raises:
        ConfigError: A PEM file cannot be read, a certificate comes without its key, or a name or
            address could be nobody's.
    """
    given = _parser().parse_args(argv)
    try:
        request = health_pb2.HealthCheckRequest(service=given.service)
    except UnicodeEncodeError:
        raise ConfigError("--service: is not valid Unicode; nothing is named so") from None
    options = client_options(given, given.target, timeout=given.timeout)
    with options.channel(grpc) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        try:
            response = stub.Check(request, timeout=given.timeout)
        except grpc.RpcError as error:
            print(printable(f"{error.code().name}: {error.details()}"))
            return 1
    known = response.status in _STATUS.values()
    print(_STATUS.Name(response.status) if known else f"UNKNOWN ({response.status})")
    return int(response.status != health_pb2.HealthCheckResponse.SERVING)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "trunkline health", description="Ask a server whether it serves: ends with 0 if so, else 1."
    )
    add = parser.add_argument
    add("target", metavar="HOST:PORT")
    add("--service", default="", help="a service or model; default: the server as a whole")
    add("--timeout", type=seconds, default=1.0, metavar="SECONDS", help="default: %(default)s")
    add_tls_flags(parser)
    return parser
