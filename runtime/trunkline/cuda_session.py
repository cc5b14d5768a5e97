"""An onnxruntime session on a GPU, its inputs and outputs in the GPU's memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnxruntime

from trunkline.buckets import CUDA_INPUTS, Place
from trunkline.device import CUDA, CudaOptions
from trunkline.errors import BundleError, DeviceError, RuntimeFault
from trunkline.forking import OfProcess
from trunkline.kinds import Output
from trunkline.session import check_install, open_session

_ERRORS = 3
_FLASH, _EFFICIENT = 1, 2  # kernels of attention that know packed rows, by onnxruntime's bits

Bound = tuple[int, Mapping[str, Place]]
"""The address of a block of memory, and where tensors stand in it."""


class CudaSession:
    """A graph, loaded on one GPU with nothing left to the CPU. One run at a time.

    Args:
        path: The ONNX file.
        outputs: Outputs that the graph must have.
        index: Of the GPU.
        options: How it is used.

    Attributes:
        kind, index: The device where inputs and outputs lie.
        widths: Columns of each output, 0 for those that have none.

    Raises:
        BundleError: The graph cannot be loaded or lacks an output.
        DeviceError: Nothing would run on the GPU, or only a part.
    """

    kind = "cuda"

    def __init__(
        self, path: Path, outputs: Sequence[Output], index: int, options: CudaOptions
    ) -> None:
        check_install()
        self.index = index
        self._path = path
        self._session = self._load(path, options)
        self._bound = OfProcess(self._session, str(path))
        self._takes = {given.name for given in self._session.get_inputs()}
        unknown = self._takes - set(CUDA_INPUTS)
        if unknown:
            raise BundleError(path, f"graph wants input {sorted(unknown)[0]!r}", "export again")
        found = {given.name: given.shape for given in self._session.get_outputs()}
        missing = {output.name for output in outputs} - found.keys()
        if missing:
            raise BundleError(path, f"graph lacks output {sorted(missing)[0]!r}", "export again")
        self.widths = {name: int(shape[1]) if shape[1:] else 0 for name, shape in found.items()}

    def providers(self, options: CudaOptions) -> list[tuple[str, dict[str, str]]]:
        """Returns onnxruntime's providers, with their options."""
        chosen = {
            "device_id": str(self.index),
            "use_tf32": "0",
            # Of several kernels the one, whatever the longest row: answers are not to follow it.
            "sdpa_kernel": str(_FLASH | _EFFICIENT),
            "enable_skip_layer_norm_strict_mode": "1",  # sums in fp32
            "enable_cuda_graph": "1" if options.graphs else "0",
        }
        if options.memory is not None:
            chosen["gpu_mem_limit"] = str(options.memory)
        return [(CUDA, chosen)]

    def session_options(self) -> onnxruntime.SessionOptions:
        """Returns onnxruntime's options."""
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        # A pattern is kept for every shape that ever came.
        options.enable_mem_pattern = False
        # A graph of which a part is left to the CPU is slow, and nothing would tell.
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        # Weights lie beside the arena, which then grows with batches alone.
        options.add_session_config_entry("session.use_device_allocator_for_initializers", "1")
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        return options

    def _load(self, path: Path, options: CudaOptions) -> onnxruntime.InferenceSession:
        providers = self.providers(options)
        onnxruntime.set_default_logger_severity(_ERRORS)  # what matters is looked at below
        try:
            session = open_session(str(path), self.session_options(), providers)
        except Exception as error:  # onnxruntime has an exception type per status, with no base
            raise _load_failure(path, f"{self.kind}:{self.index}", error) from None
        if session.get_providers()[0] != providers[0][0]:
            reason = f"onnxruntime runs {path.name} on {session.get_providers()[0]}"
            mend = "its log says why: set ORT_LOG_LEVEL=2, see docs/gpu.md"
            raise DeviceError(f"{self.kind}:{self.index}", reason, mend)
        return session

    def check(self) -> None:
        """Raises RuntimeFault in a process that was forked: a GPU is lost to it."""
        self._bound.check()

    def block(self, size: int, kind: type[np.int32 | np.float32]) -> onnxruntime.OrtValue:
        """Returns a block of memory on the device."""
        return onnxruntime.OrtValue.ortvalue_from_shape_and_type(
            [size], kind, self.kind, self.index
        )

    def bind(
        self,
        ints: Bound,
        floats: Bound,
    ) -> onnxruntime.IOBinding:
        """Binds inputs and outputs to places of two blocks, each given by its address."""
        binding = self._session.io_binding()
        device = (self.kind, self.index)
        for name in sorted(self._takes):
            place = ints[1][name]
            address = ints[0] + 4 * place.begin
            binding.bind_input(name, *device, np.int32, place.shape, address)
        for name, place in floats[1].items():
            address = floats[0] + 4 * place.begin
            binding.bind_output(name, *device, np.float32, place.shape, address)
        return binding

    def run(self, binding: onnxruntime.IOBinding, graph_id: int) -> None:
        """Runs once, and waits for the end.

        Args:
            binding: The inputs and outputs.
            graph_id: Of the CUDA graph to make or replay; -1 for none.

        Raises:
            RuntimeFault: The GPU gave up, such as for want of memory.
        """
        options = onnxruntime.RunOptions()
        options.add_run_config_entry("gpu_graph_id", str(graph_id))
        try:
            self._session.run_with_iobinding(binding, options)
        except Exception as error:  # onnxruntime has an exception type per status, with no base
            reason = str(error).splitlines()[0]
            raise RuntimeFault(f"{self._path}: onnxruntime failed: {reason}") from None


def _load_failure(path: Path, device: str, error: Exception) -> BundleError | DeviceError:
    reason = str(error).splitlines()[0]
    if "assigned to the default CPU EP" in reason:
        mend = "export it again with --precision fp16, or see docs/gpu.md"
        return DeviceError(device, f"{path.name} would run on the CPU in part or whole", mend)
    mend = f"export again, or update onnxruntime {onnxruntime.__version__}"
    return BundleError(path, f"onnxruntime cannot load it: {reason}", mend)
