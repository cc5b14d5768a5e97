"""The peers: what they are made of, how they are called, and the settings they may choose from."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.serving.peers.answers import Likeness, same, shared
from benchmarks.serving.peers.environment import ROOT, ours, python_of
from benchmarks.serving.peers.grpc_server import METHOD
from benchmarks.serving.peers.options import Options, Setting
from benchmarks.serving.targets import FanOutTarget, GrpcTarget, HttpTarget, Target, joined, parted

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
        target: Where its calls go.
        request: A document, as `work.to_json` has it, to the bytes of a request.
        result: The bytes of a reply to a result.
    """

    target: Callable[[Options], Target]
    request: Callable[[Body], bytes]
    result: Callable[[bytes], Body]


def _grpc(port: int) -> Target:
    return GrpcTarget(f"127.0.0.1:{port}", METHOD)


def _http(path: str) -> Callable[[Options], Target]:
    return lambda options: HttpTarget(f"http://127.0.0.1:{options.port}{path}")


def _write(body: Body) -> bytes:
    return json.dumps(body).encode()


def _read(reply: bytes) -> Body:
    found: Body = json.loads(reply)
    return found


def _json(path: str) -> Wire:
    """Returns documents and results as they are, over HTTP."""
    return Wire(_http(path), _write, _read)


def _open_inference(shape: list[int]) -> Wire:
    """Returns the REST form of the Open Inference Protocol, with JSON in a string tensor."""

    def request(document: Body) -> bytes:
        tensor = {"name": "document", "shape": shape, "datatype": "BYTES"}
        return _write({"inputs": [tensor | {"data": [json.dumps(document)]}]})

    def result(reply: bytes) -> Body:
        return _read(_read(reply)["outputs"][0]["data"][0])

    return Wire(_http("/v2/models/analysis/infer"), request, result)


def _to_all(options: Options) -> Target:
    return FanOutTarget({task: _grpc(port) for task, port in options.ports.items()})


def _by_task(document: Body) -> bytes:
    """Returns a request to the server of each task that a document asks for."""
    asked = document["questions"]
    names = dict.fromkeys((*document["tasks"], *(one["task"] for one in asked)))
    return joined(
        {
            name: _write(
                {
                    "text": document["text"],
                    "tasks": [one for one in document["tasks"] if one == name],
                    "questions": [one for one in asked if one["task"] == name],
                }
            )
            for name in names
        }
    )


def _together(reply: bytes) -> Body:
    """Returns the servers' results as one."""
    parts = [_read(part) for part in parted(reply).values()]
    return {
        "text": parts[0]["text"] if parts else "",
        "tasks": {name: found for part in parts for name, found in part["tasks"].items()},
        "questions": [one for part in parts for one in part["questions"]],
    }


@dataclass(frozen=True)
class Peer:
    """A way to serve the model.

    Attributes:
        name: What it is called.
        about: What it is, in a line.
        module: What runs it, below `benchmarks.serving.peers`.
        requirements: What pip installs for it, its own package first; none if Trunkline's own
            environment has it.
        wire: How it is talked to.
        settings: What it may choose from.
        batches: Whether it batches.
        likeness: How its results are compared with the model's.
        needs_run: Whether it needs the checkpoint that the bundle was made of.
    """

    name: str
    about: str
    module: str
    requirements: tuple[str, ...]
    wire: Wire
    settings: Settings = _batched
    batches: bool = True
    likeness: Likeness = same
    needs_run: bool = False

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
        package = re.split(r"[\[<=>]", self.requirements[0])[0]
        code = f"from importlib.metadata import version; print(version({package!r}))"
        done = subprocess.run(
            [self.python(), "-c", code], capture_output=True, text=True, check=True
        )
        return done.stdout.strip()


_PLAIN = Wire(lambda options: _grpc(options.port), _write, _read)
_ALL = (
    Peer(
        "plain",
        "a gRPC server that runs the padded graph for one request at a time, without batching",
        "plain",
        (),
        _PLAIN,
        _single,
        batches=False,
    ),
    Peer(
        "litserve",
        "LitServe with its batching",
        "litserve_peer",
        ("litserve==0.2.19",),
        _json("/predict"),
    ),
    Peer(
        "mlserver",
        "MLServer with its adaptive batching",
        "mlserver_peer",
        # Its workers ask uvloop for a loop that newer ones no longer make.
        ("mlserver==1.7.1", "uvloop<0.22"),
        _open_inference([1]),
    ),
    Peer("mosec", "mosec with its batching", "mosec_peer", ("mosec==0.9.8",), _json("/inference")),
    Peer(
        "pytriton",
        "Triton with its dynamic batcher",
        "pytriton_peer",
        # The newest one that this system's C library can run; its strings break with numpy 2.
        ("nvidia-pytriton>=0.5.7", "numpy<2"),
        _open_inference([1, 1]),
    ),
    Peer("ray", "Ray Serve with its batching", "ray_peer", ("ray[serve]==2.60.0",), _json("/")),
    Peer(
        "pipelines",
        "Hugging Face pipelines in torch, a model per task (needs --run)",
        "pipelines",
        # The last release that answers questions; it does not take the newest tokenizers.
        ("transformers==4.57.6", ours("torch"), "grpcio", "tokenizers<0.23.1"),
        _PLAIN,
        _single,
        batches=False,
        likeness=shared,
        needs_run=True,
    ),
    Peer(
        "one-per-task",
        "a plain server per task, all asked at once",
        "one_per_task",
        (),
        Wire(_to_all, _by_task, _together),
        _single,
        batches=False,
    ),
)
PEERS = {peer.name: peer for peer in _ALL}
"""By name."""


def described() -> str:
    """Returns the names of all peers with what they are, for a command's help."""
    return "; ".join(f"{peer.name}: {peer.about}" for peer in _ALL)
