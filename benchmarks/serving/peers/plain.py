"""A plain gRPC server: one call a document, JSON in bytes, a thread a call, no batching."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

from benchmarks.serving.peers.options import given

METHOD = "/plain.Analysis/Analyze"

Answer = Callable[[Mapping[str, Any]], Mapping[str, Any]]
"""A document to its result; called from any thread."""


def started_server(answer: Answer, port: int, workers: int) -> grpc.Server:
    """Returns a server on the loopback address that answers so many calls at a time."""

    def analyze(request: bytes, context: grpc.ServicerContext) -> bytes:
        return json.dumps(answer(json.loads(request))).encode()

    server = grpc.server(ThreadPoolExecutor(workers))
    _, service, method = METHOD.split("/")
    methods = {method: grpc.unary_unary_rpc_method_handler(analyze)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, methods),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    return server


def main() -> None:
    """Serves the padded graph, one run of it a request, until it is killed."""
    from benchmarks.serving.peers.work import Work  # another peer's environment may lack its needs

    options = given()
    work = Work(options)
    workers = options.setting.workers
    server = started_server(lambda one: work.answer([one])[0], options.port, workers)
    server.wait_for_termination()


if __name__ == "__main__":
    main()
