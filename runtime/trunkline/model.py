"""A loaded bundle, ready to analyse texts in this process."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import overload

from trunkline.annotations import DocumentResult
from trunkline.bundle import GOLDEN, Bundle, Manifest, open_bundle
from trunkline.golden import check_golden
from trunkline.kinds import task_outputs
from trunkline.pipeline import Document, Pipeline, as_documents
from trunkline.runner import OrtRunner

AnyDocument = str | Document


class Model:
    """A bundle with its graph in onnxruntime. Thread-safe.

    Args:
        bundle: An opened bundle.
        threads: Threads of one run; by default the CPUs this process may use.

    Raises:
        BundleError: The graph cannot be loaded.
    """

    def __init__(self, bundle: Bundle, threads: int | None = None) -> None:
        self.bundle = bundle
        manifest = bundle.manifest
        outputs = [output for spec in manifest.tasks for output in task_outputs(spec)]
        file = bundle.path / bundle.graph.file
        runner = OrtRunner(file, manifest.encoder.pad_id, outputs, threads)
        self.pipeline = Pipeline(manifest.tasks, bundle.encoder(), runner)

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
            InvalidInput: A text or question cannot be read; the field names which.
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
        return check_golden(self.bundle.path / GOLDEN, self.pipeline)


def load(path: Path | str, threads: int | None = None) -> Model:
    """Loads a bundle, verifying hashes, schema and graph signature.

    Args:
        path: The bundle's folder.
        threads: Threads of one run; by default the CPUs this process may use.

    Raises:
        BundleError: The bundle is missing, broken or altered.
    """
    return Model(open_bundle(path), threads)
