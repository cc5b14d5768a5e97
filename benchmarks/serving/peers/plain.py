"""A plain gRPC server: one run of the graph per request, no batching."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import grpc

from benchmarks.serving.peers.options import given
from benchmarks.serving.peers.work import Work

SERVICE = "plain.Analysis"


def main() -> None:
    """Serves until it is killed."""
    options = given()
    work = Work(options)

    def analyze(request: bytes, context: grpc.ServicerContext) -> bytes:
        return json.dumps(work.answer([json.loads(request)])[0]).encode()

    server = grpc.server(ThreadPoolExecutor(options.setting.workers))
    methods = {"Analyze": grpc.unary_unary_rpc_method_handler(analyze)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, methods),))
    server.add_insecure_port(f"127.0.0.1:{options.port}")
    server.start()
    server.wait_for_termination()


if __name__ == "__main__":
    main()
