"""A plain server per task, each a process with the encoder and one head: what a shared one saves.

The graphs are the padded one, cut down to a task's outputs. The client calls all servers whose
tasks a document asks for at once, and waits for all.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from multiprocessing import get_context
from multiprocessing.connection import wait
from multiprocessing.synchronize import Barrier
from pathlib import Path
from threading import Event
from typing import Any

import onnx

from benchmarks.serving.peers.options import Options, given
from benchmarks.serving.peers.plain import started_server
from benchmarks.serving.peers.work import Work, padded_graph
from trunkline.bundle import open_bundle
from trunkline.kinds import task_outputs


def main() -> None:
    """Serves until one of the servers ends, or it is killed."""
    options = given()
    context = get_context("spawn")
    ready = context.Barrier(len(options.ports))
    servers = [
        context.Process(target=_serve, args=(options, task, ready), daemon=True)
        for task in options.ports
    ]
    for server in servers:
        server.start()
    wait([server.sentinel for server in servers])
    sys.exit("a server ended")


def _serve(options: Options, task: str, ready: Barrier) -> None:
    """Serves a task. Calls are answered from when all servers could answer them."""
    work, open_for_all = Work(options, task_graph(options.bundle, task)), Event()

    def answer(document: Mapping[str, Any]) -> Mapping[str, Any]:
        open_for_all.wait()
        return work.answer([document])[0]

    server = started_server(answer, options.ports[task], options.setting.workers)
    ready.wait()
    open_for_all.set()
    server.wait_for_termination()


def task_graph(folder: str, task: str) -> bytes:
    """Returns a bundle's padded graph with the outputs of one task alone, as a file's bytes."""
    bundle = open_bundle(folder)
    whole = onnx.load(Path(bundle.path) / padded_graph(bundle))
    spec = next(one for one in bundle.manifest.tasks if one.name == task)
    inputs = [one.name for one in whole.graph.input]
    outputs = [output.name for output in task_outputs(spec)]
    found: bytes = onnx.utils.Extractor(whole).extract_model(inputs, outputs).SerializeToString()
    return found


if __name__ == "__main__":
    main()
