"""A checkpoint to a bundle: graphs, checks, golden files, gates, card. Nothing half-written."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path

from trunkline.annotations import DocumentResult
from trunkline.bundle import (
    GOLDEN,
    SCHEMA_VERSION,
    TOKENIZER,
    Bundle,
    EncoderFacts,
    Gate,
    Graph,
    Manifest,
    open_bundle,
    seal,
    written_bundle,
)
from trunkline.cuda import find_gpu
from trunkline.device import ON_CPU, Devices, parse_devices
from trunkline.documents import Document, Question
from trunkline.encode import Row
from trunkline.errors import ConfigError, DeviceError, RuntimeFault
from trunkline.extras import explained
from trunkline.golden import write_golden
from trunkline.kinds import find_kind
from trunkline.naming import check_model_name, check_model_version
from trunkline.pipeline import Pipeline

try:
    import onnx  # noqa: F401 (what the rest of this room needs)
    import torch
except ModuleNotFoundError as error:
    raise explained(error, "export") from None

from trunkline_export.card import model_card
from trunkline_export.changes import apply_changes
from trunkline_export.channels import Sizes, channel_sizes
from trunkline_export.gates import Reference, Sample, dev_samples, measure, references
from trunkline_export.parity import ParityError, check_answers
from trunkline_export.provenance import provenance
from trunkline_export.search import by_harm, smallest_keep
from trunkline_export.variants import (
    check_precision,
    graph_pipeline,
    is_packable,
    write_dynamic,
    write_fp16,
    write_fp32,
    write_int8,
)
from trunkline_train.checkpoint import Checkpoint, load_checkpoint

Say = Callable[[str], None]


@dataclass(frozen=True)
class ExportOptions:
    """What to export.

    Attributes:
        name: Of the bundle; None takes the configuration's.
        version: From 1.
        precisions: Of the graphs, of `PRECISIONS`; None takes fp32 and, where the encoder can be
            packed, int8. Without fp32 the bundle is a small one for the edge.
        changes: `key.path=value` each, which replace values of the training configuration: say
            where the dev data is now, take more of it, or decode otherwise
            (`tasks.qa.options.n_best=3`). What training has settled is refused.
        gate: Whether to measure every task on dev data. Graphs without gates are not served.
        device: Where graphs for CUDA are measured, as `trunkline.load` takes it; `auto` does
            without if CUDA cannot be used.
        overwrite: Whether a bundle at the same place is replaced.
    """

    name: str | None = None
    version: int = 1
    precisions: tuple[str, ...] | None = None
    changes: tuple[str, ...] = ()
    gate: bool = True
    device: str = "auto"
    overwrite: bool = False

    def __post_init__(self) -> None:
        """Refuses a name, a version or precisions that there cannot be."""
        try:
            check_model_version(self.version)
            if self.name is not None:
                check_model_name(self.name)
        except ValueError as error:
            raise ConfigError(str(error)) from None
        if self.precisions is not None and not self.precisions:
            raise ConfigError("precisions: is empty; name some, or give None for the usual ones")


def export_bundle(
    checkpoint_folder: Path, out: Path, options: ExportOptions, say: Say = print
) -> Bundle:
    """Exports a checkpoint as a bundle, checked against the trained model.

    Args:
        checkpoint_folder: A checkpoint, or a run's folder (its best one).
        out: The bundle; what stands there is left alone, unless it is a bundle and
            `options.overwrite` is set.
        options: What to export.
        say: Takes a line per finished step.

    Raises:
        CheckpointError: The checkpoint is missing or broken.
        ConfigError: A change does not fit the configuration, or the dev data is not to be had.
        ParityError: A graph does not give what the model gives.
        NoBetterThanGuessing: A task has learned nothing.
        DeviceError: The device that was asked for cannot be used.
        Unpackable: A precision was asked for that the encoder's architecture has no graph for.
        BundleError: Something stands at `out`.
    """
    checkpoint = apply_changes(load_checkpoint(checkpoint_folder), options.changes)
    precisions = _precisions(checkpoint, options, say)
    devices = _gpu(options.device, say) if "fp16" in precisions else ON_CPU
    samples = _samples(checkpoint, options, say)
    with written_bundle(out, overwrite=options.overwrite) as folder:
        with _on(checkpoint, devices):
            references_ = references(checkpoint, samples) if samples else {}
        export = _Export(checkpoint, folder, say, references_, devices)
        export.write_all(precisions)
        (folder / TOKENIZER).write_text(checkpoint.encoder.to_json(), encoding="utf-8")
        checkpoint.model.config.save_pretrained(folder)
        manifest = Manifest(
            schema_version=SCHEMA_VERSION,
            name=options.name or checkpoint.config.name,
            version=options.version,
            encoder=_facts(checkpoint),
            tasks=checkpoint.tasks,
            graphs=tuple(export.graphs),
            gates=tuple(export.gates),
            provenance=provenance(checkpoint),
        )
        (folder / "README.md").write_text(model_card(manifest), encoding="utf-8")
        seal(folder, manifest)
    return open_bundle(out)


class _Export:
    """Writes graphs into a folder, each with its golden file and its gates.

    Args:
        checkpoint: The trained model.
        folder: Of the bundle.
        say: Takes a line per finished step.
        references: What gates compare with, by task; none are measured without.
        devices: Where graphs for CUDA are measured; the CPU leaves them unmeasured.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        folder: Path,
        say: Say,
        references: Mapping[str, Reference],
        devices: Devices,
    ) -> None:
        self._devices = devices
        self._checkpoint = checkpoint
        self._folder = folder
        self._say = say
        self._references = references
        self._documents = sample_documents(checkpoint)
        self.graphs: list[Graph] = []
        self.gates: list[Gate] = []

    def write_all(self, precisions: Sequence[str]) -> None:
        """Writes the graphs of all precisions."""
        writers = {
            "fp32": self._fp32,
            "int8": self._int8,
            "fp16": self._fp16,
            "int8-dynamic": self._dynamic,
        }
        for precision in precisions:
            writers[precision]()
        if not self.graphs:
            raise ParityError("no graph is left; export fp32 as well, or train longer")

    def _fp32(self) -> None:
        expected = self._expected
        for graph in write_fp32(self._checkpoint, self._folder):
            pipeline = graph_pipeline(self._checkpoint, self._folder, graph)
            count = check_answers(expected, pipeline, self._documents)
            self._say(f"{graph.name}: {count} annotations of the samples as trained")
            gates = self._measured(graph)
            for gate in gates:
                if not gate.passed:
                    raise ParityError(f"{graph.name}: {self._verdict(gate)}")
            self._keep(graph, gates)
        write_golden(self._folder / GOLDEN, expected)

    def _int8(self) -> None:
        graph, gates = self._attempt_int8(())
        if not all(gate.passed for gate in gates):
            self._say("int8 costs a task too much: looking for products to keep in fp32")
            ranked = by_harm(self._checkpoint, self._rows, self._sizes)
            self._say(f"they harm most: {', '.join(ranked[:4])}")
            found = smallest_keep(ranked, self._attempt_int8)
            if found is None:
                self._say("packed-int8: left out, no small set of products mends it")
                (self._folder / graph.file).unlink()
                return
            # The last attempt need not have been the one that was found.
            graph, gates = self._write_int8(found[0].keep_fp32), found[1]
            self._say(f"packed-int8 keeps in fp32: {', '.join(graph.keep_fp32)}")
        self._finish(graph, gates)

    def _attempt_int8(self, keep: tuple[str, ...]) -> tuple[Graph, tuple[Gate, ...]]:
        graph = self._write_int8(keep)
        return graph, self._measured(graph)

    def _write_int8(self, keep: tuple[str, ...]) -> Graph:
        return write_int8(self._checkpoint, self._folder, self._sizes, keep)

    def _fp16(self) -> None:
        graph = write_fp16(self._checkpoint, self._folder)
        if self._devices == ON_CPU:
            # What it should answer is known, what it does is not.
            write_golden(self._folder / graph.golden, self._expected)
            self._keep(graph, ())
            return
        try:
            self._finish(graph, self._measured(graph))
        except RuntimeFault as error:
            self._say(f"packed-fp16: left out, {error}")
            for file in (graph.file, graph.weights):
                (self._folder / file).unlink()

    def _dynamic(self) -> None:
        graph = write_dynamic(self._checkpoint, self._folder)
        self._finish(graph, self._measured(graph))

    def _finish(self, graph: Graph, gates: tuple[Gate, ...]) -> None:
        """Keeps a graph, with its own answers as what its self-test expects."""
        pipeline = self._pipeline(graph)
        write_golden(self._folder / graph.golden, pipeline.analyze(self._documents))
        self._keep(graph, gates)

    def _keep(self, graph: Graph, gates: tuple[Gate, ...]) -> None:
        size = (self._folder / graph.file).stat().st_size
        weights = (self._folder / graph.weights).stat().st_size if graph.weights else 0
        shared = f" with {graph.weights}" if graph.weights else ""
        megabytes = f"{(size + weights) / 1e6:.1f} MB{shared}"
        self._say(f"{graph.name}: written, opset {graph.opset}, {megabytes}")
        self.graphs.append(graph)
        self.gates.extend(gates)

    def _measured(self, graph: Graph) -> tuple[Gate, ...]:
        pipeline = self._pipeline(graph)
        gates = measure(graph, pipeline, self._references)
        for gate in gates:
            self._say(f"{graph.name}: {self._verdict(gate)}")
        return gates

    def _verdict(self, gate: Gate) -> str:
        return (
            f"gate {gate.task} {'passed' if gate.passed else 'FAILED'}: {gate.metric}"
            f" {gate.value:.2f}, torch {gate.reference:.2f}, guessing"
            f" {self._references[gate.task].guess:.2f}, difference within"
            f" [{gate.low:+.2f}, {gate.high:+.2f}], {gate.agreement:.1f} % of {gate.n} alike"
        )

    def _pipeline(self, graph: Graph) -> Pipeline:
        return graph_pipeline(self._checkpoint, self._folder, graph, self._devices)

    @cached_property
    def _expected(self) -> list[DocumentResult]:
        """What the trained model gives for the sample texts."""
        return self._checkpoint.pipeline().analyze(self._documents)

    @cached_property
    def _rows(self) -> list[Row]:
        """The rows of the sample texts."""
        pipeline = self._checkpoint.pipeline()
        return [row for one in self._documents for row in pipeline.prepare(one).rows]

    @cached_property
    def _sizes(self) -> Sizes:
        """How large channels get on them."""
        return channel_sizes(self._checkpoint.model, self._rows)


