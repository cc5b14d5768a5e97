"""Runs rows through a graph. A runner hides the layout: rows go in, per-row arrays come out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from trunkline.batching import INPUTS, pad, plan, unpad
from trunkline.cpu import available_cpus
from trunkline.decode.numeric import Floats
from trunkline.encode import Row
from trunkline.errors import BundleError
from trunkline.kinds import Output

RowOutputs = Mapping[str, Floats]


class Runner(Protocol):
    """Whatever can run rows: an ONNX graph, a torch model."""

    def run(self, rows: Sequence[Row], outputs: Sequence[Output]) -> list[RowOutputs]:
        """Returns for each row its outputs by name: [S, ...] without padding, or one for all."""
        ...


class PaddedRunner:
    """Base of runners over padded batches: groups rows by length, pads, runs, takes apart.

    Args:
        pad_id: Vocabulary id of padding.
        budget: Most tokens in one batch, padding included.
    """

    def __init__(self, pad_id: int, budget: int = 2048) -> None:
        self._pad_id = pad_id
        self._budget = budget

    def run(self, rows: Sequence[Row], outputs: Sequence[Output]) -> list[RowOutputs]:
        """Returns for each row its outputs by name: [S, ...] without padding, or one for all."""
        results: list[RowOutputs] = [{}] * len(rows)
        for batch in plan([len(row) for row in rows], self._budget):
            chosen = [rows[index] for index in batch]
            values = self.forward(pad(chosen, self._pad_id), [output.name for output in outputs])
            for index, result in zip(batch, unpad(chosen, outputs, values), strict=True):
                results[index] = result
        return results

    def forward(
        self, inputs: Mapping[str, NDArray[np.int64]], outputs: Sequence[str]
    ) -> list[Floats]:
        """Runs one padded batch [B, S] and returns the named outputs."""
        raise TypeError(f"{type(self).__name__} must define forward")


class OrtRunner(PaddedRunner):
    """Runs a padded graph in onnxruntime on the CPU.

    Args:
        path: The ONNX file.
        pad_id: Vocabulary id of padding.
        outputs: Outputs that the graph must have.
        threads: Threads of one run; by default the CPUs this process may use.

    Raises:
        BundleError: The graph cannot be loaded or lacks an output.
    """

    def __init__(
        self, path: Path, pad_id: int, outputs: Sequence[Output], threads: int | None = None
    ) -> None:
        super().__init__(pad_id)
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), _session_options(threads), providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime has an exception type per status, with no base
            reason = str(error).splitlines()[0]
            raise BundleError(
                path, f"onnxruntime cannot load it: {reason}", "export again"
            ) from None
        missing = {output.name for output in outputs} - {
            o.name for o in self._session.get_outputs()
        }
        if missing:
            raise BundleError(path, f"graph lacks output {sorted(missing)[0]!r}", "export again")
        self._inputs = {given.name for given in self._session.get_inputs()}
        unknown = self._inputs - INPUTS
        if unknown:
            raise BundleError(path, f"graph wants input {sorted(unknown)[0]!r}", "export again")

    def forward(
        self, inputs: Mapping[str, NDArray[np.int64]], outputs: Sequence[str]
    ) -> list[Floats]:
        """Runs one padded batch [B, S] and returns the named outputs."""
        feed = {name: value for name, value in inputs.items() if name in self._inputs}
        values: list[Floats] = self._session.run(list(outputs), feed)
        return values


def _session_options(threads: int | None) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or available_cpus()
    options.log_severity_level = 3
    # Idle threads must not take the cores from tokenising, decoding and gRPC.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Subnormal numbers, common in masked attention, are many times slower. The thread that loads
    # the graph keeps the setting, for its own arithmetic too.
    options.add_session_config_entry("session.set_denormal_as_zero", "1")
    return options
