"""A spoilt bundle is refused in one line that names the file and the mend."""

import json
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import helper, numpy_helper

import trunkline
from trunkline import bundle as bundle_module
from trunkline import model as model_module
from trunkline.bundle import GOLDEN, MANIFEST, TOKENIZER, open_bundle, written_bundle
from trunkline.cli import main
from trunkline.errors import BundleError
from trunkline.files import sha256_of
from trunkline.pipeline import Pipeline

GRAPH = "graphs/model.onnx"

Spoil = Callable[[Path], None]


def rewrite(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Changes the manifest."""
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    change(manifest)
    (folder / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")


def rehash(folder: Path) -> None:
    """Makes the manifest's hashes fit, as if the exporter had written the folder so."""

    def change(manifest: dict[str, Any]) -> None:
        manifest["files"] = {name: sha256_of(folder / name) for name in manifest["files"]}
        for graph in manifest["graphs"]:
            graph["sha256"] = sha256_of(folder / graph["file"])

    rewrite(folder, change)


def setting(*path: str | int, to: Any) -> Spoil:
    """Returns what sets a value of the manifest."""

    def change(manifest: Any) -> None:
        for key in path[:-1]:
            manifest = manifest[key]
        manifest[path[-1]] = to

    return lambda folder: rewrite(folder, change)


def dropping(*path: str | int) -> Spoil:
    """Returns what takes a value out of the manifest."""

    def change(manifest: Any) -> None:
        for key in path[:-1]:
            manifest = manifest[key]
        del manifest[path[-1]]

    return lambda folder: rewrite(folder, change)


def removing(name: str) -> Spoil:
    return lambda folder: (folder / name).unlink()


def flipping(name: str) -> Spoil:
    """Returns what turns one bit in the middle of a file."""

    def spoil(folder: Path) -> None:
        data = bytearray((folder / name).read_bytes())
        data[len(data) // 2] ^= 1
        (folder / name).write_bytes(data)

    return spoil


def halving(name: str) -> Spoil:
    def spoil(folder: Path) -> None:
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: len(data) // 2])

    return spoil


def writing(name: str, data: bytes) -> Spoil:
    def spoil(folder: Path) -> None:
        (folder / name).write_bytes(data)

    return spoil


def making_a_folder(name: str) -> Spoil:
    def spoil(folder: Path) -> None:
        (folder / name).unlink()
        (folder / name).mkdir()

    return spoil


def fitting(spoil: Spoil) -> Spoil:
    """Returns what spoils, and then makes the hashes fit."""

    def both(folder: Path) -> None:
        spoil(folder)
        rehash(folder)

    return both


def golden(change: Callable[[dict[str, Any]], object]) -> Spoil:
    """Returns what changes the first golden result, hashes fitting."""

    def spoil(folder: Path) -> None:
        first, *rest = (folder / GOLDEN).read_text(encoding="utf-8").splitlines()
        result = json.loads(first)
        change(result)
        lines = [json.dumps(result, ensure_ascii=False), *rest]
        (folder / GOLDEN).write_text("\n".join(lines) + "\n", encoding="utf-8")

    return fitting(spoil)


def spread_the_vocabulary(folder: Path) -> None:
    tokenizer = json.loads((folder / TOKENIZER).read_text(encoding="utf-8"))
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary["rome"] = 2**32 - 1
    (folder / TOKENIZER).write_text(json.dumps(tokenizer), encoding="utf-8")


def lose_an_output(folder: Path) -> None:
    graph = onnx.load(folder / GRAPH)
    (lost,) = (one for one in graph.graph.output if one.name == "pos.logits")
    graph.graph.output.remove(lost)
    onnx.save(graph, folder / GRAPH)


def want_an_input(folder: Path) -> None:
    graph = onnx.load(folder / GRAPH)
    graph.graph.input.append(helper.make_tensor_value_info("position_ids", 7, ["batch"]))
    onnx.save(graph, folder / GRAPH)


def shift_weights(folder: Path) -> None:
    graph = onnx.load(folder / GRAPH)
    for weight in graph.graph.initializer:
        if weight.name == "ner.logits.own":
            weight.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(weight), weight.name))
    onnx.save(graph, folder / GRAPH)


