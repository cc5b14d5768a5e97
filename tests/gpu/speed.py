"""How fast graphs for CUDA are: alone on the device, in whole runs, and beside torch."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from transformers import BertConfig

from tests.gpu.kernels import kernel_shares
from trunkline.buckets import bucket, fill, input_places, layout
from trunkline.bundle import EncoderFacts
from trunkline.cuda_runner import CudaRunner
from trunkline.cuda_session import CudaSession
from trunkline.device import CudaOptions
from trunkline.encode import Row, bare_row
from trunkline.kinds import Output, all_outputs
from trunkline.tasks import AnswerOptions, TaskSpec, TextOptions, TokenOptions
from trunkline_export.packed_cuda import packed_cuda_model
from trunkline_export.speed import arithmetic, mixed_rows
from trunkline_export.weights import save_together
from trunkline_train.model.encoder import encoder_from_config
from trunkline_train.model.multitask import MultitaskModel
from trunkline_train.torch_runner import TorchRunner

_SIZE = 8192  # of the square matrices that measure the device
_LENGTH = 128  # of rows, at most
TOKENS = (1, 16, 128, 1024, 4096, 16_384)
_ROUNDS = 7
_SECONDS = 0.3  # of one round, at least
_ENTITIES = tuple(f"{part}-{kind}" for kind in ("PER", "ORG", "LOC", "MISC") for part in "BI")
_TASKS = (
    TaskSpec("ner", "token-classification", ("O", *_ENTITIES), TokenOptions()),
    TaskSpec("qa", "question-answering", (), AnswerOptions()),
    TaskSpec("topic", "text-classification", tuple("ABCD"), TextOptions()),
)


@dataclass(frozen=True)
class Subject:
    """What is measured.

    Attributes:
        name: For the table.
        model: In torch.
        graph: Its packed fp16 graph.
        facts: Of its encoder.
    """

    name: str
    model: MultitaskModel
    graph: Path
    facts: EncoderFacts

    @property
    def outputs(self) -> list[Output]:
        """All outputs of the graph."""
        return all_outputs(self.model.tasks)


def base_subject(folder: Path) -> Subject:
    """Returns a BERT-base of random weights, its graph written to a folder."""
    BertConfig().save_pretrained(folder)
    torch.manual_seed(0)
    model = MultitaskModel(encoder_from_config(str(folder)), _TASKS, 0.0).eval()
    graph = packed_cuda_model(model)
    save_together({folder / "base.onnx": graph}, folder / "base.weights")
    return Subject("BERT-base, random", model, folder / "base.onnx", model.facts(512, 128, 0))


def peak(index: int) -> float:
    """Returns the operations per second of an fp16 matrix product through torch."""
    device = f"cuda:{index}"
    one, other = (torch.randn(_SIZE, _SIZE, device=device, dtype=torch.half) for _ in range(2))

    def work() -> None:
        torch.matmul(one, other)

    return 2.0 * _SIZE**3 / seconds_of(work, lambda: torch.cuda.synchronize(index))


def seconds_of(work: Callable[[], object], wait: Callable[[], object] = lambda: None) -> float:
    """Returns the seconds of one piece of work: the least mean of some rounds, warm."""
    for _ in range(3):
        work()
    wait()
    found = []
    for _ in range(_ROUNDS):
        begin, count = time.perf_counter(), 0
        while time.perf_counter() - begin < _SECONDS / _ROUNDS:
            work()
            count += 1
            if count % 8 == 0:
                wait()
        wait()
        found.append((time.perf_counter() - begin) / count)
    return min(found)


def rows_of(lengths: Sequence[int]) -> list[Row]:
    """Returns rows of random ids."""
    random = np.random.default_rng(0)
    return [bare_row(random.integers(1000, 20_000, length)) for length in lengths]


def on_device(subject: Subject, index: int, rows: Sequence[Row]) -> Callable[[], None]:
    """Returns what runs the graph once, inputs and outputs on the device."""
    session = CudaSession(subject.graph, subject.outputs, index, CudaOptions(graphs=False))
    shape = bucket([len(row) for row in rows])
    inputs = input_places(shape)
    sizes = []
    for output in subject.outputs:
        count = shape.tokens if "sequence" in output.axes else shape.rows
        width = session.widths[output.name]
        sizes.append((output.name, (count, width) if width else (count,)))
    outputs = layout(sizes)
    host = np.zeros(max(place.end for place in inputs.values()), np.int32)
    fill(host, inputs, shape, rows)
    ints = session.block(len(host), np.int32)
    ints.update_inplace(host)
    floats = session.block(max(place.end for place in outputs.values()), np.float32)
    binding = session.bind((ints.data_ptr(), inputs), (floats.data_ptr(), outputs))

    def run(_held: object = (ints, floats)) -> None:  # of them the binding knows the address alone
        session.run(binding, -1)

    return run


def speeds(subject: Subject, index: int, operations: float) -> list[dict[str, Any]]:
    """Returns, by tokens of a run, tokens per second, shares of the device's peak, and kernels.

    Args:
        subject: The model.
        index: Of the GPU.
        operations: Per second, of the device's peak.
    """
    options, longest = CudaOptions(), subject.facts.max_length
    session = CudaSession(subject.graph, subject.outputs, index, options)
    runner = CudaRunner(session, subject.outputs, longest, options)
    halves = _half_torch(subject, index)
    found = []
    for tokens in TOKENS:
        length = min(_LENGTH, longest, tokens)
        rows = rows_of([length] * (tokens // length))
        alone = on_device(subject, index, rows)
        device = seconds_of(alone)
        whole = seconds_of(lambda rows=rows: runner.run(rows, subject.outputs))
        torch_ = seconds_of(lambda rows=rows: halves.run(rows, subject.outputs))
        share = arithmetic(subject.facts, [rows]) / device / operations
        line = {"rows": f"of {length}"} | _line(tokens, device, whole, torch_, share)
        found.append(line | {"kernels": kernel_shares(alone, index)})
    mixed = [row for batch in mixed_rows(subject.facts) for row in batch]
    tokens = sum(map(len, mixed))
    whole = seconds_of(lambda: runner.run(mixed, subject.outputs))
    torch_ = seconds_of(lambda: halves.run(mixed, subject.outputs))
    return [*found, {"rows": "mixed", "tokens": tokens, **_rates(tokens, whole, torch_)}]


def _line(tokens: int, device: float, whole: float, torch_: float, share: float) -> dict[str, Any]:
    return {
        "tokens": tokens,
        "ms_on_device": round(1e3 * device, 3),
        "tokens_per_second_on_device": round(tokens / device),
        "share_of_peak": round(share, 3),
        **_rates(tokens, whole, torch_),
    }


def _rates(tokens: int, whole: float, torch_: float) -> dict[str, Any]:
    return {
        "tokens_per_second": round(tokens / whole),
        "torch_fp16_padded_tokens_per_second": round(tokens / torch_),
        "over_torch": round(torch_ / whole, 2),
    }


def _half_torch(subject: Subject, index: int) -> TorchRunner:
    """Returns torch's own fp16 with its fused attention, over padded batches of similar length."""
    encoder = subject.model.encoder
    if encoder._can_set_attn_implementation():
        encoder.set_attn_implementation("sdpa")
    model = subject.model.to(f"cuda:{index}").half()
    return TorchRunner(model, subject.facts.pad_id, max(TOKENS))


