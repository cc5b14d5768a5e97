"""Command line options that several commands share."""

from __future__ import annotations

import argparse
from typing import Any


def add_graph_options(parser: argparse.ArgumentParser) -> None:
    """Adds `--graph`, `--allow-ungated` and `--device`."""
    parser.add_argument(
        "--graph",
        default="auto",
        help="of the bundle, e.g. packed-int8; default the quickest that passed its gates",
    )
    parser.add_argument(
        "--allow-ungated",
        action="store_true",
        help="also run a graph that has not passed the gates of all tasks",
    )
    parser.add_argument(
        "--device",
        default="auto",
        help="cpu, cuda, cuda:1 or cuda:0,cuda:1 (docs/gpu.md); default what is quickest here",
    )


def graph_options(given: argparse.Namespace) -> dict[str, Any]:
    """Returns what was chosen, as `trunkline.load` takes it."""
    return {
        "graph": given.graph,
        "allow_ungated": given.allow_ungated,
        "device": given.device,
    }