def shift_score(result: dict[str, Any]) -> None:
    result["tasks"]["pos"][0]["score"] -= 0.02


def shift_label(result: dict[str, Any]) -> None:
    result["tasks"]["topic"][0]["score"] -= 0.02


def shift_span(result: dict[str, Any]) -> None:
    result["tasks"]["pos"][0]["end"] += 1


# What is done to the bundle, the file that the error names, and a part of its reason.
CASES: dict[str, tuple[Spoil, str, str]] = {
    "the manifest is missing": (removing(MANIFEST), "", "is not a bundle: it has no manifest.json"),
    "the manifest is a folder": (making_a_folder(MANIFEST), "", "is not a bundle"),
    "the graph is missing": (removing(GRAPH), GRAPH, "is missing; copy the whole bundle again"),
    "the graph is a folder": (making_a_folder(GRAPH), GRAPH, "is missing"),
    "the tokenizer is missing": (removing(TOKENIZER), TOKENIZER, "is missing"),
    "the golden file is missing": (removing(GOLDEN), GOLDEN, "is missing"),
    "the manifest is empty": (writing(MANIFEST, b""), MANIFEST, "cannot be read"),
    "the manifest is cut": (halving(MANIFEST), MANIFEST, "cannot be read"),
    "the manifest is not UTF-8": (writing(MANIFEST, b"\xff\xfe{}"), MANIFEST, "cannot be read"),
    "the manifest is a list": (writing(MANIFEST, b"[]"), MANIFEST, "schema version None"),
    "the schema is newer": (setting("schema_version", to=4), MANIFEST, "schema version 4, this"),
    "the schema is older": (setting("schema_version", to=2), MANIFEST, "schema version 2, this"),
    "the schema is a word": (setting("schema_version", to="3"), MANIFEST, "schema version '3'"),
    "the schema is missing": (dropping("schema_version"), MANIFEST, "schema version None"),
    "a key is unknown": (setting("nmae", to="x"), MANIFEST, "nmae: unknown key (did you mean"),
    "an inner key is unknown": (setting("encoder", "x", to=1), MANIFEST, "encoder.x: unknown key"),
    "a key is missing": (dropping("encoder", "pad_id"), MANIFEST, "encoder.pad_id: missing"),
    "a type is wrong": (setting("version", to="1"), MANIFEST, "version: expected int, got str"),
    "the layout is unknown": (setting("graphs", 0, "layout", to="x"), MANIFEST, "graphs[0].layout"),
    "a length has 400 digits": (
        setting("encoder", "max_length", to=10**400),
        MANIFEST,
        "encoder.max_length: expected a number of 64 bits, got one of 401 digits",
    ),
    "a metric has 400 digits": (
        setting("gates", 0, "value", to=10**400),
        MANIFEST,
        "gates[0].value: expected a number, got one of 401 digits",
    ),
    "a metric has 5,000 digits": (
        lambda folder: (folder / MANIFEST).write_text(f'{{"schema_version": {"2" * 5000}}}'),
        MANIFEST,
        "cannot be read: Exceeds the limit",
    ),
    "a metric is no number": (
        setting("gates", 0, "low", to=float("nan")),
        MANIFEST,
        "gates[0].low: must be a finite number, not nan",
    ),
    "a threshold is endless": (
        setting("tasks", 2, "options", "no_answer_threshold", to=float("inf")),
        MANIFEST,
        "tasks[2].options.no_answer_threshold: must be at least 0 and at most 1, not inf",
    ),
    "a length is true": (
        setting("encoder", "max_length", to=True),
        MANIFEST,
        "encoder.max_length: expected int, got bool True",
    ),
    "a length is negative": (
        setting("encoder", "max_length", to=-5),
        MANIFEST,
        "encoder.max_length: must be at least 1, not -5",
    ),
    "padding is negative": (
        setting("encoder", "pad_id", to=-1),
        MANIFEST,
        "encoder.pad_id: must be at least 0, not -1",
    ),
    "a version is 0": (setting("version", to=0), MANIFEST, "version: must be at least 1, not 0"),
    "the schema has 400 digits": (
        setting("schema_version", to=10**400),
        MANIFEST,
        "has schema version 1000",
    ),
    "there are no tasks": (setting("tasks", to=[]), MANIFEST, "tasks: missing or empty"),
    "tasks are missing": (dropping("tasks"), MANIFEST, "tasks: missing or empty"),
    "a task is a number": (setting("tasks", 1, to=5), MANIFEST, "tasks[1]: expected a table"),
    "a task has no name": (dropping("tasks", 1, "name"), MANIFEST, "tasks[1].name: missing"),
    "a task has a bad name": (setting("tasks", 1, "name", to="P O"), MANIFEST, "task name 'P O'"),
    "two tasks have one name": (setting("tasks", 1, "name", to="ner"), MANIFEST, "two have one"),
    "a kind is unknown": (setting("tasks", 1, "kind", to="x"), MANIFEST, "unknown kind of task"),
    "an option is bad": (
        setting("tasks", 2, "options", "n_best", to=0),
        MANIFEST,
        "tasks[2].options.n_best",
    ),
    "labels cannot be decoded": (
        setting("tasks", 0, "labels", to=["O", "I-PER"]),
        MANIFEST,
        "label 'I-PER' cannot occur without B-PER",
    ),
    "there are no graphs": (setting("graphs", to=[]), MANIFEST, "graphs: there is none"),
    "a task has no output": (
        setting("tasks", 1, "name", to="chunk"),
        MANIFEST,
        "graphs/model.onnx lacks output 'chunk.logits'",
    ),
    "the overlap does not fit": (
        setting("encoder", "overlap", to=100),
        TOKENIZER,
        "overlap 100 does not fit rows of 128 tokens",
    ),
    "the graph is cut": (halving(GRAPH), GRAPH, "differs from the hash in manifest.json"),
    "a bit of the graph is flipped": (flipping(GRAPH), GRAPH, "differs from the hash"),
    "a bit of the tokenizer is flipped": (flipping(TOKENIZER), TOKENIZER, "differs from the hash"),
    "a bit of the golden file is flipped": (flipping(GOLDEN), GOLDEN, "differs from the hash"),
    "the tokenizer's hash is missing": (dropping("files", TOKENIZER), TOKENIZER, "differs from"),
    "a file lies above the bundle": (
        setting("files", "../x", to="0"),
        MANIFEST,
        "names a file outside it: ../x",
    ),
    "a file lies elsewhere": (setting("files", "/x", to="0"), MANIFEST, "outside it: /x"),
    "a file climbs out": (setting("files", "graphs/../../x", to="0"), MANIFEST, "outside it"),
    "a graph lies above the bundle": (
        setting("graphs", 0, "file", to="../copy/graphs/model.onnx"),
        MANIFEST,
        "names a file outside it",
    ),
    "the graph is cut, hashes fit": (fitting(halving(GRAPH)), GRAPH, "onnxruntime cannot load it"),
    "the graph lost an output, hashes fit": (
        fitting(lose_an_output),
        GRAPH,
        "graph lacks output 'pos.logits'",
    ),
    "the graph wants an input, hashes fit": (
        fitting(want_an_input),
        GRAPH,
        "graph wants input 'position_ids'",
    ),
    "the tokenizer is cut, hashes fit": (
        fitting(halving(TOKENIZER)),
        TOKENIZER,
        "cannot be used: ",
    ),
    "the tokenizer is none, hashes fit": (
        fitting(writing(TOKENIZER, b"{}")),
        TOKENIZER,
        "cannot be used: ",
    ),
    "the graph gives other answers": (
        fitting(shift_weights),
        f"{GOLDEN}:1",
        "self-test failed at tasks.ner",
    ),
    "an id of the vocabulary is huge": (
        fitting(spread_the_vocabulary),
        TOKENIZER,
        "its vocabulary has the id 4294967295",
    ),
    "a label is no Unicode": (
        setting("tasks", 3, "labels", 0, to="\ud800"),
        MANIFEST,
        "cannot be read: 'utf-8' codec can't encode character",
    ),
    "a name of a file is too long": (
        setting("files", "x" * 300, to="0"),
        "x" * 300,
        "cannot be read: File name too long",
    ),
    "a golden task is unknown": (
        golden(lambda result: result["tasks"].update(weather=[])),
        GOLDEN,
        "does not fit the model: unknown task 'weather'",
    ),
    "a golden score differs": (
        golden(shift_score),
        f"{GOLDEN}:1",
        "self-test failed at tasks.pos[0].score: ",
    ),
    "a golden span differs": (
        golden(shift_span),
        f"{GOLDEN}:1",
        "self-test failed at tasks.pos[0].end: 4 became 3",
    ),
    "a golden span is missing": (
        golden(lambda result: result["tasks"]["pos"].pop()),
        f"{GOLDEN}:1",
        "self-test failed at tasks.pos: ",
    ),
    "a golden label differs": (
        golden(lambda result: result["tasks"]["topic"][0].update(label="war")),
        f"{GOLDEN}:1",
        "self-test failed at tasks.topic[",
    ),
    "a golden label's score differs": (
        golden(shift_label),
        f"{GOLDEN}:1",
        "self-test failed at tasks.topic[",
    ),
    "a golden label is missing": (
        golden(lambda result: result["tasks"]["mood"].clear()),
        f"{GOLDEN}:1",
        "self-test failed at tasks.mood: ",
    ),
    "a golden line is cut": (
        fitting(writing(GOLDEN, b'{"text": "Ada')),
        f"{GOLDEN}:1",
        "is not a result: ",
    ),
    "a golden line lacks a key": (
        golden(lambda result: result.pop("questions")),
        f"{GOLDEN}:1",
        "is not a result: questions: missing",
    ),
    "a golden text is a number": (
        golden(lambda result: result.update(text=5)),
        f"{GOLDEN}:1",
        "is not a result: text: expected str, got int 5",
    ),
    "a golden answer differs": (
        golden(lambda result: result["questions"][0]["answers"].reverse()),
        f"{GOLDEN}:1",
        "self-test failed at questions[0].answers[0].",
    ),
}
CASE = pytest.mark.parametrize("case", CASES)


