"""The wheel with its base dependencies alone, in a fresh environment."""

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import trunkline
from tests.tiny import build_tiny_bundle

pytestmark = pytest.mark.network

Run = Callable[..., subprocess.CompletedProcess[str]]

ABSENT = ["datasets", "grpc", "onnx", "torch", "transformers"]
FOUND = "from importlib.util import find_spec; print(*filter(find_spec, {0!r}))"
LOADED = "import sys, trunkline; print('google.protobuf' in sys.modules)"


@pytest.fixture(scope="module")
def edge(root: Path, wheel: Path, install: Callable[..., Run]) -> Run:
    return install("-c", root / "constraints.txt", wheel)


def test_nothing_heavy_is_installed(edge: Run) -> None:
    done = edge("python", "-c", FOUND.format(ABSENT))
    assert (done.stdout.split(), done.stderr) == ([], "")


def test_protobuf_is_not_loaded(edge: Run) -> None:
    # It is installed all the same: onnxruntime requires it.
    done = edge("python", "-c", LOADED)
    assert (done.stdout.strip(), done.stderr) == ("False", "")


def test_help_works(edge: Run) -> None:
    done = edge("trunkline", "--help")
    assert done.returncode == 0, done.stderr
    assert "predict" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "extra"),
    [
        (["train", "x.toml"], "train"),
        (["export", "checkpoint", "--out", "bundle"], "export"),
        (["serve", "bundle"], "serve"),
    ],
)
def test_missing_extra_is_one_line(edge: Run, arguments: list[str], extra: str) -> None:
    done = edge("trunkline", *arguments)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    # From where it was installed: there is none on a package index.
    assert re.search(rf"pip install '.*\.whl\[{extra}\]'$", done.stderr.rstrip())
    assert done.stdout == ""


def test_a_bundle_predicts(edge: Run, tmp_path: Path) -> None:
    bundle = build_tiny_bundle(tmp_path / "tiny")
    here = trunkline.load(bundle).analyze("alice met bob in paris", ["who met bob?"])
    assert edge("trunkline", "verify", bundle).returncode == 0
    done = edge(
        "trunkline", "predict", bundle, "alice met bob in paris", "--question", "who met bob?"
    )
    assert (done.stderr, done.returncode) == ("", 0)
    assert json.loads(done.stdout) == here.to_dict()
