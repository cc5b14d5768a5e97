"""`trunkline health`: asks a server whether it serves, for probes that can run a command."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from trunkline_serve.client.options import Options, Tls


def health(argv: Sequence[str]) -> int:
    """Prints a server's health; returns 0 if it serves, 1 if it does not or cannot be reached.

    Raises:
        ConfigError: A PEM file cannot be read, or a certificate comes without its key.
    """
    given = _parser().parse_args(argv)
    request = health_pb2.HealthCheckRequest(service=given.service)
    with _channel(given) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        try:
            response = stub.Check(request, timeout=given.timeout)
        except grpc.RpcError as error:
            print(f"{error.code().name}: {error.details()}")
            return 1
    print(health_pb2.HealthCheckResponse.ServingStatus.Name(response.status))
    return int(response.status != health_pb2.HealthCheckResponse.SERVING)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "trunkline health", description="Ask a server whether it serves: ends with 0 if so, else 1."
    )
    add = parser.add_argument
    add("target", metavar="HOST:PORT")
    add("--service", default="", help="a service or model; default: the server as a whole")
    add("--timeout", type=float, default=1.0, metavar="SECONDS", help="default: %(default)s")
    group = parser.add_argument_group("TLS", "Any of these asks by TLS.")
    add = group.add_argument
    add("--tls-ca", metavar="FILE", help="PEM file of the server's authorities")
    add("--tls-name", metavar="NAME", help="the name in its certificate, if not HOST")
    add("--tls-certificate", metavar="FILE", help="PEM file of the client's certificate")
    add("--tls-key", metavar="FILE", help="PEM file of its private key")
    return parser


def _channel(given: argparse.Namespace) -> Any:
    tls = Tls(given.tls_ca, given.tls_certificate, given.tls_key, given.tls_name)
    return Options(
        target=given.target,
        timeout=given.timeout,
        retries=0,
        concurrency=1,
        keepalive=None,
        wait_for_ready=False,
        tls=None if tls == Tls() else tls,
        token=None,
        insecure_token=False,
    ).channel(grpc)
