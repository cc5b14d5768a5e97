"""What is measured: a bundle, served by a process of its own, or a server that runs already."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trunkline.bundle import Graph
from trunkline.errors import Unavailable

_STOP_SECONDS = 30


@contextmanager
def served(
    bundle: Path, threads: int | None, graph: Graph | None = None, device: str = "auto"
) -> Iterator[str]:
    """Serves a bundle from a process of its own on a free port of this machine.

    Args:
        bundle: The bundle.
        threads: Of the server.
        graph: Which one, gated or not; None leaves it to the server.
        device: Where it runs.

    Yields:
        Its `host:port`.

    Raises:
        Unavailable: The server did not start; its own message is on stderr.
    """
    command = [sys.executable, "-m", "trunkline", "serve", str(bundle), "--port", "0"]
    command += [] if threads is None else ["--threads", str(threads)]
    command += [] if graph is None else ["--graph", graph.file, "--allow-ungated"]
    command += ["--device", device]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield _address(process)
        finally:
            _end(process)


def _address(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("serving "):
            return line.split()[-1]
    raise Unavailable("the server did not start")


def _end(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
