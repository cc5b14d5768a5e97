"""A plain gRPC server around any work: one call a document, JSON in bytes, a thread a call."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

METHOD = "/plain.Analysis/Analyze"

Answer = Callable[[Mapping[str, Any]], Mapping[str, Any]]
"""A document to its result."""


def started_server(answer: Answer, port: int, workers: int) -> grpc.Server:
    """Returns a server on the loopback address that has been started.

    Args:
        answer: The work; called from any thread.
        port: Where it listens.
        workers: Calls at a time.
    """

    def analyze(request: bytes, context: grpc.ServicerContext) -> bytes:
        return json.dumps(answer(json.loads(request))).encode()

    server = grpc.server(ThreadPoolExecutor(workers))
    _, service, method = METHOD.split("/")
    methods = {method: grpc.unary_unary_rpc_method_handler(analyze)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, methods),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    return server
