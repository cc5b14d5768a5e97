"""Runs a padded graph in TensorRT: an explicit choice, for GPUs where it was measured to pay.

TensorRT builds an engine for a range of shapes, which takes minutes, and computes in fp16 a graph
that was gated in fp32. Its engines are kept in a folder beside the bundle.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trunkline.batching import PADDED_INPUTS
from trunkline.cuda import check_provider, find_gpu
from trunkline.decode.numeric import Floats
from trunkline.device import CPU, CUDA, TENSORRT
from trunkline.errors import DeviceError
from trunkline.kinds import Output
from trunkline.runner import PaddedRunner
from trunkline.session import Provider, Session

_BUDGET = 8192  # tokens of a batch, padding included
_ROWS = 64  # of the range of shapes
_USUAL = (16, 64)  # rows and tokens of a row that the engine is tuned for


class TensorRtRunner(PaddedRunner):
    """Runs a padded graph in TensorRT, at most 64 rows at a time.

    Args:
        path: The ONNX file.
        pad_id: Vocabulary id of padding.
        outputs: Outputs that the graph must have.
        longest: Row that the model takes, in tokens.
        index: Of the GPU.
        cache: Folder of the engines.

    Raises:
        BundleError: The graph cannot be loaded or lacks an output.
        DeviceError: There is no TensorRT, or the GPU cannot be used.
    """

    def __init__(
        self,
        path: Path,
        pad_id: int,
        outputs: Sequence[Output],
        *,
        longest: int,
        index: int,
        cache: Path,
    ) -> None:
        super().__init__(pad_id, _BUDGET)
        device = f"tensorrt:{index}"
        check_provider(device, TENSORRT)
        find_gpu(device, index)
        providers: list[Provider] = [
            (TENSORRT, _options(longest, index, cache)),
            (CUDA, {"device_id": str(index), "use_tf32": "0"}),
            CPU,  # computes shapes
        ]
        self._session = Session(path, PADDED_INPUTS, outputs, 1, providers=providers)
        if self._session.provider != TENSORRT:
            reason = f"onnxruntime cannot load it, and would run {self._session.provider}"
            raise DeviceError(
                device, reason, "pip install tensorrt of the version it was built for"
            )

    def forward(
        self, inputs: Mapping[str, NDArray[np.int64]], outputs: Sequence[str]
    ) -> list[Floats]:
        """Runs one padded batch [B, S] and returns the named outputs."""
        count = len(inputs["input_ids"])
        parts = [
            self._session.run(outputs, {name: x[at : at + _ROWS] for name, x in inputs.items()})
            for at in range(0, count, _ROWS)
        ]
        return [np.concatenate(values) for values in zip(*parts, strict=True)]


def _options(longest: int, index: int, cache: Path) -> dict[str, str]:
    def shapes(rows: int, tokens: int) -> str:
        return ",".join(f"{name}:{rows}x{tokens}" for name in sorted(PADDED_INPUTS))

    return {
        "device_id": str(index),
        "trt_fp16_enable": "1",
        "trt_layer_norm_fp32_fallback": "1",
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": str(cache),
        "trt_timing_cache_enable": "1",
        "trt_profile_min_shapes": shapes(1, 1),
        "trt_profile_opt_shapes": shapes(_USUAL[0], min(_USUAL[1], longest)),
        "trt_profile_max_shapes": shapes(_ROWS, longest),
    }
