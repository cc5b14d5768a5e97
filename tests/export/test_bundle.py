import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import onnx
import pytest

import trunkline
from tests.small import Corpus, write_corpus
from trunkline import Model
from trunkline.bundle import open_bundle
from trunkline.cli import main
from trunkline.errors import BundleError, CheckpointError, ConfigError, TrunklineError
from trunkline.model import open_model
from trunkline.pipeline import Pipeline
from trunkline_export import trunk, variants, write
from trunkline_export.gates import DROP
from trunkline_export.parity import ParityError
from trunkline_export.trunk import Trunk, Unpackable
from trunkline_export.variants import DYNAMIC, INT8, PACKED, PADDED, WEIGHTS
from trunkline_export.write import ExportOptions, export_bundle
from trunkline_train.checkpoint import Checkpoint, load_checkpoint, save_checkpoint

FP32 = ("fp32",)
QUICK = ExportOptions(precisions=FP32, gate=False)


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
        PADDED,
        PACKED,
        WEIGHTS,
    }
    beside = {one.name for one in exported.parent.iterdir()}
    assert beside - {".bundle.calibration.json"} == {"bundle"}


def test_int8_adds_its_graph_and_its_golden_answers(quantised: Path, exported: Path) -> None:
    assert set(content(quantised)) == {*content(exported), INT8, "golden-int8.jsonl"}
    assert (quantised / INT8).stat().st_size < (quantised / WEIGHTS).stat().st_size
    answers = [(quantised / name).read_text() for name in ("golden.jsonl", "golden-int8.jsonl")]
    assert answers[0] != answers[1], "each graph is tested with its own answers"


def test_every_graph_passes_its_self_test_and_its_gates(quantised: Path) -> None:
    bundle = open_bundle(quantised)
    graphs = bundle.manifest.graphs
    assert [graph.name for graph in graphs] == ["padded-fp32", "packed-fp32", "packed-int8"]
    assert all(bundle.passed(graph) for graph in graphs)
    counts = {open_model(bundle, 1, graph=graph.name).self_test() for graph in graphs}
    (count,) = counts
    assert count > 10


def test_int8_alone_makes_a_small_bundle_for_the_edge(trained: Path, tmp_path: Path) -> None:
    options = ExportOptions(precisions=("int8",), gate=False)
    bundle = export_bundle(trained, tmp_path / "edge", options, quiet)
    (graph,) = bundle.manifest.graphs
    assert graph.name == "packed-int8"
    assert set(content(tmp_path / "edge")) == {
        "README.md",
        "config.json",
        "golden-int8.jsonl",
        "manifest.json",
        "tokenizer.json",
        INT8,
    }
    assert trunkline.load(bundle.path, 1, allow_ungated=True).self_test() > 10


