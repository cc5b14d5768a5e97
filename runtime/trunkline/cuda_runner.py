"""Runs packed graphs on GPUs: reused device memory, shapes in steps, two runs on their way at once.

One thread a GPU runs the graph; the threads that ask fill the next run's inputs and take the last
one's outputs meanwhile. A run costs one copy to the device and one back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

import numpy as np
import onnxruntime

from trunkline.buckets import Place, Shape, bucket, captured, fill, fits, input_places, layout, runs
from trunkline.cuda import find_gpu
from trunkline.cuda_session import CudaSession
from trunkline.device import CudaOptions, Devices
from trunkline.encode import Row, bare_row
from trunkline.errors import RuntimeFault
from trunkline.kinds import Output
from trunkline.runner import RowOutputs

BUDGET = 16_384  # tokens of one run; matrix products reach their best well below
_LANES = 2  # of a GPU: one computes, one is filled or read
_SIZES = tuple(1 << power for power in range(12, 31))  # of blocks of memory, in elements
_NOT_CAPTURED = -1
_SETTLE = 3  # runs of a shape: it is set up in the first, captured in the second


class _Bound:
    """A shape with memory and bindings of its own place: ready to be filled and run."""

    def __init__(self, slot: _Slot, shape: Shape, outputs: Sequence[Output], graph_id: int) -> None:
        self.shape = shape
        self.graph_id = graph_id
        self.inputs = input_places(shape)
        self.outputs = _output_places(slot.session, shape, outputs)
        self.ints = slot.block(np.int32, _end(self.inputs))
        self.floats = slot.block(np.float32, _end(self.outputs))
        self.host = slot.host(self.ints.shape()[0])
        self.binding = slot.session.bind(
            (self.ints.data_ptr(), self.inputs), (self.floats.data_ptr(), self.outputs)
        )

    def fill(self, rows: Sequence[Row]) -> None:
        """Copies the inputs of rows to the device."""
        fill(self.host, self.inputs, self.shape, rows)
        self.ints.update_inplace(self.host)

    def read(self, rows: Sequence[Row], outputs: Sequence[Output]) -> list[RowOutputs]:
        """Copies the outputs of rows from the device."""
        block = self.floats.numpy()
        values = {
            name: block[place.begin : place.end].reshape(place.shape)
            for name, place in self.outputs.items()
        }
        ends = np.cumsum([len(row) for row in rows]).tolist()
        return [
            {
                output.name: values[output.name][end - len(row) : end].copy()
                if "sequence" in output.axes
                else values[output.name][at].copy()
                for output in outputs
            }
            for at, (row, end) in enumerate(zip(rows, ends, strict=True))
        ]


class _Slot:
    """Memory of one run at a time, on the device and beside it; grows to what was asked for.

    Args:
        session: Runs the graph.
        number: Of the slot.
        outputs: All that the graph gives: what captured graphs write.
        longest: Row, in tokens.
        graphs: Whether small shapes are captured.
    """

    def __init__(
        self,
        session: CudaSession,
        number: int,
        outputs: Sequence[Output],
        longest: int,
        graphs: bool,
    ) -> None:
        self.session = session
        self._blocks: dict[tuple[type, int], onnxruntime.OrtValue] = {}
        self._hosts: dict[int, np.ndarray[tuple[int, ...], np.dtype[np.int32]]] = {}
        shapes = captured(longest) if graphs else []
        first = number * len(shapes)
        self.captured = [
            _Bound(self, shape, outputs, first + at) for at, shape in enumerate(shapes)
        ]

    def bound(self, lengths: Sequence[int], outputs: Sequence[Output]) -> _Bound:
        """Returns memory for rows of these lengths: that of a captured graph, where one fits."""
        for one in self.captured:
            if fits(lengths, one.shape):
                return one
        return _Bound(self, bucket(lengths), outputs, _NOT_CAPTURED)

    def block(self, kind: type[np.int32 | np.float32], least: int) -> onnxruntime.OrtValue:
        """Returns a block of the device's memory; the same one for the same size."""
        key = (kind, _size(least))
        if key not in self._blocks:
            self._blocks[key] = self.session.block(key[1], kind)
        return self._blocks[key]

    def host(self, size: int) -> np.ndarray[tuple[int, ...], np.dtype[np.int32]]:
        """Returns memory beside the device, of the same size as a block; zeros at first."""
        if size not in self._hosts:
            self._hosts[size] = np.zeros(size, np.int32)
        return self._hosts[size]


