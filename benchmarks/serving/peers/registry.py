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
from benchmarks.serving.peers.options import Options, Setting
from benchmarks.serving.peers.plain import METHOD
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
    """How a peer wants a document, and gives a result."""

    target: Callable[[Options], Target]  # where its calls go
    # A document, as `work.to_json` has it, to the bytes of a request.
    request: Callable[[Body], bytes]
    result: Callable[[bytes], Body]  # the bytes of a reply to a result


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
    parts = {
        name: {
            "text": document["text"],
            "tasks": [one for one in document["tasks"] if one == name],
            "questions": [one for one in asked if one["task"] == name],
        }
        for name in names
    }
    return joined({name: _write(part) for name, part in parts.items()})


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
    """A way to serve the model."""

    name: str
    about: str
    module: str  # what runs it, below `benchmarks.serving.peers`
    requirements: tuple[str, ...]  # for pip, its own package first; none if ours will do
    wire: Wire
    settings: Settings = _batched  # what it may choose from
    batches: bool = True
    likeness: Likeness = same  # how its results are compared with the model's
    needs_run: bool = False  # whether it needs the checkpoint that the bundle was made of

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
        command = [self.python(), "-c", code]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def _single_peer(name: str, about: str, wire: Wire, *needs: str, **more: Any) -> Peer:
    """Returns a peer that does not batch."""
    module = name.replace("-", "_")
    return Peer(name, about, module, needs, wire, _single, batches=False, **more)


def _batching_peer(name: str, about: str, wire: Wire, *needs: str) -> Peer:
    return Peer(name, about, f"{name}_peer", needs, wire)


_PLAIN = Wire(lambda options: _grpc(options.port), _write, _read)
_ALL = (
    _single_peer(
        "plain",
        "a gRPC server that runs the padded graph for one request at a time, without batching",
        _PLAIN,
    ),
    _batching_peer("litserve", "LitServe with its batching", _json("/predict"), "litserve==0.2.19"),
    # Its workers ask uvloop for a loop that newer ones no longer make.
    _batching_peer(
        "mlserver",
        "MLServer with its adaptive batching",
        _open_inference([1]),
        *("mlserver==1.7.1", "uvloop<0.22"),
    ),
    _batching_peer("mosec", "mosec with its batching", _json("/inference"), "mosec==0.9.8"),
    # The newest one that this system's C library can run; its strings break with numpy 2.
    _batching_peer(
        "pytriton",
        "Triton with its dynamic batcher",
        _open_inference([1, 1]),
        *("nvidia-pytriton>=0.5.7", "numpy<2"),
    ),
    _batching_peer("ray", "Ray Serve with its batching", _json("/"), "ray[serve]==2.60.0"),
    # The last release that answers questions; it does not take the newest tokenizers.
    _single_peer(
        "pipelines",
        "Hugging Face pipelines in torch, a model per task (needs --run)",
        _PLAIN,
        *("transformers==4.57.6", ours("torch"), "grpcio", "tokenizers<0.23.1"),
        likeness=shared,
        needs_run=True,
    ),
    _single_peer(
        "one-per-task",
        "a plain server per task, all asked at once",
        Wire(_to_all, _by_task, _together),
    ),
)
PEERS = {peer.name: peer for peer in _ALL}
"""By name."""


def described() -> str:
    """Returns the names of all peers with what they are, for a command's help."""
    return "; ".join(f"{peer.name}: {peer.about}" for peer in _ALL)
