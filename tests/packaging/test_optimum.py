"""Optimum, which takes no transformers 5, in an environment of its own."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from trunkline.bundle import Graph, open_bundle, seal
from trunkline.kinds import task_outputs
from trunkline.runner import OrtRunner

pytestmark = pytest.mark.network

Run = Callable[..., subprocess.CompletedProcess[str]]
Arrays = dict[str, NDArray[np.generic]]

LENGTHS = (31, 64, 7, 1)
# Of these, transformers 4.57 takes older ones than those that are pinned.
OLDER = ("huggingface_hub", "tokenizers", "transformers")
# Large ones that both environments have.
LENT = ("networkx", "numpy", "onnx", "onnxruntime", "sympy", "torch")


@pytest.fixture(scope="module")
def optimum(
    root: Path, wheel: Path, install: Callable[..., Run], tmp_path_factory: pytest.TempPathFactory
) -> Run:
    pins = (root / "constraints.txt").read_text().splitlines()
    kept = [pin for pin in pins if not pin.startswith(tuple(f"{name}==" for name in OLDER))]
    file = tmp_path_factory.mktemp("optimum") / "constraints.txt"
    file.write_text("\n".join(kept))
    # torch is named so that pip, where it knows a CPU build of this version, takes that.
    (torch,) = [pin for pin in kept if pin.startswith("torch==")]
    return install("-c", file, torch, f"{wheel}[optimum]", lent=LENT)


@pytest.fixture(scope="module")
def external(every_exported: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle with its padded graph's weights in a file beside the graph."""
    folder = tmp_path_factory.mktemp("optimum") / "external"
    shutil.copytree(every_exported, folder)
    path = folder / padded(folder).file
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="weights")
    seal(folder, open_bundle(every_exported).manifest)
    return folder


@pytest.fixture(scope="module")
def answers(
    optimum: Run, every_trained: Path, every_exported: Path, external: Path
) -> tuple[list[str], dict[str, Arrays]]:
    """What the environment printed, and outputs by the graph that gave them."""
    folder = external.parent
    np.savez(folder / "inputs.npz", **batch(every_exported))
    given = (every_trained, folder / "exported", folder / "inputs.npz", every_exported, external)
    done = optimum("python", Path(__file__).with_name("ask_optimum.py"), *given)
    assert done.returncode == 0, done.stderr
    names = ("exported", every_exported.name, "external")
    values = [dict(np.load(folder / f"{name}.npz")) for name in names]
    return done.stdout.splitlines(), dict(
        zip(("exported", "bundle", "external"), values, strict=True)
    )


def padded(bundle: Path) -> Graph:
    graphs = open_bundle(bundle).manifest.graphs
    return next(one for one in graphs if (one.layout, one.precision) == ("padded", "fp32"))


def real() -> NDArray[np.bool_]:
    """The batch's mask [rows, longest]."""
    return np.arange(max(LENGTHS)) < np.array(LENGTHS)[:, None]


def batch(bundle: Path) -> dict[str, NDArray[np.int64]]:
    """Ragged rows of pieces drawn at random."""
    pad = open_bundle(bundle).manifest.encoder.pad_id
    ids = np.random.default_rng(0).integers(5, 60, real().shape)
    return {
        "input_ids": np.where(real(), ids, pad).astype(np.int64),
        "attention_mask": real().astype(np.int64),
        "token_type_ids": np.zeros(real().shape, np.int64),
    }


@pytest.mark.parametrize("graph", ["exported", "bundle", "external"])
def test_all_heads_give_what_our_runtime_gives(
    answers: tuple[list[str], dict[str, Arrays]], every_exported: Path, graph: str
) -> None:
    manifest = open_bundle(every_exported).manifest
    outputs = [output for spec in manifest.tasks for output in task_outputs(spec)]
    names = [output.name for output in outputs]
    ours = OrtRunner(every_exported / padded(every_exported).file, 0, outputs, 1)
    values = answers[1][graph]
    assert list(values) == names
    for output, want in zip(outputs, ours.forward(batch(every_exported), names), strict=True):
        counts = real() if "sequence" in output.axes else real().any(axis=1)
        got = values[output.name]
        assert got.shape == want.shape
        assert np.abs(got[counts] - want[counts]).max() < 1e-4
        assert np.ptp(want[counts]) > 0.1, "a head that says nothing proves nothing"


def test_environment_has_transformers_4_and_tells_errors_in_one_line(
    answers: tuple[list[str], dict[str, Arrays]], external: Path
) -> None:
    version, error = answers[0]
    assert version.startswith("transformers 4.57.")
    assert error == f"{external.parent / 'exported'}: exists; choose another folder"
