import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.small import Corpus, write_corpus
from trunkline import Model
from trunkline.bundle import open_bundle
from trunkline.errors import BundleError, CheckpointError, DataError
from trunkline_export import gates, write
from trunkline_export.gates import DROP, measure
from trunkline_export.parity import ParityError
from trunkline_export.write import GRAPH, ExportOptions, export_bundle
from trunkline_train.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from trunkline_train.evaluate import Scores, evaluate

QUICK = ExportOptions(gate=False)


def quiet(line: str) -> None:
    """Takes what the exporter says."""


def content(folder: Path) -> dict[str, bytes]:
    return {
        file.relative_to(folder).as_posix(): file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file()
    }


@pytest.fixture
def bundle(exported: Path, tmp_path: Path) -> Path:
    """A bundle that may be replaced."""
    return Path(shutil.copytree(exported, tmp_path / "bundle"))


def test_the_bundle_has_these_files_and_no_others(exported: Path) -> None:
    assert set(content(exported)) == {
        "README.md",
        "config.json",
        "golden.jsonl",
        "manifest.json",
        "tokenizer.json",
        GRAPH,
    }
    assert [one.name for one in exported.parent.iterdir()] == ["bundle"]


def test_the_golden_file_is_what_the_bundle_gives(small_model: Model, exported: Path) -> None:
    lines = (exported / "golden.jsonl").read_text().splitlines()
    assert small_model.self_test() == len(lines) > 10
    assert any(json.loads(line)["questions"] for line in lines)
    assert any(json.loads(line)["tasks"]["ner"] for line in lines)


def test_facts_are_those_of_the_model(small_model: Model, checkpoint: Checkpoint) -> None:
    manifest = small_model.manifest
    facts = manifest.encoder
    assert manifest.tasks == checkpoint.tasks
    assert (manifest.name, manifest.version) == ("small", 1)
    assert (facts.model_type, facts.hidden_size, facts.layers) == ("bert", 32, 2)
    assert (facts.max_length, facts.overlap, facts.pad_id) == (64, 16, 0)
    weights = sum(p.numel() for p in checkpoint.model.parameters())
    assert facts.parameters == weights


def test_every_task_is_gated_on_its_own_metric(small_model: Model, checkpoint: Checkpoint) -> None:
    found = {gate.task: gate for gate in small_model.manifest.gates}
    assert {name: (g.metric, g.n, g.graph) for name, g in found.items()} == {
        "ner": ("f1", 20, GRAPH),
        "qa": ("f1", 16, GRAPH),
    }
    examples = gates.dev_examples(checkpoint)
    for spec in checkpoint.tasks:
        gate = found[spec.name]
        assert gate.passed
        assert gate.value == gate.reference > 0.0
        for pipeline in (checkpoint.pipeline(), small_model.pipeline):
            scores = evaluate(spec, pipeline, examples[spec.name])
            assert scores.value == pytest.approx(gate.value, abs=1e-4)


@pytest.mark.parametrize(("lost", "passed"), [(0.0, True), (0.09, True), (0.11, False)])
def test_a_gate_fails_over_its_allowance(
    checkpoint: Checkpoint,
    small_model: Model,
    monkeypatch: pytest.MonkeyPatch,
    lost: float,
    passed: bool,
) -> None:
    assert DROP["fp32"] == 0.1
    values = iter([90.0, 90.0 - lost] * 2)

    def scored(*given: object) -> Scores:
        return Scores("f1", {"f1": next(values)}, 7, {})

    monkeypatch.setattr(gates, "evaluate", scored)
    examples = {"ner": [1], "qa": [1]}
    verdicts = measure(GRAPH, "fp32", checkpoint, small_model.pipeline, examples)
    assert [(gate.passed, gate.n) for gate in verdicts] == [(passed, 7)] * 2


def test_a_task_without_examples_is_not_gated(checkpoint: Checkpoint, small_model: Model) -> None:
    with pytest.raises(DataError, match="has no dev examples"):
        measure(GRAPH, "fp32", checkpoint, small_model.pipeline, {"ner": [], "qa": []})


def test_the_card_tells_tasks_data_and_scores(exported: Path, small_model: Model) -> None:
    card = (exported / "README.md").read_text()
    assert "# small, version 1" in card
    assert "| ner | token-classification | O, B-LOC, I-LOC, B-PER, I-PER |" in card
    assert "| qa | question-answering | - |" in card
    for gate in small_model.manifest.gates:
        assert f"| {gate.task} | f1 | {gate.reference:.2f} | {gate.value:.2f} | {gate.n} " in card
    for name in ("ner.train", "qa.dev.json"):
        assert name in card


