"""Devices: their names, what is told when one cannot be used, and the shapes that GPUs compute."""

import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import trunkline
from trunkline import cuda
from trunkline.buckets import CUDA_INPUTS, Shape, bucket, captured, fill, fits, input_places, runs
from trunkline.bundle import open_bundle, seal
from trunkline.cli import main
from trunkline.cuda import find_gpu, load_libraries
from trunkline.device import CUDA, Devices, parse_devices
from trunkline.encode import Row
from trunkline.errors import BundleError, ConfigError, DeviceError

HERE_IS_CUDA = CUDA in onnxruntime.get_available_providers()
without_cuda = pytest.mark.skipif(HERE_IS_CUDA, reason="this onnxruntime is built with CUDA")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("auto", Devices("auto")),
        ("cpu", Devices("cpu")),
        ("cuda", Devices("cuda", (0,))),
        ("cuda:3", Devices("cuda", (3,))),
        ("cuda:0, cuda:1", Devices("cuda", (0, 1))),
        ("tensorrt:1", Devices("tensorrt", (1,))),
    ],
)
def test_names_of_devices(text: str, wanted: Devices) -> None:
    assert parse_devices(text) == wanted
    assert parse_devices(str(wanted)) == wanted


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "unknown ''"),
        ("cud", "did you mean 'cuda'"),
        ("cuda:", "unknown 'cuda:'"),
        ("cuda:-1", "unknown"),
        ("cuda:12345", "unknown"),
        ("CUDA", "unknown"),
        ("cpu:0", "write just 'cpu'"),
        ("cpu,cpu", "write just 'cpu'"),
        ("cuda:1,cuda:1", "twice"),
        ("cuda,cuda:0", "twice"),
        ("cpu,cuda", "several kinds"),
    ],
)
def test_a_wrong_name_is_told(text: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told) as caught:
        parse_devices(text)
    assert len(str(caught.value).splitlines()) == 1


@without_cuda
@pytest.mark.parametrize("command", [["predict", "{}", "Hello."], ["serve", "{}", "--port", "0"]])
@pytest.mark.parametrize("device", ["cuda", "cuda:1", "cuda:0,cuda:1", "tensorrt"])
def test_cuda_that_is_not_there_is_one_line(
    bundle: Path, capsys: pytest.CaptureFixture[str], command: list[str], device: str
) -> None:
    given = [part.format(bundle) for part in command]
    assert main([*given, "--device", device]) == 2
    out, err = capsys.readouterr()
    (line,) = err.splitlines()
    first = device.partition(",")[0]
    first += "" if ":" in first else ":0"
    assert line.startswith(f"trunkline {command[0]}: {first}: onnxruntime")
    assert "built without CUDA" in line
    assert "trunkline[gpu]" in line
    assert not out


