"""Which products stay in fp32: as few as pass the gates, those that harm most first."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.bundle import Gate, Graph, open_bundle
from trunkline.encode import Row
from trunkline.kinds import all_outputs
from trunkline.runner import PackedRunner
from trunkline_export import variants, write
from trunkline_export.channels import channel_sizes
from trunkline_export.gates import DROP
from trunkline_export.packed import product_names
from trunkline_export.search import by_harm, smallest_keep
from trunkline_export.trunk import read_trunk
from trunkline_export.variants import INT8, PADDED, int8_model
from trunkline_export.write import ExportOptions, export_bundle, sample_documents
from trunkline_train.checkpoint import Checkpoint
from trunkline_train.torch_runner import TorchRunner

GRAPH = Graph("g.onnx", "packed", "int8", (), (), (), 20)
GATE = Gate("g.onnx", "ner", "f1", 90.0, 90.0, 0.0, 0.0, 100.0, 1, True, "dev", "")


@dataclass
class Attempts:
    """Passes from `least` kept products on, and notes how many were tried."""

    least: int
    tried: list[tuple[str, ...]] = field(default_factory=list)

    def __call__(self, keep: tuple[str, ...]) -> tuple[Graph, tuple[Gate, ...]]:
        self.tried.append(keep)
        passed = replace(GATE, passed=len(keep) >= self.least)
        return replace(GRAPH, keep_fp32=keep), (GATE, passed)


def names(count: int) -> list[str]:
    return [f"layer{at}.up" for at in range(count)]


@given(st.integers(2, 150), st.data())
def test_the_smallest_beginning_that_passes_is_found(count: int, data: st.DataObject) -> None:
    least = data.draw(st.integers(1, count // 2))
    attempt = Attempts(least)
    found = smallest_keep(names(count), attempt)
    assert found is not None
    graph, gates = found
    assert list(graph.keep_fp32) == names(count)[:least]
    assert all(gate.passed for gate in gates)


@given(st.integers(0, 150), st.integers(1, 200))
def test_none_is_found_if_none_passes_within_half(count: int, more: int) -> None:
    attempt = Attempts(count // 2 + more)
    assert smallest_keep(names(count), attempt) is None
    assert all(len(keep) <= count // 2 for keep in attempt.tried)


@given(st.integers(2, 150), st.integers(1, 200))
def test_few_are_tried_each_once(count: int, least: int) -> None:
    attempt = Attempts(least)
    smallest_keep(names(count), attempt)
    assert len(set(attempt.tried)) == len(attempt.tried)
    assert len(attempt.tried) <= 2 * math.ceil(math.log2(count)) + 1
    assert all(list(keep) == names(count)[: len(keep)] for keep in attempt.tried)


@pytest.fixture(scope="module")
def rows(checkpoint: Checkpoint) -> list[Row]:
    """The rows of some samples."""
    pipeline = checkpoint.pipeline()
    return [
        row for one in sample_documents(checkpoint)[:6] for row in pipeline.prepare(one).rows[:3]
    ]


@pytest.fixture(scope="module")
def ranked(checkpoint: Checkpoint, rows: list[Row]) -> list[str]:
    return by_harm(checkpoint, rows, channel_sizes(checkpoint.model, rows))


def test_every_product_is_named_once(ranked: list[str], checkpoint: Checkpoint) -> None:
    wanted = product_names(read_trunk(checkpoint.model.encoder))
    assert len(wanted) == 8
    assert sorted(ranked) == sorted(wanted)


def error(checkpoint: Checkpoint, rows: Sequence[Row], keep: Sequence[str], path: Path) -> float:
    """Returns how far the outputs of an int8 graph are from the model's, in mean square."""
    outputs = all_outputs(checkpoint.tasks)
    onnx.save(int8_model(checkpoint, channel_sizes(checkpoint.model, rows), keep), path)
    wanted = TorchRunner(checkpoint.model, checkpoint.pad_id).run(rows, outputs)
    found = PackedRunner(path, outputs, 1).run(rows, outputs)
    pairs = [(w[o.name], f[o.name]) for w, f in zip(wanted, found, strict=True) for o in outputs]
    return float(np.mean(np.concatenate([(w - f).ravel() ** 2 for w, f in pairs])))


def test_what_harms_most_comes_first(
    checkpoint: Checkpoint, rows: list[Row], ranked: list[str], tmp_path: Path
) -> None:
    kept = ((ranked[0],), (ranked[-1],), tuple(ranked))
    first, last, everything = (
        error(checkpoint, rows, keep, tmp_path / "int8.onnx") for keep in kept
    )
    assert everything < first < last


class Counted:
    """Gates that pass from a number of kept products on."""

    def __init__(self, least: int) -> None:
        self.least = least

    def __call__(self, graph: Graph, *_: object) -> tuple[Gate, ...]:
        passed = graph.precision == "fp32" or len(graph.keep_fp32) >= self.least
        return tuple(replace(GATE, graph=graph.file, task=task, passed=passed) for task in TASKS)


TASKS = ("ner", "qa")


@pytest.mark.parametrize("least", [1, 4])
def test_the_export_keeps_what_a_gate_needs(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ranked: list[str], least: int
) -> None:
    monkeypatch.setattr(write, "measure", Counted(least))
    monkeypatch.setattr(write, "by_harm", lambda *_: ranked)
    said: list[str] = []
    options = ExportOptions(precisions=("int8",))
    bundle = export_bundle(trained, tmp_path / "bundle", options, said.append)
    (graph,) = bundle.manifest.graphs
    kept = tuple(sorted(ranked[:least]))
    assert graph.keep_fp32 == kept
    assert graph.operators["MatMulIntegerToFloat"] == len(ranked) - least
    assert bundle.passed(graph)
    assert f"packed-int8 keeps in fp32: {', '.join(kept)}" in said


def test_the_export_leaves_int8_out_where_nothing_mends_it(
    trained: Path, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(DROP, "int8", -1.0)
    monkeypatch.setattr(variants, "padded_model", lambda model: onnx.load(exported / PADDED))
    said: list[str] = []
    bundle = export_bundle(trained, tmp_path / "bundle", ExportOptions(), said.append)
    assert [graph.name for graph in bundle.manifest.graphs] == ["padded-fp32", "packed-fp32"]
    assert not (tmp_path / "bundle" / INT8).exists()
    assert "packed-int8: left out, no small set of products mends it" in said
    files = [bundle.path / "graphs" / name for name in ("padded-fp32.onnx", "fp32.weights")]
    megabytes = sum(file.stat().st_size for file in files) / 1e6
    size = f"{megabytes:.1f} MB with graphs/fp32.weights"
    assert any(line.startswith("padded-fp32: written") and line.endswith(size) for line in said)
    assert all(INT8 not in name for name in open_bundle(bundle.path).manifest.files)


def test_a_bundle_of_no_graph_is_not_written(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(write, "measure", Counted(9))
    options = ExportOptions(precisions=("int8",))
    with pytest.raises(write.ParityError, match="no graph is left; export fp32 as well"):
        export_bundle(trained, tmp_path / "bundle", options, lambda line: None)
    assert not (tmp_path / "bundle").exists()
