"""The packed fp16 graph for CUDA, as far as a CPU can run it.

Its operators stand in `cuda_reference` in numpy, and run in fp16 there. The same graph in fp32 and
with attention in plain ONNX goes through the runner itself: shapes, memory, bindings, threads.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto

from tests.export.cuda_reference import on_cpu, reference
from tests.export.test_packed import (
    FAMILIES,
    LONGEST,
    UNPACKABLE,
    largest_difference,
    mixed,
    same,
    some_rows,
    untrained,
)
from tests.small import Corpus
from trunkline.buckets import CUDA_INPUTS, Shape, bucket, fill, input_places
from trunkline.bundle import open_bundle
from trunkline.cli import main
from trunkline.cuda_runner import CudaRunner, SpreadRunner
from trunkline.cuda_session import CudaSession
from trunkline.decode.numeric import Floats
from trunkline.device import CPU, CUDA, CudaOptions
from trunkline.encode import Row
from trunkline.errors import BundleError, DeviceError, RuntimeFault
from trunkline.kinds import all_outputs
from trunkline_export.fusions import check_cuda_fusions
from trunkline_export.packed_cuda import NotHalf, packed_cuda_model, wanted_cuda_counts
from trunkline_export.parity import ParityError
from trunkline_export.trunk import Unpackable, read_trunk
from trunkline_export.variants import FP16, FP16_WEIGHTS, is_packable
from trunkline_export.write import ExportOptions, export_bundle
from trunkline_train.checkpoint import Checkpoint
from trunkline_train.torch_runner import TorchRunner

USUAL = CudaOptions()
HALF = 2.0**-10  # the step of fp16 numbers around 1
CALM = settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


class HostSession(CudaSession):
    """The session with the CPU for a GPU: all else is as it is."""

    kind = "cpu"

    def providers(self, options: CudaOptions) -> list[tuple[str, dict[str, str]]]:
        return [(CPU, {})]

    def session_options(self) -> onnxruntime.SessionOptions:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        return options


@pytest.fixture(scope="module")
def every_cuda(every_checkpoint: Checkpoint) -> onnx.ModelProto:
    return packed_cuda_model(every_checkpoint.model)


@pytest.fixture(scope="module")
def host(
    every_cuda: onnx.ModelProto,
    every_checkpoint: Checkpoint,
    tmp_path_factory: pytest.TempPathFactory,
) -> HostSession:
    path = on_cpu(every_cuda, tmp_path_factory.mktemp("cuda") / "graph.onnx")
    return HostSession(path, all_outputs(every_checkpoint.tasks), 0, USUAL)


@pytest.fixture(scope="module")
def runners(host: HostSession, every_checkpoint: Checkpoint) -> list[CudaRunner | SpreadRunner]:
    outputs = all_outputs(every_checkpoint.tasks)
    large, small, other = (
        CudaRunner(host, outputs, LONGEST, USUAL, budget) for budget in (1024, 128, 512)
    )
    return [large, small, SpreadRunner([large, other])]


def in_numpy(
    model: onnx.ModelProto, checkpoint: Checkpoint, rows: Sequence[Row], shape: Shape | None = None
) -> list[Mapping[str, Floats]]:
    """Runs the fp16 graph itself; returns the rows' outputs."""
    shape = shape or bucket([len(row) for row in rows])
    places = input_places(shape)
    block = np.zeros(max(place.end for place in places.values()), np.int32)
    fill(block, places, shape, rows)
    taken = {one.name for one in model.graph.input}
    feed = {
        name: block[place.begin : place.end].reshape(place.shape)
        for name, place in places.items()
        if name in taken
    }
    outputs = all_outputs(checkpoint.tasks)
    values = dict(
        zip(
            (output.name for output in outputs),
            reference(model).run([output.name for output in outputs], feed),
            strict=True,
        )
    )
    assert all(value.dtype == np.float32 for value in values.values())
    ends = np.cumsum([len(row) for row in rows]).tolist()
    return [
        {
            output.name: values[output.name][end - len(row) : end]
            if "sequence" in output.axes
            else values[output.name][at]
            for output in outputs
        }
        for at, (row, end) in enumerate(zip(rows, ends, strict=True))
    ]


def spread(results: Sequence[Mapping[str, Floats]]) -> float:
    """Returns how far the outputs lie apart."""
    return float(np.concatenate([v.ravel() for row in results for v in row.values()]).std())


