"""Gates: what each task loses through a graph, measured on its dev examples."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.small import Corpus
from trunkline import Document, DocumentResult, Model
from trunkline.bundle import Gate, Graph, open_bundle
from trunkline.cli import main
from trunkline.errors import ConfigError
from trunkline.model import open_model
from trunkline.pipeline import Pipeline
from trunkline_export import gates, variants
from trunkline_export.gates import DROP, Reference, dev_samples, measure, references
from trunkline_train.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from trunkline_train.evaluate import evaluate
from trunkline_train.scores import Scores

References = Mapping[str, Reference]
Change = Callable[[DocumentResult], DocumentResult]


@pytest.fixture(scope="module")
def reference(checkpoint: Checkpoint) -> References:
    return references(checkpoint, dev_samples(checkpoint))


@pytest.fixture(scope="module")
def graph(small_model: Model) -> Graph:
    return small_model.graph


class Spoilt:
    """A pipeline that changes its first `count` answers with an entity."""

    def __init__(self, pipeline: Pipeline, change: Change, count: int) -> None:
        self.tasks = pipeline.tasks
        self._pipeline = pipeline
        self._change = change
        self._left = count

    def analyze(self, documents: Sequence[Document]) -> list[DocumentResult]:
        return [self._spoil(result) for result in self._pipeline.analyze(documents)]

    def _spoil(self, result: DocumentResult) -> DocumentResult:
        if self._left == 0 or not result.tasks.get("ner"):
            return result
        self._left -= 1
        return self._change(result)


def forgetting(result: DocumentResult) -> DocumentResult:
    return replace(result, tasks={"ner": ()})


def unsure(result: DocumentResult) -> DocumentResult:
    found = tuple(replace(one, score=0.5) for one in result.tasks["ner"])
    return replace(result, tasks={"ner": found})


def verdict(graph: Graph, pipeline: object, reference: References, task: str = "ner") -> Gate:
    (gate,) = measure(graph, pipeline, {task: reference[task]})  # type: ignore[arg-type]
    return gate


def test_every_task_is_gated_on_its_own_metric(
    exported: Path, checkpoint: Checkpoint, reference: References
) -> None:
    bundle = open_bundle(exported)
    for graph in bundle.manifest.graphs:
        found = {gate.task: gate for gate in bundle.manifest.gates if gate.graph == graph.file}
        assert {name: (g.metric, g.n) for name, g in found.items()} == {
            "ner": ("f1", 20),
            "qa": ("f1", 16),
        }
        model = open_model(bundle, 1, graph=graph.name)
        for spec in checkpoint.tasks:
            gate = found[spec.name]
            assert gate.passed
            assert gate.value == gate.reference > 0.0
            for pipeline in (checkpoint.pipeline(), model.pipeline):
                scores = evaluate(spec, pipeline, reference[spec.name].sample.examples)
                assert scores.value == pytest.approx(gate.value, abs=1e-4)


def test_int8_is_gated_against_the_trained_model(quantised: Path) -> None:
    found = [gate for gate in open_bundle(quantised).manifest.gates if "int8" in gate.graph]
    assert {gate.task for gate in found} == {"ner", "qa"}
    for gate in found:
        assert gate.reference - gate.value <= DROP["int8"]
        assert gate.low <= round(gate.value - gate.reference, 4) <= gate.high
        assert 0 < gate.agreement <= 100


def test_the_model_agrees_with_itself(
    checkpoint: Checkpoint, graph: Graph, reference: References
) -> None:
    for task in ("ner", "qa"):
        gate = verdict(graph, checkpoint.pipeline(), reference, task)
        assert (gate.low, gate.high, gate.agreement, gate.passed) == (0.0, 0.0, 100.0, True)
        assert (gate.graph, gate.task, gate.data) == (graph.file, task, "dev")
        assert gate.data_sha256 == reference[task].sha256


def test_what_is_lost_shows_in_value_interval_and_agreement(
    checkpoint: Checkpoint, graph: Graph, reference: References
) -> None:
    spoilt = [Spoilt(checkpoint.pipeline(), forgetting, lost) for lost in (1, 4, 8)]
    found = [verdict(graph, pipeline, reference) for pipeline in spoilt]
    assert [gate.agreement for gate in found] == [95.0, 80.0, 60.0]
    for gate in found:
        assert not gate.passed
        assert gate.low < gate.value - gate.reference < gate.high <= 0.0
    assert found[0].value > found[1].value > found[2].value
    assert found[0].low > found[1].low > found[2].low


def test_scores_of_annotations_do_not_count(
    checkpoint: Checkpoint, graph: Graph, reference: References
) -> None:
    gate = verdict(graph, Spoilt(checkpoint.pipeline(), unsure, 20), reference)
    assert (gate.agreement, gate.passed) == (100.0, True)


def test_points_that_may_be_lost() -> None:
    assert DROP == {"fp32": 0.1, "fp16": 0.5, "bf16": 0.5, "int8": 0.5, "int8-dynamic": 0.5}


@pytest.mark.parametrize(
    "case",
    [
        ("fp32", -3.0, True),
        ("fp32", 0.0, True),
        ("fp32", 0.09, True),
        ("fp32", 0.11, False),
        ("int8", 0.49, True),
        ("int8", 0.51, False),
        ("int8-dynamic", 0.51, False),
    ],
)
def test_a_gate_fails_over_its_allowance(
    checkpoint: Checkpoint,
    graph: Graph,
    reference: References,
    monkeypatch: pytest.MonkeyPatch,
    case: tuple[str, float, bool],
) -> None:
    precision, lost, passed = case
    given = reference["ner"]
    before = replace(given, scores=replace(given.scores, metrics={"f1": 90.0}))

    def scored(*_: object) -> Scores:
        return replace(given.scores, metrics={"f1": 90.0 - lost})

    monkeypatch.setattr(gates, "score", scored)
    chosen = replace(graph, precision=precision)
    gate = verdict(chosen, checkpoint.pipeline(), {"ner": before})
    assert gate.passed == passed
    assert (gate.reference, gate.value) == (90.0, pytest.approx(90.0 - lost))


def test_a_task_without_examples_is_not_gated(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gates, "load_test", lambda *_: [])
    with pytest.raises(ConfigError, match="has no dev examples"):
        dev_samples(checkpoint)


def test_at_most_a_thousand_examples_are_taken_at_random(
    checkpoint: Checkpoint, reference: References, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a file that is sorted by label the first ones are of one label."""
    assert gates.MOST_EXAMPLES == 1000
    whole = {task: one.sample for task, one in reference.items()}
    assert {one.name for one in whole.values()} == {"dev"}
    monkeypatch.setattr(gates, "MOST_EXAMPLES", 7)
    for task, sample in dev_samples(checkpoint).items():
        examples = whole[task].examples
        places = [examples.index(example) for example in sample.examples]
        assert len(places) == 7
        assert places == sorted(set(places))
        assert places != list(range(7))
        assert sample.name == f"dev, 7 of {len(examples)} at random, seed 0"
        assert sample == dev_samples(checkpoint)[task]


