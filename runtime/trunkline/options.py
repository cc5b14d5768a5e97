"""Command line options that several commands share."""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path
from typing import Any, TypeVar

Number = TypeVar("Number", int, float)


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


def count(text: str) -> int:
    """Reads a number of things, at least one; for `type` of an argument."""
    return _number(text, int, "a whole number, 1 or more", 1)


def seconds(text: str) -> float:
    """Reads a time above 0; for `type` of an argument."""
    return _number(text, float, "seconds above 0", sys.float_info.min)


def path(text: str) -> Path:
    """Reads a path; for `type` of an argument. An empty one would be the working folder."""
    if not text:
        raise argparse.ArgumentTypeError("is empty; give a path")
    return Path(text)


def new_file(text: str) -> Path:
    """Reads where a file will be written, which a folder cannot be; for `type` of an argument."""
    if path(text).is_dir():
        raise argparse.ArgumentTypeError(f"{text!r} is a folder; name a file in it")
    return Path(text)


def new_folder(text: str) -> Path:
    """Reads a folder that files will be written into; for `type` of an argument."""
    if path(text).exists() and not Path(text).is_dir():
        raise argparse.ArgumentTypeError(f"{text!r} is a file; name a folder")
    return Path(text)


def _number(text: str, kind: type[Number], what: str, least: Number) -> Number:
    try:
        value = kind(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected {what}, got {text!r}") from None
    if not least <= value < math.inf:
        raise argparse.ArgumentTypeError(f"expected {what}, got {text!r}")
    return value
