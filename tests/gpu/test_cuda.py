"""What must hold on a GPU: pytest -m gpu tests/gpu. `make gpu-check` measures as well."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import trunkline
from tests.export.test_packed import largest_difference, mixed, some_rows
from tests.gpu.kernels import kernel_shares
from trunkline import Model
from trunkline.bundle import open_bundle
from trunkline.device import CudaOptions
from trunkline.errors import DeviceError
from trunkline.kinds import all_outputs
from trunkline_export.parity import same_annotations
from trunkline_export.write import ExportOptions, export_bundle
from trunkline_train.checkpoint import Checkpoint
from trunkline_train.torch_runner import TorchRunner

pytestmark = pytest.mark.gpu

GRAPH = "packed-fp16"
LONGEST = 64
TEXTS = ["Ada Brown lives in Bern .", "it rained in New York .", "there it rained yesterday ."]


@pytest.fixture(scope="module")
def half(every_trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model with tasks of every kind in fp16, its gates measured on the GPU."""
    out = tmp_path_factory.mktemp("gpu") / "bundle"
    options = ExportOptions(precisions=("fp32", "fp16"), device="cuda")
    export_bundle(every_trained, out, options, say=lambda line: None)
    return out


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "CUDA graphs"])
def model(half: Path, request: pytest.FixtureRequest) -> Model:
    options = CudaOptions(graphs=request.param)
    return trunkline.load(half, graph=GRAPH, allow_ungated=True, device="cuda", cuda=options)


def spread(results: Sequence[dict]) -> float:
    return float(np.concatenate([v.ravel() for row in results for v in row.values()]).std())


def test_gates_are_measured(half: Path) -> None:
    bundle = open_bundle(half)
    (graph,) = [one for one in bundle.manifest.graphs if one.name == GRAPH]
    measured = {gate.task for gate in bundle.manifest.gates if gate.graph == graph.file}
    assert measured == {spec.name for spec in bundle.manifest.tasks}


def test_rows_give_what_torch_gives_alone_and_in_company(
    model: Model, every_checkpoint: Checkpoint
) -> None:
    outputs = all_outputs(every_checkpoint.tasks)
    reference = TorchRunner(every_checkpoint.model, every_checkpoint.pad_id)
    for seed in range(5):
        sizes = [1, 2, LONGEST, 1, *np.random.default_rng(seed).integers(1, LONGEST, 20)]
        rows = some_rows(every_checkpoint, [int(size) for size in sizes], seed)
        wanted = reference.run(rows, outputs)
        near = 0.05 * spread(wanted)
        together = model.runner.run(rows, outputs)
        alone = [model.runner.run([row], outputs)[0] for row in rows]
        assert largest_difference(together, wanted) < near
        assert largest_difference(alone, together) < near
        assert largest_difference(mixed(rows, model.runner, outputs, seed), together) < near


def test_texts_have_the_same_answers_as_on_the_cpu(model: Model, half: Path) -> None:
    on_cpu = trunkline.load(half, graph="packed-fp32", device="cpu")
    for one, other in zip(model.analyze(TEXTS), on_cpu.analyze(TEXTS), strict=True):
        assert same_annotations(one, other)
    assert model.self_test() > 3


def test_callers_at_once_get_their_own_answers(model: Model) -> None:
    texts = [f"{text} {number}" for number in range(30) for text in TEXTS]
    wanted = [model.analyze(text) for text in texts]
    with ThreadPoolExecutor(8) as callers:
        found = list(callers.map(model.analyze, texts))
    assert [one.text for one in found] == texts
    assert all(map(same_annotations, found, wanted))


def test_a_gpu_that_is_not_there_is_told(half: Path) -> None:
    with pytest.raises(DeviceError, match=r"^cuda:99: no such GPU; known: cuda:0"):
        trunkline.load(half, device="cuda:99")


def test_auto_takes_a_graph_that_passed(half: Path) -> None:
    found = trunkline.load(half)
    assert found.bundle.passed(found.graph)


def test_the_time_of_a_run_is_told_by_kernel(half: Path, every_checkpoint: Checkpoint) -> None:
    options = CudaOptions(graphs=False)
    model = trunkline.load(half, graph=GRAPH, allow_ungated=True, device="cuda", cuda=options)
    outputs, rows = all_outputs(every_checkpoint.tasks), some_rows(every_checkpoint, [30, 7], 0)
    shares = kernel_shares(lambda: model.runner.run(rows, outputs), 0)
    assert sum(shares.values()) == pytest.approx(1.0, abs=0.001)
    assert {"attention", "products"} <= shares.keys()
