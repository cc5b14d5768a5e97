"""Text classification from the checkpoint to the bundle: single label, many labels, pairs."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

import trunkline
from tests.export.changes import Change, add, rename
from trunkline import Document, DocumentResult, Label, Model
from trunkline.kinds import task_outputs
from trunkline.pipeline import Pipeline
from trunkline.runner import OrtRunner
from trunkline_export.graph import read_graph
from trunkline_export.parity import (
    VALUE_TOLERANCE,
    ParityError,
    check_answers,
    check_signature,
    check_values,
)
from trunkline_export.variants import PADDED
from trunkline_export.write import sample_documents
from trunkline_train.checkpoint import Checkpoint
from trunkline_train.data.source import load_test
from trunkline_train.evaluate import evaluate

TEXTS = ("topic", "names", "named")
TEXT = "Ada Brown lives in Oslo ."
LONG = "Ada Brown lives in Oslo . " * 30


@pytest.fixture(scope="module", params=["padded-fp32", "packed-fp32"])
def model(request: pytest.FixtureRequest, every_exported: Path) -> Model:
    return trunkline.load(every_exported, 1, graph=request.param)


@pytest.fixture
def changed(every_exported: Path, tmp_path: Path) -> Callable[[Change], Path]:
    """Returns a function that writes the exported graph with a change."""

    def write(change: Change) -> Path:
        proto = onnx.load(every_exported / PADDED)
        change(proto)
        onnx.save(proto, tmp_path / "graph.onnx")
        return tmp_path / "graph.onnx"

    return write


def answers(checkpoint: Checkpoint, path: Path) -> int:
    """Compares the graph's answers to the samples with torch's."""
    outputs = [output for spec in checkpoint.tasks for output in task_outputs(spec)]
    runner = OrtRunner(path, checkpoint.pad_id, outputs, 1)
    pipeline = Pipeline(checkpoint.tasks, checkpoint.encoder, runner)
    documents = sample_documents(checkpoint)
    return check_answers(checkpoint.pipeline().analyze(documents), pipeline, documents)


def test_outputs_of_texts_have_one_row_per_text(model: Model) -> None:
    padded = model.graph.layout == "padded"
    row = ("batch",) if padded else ("rows",)
    tokens = ("batch", "sequence") if padded else ("tokens",)
    found = {tensor.name: tensor.axes for tensor in model.graph.outputs}
    assert [found[f"{name}.logits"] for name in TEXTS] == [(*row, "3"), (*row, "2"), (*row, "2")]
    assert found["ner.logits"] == (*tokens, "5")
    assert found["qa.start_logits"] == tokens


def test_the_exported_graph_passes(every_exported: Path, every_checkpoint: Checkpoint) -> None:
    check_signature(read_graph(every_exported, PADDED, "padded", "fp32"), every_checkpoint)
    assert check_values(every_exported / PADDED, every_checkpoint) < VALUE_TOLERANCE / 10
    assert answers(every_checkpoint, every_exported / PADDED) > 50


@pytest.mark.parametrize("name", TEXTS)
def test_another_value_fails(
    changed: Callable[[Change], Path], every_checkpoint: Checkpoint, name: str
) -> None:
    path = changed(add(f"task_{name}.linear.bias", 0.01))
    with pytest.raises(ParityError, match=f"{name}.logits: differs by 1.00e-02"):
        check_values(path, every_checkpoint)
    path = changed(add(f"task_{name}.linear.bias", np.nan))
    with pytest.raises(ParityError, match=f"{name}.logits: NaN at lengths"):
        check_values(path, every_checkpoint)


def test_another_name_fails(
    changed: Callable[[Change], Path], every_checkpoint: Checkpoint
) -> None:
    path = changed(rename("topic.logits", "topic.scores"))
    with pytest.raises(ParityError, match=r"^outputs: expected"):
        check_signature(read_graph(path.parent, path.name, "padded", "fp32"), every_checkpoint)


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [("topic", 0.05, "scores differ"), ("named", 0.05, "scores differ"), ("names", -50, "answers")],
)
def test_other_answers_fail(
    changed: Callable[[Change], Path],
    every_checkpoint: Checkpoint,
    name: str,
    value: float,
    told: str,
) -> None:
    with pytest.raises(ParityError, match=told):
        answers(every_checkpoint, changed(add(f"task_{name}.linear.bias", value)))


class Told:
    """A pipeline that gives what it was told."""

    def __init__(self, *labels: Label) -> None:
        self.result = DocumentResult(TEXT, {"topic": labels}, ())

    def analyze(self, documents: object) -> list[DocumentResult]:
        return [self.result]


def test_labels_of_nearly_equal_scores_may_change_places() -> None:
    one, two = Label("a", 0.4002), Label("b", 0.4001)
    wanted = Told(one, two).analyze(())
    swapped = Told(replace(two, score=0.4003), one)
    assert check_answers(wanted, swapped, ()) == 2  # type: ignore[arg-type]
    for other in (Told(one), Told(one, Label("c", 0.4001)), Told(one, replace(two, score=0.41))):
        with pytest.raises(ParityError, match="differ"):
            check_answers(wanted, other, ())  # type: ignore[arg-type]


def test_samples_have_second_texts_where_a_task_reads_pairs(
    every_checkpoint: Checkpoint, checkpoint: Checkpoint
) -> None:
    documents = sample_documents(every_checkpoint)
    pairs = [document for document in documents if document.text_pair is not None]
    assert 3 < len(pairs) < len(documents)
    for document in documents:
        assert ("named" in (document.tasks or ())) == (document in pairs)
    assert max(len(document.text) for document in pairs) > 1000
    assert any(document.text_pair == "" for document in pairs)
    assert all(document.text_pair is None for document in sample_documents(checkpoint))


def test_the_golden_file_holds_pairs_and_the_bundle_gives_them(
    model: Model, every_exported: Path
) -> None:
    lines = (every_exported / "golden.jsonl").read_text(encoding="utf-8").splitlines()
    results = [json.loads(line) for line in lines]
    assert any(result["tasks"].get("named") for result in results)
    assert all(("named" in result["tasks"]) == ("text_pair" in result) for result in results)
    assert model.self_test() == len(results)


def test_every_task_is_gated_on_its_own_metric(model: Model, every_checkpoint: Checkpoint) -> None:
    gates = {gate.task: gate for gate in model.manifest.gates if gate.graph == model.graph.file}
    assert {name: gates[name].metric for name in TEXTS} == {
        "topic": "accuracy",
        "names": "f1",
        "named": "accuracy",
    }
    for spec in every_checkpoint.tasks:
        examples = load_test(every_checkpoint.config.tasks[spec.name], "dev")
        gate = gates[spec.name]
        assert (gate.passed, gate.n) == (True, len(examples))
        for pipeline in (every_checkpoint.pipeline(), model.pipeline):
            assert evaluate(spec, pipeline, examples).value == pytest.approx(gate.value, abs=1e-4)


def test_the_card_says_which_tasks_read_pairs(every_exported: Path) -> None:
    card = (every_exported / "README.md").read_text()
    assert "| topic | text-classification | culture, life, weather |" in card
    assert "| named | text-classification of pairs | no, yes |" in card
    assert 'model.analyze("Some text.", text_pair="Another text.")' in card


def test_the_bundle_answers_by_what_was_learned(model: Model) -> None:
    values = {gate.task: gate.value for gate in model.manifest.gates}
    # Of always giving the label that is most frequent on dev: 50 and 55.
    assert values["named"] > 65
    assert values["topic"] > 65
    assert values["names"] > 65


def near(result: DocumentResult) -> dict[str, dict[str, object]]:
    return {
        name: {one.label: pytest.approx(one.score, abs=1e-5) for one in result.tasks[name]}
        for name in TEXTS
    }


def test_batch_mates_and_their_padding_never_change_a_label(model: Model) -> None:
    """fp32 sums in another order in another batch: equal within 1e-5."""
    documents = [
        Document(text, text_pair=pair)
        for text in (TEXT, LONG, "it rained .", "Ada")
        for pair in ("Ada Brown", "", "Ivo Wilson met Eva Stone in Hamburg yesterday .")
    ]
    for document, together in zip(documents, model.analyze(tuple(documents)), strict=True):
        alone = model.analyze(document)
        for name, labels in near(alone).items():
            assert {one.label: one.score for one in together.tasks[name]} == labels


def test_a_long_text_is_the_mean_of_its_windows(model: Model) -> None:
    prepared = model.pipeline.prepare(Document(LONG, tasks=("topic",)))
    (rows,) = model.pipeline.run([prepared])
    assert len(rows) > 2
    logits = np.stack([row["topic.logits"] for row in rows])
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = model.pipeline.tasks["topic"].labels
    found = {one.label: one.score for one in model.analyze(LONG).tasks["topic"]}
    assert found == pytest.approx(dict(zip(labels, shares.mean(axis=0), strict=True)), abs=1e-5)