def test_dynamic_int8_is_written_where_it_is_asked_for(
    trained: Path, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(variants, "padded_model", copied(exported))
    options = ExportOptions(precisions=("int8-dynamic",), gate=False)
    bundle = export_bundle(trained, tmp_path / "dynamic", options, quiet)
    (graph,) = bundle.manifest.graphs
    assert (graph.name, graph.file) == ("padded-int8-dynamic", DYNAMIC)
    assert graph.operators["MatMulInteger"] > 10
    assert trunkline.load(bundle.path, 1, allow_ungated=True).self_test() > 10


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


def test_the_card_tells_tasks_data_and_scores(exported: Path, small_model: Model) -> None:
    card = (exported / "README.md").read_text()
    assert {gate.graph for gate in small_model.manifest.gates} == {PADDED, PACKED}
    assert "# small, version 1" in card
    assert "| ner | token-classification | O, B-LOC, I-LOC, B-PER, I-PER |" in card
    assert "| qa | question-answering | - |" in card
    for gate in small_model.manifest.gates:
        values = f"{gate.reference:.2f} | {gate.value:.2f} | {gate.n} "
        assert f"| {gate.graph} | {gate.task} | f1 | {values}" in card
    for name in ("ner.train", "qa.dev.json"):
        assert name in card


def test_nothing_names_a_folder_of_this_machine(exported: Path, corpus: Corpus) -> None:
    secrets = [str(path).encode() for path in (corpus.folder.parent, exported.parent, Path.home())]
    for name, data in content(exported).items():
        assert [secret for secret in secrets if secret in data] == [], name


@pytest.fixture(scope="module")
def moved(trained: Path, exported: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle, without gates, of a run whose data and encoder have since gone."""
    folder = tmp_path_factory.mktemp("moved")
    loaded = load_checkpoint(trained)
    gone = write_corpus(folder / "gone")
    config = gone.load("tasks.qa.train=hub:" + str(gone.folder / "questions"))
    save_checkpoint(
        folder / "run",
        Checkpoint(loaded.model, loaded.encoder, loaded.pad_id, config, loaded.progress),
    )
    shutil.rmtree(gone.folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(variants, "padded_model", copied(exported))
        options = ExportOptions("other", 7, precisions=FP32, gate=False)
        export_bundle(folder / "run", folder / "bundle", options, quiet)
    return folder


def test_without_gates_nothing_is_measured(moved: Path) -> None:
    assert open_bundle(moved / "bundle").manifest.gates == ()
    assert "Not measured" in (moved / "bundle" / "README.md").read_text()


def test_dev_data_that_has_gone_is_refused_before_anything_is_computed(
    moved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Pipeline, "analyze", fail)
    monkeypatch.setattr(variants, "padded_model", fail)
    assert main(["export", str(moved / "run"), "--out", str(tmp_path / "bundle")]) == 2
    (told,) = capsys.readouterr().err.splitlines()
    missing = moved / "gone" / "ner.dev"
    assert f"the gates need dev data of 'ner': {missing}: cannot be read" in told
    assert "--set tasks.ner.dev=FILE, or export with --no-gate" in told
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("precision", ["int8", "fp16", "int4"])
def test_a_precision_that_cannot_be_is_refused_before_anything_is_computed(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    monkeypatch.setattr(Pipeline, "analyze", fail)
    monkeypatch.setattr(variants, "padded_model", fail)
    monkeypatch.setitem(trunk._READERS, "bert", unpackable)
    options = ExportOptions(precisions=("fp32", precision))
    with pytest.raises(TrunklineError, match=f"precision '?{precision}'?") as caught:
        export_bundle(trained, tmp_path / "bundle", options, quiet)
    assert len(str(caught.value).splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def unpackable(encoder: object) -> Trunk:
    raise Unpackable("no packed graph for this one")


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


STEPS = {
    "check_signature": variants,
    "check_values": variants,
    "check_rows": variants,
    "check_fusions": variants,
    "check_answers": write,
    "check_same_alone": variants,
    "write_golden": write,
    "model_card": write,
}


@pytest.mark.parametrize("step", STEPS)
def test_a_failed_export_leaves_the_bundle_before(
    trained: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    before = content(bundle)
    monkeypatch.setattr(STEPS[step], step, fail)
    monkeypatch.setattr(variants, "padded_model", copied(bundle))
    with pytest.raises(ParityError, match="no"):
        export_bundle(trained, bundle, ExportOptions(gate=False, overwrite=True), quiet)
    assert content(bundle) == before
    assert [one.name for one in bundle.parent.iterdir()] == ["bundle"]


def copied(bundle: Path) -> Callable[[object], onnx.ModelProto]:
    """Returns what stands for the slow export of the padded graph: one that was exported."""
    return lambda model: onnx.load(bundle / PADDED)


def test_a_failed_gate_writes_nothing(
    trained: Path, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(variants, "padded_model", copied(bundle))
    monkeypatch.setitem(DROP, "fp32", -1.0)
    with pytest.raises(ParityError, match=r"^padded-fp32: gate ner FAILED: f1 "):
        export_bundle(trained, tmp_path / "new", ExportOptions(precisions=FP32), quiet)
    assert not (tmp_path / "new").exists()


def test_data_that_has_moved_is_told_to_the_exporter(
    moved: Path, corpus: Corpus, exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(variants, "padded_model", copied(exported))
    there = {"ner": corpus.folder / "ner.dev", "qa": corpus.folder / "qa.dev.json"}
    changes = tuple(f"tasks.{task}.dev={path}" for task, path in there.items())
    options = ExportOptions(precisions=FP32, changes=changes)
    bundle = export_bundle(moved / "run", moved / "gated", options, quiet)
    assert all(bundle.passed(graph) for graph in bundle.manifest.graphs)
    assert {(gate.task, gate.n) for gate in bundle.manifest.gates} == {("ner", 20), ("qa", 16)}
    data = bundle.manifest.provenance["data"]
    assert isinstance(data, dict)
    assert "ner.dev" in data["ner"]
    assert all(str(corpus.folder) not in source for source in data["ner"])


def test_a_change_of_an_unknown_key_is_one_line(trained: Path, tmp_path: Path) -> None:
    options = ExportOptions(changes=("tasks.ner.dve=x",))
    with pytest.raises(ConfigError, match=r"tasks\.ner\.dve: unknown key"):
        export_bundle(trained, tmp_path / "out", options, quiet)
    assert not (tmp_path / "out").exists()


def test_an_export_replaces_the_bundle_before_if_told(
    trained: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = content(bundle)
    options = ExportOptions(version=2, precisions=FP32, gate=False)
    with pytest.raises(BundleError, match="holds a bundle; use --overwrite, or another --out"):
        export_bundle(trained, bundle, options, quiet)
    assert content(bundle) == before
    monkeypatch.setattr(variants, "padded_model", copied(bundle))
    export_bundle(trained, bundle, replace(options, overwrite=True), quiet)
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
    with pytest.raises(CheckpointError, match="does not exist; check the path"):
        export_bundle(tmp_path / "nowhere", tmp_path / "out", QUICK, quiet)
    assert not (tmp_path / "out").exists()


def test_the_documented_way_without_trunkline_runs(
    exported: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (Path(__file__).parents[2] / "docs/bundle.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    exec(code.replace("NAME/", f"{exported.as_posix()}/"), {})
    shown = [tuple(line.rsplit(" ", 1)) for line in capsys.readouterr().out.splitlines()]
    text = "Ada Brown lives in Bern."
    found = trunkline.load(exported, 1).analyze(text, tasks=["ner"]).tasks["ner"]
    assert {label[2:] for _, label in shown} == {span.label for span in found if span.text in text}
    assert [piece for piece, _ in shown if piece == "Bern"] == ["Bern"]
