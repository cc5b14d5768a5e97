"""A graph in onnxruntime's own format answers as the ONNX file does, bit for bit."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

import trunkline
from trunkline.bundle import Bundle, Graph, open_bundle
from trunkline.cpu import lacks_vnni
from trunkline.encode import Row
from trunkline.errors import BundleError
from trunkline.kinds import task_outputs
from trunkline.runner import open_runner
from trunkline_export.ort_format import OPERATORS, main, write_ort

GRAPHS = ["padded-fp32", "packed-fp32", "packed-int8"]


@pytest.fixture(scope="module", params=GRAPHS)
def graph(request: pytest.FixtureRequest, quantised: Path) -> Graph:
    graphs = open_bundle(quantised).manifest.graphs
    return next(one for one in graphs if one.name == request.param)


@pytest.fixture(scope="module")
def converted(graph: Graph, quantised: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    out = tmp_path_factory.mktemp("ort") / "bundle"
    return write_ort(open_bundle(quantised), graph, out)


def rows() -> list[Row]:
    """Rows of pieces drawn at random, of many lengths."""
    random = np.random.default_rng(0)
    return [
        Row(random.integers(5, 60, size), np.zeros(size, np.int64), 1, 0, size - 2, 0, size - 2)
        for size in (64, 3, 17, 31, 17, 2)
    ]


def overflows(graph: Graph, *, lacks: bool | None = None) -> bool:
    """Whether a graph in this format cannot be trusted, here or on a processor without VNNI."""
    return graph.precision == "int8" and (lacks_vnni() if lacks is None else lacks)


def operators(lines: list[str]) -> set[tuple[str, str]]:
    """(domain, name) of each operator that a configuration lists."""
    parts = [line.split(";") for line in lines if not line.startswith("#")]
    return {(domain, name) for domain, _, names in parts for name in names.split(",")}


def test_outputs_are_the_same(graph: Graph, quantised: Path, converted: Bundle) -> None:
    if overflows(graph):
        pytest.skip("sums of bytes overflow in this format without VNNI (ADR 0013)")
    manifest = converted.manifest
    outputs = [output for spec in manifest.tasks for output in task_outputs(spec)]
    (now,) = manifest.graphs
    paths = (quantised / graph.file, converted.path / now.file)
    runners = [open_runner(path, graph.layout, 0, outputs, 1) for path in paths]
    for want, got in zip(*(runner.run(rows(), outputs) for runner in runners), strict=True):
        assert want.keys() == got.keys() == {output.name for output in outputs}
        for name in want:
            assert np.array_equal(want[name], got[name]), name


def test_it_stands_alone_and_tells_its_tasks(
    graph: Graph, quantised: Path, converted: Bundle
) -> None:
    (now,) = converted.manifest.graphs
    files = {path.name for path in (converted.path / now.file).parent.iterdir()}
    assert files == {Path(now.file).name, OPERATORS}
    session = onnxruntime.InferenceSession((converted.path / now.file).read_bytes())
    metadata = session.get_modelmeta().custom_metadata_map
    (entry,) = onnx.load(quantised / graph.file, load_external_data=False).metadata_props
    assert metadata == {entry.key: entry.value}


def test_a_bundle_of_it_loads_and_keeps_its_gates(
    graph: Graph, quantised: Path, converted: Bundle
) -> None:
    before = open_bundle(quantised)
    assert converted.passed(converted.manifest.graphs[0]) == before.passed(graph)
    assert {gate.graph for gate in converted.manifest.gates} == {converted.manifest.graphs[0].file}
    if not overflows(graph):
        assert trunkline.load(converted.path).self_test() > 0


def test_bytes_are_refused_where_their_sums_overflow(
    graph: Graph, converted: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trunkline.choice.lacks_vnni", lambda: True)
    if overflows(graph, lacks=True):
        with pytest.raises(
            BundleError, match=r"overflow without VNNI, .*; use the bundle of ONNX files"
        ):
            trunkline.load(converted.path)
    else:
        assert trunkline.load(converted.path).self_test() > 0


def test_operators_are_those_of_the_graph(graph: Graph, quantised: Path, converted: Bundle) -> None:
    lines = (converted.path / "graphs" / OPERATORS).read_text().splitlines()
    assert str(converted.path) not in "\n".join(lines)
    found = operators(lines)
    assert ("ai.onnx", "MatMul") in found
    assert ("com.microsoft", "FusedMatMul") in found
    proto = onnx.load(quantised / graph.file, load_external_data=False)
    own = {(node.domain, node.op_type) for node in proto.graph.node if node.domain}
    # Of a graph that has onnxruntime's operators, all are still there.
    assert own <= found


def test_command_writes_the_same(quantised: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "trunkline_export.ort_format", quantised]
    done = subprocess.run(
        [*command, "--graph", "packed-int8", "--out", tmp_path / "edge"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    (graph,) = open_bundle(tmp_path / "edge").manifest.graphs
    assert (graph.file, graph.name) == ("graphs/packed-int8.ort", "packed-int8")


@pytest.mark.parametrize(
    ("bundle", "wanted", "out", "message"),
    [
        ("nowhere", "packed-int8", "new", "nowhere: does not exist"),
        ("whole", "packed-int4", "new", "has no graph 'packed-int4'; choose one of: padded-fp32"),
        ("short", "padded-fp32", "new", "fp32.weights: is missing; copy the whole bundle again"),
        ("whole", "packed-int8", "whole", "is the bundle that is read; choose another folder"),
        ("whole", "packed-int8", "taken", "exists and is not a bundle; choose another folder"),
    ],
)
def test_what_is_missing_is_one_line(
    quantised: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    *,
    bundle: str,
    wanted: str,
    out: str,
    message: str,
) -> None:
    for name in ("whole", "short"):
        shutil.copytree(quantised, tmp_path / name)
    (tmp_path / "short/graphs/fp32.weights").unlink()
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken/letter.txt").write_text("dear")
    status = main([str(tmp_path / bundle), "--graph", wanted, "--out", str(tmp_path / out)])
    said = capsys.readouterr().err.splitlines()
    assert (status, len(said)) == (2, 1)
    assert message in said[0]
    assert not (tmp_path / "new").exists()
    assert (tmp_path / "taken/letter.txt").read_text() == "dear"


def test_a_graph_that_cannot_be_converted_is_one_line(quantised: Path, tmp_path: Path) -> None:
    bundle = open_bundle(quantised)
    shutil.copytree(quantised, tmp_path / "broken")
    (tmp_path / "broken/graphs/packed-int8.onnx").write_bytes(b"no graph")
    broken = Bundle(tmp_path / "broken", bundle.manifest)
    graph = next(one for one in bundle.manifest.graphs if one.name == "packed-int8")
    with pytest.raises(BundleError, match="onnxruntime cannot convert it") as caught:
        write_ort(broken, graph, tmp_path / "new")
    assert len(str(caught.value).splitlines()) == 1
    assert not (tmp_path / "new").exists()
