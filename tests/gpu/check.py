"""Checks Trunkline on a machine with an NVIDIA GPU, and measures it there.

    python -m tests.gpu.check RUN OUT --json benchmarks/results/gpu.json

Exports the checkpoint of RUN to OUT in fp16 with its gates measured on the GPU, then looks at
operators and attention's kernels, values against torch in fp32, answers alone and in company,
CUDA graphs, speed beside torch and beside the GPU's own matrix products, memory, and the server.
What was found is written after each stage, so that a run that is cut short leaves something. Ends
with 1 if a check failed, with 2 if there is no GPU that can be used.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from benchmarks.record import record
from tests.gpu.speed import (
    Subject,
    base_subject,
    graph_gain,
    optimised_counts,
    peak,
    rows_of,
    speeds,
)
from trunkline import Model
from trunkline.bundle import Bundle, open_bundle
from trunkline.cuda import find_gpu
from trunkline.device import parse_devices
from trunkline.errors import ConfigError, TrunklineError
from trunkline.files import write_whole
from trunkline.kinds import all_outputs
from trunkline.model import open_model
from trunkline_export.packed_cuda import wanted_cuda_counts
from trunkline_export.parity import random_rows, same_annotations
from trunkline_export.trunk import read_trunk
from trunkline_export.variants import FP16
from trunkline_export.write import ExportOptions, export_bundle, sample_documents
from trunkline_train.checkpoint import Checkpoint, load_checkpoint
from trunkline_train.torch_runner import TorchRunner

GRAPH = "packed-fp16"
NO_GPU = 2
_SHARE_OF_PEAK = 0.5
_APART = 0.05  # of the spread of torch's outputs, that fp16 may lie away from them
_GROWTH = 1.02  # of the GPU's memory, over runs of random shapes
_SERVED = 0.9  # of the documents per second in process
_PROBE = "import sys; from tests.gpu.check import probe; probe(*sys.argv[1:])"


@dataclass
class Report:
    """What was found so far.

    Attributes:
        file: Written after each stage; None for none.
        head: Of the file.
        checks: Each with its name, value, bar and whether it passed.
        figures: By stage.
    """

    file: Path | None
    head: dict[str, Any]
    checks: list[dict[str, Any]] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)
    begin: float = field(default_factory=time.perf_counter)

    def say(self, text: str) -> None:
        """Prints a line with the seconds since the start."""
        print(f"[{time.perf_counter() - self.begin:6.1f} s] {text}", flush=True)

    def check(self, name: str, value: object, passed: bool, bar: object) -> None:
        """Notes a check and prints it."""
        self.checks.append({"name": name, "value": value, "bar": bar, "pass": bool(passed)})
        self.say(f"  {'pass' if passed else 'FAILED'}  {name}: {value} (wanted: {bar})")

    def stage(self, name: str, work: Callable[[], Any]) -> None:
        """Does a stage's work; one that breaks fails, and the next ones go on."""
        self.say(name)
        try:
            found = work()
        except Exception as error:  # the device's time is short: the other stages are worth it
            traceback.print_exc()
            self.check(name, f"{type(error).__name__}: {error}".splitlines()[0], False, "no error")
        else:
            if found is not None:
                self.figures[name] = found
                self.say(f"  {json.dumps(found)}")
        self.write()

    def write(self) -> None:
        """Writes what was found."""
        if self.file is not None:
            found = {"checks": self.checks, "figures": self.figures}
            write_whole(self.file, json.dumps(self.head | found, indent=1) + "\n")


