"""Nothing that is shipped can run code hidden in data: no pickle, in any of its forms."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
FILES = sorted(file for room in ("runtime", "serve") for file in (ROOT / room).rglob("*.py"))
MODULES = {"pickle", "_pickle", "cPickle", "marshal", "dill", "cloudpickle", "joblib", "shelve"}
# They send and receive pickles.
CHANNELS = {"Pipe", "Queue", "JoinableQueue", "SimpleQueue", "Manager", "Pool", "connection"}


def faults(source: str) -> Iterator[str]:
    """Yields what in a module can unpickle."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                yield from (one.name for one in names if _root(one.name) in MODULES)
                yield from (one.name for one in names if one.name in _channels())
            case ast.ImportFrom(module=str(module), names=names):
                yield from (module for _ in names if _root(module) in MODULES)
                whole = {f"{module}.{one.name}" for one in names} | {module}
                yield from whole & _channels()
            case ast.Attribute(value=ast.Name(id="multiprocessing"), attr=attr):
                yield from {attr} & CHANNELS
            case ast.keyword(arg="allow_pickle", value=value):
                if not (isinstance(value, ast.Constant) and value.value is False):
                    yield "allow_pickle"
            case ast.Call(func=ast.Name(id="eval" | "exec" as name)):
                yield name


def _root(module: str) -> str:
    return module.partition(".")[0]


def _channels() -> set[str]:
    return {f"multiprocessing.{name}" for name in CHANNELS}


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_no_module_can_unpickle(file: Path) -> None:
    assert not list(faults(file.read_text(encoding="utf-8")))


def test_all_modules_are_looked_at() -> None:
    names = {file.relative_to(ROOT).as_posix() for file in FILES}
    assert {"runtime/trunkline/bundle.py", "serve/trunkline_serve/engine.py"} <= names


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "import os, dill as d",
        "def f():\n    from marshal import loads",
        "from _pickle import Unpickler",
        "import multiprocessing.connection",
        "from multiprocessing import Pipe",
        "from multiprocessing.connection import Client",
        "import multiprocessing\nmultiprocessing.Queue()",
        "np.load(file, allow_pickle=True)",
        "np.load(file, allow_pickle=chosen)",
        "eval(text)",
    ],
)
def test_what_can_unpickle_is_found(source: str) -> None:
    assert list(faults(source))


@pytest.mark.parametrize(
    "source",
    ["import json", "np.load(file, allow_pickle=False)", "from multiprocessing import Process"],
)
def test_what_cannot_is_left_alone(source: str) -> None:
    assert not list(faults(source))