def test_nothing_names_a_folder_of_this_machine(exported: Path, corpus: Corpus) -> None:
    secrets = [str(path).encode() for path in (corpus.folder.parent, exported.parent, Path.home())]
    for name, data in content(exported).items():
        assert [secret for secret in secrets if secret in data] == [], name


@pytest.fixture(scope="module")
def moved(trained: Path, exported: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of a run whose data and encoder have since gone, with the lines said."""
    folder = tmp_path_factory.mktemp("moved")
    loaded = load_checkpoint(trained)
    gone = write_corpus(folder / "gone")
    config = gone.load("tasks.qa.train=hub:" + str(gone.folder / "questions"))
    save_checkpoint(
        folder / "run",
        Checkpoint(loaded.model, loaded.encoder, loaded.pad_id, config, loaded.progress),
    )
    shutil.rmtree(gone.folder)
    said: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(write, "write_padded_graph", _copied(exported))
        export_bundle(folder / "run", folder / "bundle", ExportOptions("other", 7), said.append)
    (folder / "said").write_text("\n".join(said))
    return folder


def test_gates_are_left_out_where_the_data_has_gone(moved: Path) -> None:
    manifest = open_bundle(moved / "bundle").manifest
    assert manifest.gates == ()
    assert "Not measured" in (moved / "bundle" / "README.md").read_text()
    assert "gates: not measured, the dev data is not at hand" in (moved / "said").read_text()


def test_folders_that_have_gone_are_not_named_either(moved: Path) -> None:
    for name, data in content(moved / "bundle").items():
        assert str(moved).encode() not in data, name
    sources = open_bundle(moved / "bundle").manifest.provenance["data"]
    assert sources == {
        "ner": ["ner.train", "ner.dev", "ner.test"],
        "qa": ["questions", "qa.dev.json", "qa.test.json"],
    }


def test_name_and_version_are_chosen(moved: Path) -> None:
    manifest = open_bundle(moved / "bundle").manifest
    assert (manifest.name, manifest.version) == ("other", 7)


def fail(*given: object) -> None:
    raise ParityError("no")


@pytest.mark.parametrize(
    "step", ["check_signature", "check_values", "check_answers", "write_golden", "model_card"]
)
def test_a_failed_export_leaves_the_bundle_before(
    trained: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    before = content(bundle)
    monkeypatch.setattr(write, step, fail)
    monkeypatch.setattr(write, "write_padded_graph", _copied(bundle))
    with pytest.raises(ParityError, match="no"):
        export_bundle(trained, bundle, QUICK, quiet)
    assert content(bundle) == before
    assert [one.name for one in bundle.parent.iterdir()] == ["bundle"]


def _copied(bundle: Path) -> Callable[..., object]:
    """Returns what stands for the slow export of the graph: a copy of an exported one."""
    graph = open_bundle(bundle).graph
    data = (bundle / graph.file).read_bytes()

    def copy(model: torch.nn.Module, folder: Path, file: str) -> object:
        (folder / file).parent.mkdir()
        (folder / file).write_bytes(data)
        return graph

    return copy


def test_a_failed_gate_writes_nothing(
    trained: Path, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(write, "write_padded_graph", _copied(bundle))
    monkeypatch.setitem(DROP, "fp32", -1.0)
    with pytest.raises(ParityError, match="task ner lost more than allowed: f1"):
        export_bundle(trained, tmp_path / "new", ExportOptions(), quiet)
    assert not (tmp_path / "new").exists()


def test_an_export_replaces_the_bundle_before(
    trained: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(write, "write_padded_graph", _copied(bundle))
    export_bundle(trained, bundle, ExportOptions(version=2, gate=False), quiet)
    manifest = open_bundle(bundle).manifest
    assert (manifest.version, manifest.gates) == (2, ())


def test_what_is_no_bundle_is_never_replaced(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter").write_text("1")
    (tmp_path / "file").write_text("2")
    for name in ("thesis", "file"):
        with pytest.raises(BundleError, match="exists and is not a bundle"):
            export_bundle(trained, tmp_path / name, QUICK, quiet)
    assert content(tmp_path) == {"thesis/chapter": b"1", "file": b"2"}


def test_a_missing_checkpoint_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is not a checkpoint"):
        export_bundle(tmp_path / "nowhere", tmp_path / "out", QUICK, quiet)
    assert not (tmp_path / "out").exists()