def _precisions(checkpoint: Checkpoint, options: ExportOptions, say: Say) -> tuple[str, ...]:
    """Returns what to write: what was asked for, else what the encoder can have.

    Raises:
        ConfigError: There is no such precision.
        Unpackable: The encoder's architecture has no graph for one that was asked for.
        NotHalf: A weight is beyond what fp16 can hold.
    """
    if options.precisions is not None:
        for precision in options.precisions:
            check_precision(precision, checkpoint)
        return options.precisions
    why_not = is_packable(checkpoint)
    if why_not:
        say(f"only the padded fp32 graph: {why_not}")
    return ("fp32",) if why_not else ("fp32", "int8")


def _gpu(device: str, say: Say) -> Devices:
    """Returns where graphs for CUDA are measured: on a GPU, or with a word about it, nowhere.

    Raises:
        DeviceError: A GPU was asked for that cannot be used.
    """
    devices = parse_devices(device)
    if devices.kind == "cpu":
        say("packed-fp16: not measured, as asked; it is served only if told so")
        return ON_CPU
    if devices.kind == "cuda":
        find_gpu(str(Devices("cuda", devices.indices[:1])), devices.indices[0])
        return Devices("cuda", devices.indices[:1])
    if devices.kind != "auto":
        raise ConfigError(f"device: graphs are not measured on {devices}; choose cpu or cuda")
    try:
        find_gpu("cuda:0", 0)
    except DeviceError as error:
        say(f"packed-fp16: not measured, and served only if told so ({error})")
        return ON_CPU
    return Devices("cuda", (0,))


