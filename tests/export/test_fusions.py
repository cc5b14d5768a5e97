"""A packed graph that lost a fusion, or an int8 product, is refused."""

from collections.abc import Callable, Sequence
from pathlib import Path

import onnx
import pytest
from onnx import helper

from trunkline_export import fusions
from trunkline_export.channels import channel_sizes
from trunkline_export.fusions import check_fusions, operators, optimised_operators
from trunkline_export.parity import ParityError, random_rows
from trunkline_export.variants import INT8, PACKED, int8_model
from trunkline_train.checkpoint import Checkpoint


def test_the_fusions_of_the_exported_graphs_are_all_there(
    quantised: Path, checkpoint: Checkpoint
) -> None:
    check_fusions(quantised / PACKED, checkpoint.model)
    check_fusions(quantised / INT8, checkpoint.model, int8=True)
    wanted = {"Gelu": 2, "FusedMatMul": 2, "LayerNormalization": 5, "SkipLayerNormalization": 0}
    for file in (PACKED, INT8):
        for found in (operators(quantised / file), optimised_operators(quantised / file)):
            found["Gelu"] += found["BiasGelu"]
            assert {name: found[name] for name in wanted} == wanted
    assert operators(quantised / INT8)["MatMulIntegerToFloat"] == 8
    assert operators(quantised / PACKED)["MatMulIntegerToFloat"] == 0


def without_gelu(graph: onnx.GraphProto) -> None:
    (node, *_) = (one for one in graph.node if one.op_type == "Gelu")
    swap(graph, node, [helper.make_node("Relu", node.input, node.output)])


def without_bias_in_the_product(graph: onnx.GraphProto) -> None:
    (node, *_) = (one for one in graph.node if one.op_type == "Gemm")
    x, weight, bias = node.input
    apart = [
        helper.make_node("MatMul", [x, weight], ["apart"]),
        helper.make_node("Add", ["apart", bias], node.output),
    ]
    swap(graph, node, apart)


def with_the_slow_norm(graph: onnx.GraphProto) -> None:
    (*_, node) = (one for one in graph.node if one.op_type == "LayerNormalization")
    (summed,) = (one for one in graph.node if one.output[0] == node.input[0])
    slow = helper.make_node(
        "SkipLayerNormalization",
        [*summed.input, *node.input[1:]],
        node.output,
        domain="com.microsoft",
        epsilon=1e-12,
    )
    swap(graph, node, [slow])


def without_fused_matmul(graph: onnx.GraphProto) -> None:
    (node, *_) = (one for one in graph.node if one.op_type == "FusedMatMul")
    query, key = node.input
    apart = [
        helper.make_node("Transpose", [key], ["turned"], perm=[0, 1, 3, 2]),
        helper.make_node("MatMul", [query, "turned"], node.output),
    ]
    swap(graph, node, apart)


def without_int8_product(graph: onnx.GraphProto) -> None:
    (node, *_) = (one for one in graph.node if one.op_type == "MatMulIntegerToFloat")
    rows, weight = node.input[:2]
    apart = [
        helper.make_node("Cast", [rows], ["rows"], to=onnx.TensorProto.FLOAT),
        helper.make_node("Cast", [weight], ["weight"], to=onnx.TensorProto.FLOAT),
        helper.make_node("MatMul", ["rows", "weight"], node.output),
    ]
    swap(graph, node, apart)


def swap(graph: onnx.GraphProto, node: onnx.NodeProto, others: Sequence[onnx.NodeProto]) -> None:
    nodes = [one for old in graph.node for one in (others if old is node else [old])]
    kept = [onnx.NodeProto.FromString(one.SerializeToString()) for one in nodes]
    del graph.node[:]
    graph.node.extend(kept)


UNDONE: dict[str, tuple[Callable[[onnx.GraphProto], None], str, str]] = {
    "Gelu": (without_gelu, PACKED, "1 of operator Gelu, not 2"),
    "Gemm": (without_bias_in_the_product, PACKED, "3 of operator MatMul, not 2"),
    "LayerNormalization": (
        with_the_slow_norm,
        PACKED,
        "1 of operator SkipLayerNormalization, not 0",
    ),
    "FusedMatMul": (without_fused_matmul, PACKED, "1 of operator FusedMatMul, not 2"),
    "MatMulIntegerToFloat": (
        without_int8_product,
        INT8,
        "3 of operator MatMul, not 2",
    ),
}


@pytest.mark.parametrize("operator", UNDONE)
def test_a_fusion_undone_fails(
    quantised: Path, checkpoint: Checkpoint, tmp_path: Path, operator: str
) -> None:
    undo, file, told = UNDONE[operator]
    model = onnx.load(quantised / file)
    undo(model.graph)
    path = tmp_path / "graph.onnx"
    onnx.save(model, path)
    assert operators(path)[operator] == operators(quantised / file)[operator] - 1
    with pytest.raises(ParityError, match=rf"^graph\.onnx: {told}$"):
        check_fusions(path, checkpoint.model, int8=file == INT8)


def test_a_fusion_that_onnxruntime_undoes_fails(
    quantised: Path, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    def undone(path: Path) -> object:
        found = operators(path)
        found["FusedMatMul"] -= 1
        return found

    monkeypatch.setattr(fusions, "optimised_operators", undone)
    with pytest.raises(ParityError, match="after onnxruntime: 1 of operator FusedMatMul, not 2"):
        check_fusions(quantised / PACKED, checkpoint.model)


def test_products_kept_in_fp32_are_counted(checkpoint: Checkpoint, tmp_path: Path) -> None:
    path = tmp_path / "int8.onnx"
    rows = random_rows(checkpoint)[:4]
    onnx.save(
        int8_model(
            checkpoint, channel_sizes(checkpoint.model, rows), ("layer0.up", "layer1.attention.qkv")
        ),
        path,
    )
    check_fusions(path, checkpoint.model, int8=True, kept=2)
    with pytest.raises(ParityError, match="6 of operator MatMulIntegerToFloat, not 8"):
        check_fusions(path, checkpoint.model, int8=True)