class CudaRunner:
    """Runs a packed graph on one GPU.

    Args:
        session: The graph, loaded.
        outputs: All that the graph gives.
        longest: Row that the model takes, in tokens.
        options: How the GPU is used.
        budget: Most tokens of one run; a longer row stands alone.

    Attributes:
        lanes: Runs on their way at once.
    """

    lanes = _LANES

    def __init__(
        self,
        session: CudaSession,
        outputs: Sequence[Output],
        longest: int,
        options: CudaOptions,
        budget: int = BUDGET,
    ) -> None:
        self.budget = budget
        self._session = session
        self._longest = longest
        # CUDA graphs belong to the thread that captured them, so one thread runs them all.
        self._gpu = ThreadPoolExecutor(1, "trunkline-gpu")
        self._hosts = ThreadPoolExecutor(_LANES, "trunkline-host")
        slots = [
            _Slot(session, at, outputs, longest, options.graphs and session.kind == "cuda")
            for at in range(_LANES)
        ]
        self._free: SimpleQueue[_Slot] = SimpleQueue()
        for slot in slots:
            self._warm_up(slot, outputs)
            self._free.put(slot)

    def group(self, length: int) -> int:
        """Returns the group of a row: there is but one, attention goes by each row's length."""
        return 0

    def computed(self, lengths: Sequence[int]) -> int:
        """Returns the tokens that are computed for rows of one run, dummies included."""
        cut = runs(lengths, self.budget)
        return sum(bucket([lengths[at] for at in run]).tokens for run in cut)

    def run(self, rows: Sequence[Row], outputs: Sequence[Output]) -> list[RowOutputs]:
        """Returns for each row its outputs by name: [S, ...] without padding, or one for all.

        Raises:
            RuntimeFault: A row is longer than the model takes, the GPU gave up, or this process
                was forked.
        """
        self._session.check()
        for row in rows:
            if len(row) > self._longest:  # the GPU would read beyond its tables, and say nothing
                raise RuntimeFault(f"a row of {len(row)} tokens, at most {self._longest} are taken")
        results: list[RowOutputs] = [{}] * len(rows)
        cut = runs([len(row) for row in rows], self.budget)
        chosen = [[rows[at] for at in run] for run in cut]
        for indices, values in zip(cut, self._run_all(chosen, outputs), strict=True):
            for index, value in zip(indices, values, strict=True):
                results[index] = value
        return results

    def _run_all(
        self, chosen: Sequence[Sequence[Row]], outputs: Sequence[Output]
    ) -> list[list[RowOutputs]]:
        if len(chosen) == 1:  # spares it the way to another thread
            return [self._run_one(chosen[0], outputs)]
        return list(self._hosts.map(lambda rows: self._run_one(rows, outputs), chosen))

    def _run_one(self, rows: Sequence[Row], outputs: Sequence[Output]) -> list[RowOutputs]:
        slot = self._free.get()
        try:
            bound = slot.bound([len(row) for row in rows], outputs)
            bound.fill(rows)
            self._gpu.submit(self._session.run, bound.binding, bound.graph_id).result()
            return bound.read(rows, outputs)
        finally:
            self._free.put(slot)

    def _warm_up(self, slot: _Slot, outputs: Sequence[Output]) -> None:
        """Runs the largest shape first, so that memory is taken once, then those to capture."""
        count = max(1, self.budget // self._longest)
        lengths = [self._longest] * count
        self._settle(_Bound(slot, bucket(lengths), outputs, _NOT_CAPTURED), lengths, 1)
        for bound in slot.captured:
            self._settle(bound, [2], _SETTLE)

    def _settle(self, bound: _Bound, lengths: Sequence[int], times: int) -> None:
        bound.fill([bare_row(np.zeros(length, np.int64)) for length in lengths])
        for _ in range(times):
            self._gpu.submit(self._session.run, bound.binding, bound.graph_id).result()


class SpreadRunner:
    """Runs rows on whichever of several GPUs has a place free.

    Args:
        runners: One a GPU.

    Attributes:
        lanes: Of all together.
        budget: Of one run.
    """

    def __init__(self, runners: Sequence[CudaRunner]) -> None:
        self.lanes = sum(runner.lanes for runner in runners)
        self.budget = runners[0].budget
        self._runners = runners
        self._free: SimpleQueue[CudaRunner] = SimpleQueue()
        for _ in range(_LANES):  # in turn, so that the first runs go to different GPUs
            for runner in runners:
                self._free.put(runner)

    def group(self, length: int) -> int:
        """Returns the group of a row, as each of the runners has it."""
        return self._runners[0].group(length)

    def computed(self, lengths: Sequence[int]) -> int:
        """Returns the tokens that are computed for rows of one run, dummies included."""
        return self._runners[0].computed(lengths)

    def run(self, rows: Sequence[Row], outputs: Sequence[Output]) -> list[RowOutputs]:
        """Returns for each row its outputs by name: [S, ...] without padding, or one for all."""
        runner = self._free.get()
        try:
            return runner.run(rows, outputs)
        finally:
            self._free.put(runner)


def open_cuda_runner(
    path: Path,
    outputs: Sequence[Output],
    longest: int,
    devices: Devices,
    options: CudaOptions,
) -> CudaRunner | SpreadRunner:
    """Returns a runner of a packed graph for CUDA.

    Args:
        path: The ONNX file.
        outputs: All that the graph gives.
        longest: Row that the model takes, in tokens.
        devices: GPUs; with several, a run goes to whichever is free.
        options: How they are used.

    Raises:
        BundleError: The graph cannot be loaded or lacks an output.
        DeviceError: A GPU cannot be used.
    """
    for index in devices.indices:
        find_gpu(f"cuda:{index}", index)
    runners = [
        CudaRunner(CudaSession(path, outputs, index, options), outputs, longest, options)
        for index in devices.indices
    ]
    return runners[0] if len(runners) == 1 else SpreadRunner(runners)


def _output_places(
    session: CudaSession, shape: Shape, outputs: Sequence[Output]
) -> dict[str, Place]:
    sizes = []
    for output in outputs:
        count = shape.tokens if "sequence" in output.axes else shape.rows
        width = session.widths[output.name]
        sizes.append((output.name, (count, width) if width else (count,)))
    return layout(sizes)


def _end(places: Mapping[str, Place]) -> int:
    return max((place.end for place in places.values()), default=1)


def _size(least: int) -> int:
    return next(size for size in _SIZES if size >= least)
