"""What a forked process does without the threads of its parent.

Threads of Python are made anew. Those of onnxruntime, and a GPU, cannot be: what needs them says so
at once, where it would else wait for ever, and is not freed, which would crash.
"""

from __future__ import annotations

import ctypes
import os
import weakref
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from trunkline.errors import RuntimeFault

Given = TypeVar("Given")
Result = TypeVar("Result")


class Workers:
    """Some threads. A forked process has none of its parent's, and starts its own.

    Args:
        count: Of threads.
        name: That theirs begin with.
    """

    def __init__(self, count: int, name: str) -> None:
        self._count, self._name = count, name
        self._started = self._start()

    def map(self, function: Callable[[Given], Result], given: Iterable[Given]) -> Iterator[Result]:
        """Applies a function on the threads; returns what it gives, in order."""
        process, threads = self._started
        if process != os.getpid():
            process, threads = self._started = self._start()
        return threads.map(function, given)

    def _start(self) -> tuple[int, ThreadPoolExecutor]:
        return os.getpid(), ThreadPoolExecutor(self._count, self._name)


class OfProcess:
    """A session of onnxruntime with threads of its own or on a GPU: bound to its process.

    Args:
        session: The session.
        name: What errors call it.
    """

    def __init__(self, session: object, name: str) -> None:
        self._process = os.getpid()
        self._name = name
        self.session = session
        _bound.add(self)

    def check(self) -> None:
        """Refuses to be used elsewhere.

        Raises:
            RuntimeFault: This process was forked from that which loaded the graph.
        """
        if os.getpid() != self._process:
            reason = "was loaded before this process was forked, and cannot run in it"
            raise RuntimeFault(f"{self._name}: {reason}; load the model in each process")


_bound: weakref.WeakSet[OfProcess] = weakref.WeakSet()


def _keep_inherited() -> None:
    """Lets no bound session be freed, which would wait for threads that are not there."""
    for bound in _bound:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(bound.session))


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_keep_inherited)
