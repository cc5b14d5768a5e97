"""Weights that lie in a file beside their graph: a session gets a copy of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

Held = list[NDArray[np.uint8]]


def hold_weights(options: onnxruntime.SessionOptions, graph: Path) -> Held:
    """Has a session copy its weights.

    By itself onnxruntime maps their file for as long as the session lives: cut short meanwhile, it
    ends the process by SIGBUS; overwritten in place, it changes the answers, and nothing tells.

    Args:
        options: Of the session.
        graph: Its file; weights are the `.weights` files beside it.

    Returns:
        What must be kept until the session is made.
    """
    files = [file for file in graph.parent.glob("*.weights") if file.stat().st_size]
    held: Held = [np.memmap(file, np.uint8, "r") for file in files]
    names, sizes = [file.name for file in files], [one.size for one in held]
    options.add_external_initializers_from_files_in_memory(names, held, sizes)
    return held
