"""What an engine's process does: takes batches once, then runs them whenever it is told to.

Runs in the engine's own environment: nothing but Python and numpy in here. Lines of JSON go both
ways, one for one; see `benchmarks.graph_peers.engine`.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

VARIABLE = "TRUNKLINE_ENGINE"

Batch = Mapping[str, NDArray[Any]]
"""Padded inputs by name, [B, S] each."""
Run = Callable[[Batch], Mapping[str, NDArray[Any]]]
"""A batch to the graph's outputs by name, as arrays that lie in this process's memory."""


@dataclass(frozen=True)
class Task:
    """What an engine is to do.

    Attributes:
        path: The padded graph, or the checkpoint's folder.
        precision: A name of the engine's own.
        threads: Of one run.
        batches: File of the padded batches, as `save_batches` writes it.
        answers: File that the outputs of all batches are written to, once.
    """

    path: str
    precision: str
    threads: int
    batches: str
    answers: str

    def variables(self) -> dict[str, str]:
        """Returns the environment variable that `take_turns` reads."""
        return {VARIABLE: json.dumps(asdict(self))}


def save_batches(path: str, batches: list[Batch]) -> None:
    """Writes named arrays of several batches to one file."""
    named = {f"{at}/{name}": a for at, one in enumerate(batches) for name, a in one.items()}
    with open(path, "wb") as file:
        np.savez(file, **named)  # type: ignore[arg-type]  # its stub takes keywords for flags


def read_batches(path: str) -> list[dict[str, NDArray[Any]]]:
    """Returns what `save_batches` wrote."""
    found: dict[int, dict[str, NDArray[Any]]] = {}
    with np.load(path) as file:
        for key in file.files:
            at, _, name = key.partition("/")
            found.setdefault(int(at), {})[name] = file[key]
    return [found[at] for at in sorted(found)]


def take_turns(load: Callable[[Task], Run]) -> None:
    """Loads the model, writes its answers, and runs the batches at every line that comes in.

    Line in: `padded` for batch after batch, `singly` for row after row without padding. Line out:
    JSON with the seconds it took; first of all one with what the engine says of itself.
    """
    task = Task(**json.loads(os.environ[VARIABLE]))
    # Libraries print what they like to the standard output; the protocol has it for itself.
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    run, batches = load(task), read_batches(task.batches)
    work = {"padded": batches, "singly": [row for batch in batches for row in rows(batch)]}
    save_batches(task.answers, [run(batch) for batch in batches])
    _say(out, {"ready": True})
    for line in sys.stdin:
        begin = time.perf_counter()
        for batch in work[line.strip()]:
            run(batch)
        _say(out, {"seconds": time.perf_counter() - begin})


def _say(out: Any, message: Mapping[str, Any]) -> None:
    print(json.dumps(message), file=out, flush=True)


def rows(batch: Batch) -> Iterator[dict[str, NDArray[Any]]]:
    """Yields each row of a batch as a batch of its own, without padding."""
    for at, length in enumerate(batch["attention_mask"].sum(axis=1).tolist()):
        yield {name: np.ascontiguousarray(a[at : at + 1, :length]) for name, a in batch.items()}
