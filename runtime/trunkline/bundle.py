"""The bundle: one folder that holds all a model needs to be served. Format: docs/bundle.md."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Literal

from trunkline.device import CPU, CUDA
from trunkline.encode import TextEncoder
from trunkline.errors import BundleError
from trunkline.files import left_aside, read_edited, read_steadily, replaced_folder, sha256_of
from trunkline.kinds import parse_task, task_outputs
from trunkline.naming import check_model_name, check_model_version
from trunkline.ranges import Count, CountOrZero
from trunkline.structure import parse, plain
from trunkline.tasks import TaskSpec

SCHEMA_VERSION = 3  # 2 had the second text of a pair in front of the first
MANIFEST = "manifest.json"
TOKENIZER = "tokenizer.json"
GOLDEN = "golden.jsonl"
CHECKPOINT = "checkpoint.json"
"""What a folder of training holds, which is no bundle."""
_REBUILD = "export the bundle again"
_NAMED = 5  # bundles in a message

Layout = Literal["padded", "packed"]
Precision = Literal["fp32", "fp16", "bf16", "int8", "int8-dynamic"]


@dataclass(frozen=True)
class EncoderFacts:
    """The shared encoder.

    Attributes:
        model_type: Hugging Face's name of the architecture, e.g. `bert`.
        hidden_size: Width of its hidden states.
        layers: Number of transformer layers.
        parameters: Number of parameters, heads included.
        max_length: Longest row in tokens, special tokens included.
        overlap: Tokens that neighbouring windows share.
        pad_id: Vocabulary id of padding.
        inner_size: Width between the two products behind attention; 0 where that is unknown.
    """

    model_type: str
    hidden_size: Count
    layers: CountOrZero
    parameters: CountOrZero
    max_length: Count
    overlap: CountOrZero
    pad_id: CountOrZero
    inner_size: CountOrZero = 0


@dataclass(frozen=True)
class Tensor:
    """A graph's input or output: its name, element type and symbolic axes."""

    name: str
    dtype: str
    axes: tuple[str, ...]


@dataclass(frozen=True)
class Graph:
    """One ONNX graph of the bundle.

    Attributes:
        file: Path below the bundle.
        layout: `padded` takes [batch, sequence]; `packed` real tokens only.
        precision: Of the matrix products. `int8` has a scale per token, the same in any batch;
            `int8-dynamic` one per batch, as onnxruntime's own quantisation has it.
        providers: onnxruntime execution providers that can run it, first what it is written for.
        inputs, outputs: Its signature.
        opset: Of the default ONNX domain.
        weights: File of the weights, if they are not inside; several graphs may share it.
        operators: How often each operator stands in the graph.
        golden: File of the texts and answers that the graph is tested with when it is loaded.
        keep_fp32: Names of matrix products that stay in fp32 for the sake of a gate.
        sha256: Of the file; filled in when the bundle is sealed.
    """

    file: str
    layout: Layout
    precision: Precision
    providers: tuple[str, ...]
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    opset: Count
    weights: str = ""
    operators: dict[str, CountOrZero] = field(default_factory=dict)
    golden: str = GOLDEN
    keep_fp32: tuple[str, ...] = ()
    sha256: str = ""

    @property
    def name(self) -> str:
        """Layout and precision, e.g. `packed-int8`: what one says to choose it."""
        return f"{self.layout}-{self.precision}"

    @property
    def provider(self) -> str:
        """The execution provider that it is written for; others may run it too."""
        return self.providers[0] if self.providers else CPU


@dataclass(frozen=True)
class Gate:
    """One task's metric through one graph, against the trained model.

    Attributes:
        graph: The graph's file.
        task: The task's name.
        metric: E.g. `f1`.
        reference: Its value through torch, in points (0 to 100).
        value: Its value through the graph.
        low, high: 95 % interval of value minus reference, paired over the examples.
        agreement: Percentage of examples for which both gave the same annotations.
        n: Examples measured on.
        passed: Whether the drop was within bounds.
        data: What it was measured on.
        data_sha256: Of the examples, texts and gold.
    """

    graph: str
    task: str
    metric: str
    reference: float
    value: float
    low: float
    high: float
    agreement: float
    n: CountOrZero
    passed: bool
    data: str
    data_sha256: str


