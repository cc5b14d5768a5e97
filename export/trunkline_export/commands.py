"""The command `trunkline export`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from trunkline_export.write import ExportOptions, export_bundle


def export(argv: Sequence[str]) -> int:
    """Runs `trunkline export`."""
    parser = argparse.ArgumentParser(
        "trunkline export", description="Export a checkpoint as a bundle with one ONNX graph."
    )
    parser.add_argument("checkpoint", type=Path, help="a checkpoint or a run's folder")
    parser.add_argument("--out", type=Path, required=True, help="folder of the bundle")
    parser.add_argument("--name", help="name of the model; default the configuration's")
    parser.add_argument("--version", type=int, default=1, help="integer version, from 1")
    parser.add_argument("--precision", choices=("fp32",), default="fp32")
    parser.add_argument("--device", choices=("cpu",), default="cpu")
    parser.add_argument(
        "--no-gate", action="store_true", help="do not measure the tasks on their dev data"
    )
    given = parser.parse_args(argv)
    options = ExportOptions(given.name, given.version, gate=not given.no_gate)
    bundle = export_bundle(given.checkpoint, given.out, options)
    print(f"exported {bundle.manifest.name} version {bundle.manifest.version} to {bundle.path}")
    return 0