def test_fp16_gives_nearly_what_torch_gives(
    every_cuda: onnx.ModelProto, every_checkpoint: Checkpoint
) -> None:
    rows = some_rows(every_checkpoint, [1, 2, LONGEST, 17, 1, 33, 16], 0)
    outputs = all_outputs(every_checkpoint.tasks)
    wanted = TorchRunner(every_checkpoint.model, every_checkpoint.pad_id).run(rows, outputs)
    found = in_numpy(every_cuda, every_checkpoint, rows)
    assert 0 < largest_difference(found, wanted) < 20 * HALF * spread(wanted)


def test_fp16_rows_give_the_same_alone_and_in_company(
    every_cuda: onnx.ModelProto, every_checkpoint: Checkpoint
) -> None:
    rows = some_rows(every_checkpoint, [1, LONGEST, 5, 30], 1)
    together = in_numpy(every_cuda, every_checkpoint, rows)
    for row, one in zip(rows, together, strict=True):
        for shape in (None, Shape(256, 16, 128)):
            (alone,) = in_numpy(every_cuda, every_checkpoint, [row], shape)
            assert largest_difference([one], [alone]) < 4 * HALF * spread(together)


@pytest.mark.parametrize("family", [name for name in FAMILIES if "modernbert" not in name])
def test_every_family_has_the_graph(family: str, corpus: Corpus, tmp_path: Path) -> None:
    checkpoint = untrained(tmp_path, FAMILIES[family](), corpus)
    model = packed_cuda_model(checkpoint.model)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, tmp_path / "cuda.onnx")
    check_cuda_fusions(tmp_path / "cuda.onnx", checkpoint.model)
    types = getattr(checkpoint.model.config, "type_vocab_size", 0) > 1
    rows = some_rows(checkpoint, [1, 2, 31, LONGEST, 16], 2, types=types)
    outputs = all_outputs(checkpoint.tasks)
    wanted = TorchRunner(checkpoint.model, checkpoint.pad_id).run(rows, outputs)
    found = in_numpy(model, checkpoint, rows)
    assert largest_difference(found, wanted) < 20 * HALF * spread(wanted)
    path = on_cpu(model, tmp_path / "host.onnx")
    runner = CudaRunner(HostSession(path, outputs, 0, USUAL), outputs, LONGEST, USUAL, 256)
    assert largest_difference(runner.run(rows, outputs), found) < 20 * HALF * spread(wanted)


@pytest.mark.parametrize("name", [name for name in UNPACKABLE if name != "bert"])
def test_families_without_packed_rows_are_told(name: str, corpus: Corpus, tmp_path: Path) -> None:
    make, told = UNPACKABLE[name]
    with pytest.raises(Unpackable, match=told):
        packed_cuda_model(untrained(tmp_path, make(), corpus).model)


def test_a_family_with_packed_rows_on_cpus_alone_is_told(corpus: Corpus, tmp_path: Path) -> None:
    checkpoint = untrained(tmp_path, FAMILIES["modernbert"](), corpus)
    with pytest.raises(Unpackable, match="no packed graph for 'modernbert' on CUDA: its rotary"):
        packed_cuda_model(checkpoint.model)
    assert is_packable(checkpoint) == ""


def test_onnxruntime_knows_the_operators_and_lacks_but_the_kernel(
    every_cuda: onnx.ModelProto,
) -> None:
    """Types and shapes are checked before kernels are looked for."""
    if CUDA in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime is built with CUDA")
    with pytest.raises(Exception, match=r"Failed to find kernel for .*PackedMultiHeadAttention"):
        onnxruntime.InferenceSession(every_cuda.SerializeToString(), providers=[CPU])