@contextmanager
def _on(checkpoint: Checkpoint, devices: Devices) -> Iterator[None]:
    """Has the trained model on a GPU meanwhile, if torch can use it too: it is quicker there."""
    if devices == ON_CPU or not torch.cuda.is_available():
        yield
        return
    checkpoint.model.to(f"cuda:{devices.indices[0]}")
    try:
        yield
    finally:
        checkpoint.model.to("cpu")


def _samples(checkpoint: Checkpoint, options: ExportOptions, say: Say) -> Mapping[str, Sample]:
    """Returns what each task is measured on; nothing if gates are not wanted."""
    if options.gate:
        return dev_samples(checkpoint)
    say("gates: not measured, as asked; such a bundle is served only if told so")
    return {}


def sample_documents(checkpoint: Checkpoint) -> list[Document]:
    """Returns the sample texts that ship with the exporter, with what the model's tasks read.

    That is questions if the model answers, and second texts if a task reads pairs.
    """
    asking = [spec.name for spec in checkpoint.tasks if find_kind(spec.kind).asks]
    others = [spec for spec in checkpoint.tasks if not find_kind(spec.kind).asks]
    reads_pairs = any(spec.pair for spec in others)
    lines = resources.files("trunkline_export").joinpath("samples.jsonl").read_text("utf-8")
    documents = []
    for line in map(json.loads, lines.splitlines()):
        text, pair = line["text"] * line.get("times", 1), line["pair"] if reads_pairs else None
        questions = [Question(text, task) for text in line["questions"] for task in asking]
        wanted = tuple(spec.name for spec in others if pair is not None or not spec.pair)
        documents.append(Document(text, tuple(questions), wanted, pair))
    return documents


def _facts(checkpoint: Checkpoint) -> EncoderFacts:
    rows = checkpoint.config.rows
    return checkpoint.model.facts(rows.max_length, rows.overlap, checkpoint.pad_id)
