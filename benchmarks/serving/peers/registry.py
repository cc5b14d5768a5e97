"""The peers: what they are made of, how they are called, and the settings they may choose from."""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.serving.peers import plain
from benchmarks.serving.peers.environment import ROOT, python_of
from benchmarks.serving.peers.options import Setting
from benchmarks.serving.targets import GrpcTarget, HttpTarget, Target

Body = dict[str, Any]
Settings = Callable[[int], Sequence[Setting]]
"""The settings to choose from, for a number of threads."""


def _batched(threads: int) -> Sequence[Setting]:
    """Returns small and large batches, on all threads at once and on one each."""
    found = [
        Setting(batch, wait_ms, workers, threads // workers)
        for batch, wait_ms in ((8, 2.0), (32, 5.0))
        for workers in (1, threads)
    ]
    return list(dict.fromkeys(found))


def _single(threads: int) -> Sequence[Setting]:
    """Returns runs of one document: one at a time, one a thread, and all that come at once."""
    found = [Setting(1, 0.0, 1, threads), Setting(1, 0.0, threads, 1), Setting(1, 0.0, 10, threads)]
    return list(dict.fromkeys(found))


@dataclass(frozen=True)
class Wire:
    """How a peer wants a document, and gives a result.

    Attributes:
        target: Where its calls go, for a port.
        request: A document to the body of a request.
        result: The body of a reply to a result.
    """

    target: Callable[[int], Target]
    request: Callable[[Body], Body]
    result: Callable[[Body], Body]


def _http(path: str) -> Callable[[int], Target]:
    return lambda port: HttpTarget(f"http://127.0.0.1:{port}{path}")


def _same(body: Body) -> Body:
    return body


def _open_inference(shape: list[int]) -> Wire:
    """Returns the REST form of the Open Inference Protocol, with JSON in a string tensor."""

    def request(document: Body) -> Body:
        tensor = {"name": "document", "shape": shape, "datatype": "BYTES"}
        return {"inputs": [tensor | {"data": [json.dumps(document)]}]}

    def result(reply: Body) -> Body:
        found: Body = json.loads(reply["outputs"][0]["data"][0])
        return found

    return Wire(_http("/v2/models/analysis/infer"), request, result)


@dataclass(frozen=True)
class Peer:
    """A way to serve the padded graph.

    Attributes:
        name: What it is called.
        module: What runs it, below `benchmarks.serving.peers`.
        requirements: What pip installs for it, its own package first; none if Trunkline's own
            environment has it.
        wire: How it is talked to.
        settings: What it may choose from.
        batches: Whether it batches.
    """

    name: str
    module: str
    requirements: tuple[str, ...]
    wire: Wire
    settings: Settings = _batched
    batches: bool = True

    def python(self) -> str:
        """Returns the Python that runs it, and builds its environment if need be.

        Raises:
            ServerError: It cannot be installed.
        """
        return python_of(self.name, self.requirements) if self.requirements else sys.executable

    def command(self) -> list[str]:
        """Returns what starts it; see `Options.variables` for what it must be told."""
        return [self.python(), "-m", f"benchmarks.serving.peers.{self.module}"]

    def variables(self) -> Mapping[str, str]:
        """Returns where its Python finds Trunkline's own code, and Triton's stub this Python."""
        return {
            "PYTHONPATH": f"{ROOT / 'runtime'}:{ROOT}",
            "LD_LIBRARY_PATH": str(sysconfig.get_config_var("LIBDIR")),
        }

    def version(self) -> str | None:
        """Returns the version of what was installed for it."""
        if not self.requirements:
            return None
        package = self.requirements[0].partition("==")[0].partition(">=")[0]
        code = f"from importlib.metadata import version; print(version({package!r}))"
        done = subprocess.run(
            [self.python(), "-c", code], capture_output=True, text=True, check=True
        )
        return done.stdout.strip()


_PLAIN = Wire(
    lambda port: GrpcTarget(f"127.0.0.1:{port}", f"/{plain.SERVICE}/Analyze"), _same, _same
)
_ALL = (
    Peer("plain", "plain", (), _PLAIN, _single, batches=False),
    Peer("litserve", "litserve_peer", ("litserve==0.2.19",), Wire(_http("/predict"), _same, _same)),
    # Its workers ask uvloop for a loop that newer ones no longer make.
    Peer("mlserver", "mlserver_peer", ("mlserver==1.7.1", "uvloop<0.22"), _open_inference([1])),
    Peer("mosec", "mosec_peer", ("mosec==0.9.8",), Wire(_http("/inference"), _same, _same)),
    # The newest one that this system's C library can run; its strings break with numpy 2.
    Peer(
        "pytriton",
        "pytriton_peer",
        ("nvidia-pytriton>=0.5.7", "numpy<2"),
        _open_inference([1, 1]),
    ),
)
PEERS = {peer.name: peer for peer in _ALL}
"""By name."""