@dataclass(frozen=True)
class Manifest:
    """What stands in manifest.json."""

    schema_version: int
    name: str
    version: Count
    encoder: EncoderFacts
    tasks: tuple[TaskSpec, ...]
    graphs: tuple[Graph, ...]
    gates: tuple[Gate, ...] = ()
    files: dict[str, str] = field(default_factory=dict)
    provenance: dict[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuses a name or version that nobody could ask for."""
        check_model_name(self.name)
        check_model_version(self.version)


@dataclass(frozen=True)
class Bundle:
    """A bundle that was opened and verified."""

    path: Path
    manifest: Manifest

    def passed(self, graph: Graph) -> bool:
        """Returns whether a graph has passed the gate of every task."""
        gates = [gate for gate in self.manifest.gates if gate.graph == graph.file]
        measured = {gate.task for gate in gates}
        return all(gate.passed for gate in gates) and all(
            spec.name in measured for spec in self.manifest.tasks
        )

    def candidates(self, wanted: str = "auto", *, allow_ungated: bool = False) -> list[Graph]:
        """Returns the graphs that may be run, quickest first as a rule.

        Args:
            wanted: A graph's name (`packed-int8`) or file; `auto` for any.
            allow_ungated: Also graphs that have not passed the gates of all tasks.

        Raises:
            BundleError: There is none; says why.
        """
        graphs = self.manifest.graphs
        if wanted != "auto":
            graphs = tuple(graph for graph in graphs if wanted in (graph.name, graph.file))
        if not graphs:
            known = ", ".join(graph.name for graph in self.manifest.graphs)
            raise BundleError(self.path, f"has no graph {wanted!r}", f"choose one of: {known}")
        allowed = [graph for graph in graphs if allow_ungated or self.passed(graph)]
        if not allowed:
            what = "no graph has" if wanted == "auto" else f"graph {wanted!r} has not"
            mend = f"export again {self._gates_wait_for(graphs)}, or allow ungated graphs"
            raise BundleError(self.path, f"{what} passed the gates of all tasks", mend)
        return sorted(allowed, key=_speed)

    def _gates_wait_for(self, graphs: Iterable[Graph]) -> str:
        """Returns what it takes to measure graphs that were not."""
        measured = {gate.graph for gate in self.manifest.gates}
        if measured and all(g.provider == CUDA and g.file not in measured for g in graphs):
            return "on a machine with a GPU, where graphs for CUDA are measured"
        return "with the dev data at hand"

    def encoder(self) -> TextEncoder:
        """Returns the encoder of its texts.

        Raises:
            BundleError: The tokenizer cannot be read, or the window overlap does not fit its rows.
        """
        facts = self.manifest.encoder
        file = self.path / TOKENIZER
        try:
            return TextEncoder.from_file(file, facts.max_length, facts.overlap)
        except Exception as error:  # tokenizers raises nothing narrower
            raise BundleError(file, f"cannot be used: {error}", _REBUILD) from None


def open_bundle(path: Path | str) -> Bundle:
    """Opens a bundle; verifies schema, hashes and that its tasks' outputs are declared.

    Nothing is written. A bundle that is replaced meanwhile is opened as it was before or after.

    Raises:
        BundleError: Something is missing, altered or of another version; names the file.
    """
    folder = bundle_folder(path)
    return read_steadily(folder, lambda: _opened(folder))


def bundle_folder(path: Path | str) -> Path:
    """Returns the folder that names a bundle.

    Raises:
        BundleError: It is no path; an empty one would be the working folder.
    """
    if not isinstance(path, str | Path) or not str(path):
        raise BundleError("bundle", f"expected a folder, got {path!r}", "name the bundle's folder")
    return Path(path)


def _opened(folder: Path) -> Bundle:
    try:
        return _open(folder)
    except OSError as error:
        reason = f"cannot be read: {error.strerror}"
        raise BundleError(error.filename or folder, reason, "check it, and try again") from error


def _open(folder: Path) -> Bundle:
    file = folder / MANIFEST
    if left := left_aside(folder):
        reason = "is missing: a writer died while it was being replaced"
        raise BundleError(folder, reason, f"move the one before back: mv {left} {folder}")
    if not file.is_file():
        raise _no_bundle(folder)
    _check_inside(folder, file)
    manifest = _read_manifest(file)
    for name, digest in _hashes(manifest).items():
        _verify(folder, name, digest)
    _check_outputs(file, manifest)
    return Bundle(folder, manifest)


@contextmanager
def written_bundle(target: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Gives a folder to fill and `seal`; it becomes `target` if the block succeeds.

    Raises:
        BundleError: Something stands at `target` that is not a bundle, or `overwrite` is not set.
    """
    if target.exists() and not (target / MANIFEST).is_file():
        raise BundleError(target, "exists and is not a bundle", "choose another folder")
    if not overwrite and (target.exists() or left_aside(target)):
        raise BundleError(target, "holds a bundle", "use --overwrite, or another --out")
    with replaced_folder(target) as folder:
        yield folder
        open_bundle(folder)


def seal(folder: Path, manifest: Manifest) -> None:
    """Writes manifest.json with the hashes of all files beside it."""
    graphs = tuple(replace(g, sha256=sha256_of(folder / g.file)) for g in manifest.graphs)
    known = {MANIFEST, "README.md", *(graph.file for graph in graphs)}
    files = {
        name: sha256_of(folder / name)
        for file in sorted(folder.rglob("*"))
        if file.is_file() and (name := file.relative_to(folder).as_posix()) not in known
    }
    sealed = replace(manifest, graphs=graphs, files=files)
    text = json.dumps(plain(sealed), ensure_ascii=False, indent=2)
    (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")


def _no_bundle(folder: Path) -> BundleError:
    """Returns what to say of a path at which there is no bundle."""
    if not folder.exists():
        return BundleError(folder, "does not exist", "check the path")
    if not folder.is_dir():
        return BundleError(folder, "is a file; a bundle is a folder", "name the folder")
    if any((folder / place / CHECKPOINT).is_file() for place in (".", "best")):
        mend = f"export it first: trunkline export {folder} --out BUNDLE"
        return BundleError(folder, "is a trained model, not yet a bundle", mend)
    inside = sorted(file.parent.name for file in folder.glob(f"*/{MANIFEST}"))
    mend = f"name a bundle in it: {', '.join(inside[:_NAMED])}" if inside else "check the path"
    return BundleError(folder, f"is not a bundle: it has no {MANIFEST}", mend)


def _read_manifest(file: Path) -> Manifest:
    try:
        data = json.loads(read_edited(file))
        json.dumps(data, ensure_ascii=False).encode()  # lone surrogates can stand in no answer
    except (ValueError, RecursionError) as error:
        raise BundleError(file, f"cannot be read: {error}", _REBUILD) from None
    version = data.get("schema_version") if isinstance(data, dict) else None
    if version != SCHEMA_VERSION:
        given = f"{version!r}"[:40]
        reason = f"has schema version {given}, this Trunkline reads {SCHEMA_VERSION}"
        raise BundleError(file, reason, "export with this version, or install the other one")
    try:
        tasks = data.get("tasks")
        if not isinstance(tasks, list) or not tasks:
            raise ValueError("tasks: missing or empty")
        manifest = parse(Manifest, {**data, "tasks": []})
        specs = tuple(parse_task(task, f"tasks[{at}]") for at, task in enumerate(tasks))
    except (ValueError, AttributeError) as error:
        raise BundleError(file, str(error), _REBUILD) from None
    if not manifest.graphs:
        raise BundleError(file, "graphs: there is none", _REBUILD)
    if len({spec.name for spec in specs}) < len(specs):
        raise BundleError(file, "tasks: two have one name", _REBUILD)
    return replace(manifest, tasks=specs)


def _speed(graph: Graph) -> tuple[bool, bool, bool]:
    """Sorts packed before padded, int8 before fp32, and what depends on batch mates last."""
    return graph.precision == "int8-dynamic", graph.layout != "packed", graph.precision == "fp32"


def _hashes(manifest: Manifest) -> dict[str, str]:
    hashes = {graph.file: graph.sha256 for graph in manifest.graphs} | manifest.files
    # Files that the code opens must be covered, whatever the manifest lists.
    opened = {TOKENIZER, *(file for graph in manifest.graphs for file in _beside(graph))}
    return dict.fromkeys(opened, "") | hashes


def _beside(graph: Graph) -> tuple[str, ...]:
    """Returns the files that are opened with a graph."""
    return (graph.golden, graph.weights) if graph.weights else (graph.golden,)


def _verify(folder: Path, name: str, digest: str) -> None:
    pure = PurePosixPath(name)
    if pure.is_absolute() or ".." in pure.parts:
        raise BundleError(folder / MANIFEST, f"names a file outside it: {name}", _REBUILD)
    file = folder / name
    if not file.is_file():
        raise BundleError(file, "is missing", "copy the whole bundle again")
    _check_inside(folder, file)
    if sha256_of(file) != digest:
        reason = "differs from the hash in manifest.json"
        raise BundleError(file, reason, "it was altered or cut short: copy or export it again")


def _check_inside(folder: Path, file: Path) -> None:
    """Refuses links out of the bundle: what they point to may change or belong to somebody else."""
    if not file.resolve().is_relative_to(folder.resolve()):
        raise BundleError(file, "is a link out of the bundle", "copy the file itself: cp -rL")


def _check_outputs(file: Path, manifest: Manifest) -> None:
    wanted = {output.name for spec in manifest.tasks for output in task_outputs(spec)}
    for graph in manifest.graphs:
        missing = wanted - {output.name for output in graph.outputs}
        if missing:
            raise BundleError(file, f"{graph.file} lacks output {sorted(missing)[0]!r}", _REBUILD)