@without_cuda
def test_auto_takes_the_cpu_where_there_is_nothing_else(
    bundle: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = trunkline.load(bundle, 1)
    assert model.devices == Devices("cpu")
    assert not caplog.records


@pytest.fixture
def for_cuda(bundle: Path, tmp_path: Path) -> Path:
    """A bundle with a second graph that says it is for CUDA, and has passed the same gates."""
    copy = shutil.copytree(bundle, tmp_path / "two")
    shutil.copy(copy / "graphs/model.onnx", copy / "graphs/cuda.onnx")
    manifest = open_bundle(copy).manifest
    (graph,) = manifest.graphs
    other = replace(graph, file="graphs/cuda.onnx", precision="fp16", providers=(CUDA,))
    gates = (*manifest.gates, *(replace(gate, graph=other.file) for gate in manifest.gates))
    seal(copy, replace(manifest, graphs=(graph, other), gates=gates))
    return copy


@without_cuda
def test_a_graph_for_cuda_is_left_alone_without_it(for_cuda: Path) -> None:
    assert trunkline.load(for_cuda, 1).graph.name == "padded-fp32"
    with pytest.raises(DeviceError, match="built without CUDA"):
        trunkline.load(for_cuda, 1, graph="padded-fp16")
    with pytest.raises(BundleError, match=r"'padded-fp16' is not for cpu; choose --device cuda"):
        trunkline.load(for_cuda, 1, graph="padded-fp16", device="cpu")


@without_cuda
def test_verify_tells_what_it_could_not_test(
    for_cuda: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", str(for_cuda)]) == 0
    out = capsys.readouterr().out
    assert "padded-fp32: 2 golden texts as exported" in out
    assert "padded-fp16: not tested here (cuda:0: onnxruntime" in out


def test_cuda_that_cannot_be_used_is_warned_of_and_not_taken(
    for_cuda: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where onnxruntime-gpu is installed on a machine without a driver."""
    providers = [CUDA, "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: providers)
    monkeypatch.setattr(cuda, "_DRIVER", "libthere-is-none.so.1")
    assert trunkline.load(for_cuda, 1).graph.name == "padded-fp32"
    (record,) = caplog.records
    assert "no NVIDIA driver: libthere-is-none.so.1 is not found" in record.getMessage()
    with pytest.raises(DeviceError, match=r"^cuda:0: no NVIDIA driver: .*--gpus all$"):
        trunkline.load(for_cuda, 1, device="cuda")


class _Answer:
    """Stands for a function of the driver: writes numbers where its arguments point."""

    def __init__(self, status: int, *values: object) -> None:
        self.status, self.values = status, values

    def __call__(self, *arguments: object) -> int:
        for argument, value in zip(arguments, self.values, strict=False):
            target = getattr(argument, "_obj", argument)
            if value is not None:
                target.value = value  # type: ignore[attr-defined]
        return self.status


class _Driver:
    """A driver as ctypes shows it: a GPU of some age, under a version of CUDA."""

    def __init__(self, version: int = 13000, gpus: int = 1, capability: int = 9) -> None:
        self.cuInit = _Answer(0)
        self.cuDriverGetVersion = _Answer(0, version)
        self.cuDeviceGetCount = _Answer(0, gpus)
        self.cuDeviceGet = _Answer(0, 0)
        self.cuDeviceGetName = _Answer(0, b"Some GPU")
        self.cuDeviceTotalMem_v2 = _Answer(0, 80 << 30)
        self.cuDeviceGetAttribute = _Answer(0, capability)


@pytest.mark.parametrize(
    ("driver", "index", "told"),
    [
        (_Driver(version=12080), 0, "the driver knows CUDA 12, onnxruntime .* wants 13"),
        (_Driver(), 1, "no such GPU; known: cuda:0"),
        (_Driver(gpus=0), 0, "no such GPU; known: none is visible"),
        (_Driver(capability=7), 0, r"Some GPU has compute capability 7\.7, .* want 8\.0"),
    ],
)
def test_what_a_driver_lacks_is_told(
    monkeypatch: pytest.MonkeyPatch, driver: _Driver, index: int, told: str
) -> None:
    monkeypatch.setattr(cuda, "check_provider", lambda device: None)
    monkeypatch.setattr(cuda.ctypes, "CDLL", lambda name: driver)
    monkeypatch.setattr(cuda, "_cuda_version", lambda: "13.0")
    with pytest.raises(DeviceError, match=told):
        find_gpu(f"cuda:{index}", index)


def test_a_driver_that_fails_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = _Driver()
    driver.cuInit = _Answer(100)
    monkeypatch.setattr(cuda, "check_provider", lambda device: None)
    monkeypatch.setattr(cuda.ctypes, "CDLL", lambda name: driver)
    with pytest.raises(DeviceError, match="the driver cannot start: CUDA status 100"):
        find_gpu("cuda:0", 0)


def test_a_gpu_is_described(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "check_provider", lambda device: None)
    monkeypatch.setattr(cuda, "load_libraries", lambda device: None)
    monkeypatch.setattr(cuda.ctypes, "CDLL", lambda name: _Driver())
    found = find_gpu("cuda:0", 0)
    assert (found.name, found.capability, found.memory) == ("Some GPU", (9, 9), 80 << 30)


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With a library that really cannot be loaded in the place of onnxruntime's CUDA part."""
    (tmp_path / "capi").mkdir()
    for part in ("shared", "cuda"):
        (tmp_path / f"capi/libonnxruntime_providers_{part}.so").write_bytes(b"not a library")
    monkeypatch.setattr(onnxruntime, "__file__", str(tmp_path / "__init__.py"))
    with pytest.raises(DeviceError, match=r"^cuda:0: onnxruntime's CUDA part cannot be loaded: "):
        load_libraries("cuda:0")


def test_two_onnxruntimes_in_one_folder_are_refused(tmp_path: Path, bundle: Path) -> None:
    for name in ("onnxruntime", "onnxruntime_gpu"):
        folder = tmp_path / f"{name}-1.0.dist-info"
        folder.mkdir()
        shown = name.replace("_", "-")
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {shown}\nVersion: 1.0\n")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import trunkline.cli as c;"
    code += f"sys.exit(c.main(['predict', {str(bundle)!r}, 'x']))"
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "both installed and overwrite each other" in line


lengths = st.lists(st.integers(1, 384), min_size=1, max_size=60)


def some_rows(given_: Sequence[int]) -> list[Row]:
    random = np.random.default_rng(0)
    return [
        Row(random.integers(1, 100, n), random.integers(0, 2, n), 0, 0, n, 0, n) for n in given_
    ]


@given(lengths)
@settings(max_examples=60)
def test_a_shape_holds_its_rows_and_dummies_and_little_else(given_: list[int]) -> None:
    shape = bucket(given_)
    assert fits(given_, shape)
    assert sum(given_) <= shape.tokens <= max(64, sum(given_) * 9 / 8 + 64)
    rows, places = some_rows(given_), input_places(shape)
    block = np.full(max(place.end for place in places.values()), -7, np.int32)
    fill(block, places, shape, rows)
    found = {name: block[p.begin : p.end].reshape(p.shape) for name, p in places.items()}
    assert tuple(found) == CUDA_INPUTS
    assert all(place.begin % 64 == 0 for place in places.values())
    bounds = found["cumulative_sequence_length"]
    sizes = np.diff(bounds)
    assert (bounds[0], bounds[-1]) == (0, shape.tokens)
    assert sizes[: len(rows)].tolist() == given_
    assert 0 <= sizes.min() <= sizes.max() <= shape.width
    offsets = found["token_offset"].ravel()
    assert sorted(offsets.tolist()) == list(range(shape.rows * shape.width))
    for at, row in enumerate(rows):
        begin, end = bounds[at], bounds[at + 1]
        assert found["first_index"][at] == begin
        assert np.array_equal(found["input_ids"][begin:end], row.input_ids)
        assert np.array_equal(found["token_type_ids"][begin:end], row.token_type_ids)
        assert found["position_ids"][begin:end].tolist() == list(range(len(row)))
        assert np.array_equal(offsets[begin:end], at * shape.width + np.arange(len(row)))
    assert 0 <= found["first_index"].min() <= found["first_index"].max() < shape.tokens
    assert not found["input_ids"][sum(given_) :].any()
    assert found["position_ids"].max() < max(given_) + 64


@given(lengths, st.sampled_from([64, 512, 16384]))
@settings(max_examples=60)
def test_runs_hold_every_row_once_within_the_budget(given_: list[int], budget: int) -> None:
    cut = runs(given_, budget)
    assert sorted(at for run in cut for at in run) == list(range(len(given_)))
    for run in cut:
        assert len(run) == 1 or sum(given_[at] for at in run) <= budget
        assert len(run) == 1 or bucket([given_[at] for at in run]).tokens <= budget * 9 / 8


def test_there_are_few_shapes() -> None:
    tokens = {bucket([one]).tokens for one in range(1, 16385)}
    assert len(tokens) < 60
    assert 16384 in tokens


@pytest.mark.parametrize("longest", [64, 128, 384, 512])
def test_captured_shapes_hold_a_short_row(longest: int) -> None:
    shapes = captured(longest)
    assert len(set(shapes)) == len(shapes)
    for shape in shapes:
        assert fits([2], shape)
        assert shape.width <= -(-longest // 64) * 64
        assert not fits([2, shape.tokens - 1], shape)


def test_rows_that_do_not_fit_are_told() -> None:
    assert not fits([65], Shape(128, 16, 64))
    assert not fits([2] * 17, Shape(128, 16, 64))
    assert fits([2] * 10, Shape(128, 16, 64))
