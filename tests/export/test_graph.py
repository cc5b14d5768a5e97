import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from trunkline.bundle import open_bundle
from trunkline.structure import plain
from trunkline_export.graph import OPSET, read_graph
from trunkline_export.variants import PACKED, PADDED, WEIGHTS
from trunkline_train.checkpoint import Checkpoint

INPUTS = ["input_ids", "attention_mask", "token_type_ids"]
FILES = tuple(Path(file).name for file in (PADDED, PACKED, WEIGHTS))
OUTPUTS = ["ner.logits", "qa.start_logits", "qa.end_logits"]


@pytest.fixture(scope="module")
def proto(exported: Path) -> onnx.ModelProto:
    return onnx.load(exported / PADDED)


def axes(value: onnx.ValueInfoProto) -> list[str | int]:
    shape = value.type.tensor_type.shape.dim
    return [dim.dim_param or dim.dim_value for dim in shape]


def run(path: Path, ids: list[list[int]], mask: list[list[int]]) -> list[np.ndarray]:
    """Runs the graph as anyone would who has only the file."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert [given.name for given in session.get_inputs()] == INPUTS
    given = dict(zip(INPUTS, (ids, mask, np.zeros_like(ids)), strict=True))
    feed = {name: np.array(value, np.int64) for name, value in given.items()}
    return list(session.run(None, feed))


def test_the_graph_passes_the_checker(exported: Path, proto: onnx.ModelProto) -> None:
    onnx.checker.check_model(str(exported / PADDED), full_check=True)
    (default,) = [one.version for one in proto.opset_import if one.domain in ("", "ai.onnx")]
    assert default == OPSET >= 20
    assert {one.domain for one in proto.opset_import} <= {"", "ai.onnx"}
    assert {node.domain for node in proto.graph.node} <= {"", "ai.onnx"}
    assert not proto.functions


def test_names_types_and_axes_are_those_of_the_tasks(proto: onnx.ModelProto) -> None:
    assert [given.name for given in proto.graph.input] == INPUTS
    assert [output.name for output in proto.graph.output] == OUTPUTS
    assert [axes(given) for given in proto.graph.input] == [["batch", "sequence"]] * 3
    assert [axes(output) for output in proto.graph.output] == [
        ["batch", "sequence", 5],
        ["batch", "sequence"],
        ["batch", "sequence"],
    ]
    kinds = {given.type.tensor_type.elem_type for given in proto.graph.input}
    assert kinds == {onnx.TensorProto.INT64}
    kinds = {output.type.tensor_type.elem_type for output in proto.graph.output}
    assert kinds == {onnx.TensorProto.FLOAT}


def test_the_manifest_says_what_the_files_have(exported: Path) -> None:
    for said in open_bundle(exported).manifest.graphs:
        found = read_graph(exported, said.file, said.layout, said.precision)
        assert found == replace(said, sha256="")


def test_the_file_alone_tells_its_tasks(exported: Path, checkpoint: Checkpoint) -> None:
    for file in (PADDED, PACKED):
        proto = onnx.load(exported / file, load_external_data=False)
        properties = {entry.key: entry.value for entry in proto.metadata_props}
        assert json.loads(properties["trunkline.tasks"]) == plain(checkpoint.tasks)


def test_the_padded_graph_runs_everywhere_and_the_packed_one_on_cpus(exported: Path) -> None:
    found = {graph.file: graph.providers for graph in open_bundle(exported).manifest.graphs}
    assert found == {
        PADDED: ("CPUExecutionProvider", "CUDAExecutionProvider"),
        PACKED: ("CPUExecutionProvider",),
    }


def test_weights_are_stored_once_for_all_graphs(exported: Path, checkpoint: Checkpoint) -> None:
    files = {file: (exported / "graphs" / file).stat().st_size for file in FILES}
    assert {file.name for file in (exported / "graphs").iterdir()} == set(FILES)
    weights = sum(parameter.numel() for parameter in checkpoint.model.parameters())
    assert 4 * weights < sum(files.values()) < 4 * weights + 100_000
    assert files[Path(WEIGHTS).name] < 4 * weights + 4096 * 20, "a page at most is lost per array"


def test_graphs_point_to_the_same_place_for_the_same_weights(exported: Path) -> None:
    places: dict[bytes, set[tuple[str, str]]] = {}
    for file in (PADDED, PACKED):
        pointing = onnx.load(exported / file, load_external_data=False).graph.initializer
        for one, held in zip(pointing, onnx.load(exported / file).graph.initializer, strict=True):
            entries = {entry.key: entry.value for entry in one.external_data}
            if entries:
                place = entries["location"], entries["offset"]
                places.setdefault(held.raw_data, set()).add(place)
    assert len(places) > 10
    assert all(len(found) == 1 for found in places.values())
    assert len(set.union(*places.values())) == len(places)


def test_nothing_of_the_exporting_machine_is_in_the_files(exported: Path) -> None:
    traces = (b".py", str(Path(__file__).parents[2]).encode(), str(exported.parent).encode())
    for file in FILES:
        content = (exported / "graphs" / file).read_bytes()
        assert [trace for trace in traces if trace in content] == [], file


def test_the_graph_needs_no_more_than_its_three_inputs(exported: Path) -> None:
    values = run(exported / PADDED, [[2, 7, 9, 3]], [[1, 1, 1, 1]])
    assert [value.shape for value in values] == [(1, 4, 5), (1, 4), (1, 4)]
    assert all(np.isfinite(value).all() for value in values)


@pytest.mark.parametrize("shape", [(1, 1), (1, 64), (7, 3), (3, 64)])
def test_any_batch_and_length_runs(exported: Path, shape: tuple[int, int]) -> None:
    ones = np.ones(shape, np.int64).tolist()
    ner, start, end = run(exported / PADDED, ones, ones)
    assert ner.shape == (*shape, 5)
    assert start.shape == end.shape == shape


def test_a_row_of_padding_gives_no_nan_and_changes_no_other(exported: Path) -> None:
    row, mask = [2, 7, 9, 3], [1, 1, 1, 1]
    alone = run(exported / PADDED, [row], [mask])
    beside = run(exported / PADDED, [row, [0] * 4], [mask, [0] * 4])
    for one, two in zip(alone, beside, strict=True):
        assert np.isfinite(two).all()
        assert two[0] == pytest.approx(one[0], abs=1e-5)


def test_padding_changes_no_real_token(exported: Path) -> None:
    row = [2, 7, 9, 3]
    alone = run(exported / PADDED, [row], [[1] * 4])
    padded = run(exported / PADDED, [row + [0] * 20], [[1] * 4 + [0] * 20])
    for one, two in zip(alone, padded, strict=True):
        assert two[0, :4] == pytest.approx(one[0], abs=1e-5)