class Check:
    """The stages, in order.

    Args:
        given: The command line.
        index: Of the GPU.
        report: Takes what is found.
        aside: A folder to write to.
    """

    def __init__(self, given: argparse.Namespace, index: int, report: Report, aside: Path) -> None:
        self._given = given
        self._index = index
        self._report = report
        self._aside = aside
        self._device = f"cuda:{index}"

    def run(self) -> None:
        """Does all stages."""
        stages: dict[str, Callable[[], Any]] = {
            "export and gates": self.export,
            "operators on the device": self.operators,
            "kernels of attention": self.kernels,
            "values against torch fp32": self.values,
            "answers alone and in company": self.company,
            "BERT-base": self.base_speed,
            "CUDA graphs": self.graphs,
            "memory over random shapes": self.memory,
            "served": self.served,
            "this model": self.own_speed,
        }
        for name, work in stages.items():
            self._report.stage(name, work)

    def export(self) -> dict[str, Any]:
        """Exports the fp16 graph; its gates are measured on the GPU."""
        options = ExportOptions(
            precisions=("fp16",),
            changes=tuple(self._given.set),
            gate=not self._given.no_gate,
            device=self._device,
            overwrite=True,
        )
        bundle = export_bundle(self._given.run, self._given.out, options, self._report.say)
        gates = [gate for gate in bundle.manifest.gates if gate.graph == FP16]
        if not self._given.no_gate:
            count = sum(gate.passed for gate in gates)
            wanted = len(bundle.manifest.tasks)
            self._report.check("gates passed", count, count == wanted, f"all {wanted} tasks")
        return {
            gate.task: {"metric": gate.metric, "torch": gate.reference, "fp16": gate.value}
            | {"agreement": gate.agreement, "n": gate.n}
            for gate in gates
        }

    def operators(self) -> dict[str, int]:
        """Counts operators as they run: nothing copied to the host in the middle."""
        counts = optimised_counts(self._subject, self._index, self._aside)
        copies = sum(count for name, count in counts.items() if name.startswith("Memcpy"))
        self._report.check("copies in the middle of the graph", copies, copies == 0, 0)
        wanted = wanted_cuda_counts(read_trunk(self._checkpoint.model.encoder))
        fused = ("PackedMultiHeadAttention", "SkipLayerNormalization", "BiasGelu", "FastGelu")
        wrong = [name for name in fused if counts.get(name, 0) != wanted[name]]
        self._report.check("fused operators lost", ", ".join(wrong) or 0, not wrong, 0)
        return counts

    def kernels(self) -> dict[str, int]:
        """Has onnxruntime tell which kernel of attention it uses, in a process of its own."""
        command = [sys.executable, "-c", _PROBE, str(self._given.out), self._device]
        environment = os.environ | {"ORT_ENABLE_ATTENTION_KERNEL_DEBUG_INFO": "1"}
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False, timeout=120
        )
        lines = [line for line in done.stdout.splitlines() if "PackedMultiHead" in line]
        names = [line.partition("SdpaKernel=")[2].split("\x1b")[0].strip() for line in lines]
        found = {name: names.count(name) for name in sorted(set(names))}
        wanted = set(found) == {"FLASH_ATTENTION"}
        self._report.check("kernels of attention", ", ".join(found), wanted, "FLASH_ATTENTION")
        if done.returncode:
            print(done.stderr[-2000:], file=sys.stderr)
        return found

    def values(self) -> dict[str, float]:
        """Compares outputs with torch's in fp32, rows of one token and of the longest included."""
        checkpoint, outputs = self._checkpoint, self._subject.outputs
        rows = [*random_rows(checkpoint), *rows_of([1, 1, 5])]
        size = checkpoint.model.config.vocab_size
        for row in rows:
            np.remainder(row.input_ids, size, out=row.input_ids)
        model = checkpoint.model.float().to(self._device)
        wanted = TorchRunner(model, checkpoint.pad_id).run(rows, outputs)
        found = self._model.runner.run(rows, outputs)
        figures = {}
        for output in outputs:
            pairs = [(w[output.name], f[output.name]) for w, f in zip(wanted, found, strict=True)]
            spread = float(np.concatenate([w.ravel() for w, _ in pairs]).std())
            worst = max(float(np.abs(w - f).max()) for w, f in pairs)
            figures[output.name] = round(worst / spread, 5)
        worst = max(figures.values())
        self._report.check(
            "outputs apart from torch fp32, of their spread", worst, worst <= _APART, _APART
        )
        return figures

    def company(self) -> dict[str, float]:
        """Analyses texts together, each alone, and in other orders: the answers are the same."""
        documents = sample_documents(self._checkpoint) * 8
        pipeline = self._model.pipeline
        together = pipeline.analyze(documents)
        alone = [pipeline.analyze([one])[0] for one in documents]
        order = np.random.default_rng(0).permutation(len(documents)).tolist()
        shuffled = pipeline.analyze([documents[at] for at in order])
        back = [shuffled[order.index(at)] for at in range(len(documents))]
        torch_ = self._checkpoint.pipeline().analyze(documents)
        same = [
            all(same_annotations(a, b) for b in (c, d))
            for a, c, d in zip(together, alone, back, strict=True)
        ]
        share = sum(same) / len(same)
        self._report.check("texts with the same answers in any company", share, share == 1.0, 1.0)
        near = sum(map(same_annotations, together, torch_)) / len(documents)
        rows = [row for one in documents[:40] for row in pipeline.prepare(one).rows]
        outputs = self._subject.outputs
        both = zip(pipeline.runner.run(rows, outputs), rows, strict=True)
        bits = [
            all(np.array_equal(a[n], b[n]) for n in a)
            for a, row in both
            for b in pipeline.runner.run([row], outputs)
        ]
        return {
            "same_answers_as_torch_fp32": round(near, 4),
            "rows_with_the_same_bits": round(sum(bits) / len(bits), 4),
        }

    def base_speed(self) -> dict[str, Any]:
        """Measures BERT-base shapes against the GPU's own matrix products."""
        operations = peak(self._index)
        folder = self._aside / "base"
        folder.mkdir()
        found = speeds(base_subject(folder), self._index, operations)
        share = max(line.get("share_of_peak", 0.0) for line in found)
        bar = f">= {_SHARE_OF_PEAK}"
        self._report.check("BERT-base, share of the fp16 peak", share, share >= _SHARE_OF_PEAK, bar)
        return {"peak_tflops": round(operations / 1e12, 1), "runs": found}

    def own_speed(self) -> dict[str, Any]:
        """Measures the model that was exported."""
        operations = peak(self._index)
        found = speeds(self._subject, self._index, operations)
        return {"peak_tflops": round(operations / 1e12, 1), "runs": found}

    def graphs(self) -> dict[str, Any]:
        """Compares captured graphs with plain runs: the outputs are the same, and come sooner."""
        found = graph_gain(self._subject, self._index)
        near = found["largest_difference"] <= _APART * found["spread"]
        bar = f"<= {_APART} of {found['spread']}"
        self._report.check(
            "CUDA graphs, largest difference", found["largest_difference"], near, bar
        )
        return found

    def memory(self) -> dict[str, Any]:
        """Runs random shapes; the GPU's memory is to stay as it is."""
        random = np.random.default_rng(0)
        outputs, longest = self._subject.outputs, self._subject.facts.max_length

        def work(count: int) -> float:
            for _ in range(count):
                lengths = random.integers(1, longest + 1, int(random.integers(1, 100)))
                self._model.runner.run(rows_of(lengths.tolist()), outputs)
            free, whole = torch.cuda.mem_get_info(self._index)
            return (whole - free) / 1e6

        before, after = work(100), work(500)
        growth = round(after / before, 4)
        self._report.check(
            "memory after 500 more shapes, over before", growth, growth <= _GROWTH, _GROWTH
        )
        return {"megabytes_before": round(before), "megabytes_after": round(after)}

    def served(self) -> dict[str, Any]:
        """Serves the bundle on the GPU, from a process of its own."""
        file = self._aside / "bench.json"
        command = [sys.executable, "-m", "trunkline", "bench", str(self._given.out)]
        command += ["--device", self._device, "--graph", GRAPH, "--allow-ungated"]
        command += ["--concurrency", "1,64", "--seconds", "6", "--rounds", "3", "--json", str(file)]
        subprocess.run(command, check=True, timeout=180)
        found = json.loads(file.read_text())["figures"]
        served = found["grpc 64"]["documents_per_second"]
        together = found["in process together"]["documents_per_second"]
        share = round(served / together, 3)
        # Told, not judged: what a GPU computes in time, one Python process cannot tokenise in time.
        self._report.say(f"  served over in process: {share} (CPUs are held to {_SERVED})")
        return {"served_over_in_process": share, "grpc_64": found["grpc 64"]} | {
            "in_process_documents_per_second": together,
            "short_overhead_ms": found.get("overhead_ms"),
        }

    @cached_property
    def _checkpoint(self) -> Checkpoint:
        return load_checkpoint(self._given.run)

    @cached_property
    def _bundle(self) -> Bundle:
        return open_bundle(self._given.out)

    @cached_property
    def _model(self) -> Model:
        return open_model(self._bundle, graph=GRAPH, allow_ungated=True, device=self._device)

    @cached_property
    def _subject(self) -> Subject:
        graph, facts = self._bundle.path / FP16, self._bundle.manifest.encoder
        return Subject(self._bundle.manifest.name, self._checkpoint.model, graph, facts)


