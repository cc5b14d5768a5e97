"""Importing the runtime or the server loads nothing heavy."""

import subprocess
import sys

import pytest

LOADED = "import sys, {0}; print(*[name for name in {1!r} if name in sys.modules])"


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        ("trunkline", ["torch", "transformers", "grpc", "google.protobuf"]),
        ("trunkline.cli", ["torch", "transformers", "grpc", "google.protobuf"]),
        ("trunkline_serve", ["torch", "transformers"]),
        ("trunkline_serve.client", ["onnxruntime", "numpy", "tokenizers", "torch"]),
    ],
)
def test_import_loads_nothing_heavy(module: str, unwanted: list[str]) -> None:
    command = [sys.executable, "-c", LOADED.format(module, unwanted)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []
