"""The small world, trained and exported once for all tests that use it."""

from __future__ import annotations

import gc
import os
import sys
import tempfile
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.sharing import build_once

if TYPE_CHECKING:
    from tests.small import Corpus
    from trunkline import Model
    from trunkline_train.checkpoint import Checkpoint

# A test that asks the hub is wrong; it should fail at once, here and in subprocesses.
os.environ["HF_HUB_OFFLINE"] = "1"

# Nor does onnxruntime report on tests, whichever module imports it first.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

# Processes that tests start would else compile torch and transformers anew, which takes longer than
# most tests, wherever Python is told to keep no byte code.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# Encoded rows of tests are not to lie among the user's.
os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="trunkline-tests-")

# Tiny products gain nothing from threads, and lose much where the cores are busy.
os.environ["OMP_NUM_THREADS"] = "1"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden", action="store_true", help="write what is answered now to tests/golden"
    )


# Files that take longest, so that two processes end at about the same time.
_LONGEST = (
    "test_faults.py",
    "test_families.py",
    "test_path.py",
    "test_packed.py",
    "test_deploy.py",
    "test_optimum.py",
    "test_processes.py",
    "test_curves.py",
    "test_web.py",
    "test_killed.py",
    "test_loop.py",
    "test_serving.py",
    "test_encoders.py",
    "test_parallel.py",
    "test_examples.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def late(item: pytest.Item) -> int:
        name = item.path.name
        return _LONGEST.index(name) if name in _LONGEST else len(_LONGEST)

    items.sort(key=late)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    # What test modules import stays to the end: to look through it for garbage takes a fifth of the
    # time of the imports, and then most of a second whenever a server has let go of a model.
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


# Imports stand in the fixtures: most tests need no torch, which takes seconds to load.


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    from tests.small import Corpus, write_corpus

    return Corpus(build_once(tmp_path_factory, "small/corpus", write_corpus))


@pytest.fixture(scope="session")
def trained(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run; not to be changed."""
    from trunkline_train.loop import train

    return build_once(tmp_path_factory, "small/run", lambda out: train(corpus.load(), out))


@pytest.fixture(scope="session")
def checkpoint(trained: Path) -> Checkpoint:
    """The best checkpoint of the run, loaded; not to be changed."""
    from trunkline_train.checkpoint import load_checkpoint

    return load_checkpoint(trained)


@pytest.fixture(scope="session")
def exported(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run as a bundle in fp32; not to be changed."""
    return build_once(
        tmp_path_factory, "small/fp32/bundle", lambda out: _export(trained, out, "fp32")
    )


@pytest.fixture(scope="session")
def quantised(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run as a bundle in fp32 and int8; not to be changed."""
    from trunkline_export.gates import DROP

    with pytest.MonkeyPatch.context() as patch:
        # One of twenty answers is five points: int8 passes or not by the processor's rounding.
        patch.setitem(DROP, "int8", 100.0)
        return build_once(tmp_path_factory, "small/int8/bundle", lambda out: _export(trained, out))


@pytest.fixture(scope="session")
def every_trained(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run with tasks of every kind; not to be changed."""
    from trunkline_train.config import load_config
    from trunkline_train.loop import train

    config = load_config(corpus.every)
    return build_once(tmp_path_factory, "every/run", lambda out: train(config, out))


@pytest.fixture(scope="session")
def every_checkpoint(every_trained: Path) -> Checkpoint:
    """The best checkpoint of that run, loaded; not to be changed."""
    from trunkline_train.checkpoint import load_checkpoint

    return load_checkpoint(every_trained)


@pytest.fixture(scope="session")
def every_exported(every_trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """That run as a bundle in fp32; not to be changed."""
    return build_once(
        tmp_path_factory, "every/fp32/bundle", lambda out: _export(every_trained, out, "fp32")
    )


def _export(run: Path, out: Path, *precisions: str) -> None:
    from trunkline_export.write import ExportOptions, export_bundle

    export_bundle(run, out, ExportOptions(precisions=precisions or None), say=lambda line: None)


@pytest.fixture(scope="session")
def small_model(exported: Path) -> Model:
    import trunkline

    return trunkline.load(exported, 1)
