"""A loaded bundle, ready to analyse texts in this process."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import overload

import tokenizers

from trunkline.annotations import DocumentResult
from trunkline.bundle import TOKENIZER, Bundle, Graph, Manifest, bundle_folder, open_bundle
from trunkline.calibration import quickest
from trunkline.choice import Where, candidates
from trunkline.device import ON_CPU, USUAL, CudaOptions, Devices, parse_devices
from trunkline.documents import Document, as_documents
from trunkline.files import read_steadily
from trunkline.golden import check_golden
from trunkline.pipeline import Pipeline
from trunkline.runner import ServingRunner
from trunkline.tried import Tried, fingerprint

AnyDocument = str | Document


class Model:
    """A bundle with one of its graphs. Thread-safe. Usually made by `load`.

    Args:
        bundle: An opened bundle.
        graph: The graph that runs.
        runner: Runs it.
        devices: Where it does.

    Attributes:
        bundle, graph, runner, devices: As given.
        pipeline: The path of a document through them.
    """

    def __init__(
        self, bundle: Bundle, graph: Graph, runner: ServingRunner, devices: Devices = ON_CPU
    ) -> None:
        self.bundle = bundle
        self.graph = graph
        self.runner = runner
        self.devices = devices
        self.pipeline = Pipeline(bundle.manifest.tasks, bundle.encoder(), runner)

    @property
    def manifest(self) -> Manifest:
        """What the bundle says of itself."""
        return self.bundle.manifest

    @overload
    def analyze(
        self,
        text: AnyDocument,
        questions: Sequence[str] = (),
        tasks: Sequence[str] | None = None,
        *,
        text_pair: str | None = None,
    ) -> DocumentResult: ...

    @overload
    def analyze(
        self,
        text: list[str] | list[Document] | tuple[AnyDocument, ...],
        questions: Sequence[str] = (),
        tasks: Sequence[str] | None = None,
        *,
        text_pair: str | Sequence[str] | None = None,
    ) -> list[DocumentResult]: ...

    def analyze(
        self,
        text: AnyDocument | list[str] | list[Document] | tuple[AnyDocument, ...],
        questions: Sequence[str] = (),
        tasks: Sequence[str] | None = None,
        *,
        text_pair: str | Sequence[str] | None = None,
    ) -> DocumentResult | list[DocumentResult]:
        """Analyses one text, or a list of texts together.

        Args:
            text: A text or `Document`, or a list of them.
            questions: Asked of every text that is not a `Document` (which brings its own).
            tasks: Names of the tasks wanted; None for all.
            text_pair: The second text, for tasks that read a pair; for a list of texts, one for
                all or a list with one for each.

        Returns:
            A result for a text, a list of results in the same order for a list.

        Raises:
            InvalidInput: An argument is of another type, or a text or question cannot be read; the
                field names which. A `Document` brings its own questions, tasks and second text.
            NotFound: A task is unknown.
        """
        alone = isinstance(text, str | Document)
        given = [text] if isinstance(text, str | Document) else text
        results = self.pipeline.analyze(as_documents(given, questions, tasks, text_pair))
        return results[0] if alone else results

    def self_test(self) -> int:
        """Analyses the bundle's golden texts; returns how many.

        Raises:
            BundleError: A result differs from what the exporter saw.
        """
        return check_golden(self.bundle.path / self.graph.golden, self.pipeline)


def load(
    path: Path | str,
    threads: int | None = None,
    *,
    graph: str = "auto",
    allow_ungated: bool = False,
    device: str = "auto",
    cuda: CudaOptions = USUAL,
) -> Model:
    """Loads a bundle, verifying hashes, schema, gates and graph signature.

    Args:
        path: The bundle's folder.
        threads: Threads to compute with; by default the CPUs this process may use.
        graph: Which of its graphs, as in `open_model`.
        allow_ungated: Also a graph that has not passed the gates of all tasks.
        device: Where it runs, as in `open_model`.
        cuda: How GPUs are used.

    Raises:
        BundleError: The bundle is missing, broken or altered, or no graph may be run.
        ConfigError: There is no device of that name.
        DeviceError: The device, or what it needs, is not there or cannot be used.
    """
    folder = bundle_folder(path)
    return read_steadily(
        folder,
        lambda: open_model(
            open_bundle(folder),
            threads,
            graph=graph,
            allow_ungated=allow_ungated,
            device=device,
            cuda=cuda,
        ),
    )


def open_model(
    bundle: Bundle,
    threads: int | None = None,
    *,
    graph: str = "auto",
    allow_ungated: bool = False,
    device: str = "auto",
    cuda: CudaOptions = USUAL,
) -> Model:
    """Loads a graph of a bundle into onnxruntime.

    Args:
        bundle: An opened bundle.
        threads: Threads to compute with; by default the CPUs this process may use.
        graph: A graph's name, e.g. `packed-int8`, or file. `auto` takes the quickest that passed
            its gates: where there are several, a short run decides once, also whether packs of rows
            or every row by itself are quicker, and is kept beside the bundle.
        allow_ungated: Also take a graph that has not passed the gates of all tasks.
        device: `cpu`, `cuda`, `cuda:1`, several as `cuda:0,cuda:1`, or `tensorrt`. `auto` takes
            what is quickest of the CPU and, where it can be used, the first GPU.
        cuda: How GPUs are used.

    Raises:
        BundleError: The graph cannot be loaded, or there is none that may be; or it does not give
            what it should for a golden text, which is tried once on a machine.
        ConfigError: There is no device of that name.
        DeviceError: The device, or what it needs, is not there or cannot be used.
    """
    where = Where(threads, parse_devices(device), cuda)
    able = candidates(bundle, graph, where, allow_ungated=allow_ungated)
    chosen, runner = quickest(bundle, able, where)
    model = Model(bundle, chosen, runner, where.device_of(chosen))
    _check_once(model)
    return model


def _check_once(model: Model) -> None:
    """Analyses the first golden text, unless this machine has done so with these very files.

    A processor or build that sums otherwise is found here, in the time of one short text.
    """
    bundle, graph = model.bundle, model.graph
    files = (bundle.manifest.files[name] for name in (graph.golden, TOKENIZER))
    about = (str(bundle.manifest.tasks), str(model.devices), tokenizers.__version__)
    key = fingerprint("golden", graph.sha256, *files, *about)
    tried = Tried(bundle.path)
    if key not in tried.read():
        check_golden(bundle.path / graph.golden, model.pipeline, most=1)
        tried.keep({key: {"graph": graph.file, "golden": "as expected"}})
