"""A plain gRPC server: one run of the graph per request, no batching."""

from __future__ import annotations

from benchmarks.serving.peers.grpc_server import started_server
from benchmarks.serving.peers.options import given
from benchmarks.serving.peers.work import Work


def main() -> None:
    """Serves until it is killed."""
    options = given()
    work = Work(options)
    server = started_server(
        lambda document: work.answer([document])[0], options.port, options.setting.workers
    )
    server.wait_for_termination()


if __name__ == "__main__":
    main()