def test_a_gate_says_which_examples_it_is_of(
    checkpoint: Checkpoint, graph: Graph, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gates, "MOST_EXAMPLES", 7)
    found = references(checkpoint, dev_samples(checkpoint))
    gate = verdict(graph, checkpoint.pipeline(), found)
    assert (gate.data, gate.n) == ("dev, 7 of 20 at random, seed 0", 7)


def test_a_model_that_has_learned_nothing_is_refused_in_one_line(
    checkpoint: Checkpoint, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    untaught = untaught_copy(trained, tmp_path)
    monkeypatch.setattr(variants, "padded_model", None)  # refused before any graph is made
    assert main(["export", str(untaught), "--out", str(tmp_path / "bundle")]) == 2
    *read, told = capsys.readouterr().err.splitlines()
    assert read[0].startswith("read ")
    assert "gate ner: the trained model reaches f1 0.00 on 20 dev examples, guessing" in told
    assert "guessing without reading them 0.00; train longer" in told
    assert not (tmp_path / "bundle").exists()


def untaught_copy(trained: Path, folder: Path) -> Path:
    """Returns the model with heads that know nothing but the most frequent tag."""
    loaded = load_checkpoint(trained)
    head = loaded.model.head("ner").linear
    assert isinstance(head, torch.nn.Linear)
    with torch.no_grad():
        head.weight.zero_()
        head.bias.copy_(torch.eye(len(head.bias))[0])  # of the tag O
    save_checkpoint(folder / "untaught", loaded)
    return folder / "untaught"


def test_a_graph_that_falls_to_what_guessing_gives_does_not_pass(
    checkpoint: Checkpoint, graph: Graph, reference: References
) -> None:
    """Within the allowance it may be, where the trained model is hardly better itself."""
    given = reference["ner"]
    pipeline = checkpoint.pipeline()
    for guess, passed in ((given.scores.value - 0.01, True), (given.scores.value, False)):
        found = {"ner": replace(given, guess=guess)}
        assert verdict(graph, pipeline, found).passed == passed


@pytest.fixture
def copy(corpus: Corpus, tmp_path: Path) -> Corpus:
    """The data in another place, to be changed."""
    moved = Corpus(tmp_path)
    moved.config.write_text(corpus.config.read_text())
    for name in ("ner.train", "ner.dev", "ner.test", "qa.train.json", "qa.dev.json"):
        (tmp_path / name).write_bytes((corpus.folder / name).read_bytes())
    return moved


def fingerprints(checkpoint: Checkpoint, corpus: Corpus) -> dict[str, str]:
    moved = replace(checkpoint, config=corpus.load())
    found = references(moved, dev_samples(moved))
    return {task: one.sha256 for task, one in found.items()}


def test_a_fingerprint_is_of_the_examples_and_not_of_their_place(
    checkpoint: Checkpoint, copy: Corpus, reference: References
) -> None:
    before = {task: one.sha256 for task, one in reference.items()}
    assert fingerprints(checkpoint, copy) == before
    assert all(len(digest) == 64 for digest in before.values())
    assert before["ner"] != before["qa"]


def first_paragraph(data: Any) -> Any:
    return data["data"][0]["paragraphs"][0]


def longer_text(data: Any) -> None:
    first_paragraph(data)["context"] += " It rained ."


def other_question(data: Any) -> None:
    first_paragraph(data)["qas"][0]["question"] += "?"


def one_answer_less(data: Any) -> None:
    first_paragraph(data)["qas"][0]["answers"].pop()


@pytest.mark.parametrize("change", [longer_text, other_question, one_answer_less])
def test_other_questions_have_another_fingerprint(
    checkpoint: Checkpoint,
    copy: Corpus,
    reference: References,
    change: Callable[[Any], None],
) -> None:
    file = copy.folder / "qa.dev.json"
    data = json.loads(file.read_text())
    change(data)
    file.write_text(json.dumps(data))
    found = fingerprints(checkpoint, copy)
    assert found["qa"] != reference["qa"].sha256
    assert found["ner"] == reference["ner"].sha256


@pytest.mark.parametrize(("old", "new"), [("lives", "works"), ("I-LOC", "I-PER")])
def test_another_word_or_tag_has_another_fingerprint(
    checkpoint: Checkpoint, copy: Corpus, reference: References, old: str, new: str
) -> None:
    file = copy.folder / "ner.dev"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))
    found = fingerprints(checkpoint, copy)
    assert found["ner"] != reference["ner"].sha256
    assert found["qa"] == reference["qa"].sha256
