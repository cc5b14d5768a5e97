import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from trunkline import Model
from trunkline.structure import plain
from trunkline_export.graph import OPSET, read_graph
from trunkline_export.write import GRAPH
from trunkline_train.checkpoint import Checkpoint

INPUTS = ["input_ids", "attention_mask", "token_type_ids"]
OUTPUTS = ["ner.logits", "qa.start_logits", "qa.end_logits"]


@pytest.fixture(scope="module")
def proto(exported: Path) -> onnx.ModelProto:
    return onnx.load(exported / GRAPH)


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
    onnx.checker.check_model(str(exported / GRAPH), full_check=True)
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


def test_the_manifest_says_what_the_file_has(exported: Path, small_model: Model) -> None:
    said, found = small_model.bundle.graph, read_graph(exported, GRAPH)
    assert (said.inputs, said.outputs, said.opset) == (found.inputs, found.outputs, found.opset)


def test_the_file_alone_tells_its_tasks(proto: onnx.ModelProto, checkpoint: Checkpoint) -> None:
    properties = {entry.key: entry.value for entry in proto.metadata_props}
    assert json.loads(properties["trunkline.tasks"]) == plain(checkpoint.tasks)


def test_weights_are_stored_once_and_inside(exported: Path, proto: onnx.ModelProto) -> None:
    assert [file.name for file in (exported / "graphs").iterdir()] == [Path(GRAPH).name]
    weights = sum(int(np.prod(one.dims)) for one in proto.graph.initializer)
    size = (exported / GRAPH).stat().st_size
    assert size < 4 * weights + 100_000


def test_nothing_of_the_exporting_machine_is_in_the_file(exported: Path) -> None:
    content = (exported / GRAPH).read_bytes()
    for trace in (b".py", str(Path(__file__).parents[2]).encode(), str(exported.parent).encode()):
        assert trace not in content


def test_the_graph_needs_no_more_than_its_three_inputs(exported: Path) -> None:
    values = run(exported / GRAPH, [[2, 7, 9, 3]], [[1, 1, 1, 1]])
    assert [value.shape for value in values] == [(1, 4, 5), (1, 4), (1, 4)]
    assert all(np.isfinite(value).all() for value in values)


@pytest.mark.parametrize("shape", [(1, 1), (1, 64), (7, 3), (3, 64)])
def test_any_batch_and_length_runs(exported: Path, shape: tuple[int, int]) -> None:
    ones = np.ones(shape, np.int64).tolist()
    ner, start, end = run(exported / GRAPH, ones, ones)
    assert ner.shape == (*shape, 5)
    assert start.shape == end.shape == shape


def test_a_row_of_padding_gives_no_nan_and_changes_no_other(exported: Path) -> None:
    row, mask = [2, 7, 9, 3], [1, 1, 1, 1]
    alone = run(exported / GRAPH, [row], [mask])
    beside = run(exported / GRAPH, [row, [0] * 4], [mask, [0] * 4])
    for one, two in zip(alone, beside, strict=True):
        assert np.isfinite(two).all()
        assert two[0] == pytest.approx(one[0], abs=1e-5)


def test_padding_changes_no_real_token(exported: Path) -> None:
    row = [2, 7, 9, 3]
    alone = run(exported / GRAPH, [row], [[1] * 4])
    padded = run(exported / GRAPH, [row + [0] * 20], [[1] * 4 + [0] * 20])
    for one, two in zip(alone, padded, strict=True):
        assert two[0, :4] == pytest.approx(one[0], abs=1e-5)
