from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.tiny import TASKS
from trunkline import Model
from trunkline.bundle import open_bundle
from trunkline.decode.numeric import Floats
from trunkline.encode import Row
from trunkline.kinds import Output, task_outputs
from trunkline.runner import OrtRunner, PaddedRunner

OUTPUTS = [output for spec in TASKS for output in task_outputs(spec)]
NER, QA, TOPIC = OUTPUTS[0], OUTPUTS[2], OUTPUTS[4]
WIDTHS = {"topic.logits": 3, "mood.logits": 3, "match.logits": 2}  # of outputs per text
TEXT = "Ada opened an office in Zürich. 東京 is a city 😀 and Rome was built at the river. " * 3


class Noted(PaddedRunner):
    """Gives ids back, and notes the batches."""

    def __init__(self, budget: int) -> None:
        super().__init__(0, budget)
        self.shapes: list[tuple[int, ...]] = []
        self.asked: list[list[str]] = []

    def forward(
        self, inputs: Mapping[str, NDArray[np.int64]], outputs: Sequence[str]
    ) -> list[Floats]:
        self.shapes.append(inputs["input_ids"].shape)
        self.asked.append(list(outputs))
        return [inputs["input_ids"].astype(np.float32) for _ in outputs]


def rows_of(model: Model, lengths: Sequence[int]) -> list[Row]:
    """Cuts rows of these numbers of text tokens, with and without a question."""
    encoder = model.pipeline.encoder
    question = encoder.tokenize("where is Ada?")
    rows = []
    for index, length in enumerate(lengths):
        tokens = encoder.tokenize(" ".join(TEXT.split()[index : index + length]))
        rows += encoder.rows(tokens, question if index % 2 else None)
    return rows


def same(one: Mapping[str, Floats], other: Mapping[str, Floats]) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[k], other[k]) for k in one)


@given(st.lists(st.integers(1, 30), min_size=1, max_size=12), st.sampled_from([64, 256, 4096]))
@settings(max_examples=25)
def test_a_row_gives_the_same_alone_and_in_any_batch(
    model: Model, bundle: Path, lengths: list[int], budget: int
) -> None:
    runner = OrtRunner(bundle / "graphs/model.onnx", 0, OUTPUTS, 1)
    runner.budget = budget
    rows = rows_of(model, lengths)
    together = runner.run(rows, OUTPUTS)
    alone = [runner.run([row], OUTPUTS)[0] for row in rows]
    assert len(together) == len(rows)
    assert all(same(one, other) for one, other in zip(together, alone, strict=True))


def test_the_padding_token_never_changes_an_answer(model: Model, bundle: Path) -> None:
    rows = rows_of(model, [3, 9, 12, 14, 15, 16])
    runs = [
        OrtRunner(bundle / "graphs/model.onnx", pad_id, OUTPUTS, 1).run(rows, OUTPUTS)
        for pad_id in (0, 17)
    ]
    assert all(same(one, other) for one, other in zip(*runs, strict=True))


@pytest.mark.parametrize("outputs", [[NER], [QA], [QA, NER], [TOPIC], OUTPUTS[::-1]])
def test_only_the_outputs_asked_for_are_given(model: Model, outputs: list[Output]) -> None:
    rows = rows_of(model, [4, 9])
    everything = model.pipeline.runner.run(rows, OUTPUTS)
    for row, some, every in zip(
        rows, model.pipeline.runner.run(rows, outputs), everything, strict=True
    ):
        assert list(some) == [output.name for output in outputs]
        assert all(np.array_equal(some[name], every[name]) for name in some)
        for output in outputs:
            assert len(some[output.name]) == WIDTHS.get(output.name, len(row))


def test_results_keep_the_order_of_the_rows(model: Model) -> None:
    rows = rows_of(model, [30, 1, 12, 2, 29, 1])
    runner = Noted(100)
    results = runner.run(rows, [QA])
    assert [result[QA.name].tolist() for result in results] == [r.input_ids.tolist() for r in rows]
    assert all(size * width <= 100 or size == 1 for size, width in runner.shapes)
    assert runner.asked == [[QA.name]] * len(runner.shapes)


def test_no_rows_run_nothing() -> None:
    runner = Noted(100)
    assert runner.run([], [NER]) == []
    assert runner.shapes == []


def test_a_runner_without_a_model_says_so() -> None:
    with pytest.raises(TypeError, match="PaddedRunner must define forward"):
        PaddedRunner(0).forward({}, [])


def test_a_graph_without_token_types_is_fed_none(
    model: Model, bundle: Path, tmp_path: Path
) -> None:
    graph = onnx.load(bundle / "graphs/model.onnx")
    (unused,) = (one for one in graph.graph.input if one.name == "token_type_ids")
    graph.graph.input.remove(unused)
    onnx.save(graph, tmp_path / "model.onnx")
    rows = rows_of(model, [3, 4])
    results = OrtRunner(tmp_path / "model.onnx", 0, OUTPUTS, 1).run(rows, OUTPUTS)
    wanted = model.pipeline.runner.run(rows, OUTPUTS)
    assert all(same(one, other) for one, other in zip(results, wanted, strict=True))


def test_the_bundle_names_its_graph_and_encoder(model: Model, bundle: Path) -> None:
    opened = open_bundle(bundle)
    assert model.graph.file == "graphs/model.onnx"
    assert opened.candidates() == [model.graph]
    assert opened.encoder().max_length == opened.manifest.encoder.max_length