@CASE
def test_python_raises_an_error_that_names_the_file(copy: Path, case: str) -> None:
    spoil, file, reason = CASES[case]
    spoil(copy)
    with pytest.raises(BundleError) as caught:
        trunkline.load(copy, 1).self_test()
    error = caught.value
    assert str(error.path) == str(copy / file)
    assert reason in str(error)
    assert error.mend
    assert str(error).endswith(f"; {error.mend}")
    assert len(str(error).splitlines()) == 1


@CASE
def test_the_command_line_prints_one_line_and_ends_with_two(
    copy: Path, case: str, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil, file, reason = CASES[case]
    spoil(copy)
    assert main(["verify", str(copy)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"trunkline verify: {copy / file}: ")
    assert reason in line


@pytest.mark.parametrize("command", ["inspect", "verify", "predict"])
@pytest.mark.parametrize("where", ["absent", "file", "file/below", "empty"])
def test_a_path_that_is_no_bundle_is_refused(
    command: str, where: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("text")
    (tmp_path / "empty").mkdir()
    path = str(tmp_path / where)
    assert main([command, path]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"trunkline {command}: ")
    assert path in line


def test_a_text_given_for_the_bundle_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "Ada lives in Rome. " * 100]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("trunkline predict: ")
    assert "File name too long" in line


def test_a_bundle_may_be_the_folder_one_stands_in(
    copy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(copy)
    assert main(["inspect", "."]) == 0
    monkeypatch.chdir(copy / "graphs")
    assert main(["inspect", ".."]) == 0
    assert capsys.readouterr().out.count("tiny version 1") == 2
    assert main(["inspect", "/"]) == 2


def test_reading_a_bundle_whose_writer_died_writes_nothing_and_says_where_it_is(copy: Path) -> None:
    left = copy.with_name(".copy.old")
    copy.rename(left)
    with pytest.raises(BundleError, match=f"is missing: a writer died .*; .*mv {left} {copy}"):
        trunkline.load(copy, 1)
    assert [path.name for path in copy.parent.iterdir()] == [".copy.old"]


def test_reading_leaves_alone_what_a_writer_is_about_to_put_back(copy: Path) -> None:
    old = shutil.copytree(copy, copy.with_name(".copy.old"))
    assert trunkline.load(copy, 1).self_test() == 2
    assert old.exists()


def test_a_bundle_that_is_replaced_while_it_is_opened_is_read_again(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    verify = bundle_module._verify

    def replacing(folder: Path, name: str, digest: str) -> None:
        monkeypatch.setattr(bundle_module, "_verify", verify)
        with written_bundle(copy, overwrite=True) as aside:
            shutil.copytree(copy, aside, dirs_exist_ok=True)
            rewrite(aside, lambda manifest: manifest.update(version=7))
        verify(folder, name, "what stood in the older manifest")

    monkeypatch.setattr(bundle_module, "_verify", replacing)
    assert open_bundle(copy).manifest.version == 7


def test_loading_tries_a_golden_text_once_on_a_machine(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []
    check = model_module.check_golden

    def counted(path: Path, pipeline: Pipeline, most: int | None = None) -> int:
        tried.append(most)
        return check(path, pipeline, most)

    monkeypatch.setattr(model_module, "check_golden", counted)
    for _ in range(3):
        trunkline.load(copy, 1)
    assert tried == [1]
    monkeypatch.setattr("trunkline.tried.cpu_model", lambda: "another")
    trunkline.load(copy, 1)
    assert tried == [1, 1]
    fitting(shift_weights)(copy)
    with pytest.raises(BundleError, match=r"self-test failed at tasks.ner"):
        trunkline.load(copy, 1)
    with pytest.raises(BundleError, match=r"self-test failed at tasks.ner"):
        trunkline.load(copy, 1)  # what failed is not kept


def test_a_readme_may_change(copy: Path) -> None:
    (copy / "README.md").write_text("A card.")
    assert trunkline.load(copy, 1).self_test() == 2


def test_labels_of_equal_scores_may_change_places(copy: Path) -> None:
    golden(lambda result: result["tasks"]["topic"].reverse())(copy)
    assert trunkline.load(copy, 1).self_test() == 2


def listed(folder: Path) -> Iterable[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def test_a_bundle_that_cannot_be_opened_is_never_put_in_place(copy: Path, tmp_path: Path) -> None:
    before = listed(copy)
    with (
        pytest.raises(BundleError, match="differs from the hash"),
        written_bundle(copy, overwrite=True) as aside,
    ):
        shutil.copytree(copy, aside, dirs_exist_ok=True)
        flipping(GRAPH)(aside)
    assert listed(copy) == before
    assert trunkline.load(copy, 1).self_test() == 2
    assert [one.name for one in tmp_path.iterdir() if one.is_dir()] == ["copy"]


def test_a_bundle_is_only_replaced_if_told(copy: Path) -> None:
    before = listed(copy)
    with (
        pytest.raises(BundleError, match="holds a bundle; use --overwrite, or another --out"),
        written_bundle(copy),
    ):
        pytest.fail("must not come here")
    assert listed(copy) == before


@pytest.mark.parametrize("there", ["folder", "file"])
def test_a_bundle_is_never_written_over_something_else(tmp_path: Path, there: str) -> None:
    target = tmp_path / "photos"
    if there == "folder":
        target.mkdir()
    else:
        target.write_text("mine")
    with (
        pytest.raises(BundleError, match="is not a bundle; choose another"),
        written_bundle(target),
    ):
        pytest.fail("must not come here")
    assert target.exists()
