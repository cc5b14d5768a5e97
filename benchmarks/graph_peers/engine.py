"""Engines in processes of their own, and what they say beside what is right."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.graph_peers.turns import Task, read_batches
from benchmarks.serving.peers.environment import ROOT, python_of
from benchmarks.serving.processes import ServerError
from trunkline.kinds import Output
from trunkline_serve.launch import last_words

_EXACT = 1e-4  # sums in another order differ by a hundredth of that
_ROUNDED = 0.3  # the gates of a bundle say what int8 costs; this finds other work

Answers = Sequence[Mapping[str, NDArray[Any]]]
"""The outputs of each batch by name, padded."""


@dataclass(frozen=True)
class Engine:
    """A runtime in one of its precisions.

    Attributes:
        name: What it is called in results.
        module: What runs it, below `benchmarks.graph_peers`.
        precision: A name of the module's own.
        exact: Whether its logits must be those of fp32.
        requirements: What pip installs for it; none if Trunkline's own environment has it.
        takes_run: Whether it runs the checkpoint; else the padded graph.
    """

    name: str
    module: str
    precision: str
    exact: bool = True
    requirements: tuple[str, ...] = ()
    takes_run: bool = False

    def python(self) -> str:
        """Returns the Python that runs it, and builds its environment if need be.

        Raises:
            ServerError: It cannot be installed.
        """
        if not self.requirements:
            return sys.executable
        return python_of(self.module.removesuffix("_engine"), self.requirements)


class Running:
    """An engine that waits for its turn.

    Attributes:
        name: The engine's.
    """

    def __init__(self, name: str, process: subprocess.Popen[str], log: Path) -> None:
        self.name = name
        self._process = process
        self._log = log

    def tell(self, line: str) -> Mapping[str, Any]:
        """Sends a line and returns the reply.

        Raises:
            ServerError: The engine has ended; has the last line that it printed.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f"{line}\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._ended() from None
        return self.heard()

    def heard(self) -> Mapping[str, Any]:
        """Returns the next message of the engine.

        Raises:
            ServerError: The engine has ended; has the last line that it printed.
        """
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line.endswith("\n"):  # it may end in the middle of one
            raise self._ended()
        found: Mapping[str, Any] = json.loads(line)
        return found

    def _ended(self) -> ServerError:
        return ServerError(f"{self.name}: ended: {last_words(self._log)}")


@contextmanager
def running(engine: Engine, task: Task, log: Path) -> Iterator[Running]:
    """Starts an engine, and ends it after the block.

    Yields:
        It, with its answers written to the task's file.

    Raises:
        ServerError: It cannot be installed, or ends before it is ready.
    """
    command = [engine.python(), "-m", f"benchmarks.graph_peers.{engine.module}"]
    paths = {"PYTHONPATH": str(ROOT)} if engine.requirements else {}
    variables = os.environ | paths | task.variables()
    with (
        log.open("wb") as said,
        subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=said,
            env=variables,
            cwd=ROOT,
            text=True,
        ) as process,
    ):
        try:
            found = Running(engine.name, process, log)
            found.heard()
            yield found
        finally:
            process.kill()


@dataclass(frozen=True)
class Difference:
    """How far logits are from those expected.

    Attributes:
        most: The most that one differs.
        share: Root mean square of the differences, over that of what was expected.
    """

    most: float
    share: float

    @classmethod
    def of(cls, pairs: Iterable[tuple[NDArray[Any], NDArray[Any]]]) -> Difference:
        """Returns the difference of arrays, each with the one expected."""
        most = squares = whole = 0.0
        for found, expected in pairs:
            apart = found.astype(np.float64) - expected
            most = max(most, float(np.abs(apart).max()))
            squares += float(np.square(apart).sum())
            whole += float(np.square(expected, dtype=np.float64).sum())
        return cls(most, math.sqrt(squares / whole))

    def check(self, name: str, exact: bool) -> None:
        """Refuses what cannot be the same work.

        Raises:
            ServerError: It differs by more than another order of sums does, or if it need not be
                exact by more than few bits do.
        """
        if not self.share <= (_EXACT if exact else _ROUNDED):
            raise ServerError(f"{name}: its logits differ by {self.share:.1%} from the graph's")


def difference(task: Task, expected: Answers, outputs: Sequence[Output]) -> Difference:
    """Returns how far an engine's answers are from those expected, on real tokens."""
    found, batches = read_batches(task.answers), read_batches(task.batches)
    lengths = [batch["attention_mask"].sum(axis=1).tolist() for batch in batches]
    return Difference.of(
        (ours[output.name][row, part], right[output.name][row, part])
        for ours, right, own in zip(found, expected, lengths, strict=True)
        for row, length in enumerate(own)
        for output in outputs
        for part in [slice(length if "sequence" in output.axes else None)]
    )