def test_a_wrong_operator_is_found(
    every_cuda: onnx.ModelProto, every_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    model = onnx.ModelProto()
    model.CopyFrom(every_cuda)
    node = next(node for node in model.graph.node if node.op_type == "BiasGelu")
    node.op_type = "FastGelu"
    onnx.save(model, tmp_path / "cuda.onnx")
    with pytest.raises(ParityError, match=r"cuda\.onnx: 1 of operator BiasGelu, not 2"):
        check_cuda_fusions(tmp_path / "cuda.onnx", every_checkpoint.model)
    assert wanted_cuda_counts(read_trunk(every_checkpoint.model.encoder))["Shape"] == 0


def test_weights_are_fp16_and_stored_once(
    every_cuda: onnx.ModelProto, every_checkpoint: Checkpoint
) -> None:
    halves = [t for t in every_cuda.graph.initializer if t.data_type == TensorProto.FLOAT16]
    stored = sum(len(tensor.raw_data) for tensor in halves)
    encoder = every_checkpoint.model.encoder
    count = sum(p.numel() for name, p in encoder.named_parameters() if "pooler" not in name)
    config = encoder.config
    merged = config.max_position_embeddings * config.hidden_size  # segments, over every position
    assert stored == 2 * (count + merged - config.type_vocab_size * config.hidden_size)


def test_a_weight_beyond_fp16_is_told(corpus: Corpus, tmp_path: Path) -> None:
    checkpoint = untrained(tmp_path, FAMILIES["bert"](), corpus)
    checkpoint.model.encoder.encoder.layer[1].output.dense.weight.data[0, 0] = 1e6
    with pytest.raises(NotHalf, match=r"layer1\.down\.weight: a weight of size 1e\+06"):
        packed_cuda_model(checkpoint.model)


lengths = st.lists(st.integers(1, LONGEST), min_size=1, max_size=24)


@given(lengths, st.integers(0, 1000))
@CALM
def test_the_runner_gives_the_same_in_any_company(
    every_checkpoint: Checkpoint,
    runners: list[CudaRunner | SpreadRunner],
    given_: list[int],
    seed: int,
) -> None:
    outputs = all_outputs(every_checkpoint.tasks)
    rows = some_rows(every_checkpoint, given_, seed)
    wanted = TorchRunner(every_checkpoint.model, every_checkpoint.pad_id).run(rows, outputs)
    alone = [runners[0].run([row], outputs)[0] for row in rows]
    assert largest_difference(alone, wanted) < 20 * HALF * spread(wanted)
    for runner in runners:
        for found in (runner.run(rows, outputs), mixed(rows, runner, outputs, seed)):
            assert largest_difference(found, alone) < 1e-4 * spread(wanted)


def test_only_the_outputs_asked_for_are_given(
    every_checkpoint: Checkpoint, runners: list[CudaRunner | SpreadRunner]
) -> None:
    outputs = all_outputs(every_checkpoint.tasks)
    rows = some_rows(every_checkpoint, [9, 2], 3)
    everything = runners[0].run(rows, outputs)
    for chosen in (outputs[:1], outputs[-1:], outputs[::-2]):
        for row, other in zip(runners[0].run(rows, chosen), everything, strict=True):
            assert list(row) == [output.name for output in chosen]
            assert all(np.array_equal(row[name], other[name]) for name in row)
    assert runners[0].run([], outputs) == []


def test_results_outlive_the_runs_behind_them(
    every_checkpoint: Checkpoint, runners: list[CudaRunner | SpreadRunner]
) -> None:
    """The memory of a run is used again; what was given is not to change with it."""
    outputs = all_outputs(every_checkpoint.tasks)
    first, second = (some_rows(every_checkpoint, [20, 30], seed) for seed in (4, 5))
    kept = runners[0].run(first, outputs)
    before = [{name: value.copy() for name, value in row.items()} for row in kept]
    for _ in range(3):
        runners[0].run(second, outputs)
    assert all(map(same, kept, before))


def test_callers_at_once_get_their_own_answers(
    every_checkpoint: Checkpoint, runners: list[CudaRunner | SpreadRunner]
) -> None:
    outputs = all_outputs(every_checkpoint.tasks)
    random = np.random.default_rng(6)
    calls = [some_rows(every_checkpoint, random.integers(1, 40, 5), seed) for seed in range(40)]
    wanted = [runners[0].run(rows, outputs) for rows in calls]
    with ThreadPoolExecutor(8) as callers:
        for runner in runners:
            found = list(callers.map(lambda rows, r=runner: r.run(rows, outputs), calls))
            for one, other in zip(found, wanted, strict=True):
                assert largest_difference(one, other) < 1e-4


def test_a_row_too_long_is_told(
    every_checkpoint: Checkpoint, runners: list[CudaRunner | SpreadRunner]
) -> None:
    outputs = all_outputs(every_checkpoint.tasks)
    (row,) = some_rows(every_checkpoint, [LONGEST + 1], 0)
    for runner in runners:
        with pytest.raises(RuntimeFault, match=r"a row of 65 tokens, at most 64 are taken"):
            runner.run([row], outputs)
        assert runner.run(some_rows(every_checkpoint, [4], 0), outputs)


def test_what_is_computed_counts_the_dummies(runners: list[CudaRunner | SpreadRunner]) -> None:
    assert runners[0].computed([60] * 10) == 640
    assert runners[0].computed([5]) == 64
    assert runners[1].computed([60] * 3) == 128 + 64
    assert (runners[0].lanes, runners[2].lanes, runners[0].group(9)) == (2, 4, 0)


@pytest.fixture(scope="module")
def half(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A bundle in fp32 and fp16, exported where there is no GPU, and what was said."""
    said: list[str] = []
    out = tmp_path_factory.mktemp("half") / "bundle"
    options = ExportOptions(precisions=("fp32", "fp16"), device="cpu")
    export_bundle(trained, out, options, say=said.append)
    return out, said


def test_the_manifest_says_what_the_graph_is_for(half: tuple[Path, list[str]]) -> None:
    bundle = open_bundle(half[0])
    (graph,) = [one for one in bundle.manifest.graphs if one.name == "packed-fp16"]
    assert (graph.file, graph.weights, graph.providers) == (FP16, FP16_WEIGHTS, (CUDA,))
    assert {one.name: one.axes for one in graph.inputs} == {
        "input_ids": ("tokens",),
        "position_ids": ("tokens",),
        "token_type_ids": ("tokens",),
        "token_offset": ("rows", "width"),
        "cumulative_sequence_length": ("rows_and_one",),
        "first_index": ("rows",),
    }
    assert {one.name for one in graph.inputs} == set(CUDA_INPUTS)
    assert {one.dtype for one in graph.inputs} == {"int32"}
    assert {one.dtype for one in graph.outputs} == {"float32"}
    assert graph.operators["PackedMultiHeadAttention"] == 2
    assert (half[0] / graph.weights).stat().st_size < (
        half[0] / "graphs/fp32.weights"
    ).stat().st_size


def test_without_a_gpu_it_has_no_gates_and_is_refused(half: tuple[Path, list[str]]) -> None:
    path, said = half
    assert "packed-fp16: not measured, as asked; it is served only if told so" in said
    bundle = open_bundle(path)
    gated = {gate.graph for gate in bundle.manifest.gates}
    assert FP16 not in gated
    assert gated
    with pytest.raises(BundleError, match="on a machine with a GPU, where graphs for CUDA are"):
        bundle.candidates("packed-fp16")
    assert [one.name for one in bundle.candidates()] == ["packed-fp32", "padded-fp32"]


def test_a_bundle_of_it_alone_is_exported_whole(trained: Path, tmp_path: Path) -> None:
    options = ExportOptions(precisions=("fp16",), device="cpu", gate=False)
    export_bundle(trained, tmp_path / "alone", options, say=lambda line: None)
    (graph,) = open_bundle(tmp_path / "alone").manifest.graphs
    assert (tmp_path / "alone" / graph.golden).read_text().count("\n") > 3


@pytest.mark.skipif(CUDA in onnxruntime.get_available_providers(), reason="CUDA is there")
def test_export_on_a_gpu_that_is_not_there_is_one_line(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "bundle"
    given_ = ["export", str(trained), "--out", str(out), "--precision", "fp16", "--device", "cuda"]
    assert main(given_) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("trunkline export: cuda:0: onnxruntime")
    assert not out.exists()


def test_bf16_is_refused_with_the_reason(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["export", "run", "--out", "x", "--precision", "bf16"])
    assert "PackedMultiHeadAttention has no bf16 kernel" in capsys.readouterr().err


def test_a_session_that_ends_up_on_the_cpu_is_an_error(half: tuple[Path, list[str]]) -> None:
    """Onnxruntime itself goes on without the GPU."""
    if CUDA in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime is built with CUDA")
    bundle = open_bundle(half[0])
    outputs = all_outputs(bundle.manifest.tasks)
    with (
        pytest.warns(UserWarning, match="CUDAExecutionProvider"),
        pytest.raises((DeviceError, BundleError)) as caught,
    ):
        CudaSession(half[0] / FP16, outputs, 0, USUAL)
    assert len(str(caught.value).splitlines()) == 1


def test_a_graph_of_another_kind_is_refused(
    half: tuple[Path, list[str]], every_cuda: onnx.ModelProto, tmp_path: Path
) -> None:
    outputs = all_outputs(open_bundle(half[0]).manifest.tasks)
    with pytest.raises(BundleError, match=r"graph wants input '(padded|token)_index'"):
        HostSession(half[0] / "graphs/packed-fp32.onnx", outputs, 0, USUAL)
    path = on_cpu(every_cuda, tmp_path / "graph.onnx")
    wrong = [type(outputs[0])("other.logits", ("batch", "sequence", "labels"))]
    with pytest.raises(BundleError, match=r"graph lacks output 'other\.logits'"):
        HostSession(path, wrong, 0, USUAL)