def probe(out: str, device: str) -> None:
    """Runs a short and a long row once, for what onnxruntime prints of it."""
    bundle = open_bundle(out)
    model = open_model(bundle, graph=GRAPH, allow_ungated=True, device=device)
    longest = bundle.manifest.encoder.max_length
    model.runner.run(rows_of([8, longest]), all_outputs(bundle.manifest.tasks))


def main(argv: Sequence[str] | None = None) -> int:
    """Runs all stages; returns the exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    given = _parser().parse_args(arguments)
    try:
        devices = parse_devices(given.device)
        if devices.kind != "cuda" or len(devices.indices) > 1:
            raise ConfigError(f"device: {given.device!r} is not one GPU; write cuda or cuda:N")
        index = devices.indices[0]
        gpu = find_gpu(f"cuda:{index}", index)
        if not torch.cuda.is_available():
            raise ConfigError(f"torch {torch.__version__} cannot use the GPU; install one for CUDA")
        load_checkpoint(given.run)
    except TrunklineError as error:
        print(f"gpu_check: {error}", file=sys.stderr)
        return NO_GPU
    name = {"gpu": {"name": gpu.name, "memory_gb": round(gpu.memory / 1e9, 1)}}
    report = Report(given.json, record("tests.gpu.check", arguments) | name)
    report.say(f"{gpu.name}, {gpu.memory / 1e9:.0f} GB, compute capability {gpu.capability}")
    with TemporaryDirectory() as aside:
        Check(given, index, report, Path(aside)).run()
    failed = [check["name"] for check in report.checks if not check["pass"]]
    report.say(f"{len(report.checks) - len(failed)} checks passed, {len(failed)} failed")
    return 1 if failed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m tests.gpu.check", description="Check and measure Trunkline on a GPU."
    )
    parser.add_argument("run", type=Path, help="a checkpoint or a run's folder")
    parser.add_argument("out", type=Path, help="folder of the bundle that is written")
    parser.add_argument("--device", default="cuda", help="cuda (default) or cuda:N")
    parser.add_argument("--no-gate", action="store_true", help="do not measure the tasks")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="as `trunkline export` has"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was found there")
    return parser


if __name__ == "__main__":
    sys.exit(main())