def graph_gain(subject: Subject, index: int) -> dict[str, Any]:
    """Returns the milliseconds of a short row alone, without and with CUDA graphs.

    Also how far their outputs lie apart, over rows of many lengths.
    """
    runners = []
    for graphs in (False, True):
        options = CudaOptions(graphs)
        session = CudaSession(subject.graph, subject.outputs, index, options)
        runners.append(CudaRunner(session, subject.outputs, subject.facts.max_length, options))
    times = [
        seconds_of(lambda runner=runner: runner.run(rows_of([16]), subject.outputs))
        for runner in runners
    ]
    worst, spread = 0.0, []
    longest = subject.facts.max_length
    for lengths in ([1], [2, 3], [16], [64], [65], [min(longest, 300)], [9] * 40, [31, 200, 7]):
        rows = rows_of([min(length, longest) for length in lengths])
        for _ in range(3):  # a graph that was captured is replayed
            plain, replayed = (runner.run(rows, subject.outputs) for runner in runners)
            for one, other in zip(plain, replayed, strict=True):
                worst = max(worst, *(float(np.abs(one[n] - other[n]).max()) for n in one))
        spread += [float(value.std()) for row in plain for value in row.values() if value.size > 1]
    return {
        "short_row_ms": round(1e3 * times[0], 3),
        "short_row_ms_with_graphs": round(1e3 * times[1], 3),
        "largest_difference": worst,
        "spread": round(statistics.mean(spread), 4),
    }


def optimised_counts(subject: Subject, index: int, aside: Path) -> dict[str, int]:
    """Returns how often each operator stands in the graph as onnxruntime runs it on the device."""
    path = aside / "optimised.onnx"

    class Saved(CudaSession):
        def session_options(self) -> Any:
            options = super().session_options()
            options.optimized_model_filepath = str(path)
            name = "session.optimized_model_external_initializers_file_name"
            options.add_session_config_entry(name, "optimised.weights")
            return options

    Saved(subject.graph, subject.outputs, index, CudaOptions())
    counts: dict[str, int] = {}
    for node in onnx.load(path, load_external_data=False).graph.node:
        counts[node.op_type] = counts.get(node.op_type, 0) + 1
    return counts
