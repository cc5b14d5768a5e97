"""A bundle with one graph in onnxruntime's own format, for builds that read no ONNX (docs/edge.md).

python -m trunkline_export.ort_format BUNDLE --graph NAME --out FOLDER
"""

from __future__ import annotations

import argparse
import shutil
import sys
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

import onnxruntime

from trunkline.bundle import Bundle, Graph, open_bundle, seal, written_bundle
from trunkline.errors import BundleError, TrunklineError
from trunkline.extras import explained
from trunkline.options import path
from trunkline_export.card import model_card

OPERATORS = "required_operators.config"
_USAGE_ERROR = 2

_Operators = dict[str, dict[int, set[str]]]  # by domain and opset


def write_ort(bundle: Bundle, graph: Graph, out: Path, *, overwrite: bool = False) -> Bundle:
    """Writes a bundle whose one graph is `graph` in ORT format, weights inside.

    Beside the graph stands required_operators.config, which tells onnxruntime's
    `--include_ops_by_config` what a build must have.

    Args:
        bundle: Where the graph is from; its gates and golden texts go with it.
        graph: One of the bundle's.
        out: The new bundle.
        overwrite: Whether it may take the place of a bundle.

    Raises:
        BundleError: Something stands at `out`, or onnxruntime cannot convert the graph.
        MissingExtra: The tools that list the operators are not installed.
    """
    if out.resolve() == bundle.path.resolve():
        raise BundleError(out, "is the bundle that is read", "choose another folder")
    manifest, file = bundle.manifest, str(PurePosixPath(graph.file).with_suffix(".ort"))
    gates = [replace(gate, graph=file) for gate in manifest.gates if gate.graph == graph.file]
    # What onnxruntime fuses for CPUs has no kernels elsewhere.
    changed = replace(
        graph, file=file, weights="", operators={}, providers=("CPUExecutionProvider",)
    )
    manifest = replace(manifest, graphs=(changed,), gates=tuple(gates))
    with written_bundle(out, overwrite=overwrite) as folder:
        _copy_others(bundle, graph, folder)
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        _convert(bundle.path / graph.file, folder / file)
        _write_operators(folder / file)
        (folder / "README.md").write_text(model_card(manifest), encoding="utf-8")
        seal(folder, manifest)
    return open_bundle(out)


def _copy_others(bundle: Bundle, graph: Graph, folder: Path) -> None:
    """Copies the files at the bundle's top, but for golden files of other graphs."""
    others = {one.golden for one in bundle.manifest.graphs} - {graph.golden}
    for name in bundle.manifest.files:
        if "/" not in name and name not in others:
            shutil.copyfile(bundle.path / name, folder / name)


def _convert(source: Path, target: Path) -> None:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(target)
    options.add_session_config_entry("session.save_model_format", "ORT")
    try:
        # Blocked convolutions are of this machine's CPU; all else runs on any.
        onnxruntime.InferenceSession(
            str(source),
            options,
            providers=["CPUExecutionProvider"],
            disabled_optimizers=["NchwcTransformer"],
        )
    except Exception as error:  # onnxruntime has an exception type per status, with no base
        reason = str(error).splitlines()[0]
        raise BundleError(
            source, f"onnxruntime cannot convert it: {reason}", "export again"
        ) from None


def _write_operators(model: Path) -> None:
    # Not onnxruntime's own writer: it puts the path of the model on this machine into the file.
    lines = [f"# of {model.name}, by onnxruntime {onnxruntime.__version__}"]
    for domain, opsets in sorted(_operators(model).items()):
        for opset, names in sorted(opsets.items()):
            lines.append(f"{domain};{opset};{','.join(sorted(names))}")
    model.with_name(OPERATORS).write_text("\n".join(lines) + "\n", encoding="utf-8")


def _operators(model: Path) -> _Operators:
    found: _Operators = {}
    try:
        # Here, since it sets up logging for the whole process.
        from onnxruntime.tools.ort_format_model import OrtFormatModelProcessor
    except ModuleNotFoundError as error:
        raise explained(error, "export") from None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # it leaves the file to be closed
        OrtFormatModelProcessor(str(model), found, None).process()
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit status."""
    parser = argparse.ArgumentParser(
        "python -m trunkline_export.ort_format",
        description="Write a bundle with one graph in onnxruntime's own format.",
    )
    parser.add_argument("bundle", type=path)
    parser.add_argument("--graph", required=True, help="name or file, e.g. packed-int8")
    parser.add_argument("--out", type=path, required=True, help="folder of the new bundle")
    parser.add_argument("--overwrite", action="store_true", help="replace the bundle at --out")
    given = parser.parse_args(argv)
    try:
        bundle = open_bundle(given.bundle)
        # Gates go with the graph; whether they were passed is asked where it is loaded.
        graph = bundle.candidates(given.graph, allow_ungated=True)[0]
        written = write_ort(bundle, graph, given.out, overwrite=given.overwrite)
    except (TrunklineError, OSError) as error:
        print(f"trunkline_export.ort_format: {error}", file=sys.stderr)
        return _USAGE_ERROR
    print(f"{written.path / written.manifest.graphs[0].file}: written, with {OPERATORS} beside it")
    return 0


if __name__ == "__main__":
    sys.exit(main())
