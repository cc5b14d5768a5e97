"""Which of a bundle's graphs run on which devices: what was asked for, and what is there."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import onnxruntime

from trunkline.bundle import Bundle, Graph
from trunkline.cpu import lacks_vnni
from trunkline.cuda import Gpu, find_gpu
from trunkline.cuda_runner import open_cuda_runner
from trunkline.device import CPU, CUDA, ON_CPU, USUAL, CudaOptions, Devices
from trunkline.errors import BundleError, ConfigError, DeviceError
from trunkline.kinds import all_outputs
from trunkline.runner import ServingRunner, open_runner

_log = logging.getLogger("trunkline")
_PROVIDERS = {"cpu": (CPU,), "cuda": (CUDA,), "auto": (CPU, CUDA)}


@dataclass(frozen=True)
class Where:
    """Where a bundle's graphs are opened.

    Attributes:
        threads: Of the CPU; None takes what this process may use.
        devices: What was asked for.
        options: How GPUs are used.
    """

    threads: int | None = None
    devices: Devices = ON_CPU
    options: CudaOptions = USUAL

    def __post_init__(self) -> None:
        """Refuses threads that could not be, and options of another type."""
        check_threads(self.threads)
        if not isinstance(self.options, CudaOptions):
            raise ConfigError(f"cuda: expected CudaOptions, got {self.options!r}")

    def device_of(self, graph: Graph) -> Devices:
        """Returns where a graph would run."""
        if self.devices.kind == "tensorrt":
            return self.devices
        if graph.provider != CUDA:
            return ON_CPU
        return self.devices if self.devices.kind == "cuda" else Devices("cuda", (0,))

    def open(self, bundle: Bundle, graph: Graph) -> ServingRunner:
        """Returns a runner of a graph, on the device it runs on.

        Raises:
            BundleError: The graph cannot be loaded or lacks an output.
            DeviceError: The device cannot be used.
        """
        path, facts = bundle.path / graph.file, bundle.manifest.encoder
        outputs, devices = all_outputs(bundle.manifest.tasks), self.device_of(graph)
        if devices.kind == "cuda":
            return open_cuda_runner(path, outputs, facts.max_length, devices, self.options)
        if devices.kind == "tensorrt":
            return _open_tensorrt(bundle, graph, devices)
        _check_sums(path, graph)
        return open_runner(path, graph.layout, facts.pad_id, outputs, self.threads)

    def gpus(self, graphs: Sequence[Graph]) -> list[Gpu]:
        """Returns the GPUs that some of these graphs run on."""
        found = {self.device_of(graph) for graph in graphs}
        return [
            find_gpu(f"cuda:{index}", index)
            for one in sorted(found, key=str)
            for index in one.indices
        ]


def check_threads(threads: object) -> None:
    """Raises ConfigError unless this is a number of threads, or None for the CPUs."""
    if threads is None:
        return
    if type(threads) is not int or threads < 1:
        raise ConfigError(f"threads: expected 1 or more, or None for the CPUs, got {threads!r}")


def candidates(
    bundle: Bundle, wanted: str, where: Where, *, allow_ungated: bool = False
) -> list[Graph]:
    """Returns the graphs of a bundle that may be run where it was asked for.

    Args:
        bundle: The bundle.
        wanted: A graph's name or file; `auto` for any.
        where: The devices. `auto` takes CUDA in as far as it can be used here; why it cannot is
            told in the log.
        allow_ungated: Also graphs that have not passed the gates of all tasks.

    Raises:
        BundleError: There is none; says why.
        DeviceError: The device cannot be used.
    """
    kind = where.devices.kind
    for index in where.devices.indices:
        find_gpu(f"{kind}:{index}", index)
    if kind == "tensorrt":
        return _for_tensorrt(bundle, wanted, allow_ungated)
    able = _able(bundle, wanted, kind)
    found = able.candidates(wanted, allow_ungated=allow_ungated)
    if kind == "cuda" or all(graph.provider == CPU for graph in found):
        return found
    return _without_cuda(found) or _insist(found)


def _able(bundle: Bundle, wanted: str, kind: str) -> Bundle:
    """Returns the bundle with those graphs alone that are written for a kind of device."""
    graphs = bundle.manifest.graphs
    able = tuple(graph for graph in graphs if graph.provider in _PROVIDERS[kind])
    refused = [
        graph for graph in graphs if graph not in able and wanted in {graph.name, graph.file}
    ]
    if refused:
        right = "--device cuda" if refused[0].provider == CUDA else "--device cpu, or packed-fp16"
        reason = f"its graph {refused[0].name!r} is not for {kind}"
        raise BundleError(bundle.path, reason, f"choose {right}")
    if not able:
        mend = (
            "export it again with --precision fp32,fp16" if kind == "cuda" else "use --device cuda"
        )
        raise BundleError(bundle.path, f"has no graph for {kind}", mend)
    return replace(bundle, manifest=replace(bundle.manifest, graphs=able))


def _without_cuda(found: list[Graph]) -> list[Graph]:
    """Returns the graphs without those for CUDA, unless that can be used; tells why not."""
    others = [graph for graph in found if graph.provider != CUDA]
    if CUDA not in onnxruntime.get_available_providers():
        return others  # an install for CPUs is no fault
    try:
        find_gpu("cuda:0", 0)
    except DeviceError as error:
        if others:
            _log.warning("graphs for CUDA are left out: %s", error)
        return others
    return found


def _insist(found: list[Graph]) -> list[Graph]:
    """Returns graphs that only CUDA can run; raises DeviceError if that cannot be used."""
    find_gpu("cuda:0", 0)
    return found


def _check_sums(path: Path, graph: Graph) -> None:
    """Raises BundleError for bytes in ORT format without VNNI: onnxruntime turns them no more."""
    if graph.precision == "int8" and path.suffix == ".ort" and lacks_vnni():
        reason = (
            "sums of its bytes overflow without VNNI, which this processor lacks or does not show"
        )
        raise BundleError(path, reason, "use the bundle of ONNX files that it was made of")


def _for_tensorrt(bundle: Bundle, wanted: str, allow_ungated: bool) -> list[Graph]:
    graphs = [graph for graph in bundle.manifest.graphs if graph.name == "padded-fp32"]
    if not graphs or wanted not in {"auto", graphs[0].name, graphs[0].file}:
        reason = f"has no graph {wanted!r} that TensorRT runs" if graphs else "has no padded graph"
        raise BundleError(
            bundle.path, reason, "choose padded-fp32, export it with --precision fp32"
        )
    if not allow_ungated:
        reason = "TensorRT computes padded-fp32 in fp16, which no gate has measured"
        raise BundleError(bundle.path, reason, "allow ungated graphs, or choose --device cuda")
    return graphs


def _open_tensorrt(bundle: Bundle, graph: Graph, devices: Devices) -> ServingRunner:
    from trunkline.tensorrt import TensorRtRunner

    facts, folder = bundle.manifest.encoder, bundle.path.resolve()
    return TensorRtRunner(
        bundle.path / graph.file,
        facts.pad_id,
        all_outputs(bundle.manifest.tasks),
        longest=facts.max_length,
        index=devices.indices[0],
        cache=folder.parent / f".{folder.name}.tensorrt",
    )
