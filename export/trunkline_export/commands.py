"""The command `trunkline export`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from trunkline.errors import did_you_mean
from trunkline.options import count, path
from trunkline_export.variants import PRECISIONS
from trunkline_export.write import ExportOptions, export_bundle

_WHY = {"bf16": " (onnxruntime's PackedMultiHeadAttention has no bf16 kernel)"}


def export(argv: Sequence[str]) -> int:
    """Runs `trunkline export`."""
    parser = argparse.ArgumentParser(
        "trunkline export", description="Export a checkpoint as a bundle of ONNX graphs."
    )
    parser.add_argument("checkpoint", type=path, help="a checkpoint or a run's folder")
    parser.add_argument("--out", type=path, required=True, help="folder of the bundle")
    parser.add_argument("--name", help="name of the model; default the configuration's")
    parser.add_argument("--version", type=count, default=1, help="integer version, from 1")
    parser.add_argument(
        "--precision",
        type=_precisions,
        metavar="P,P,...",
        help=f"of {', '.join(PRECISIONS)}; default fp32 and, where the encoder can, int8."
        " int8 alone makes a small bundle for the edge; fp16 is for CUDA",
    )
    parser.add_argument(
        "--device",
        default="auto",
        help="where the fp16 graph is measured: cuda, cuda:1, or cpu, which leaves it unmeasured;"
        " default cuda where it can be used",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change where dev data is, or how answers are decoded: tasks.ner.dev=new/place.conll,"
        " tasks.qa.options.n_best=3",
    )
    parser.add_argument(
        "--no-gate", action="store_true", help="do not measure the tasks on their dev data"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the bundle at --out")
    given = parser.parse_args(argv)
    options = ExportOptions(
        given.name,
        given.version,
        precisions=given.precision,
        changes=tuple(given.set),
        gate=not given.no_gate,
        device=given.device,
        overwrite=given.overwrite,
    )
    bundle = export_bundle(given.checkpoint, given.out, options)
    print(f"exported {bundle.manifest.name} version {bundle.manifest.version} to {bundle.path}")
    return 0


def _precisions(text: str) -> tuple[str, ...]:
    wanted = tuple(dict.fromkeys(text.split(",")))
    for precision in wanted:
        if precision not in PRECISIONS:
            near = _WHY.get(precision) or did_you_mean(precision, PRECISIONS)
            known = ", ".join(PRECISIONS)
            raise argparse.ArgumentTypeError(f"no precision {precision!r}{near}; known: {known}")
    return wanted
