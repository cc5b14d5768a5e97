import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from trunkline import Model, Span, __version__
from trunkline.bundle import open_bundle, seal
from trunkline.cli import COMMANDS, main
from trunkline.formats.predicted import predicted
from trunkline.formats.writers import FORMATS, written
from trunkline.golden import check_golden, write_golden
from trunkline.structure import plain

TEXT = "Ada opened an office in Bern."
QUESTION = "Where is the office?"


@pytest.fixture
def terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes standard output a terminal."""
    monkeypatch.setattr(type(sys.stdout), "isatty", lambda stream: True)


def out(capsys: pytest.CaptureFixture[str]) -> list[str]:
    shown = capsys.readouterr()
    assert shown.err == ""
    return shown.out.splitlines()


@pytest.mark.parametrize("flag", ["-h", "--help", "help"])
def test_help_lists_every_command(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([flag]) == 0
    shown = "\n".join(out(capsys))
    assert all(f"trunkline {name} " in shown for name in COMMANDS)
    assert all(command.summary in shown for command in COMMANDS.values())


def test_no_command_shows_the_help_and_fails(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "trunkline predict" in "\n".join(out(capsys))


@pytest.mark.parametrize("flag", ["-V", "--version"])
def test_the_version_is_shown(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([flag]) == 0
    assert out(capsys) == [f"trunkline {__version__}"]


@pytest.mark.parametrize(
    ("name", "near"),
    [("predcit", " (did you mean 'predict'?)"), ("xyz", ""), ("--jsn", "")],
)
def test_an_unknown_command_is_refused_and_the_nearest_named(
    name: str, near: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([name]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"trunkline {name}: no such command{near}; see trunkline --help"


@pytest.mark.parametrize("command", ["inspect", "verify", "predict"])
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([command, "--help"])
    assert caught.value.code == 0
    assert f"usage: trunkline {command}" in "\n".join(out(capsys))


@pytest.mark.parametrize("arguments", [["predict"], ["inspect", "a", "b"], ["verify", "a", "--x"]])
def test_wrong_arguments_end_with_two(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert f"trunkline {arguments[0]}: error: " in capsys.readouterr().err


def test_an_interrupt_ends_with_130(
    bundle: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Model, "analyze", interrupt)
    assert main(["predict", str(bundle), TEXT]) == 130
    assert capsys.readouterr().err == "trunkline predict: interrupted\n"


def test_inspect_shows_what_the_bundle_holds(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", str(bundle)]) == 0
    first, encoder, *lines = out(capsys)
    rest = [line for line in lines if "  gate   " not in line]
    assert first.startswith(f"tiny version 1  ({bundle}, ")
    assert "bert: 1 layers, 8 wide" in encoder
    assert "rows of 128 tokens" in encoder
    assert rest == [
        "task     ner: token-classification  O B-PER I-PER B-LOC I-LOC",
        "task     pos: token-classification  NOUN VERB X",
        "task     qa: question-answering",
        "task     topic: text-classification  arts trade sport",
        "task     mood: text-classification  calm glad loud",
        "task     match: text-classification of pairs  same other",
        "graph    padded-fp32: graphs/model.onnx, 0.0 MB, opset 17",
        "         gives ner.logits pos.logits qa.start_logits qa.end_logits topic.logits"
        " mood.logits match.logits",
        "         MatMul 11 Squeeze 5 Add 4 Mul 2 Cast 1 Gather 1 ReduceSum 1 Unsqueeze 1",
    ]


def test_inspect_shows_gates(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = shutil.copytree(bundle, tmp_path / "gated")
    manifest = open_bundle(copy).manifest
    ner, pos, *others = manifest.gates
    ner = replace(ner, value=89.8, low=-0.5, high=0.12, n=1000, agreement=99.04)
    pos = replace(pos, value=70.0, low=-21.0, high=-19.0, n=1000, agreement=70.0, passed=False)
    elsewhere = replace(others[0], graph="graphs/other.onnx")
    seal(copy, replace(manifest, gates=(ner, pos, elsewhere)))
    assert main(["inspect", str(copy)]) == 0
    assert out(capsys)[-3:] == [
        "  gate   ner: f1 89.80 (torch 90.00, difference in [-0.50, +0.12], n=1000, 99.0 % alike)"
        " passed",
        "  gate   pos: f1 70.00 (torch 90.00, difference in [-21.00, -19.00], n=1000, 70.0 % alike)"
        " FAILED",
        "         has NOT passed the gates of all tasks: runs only if allowed",
    ]


def test_inspect_as_json_is_the_manifest(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(bundle), "--json"]) == 0
    (line,) = out(capsys)
    assert json.loads(line) == json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))
    assert json.loads(line) == json.loads(json.dumps(plain(open_bundle(bundle).manifest)))


def test_verify_tells_each_check(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(bundle)]) == 0
    *checks, last = out(capsys)
    assert checks == [
        "hashes: 3 files as exported",
        "padded-fp32: 2 golden texts as exported, gates passed",
    ]
    assert last.startswith(f"{bundle} is whole (")


def test_verify_tells_of_graphs_that_have_not_passed(
    ungated: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", str(ungated)]) == 0
    assert "padded-fp32: 2 golden texts as exported, gates NOT passed" in out(capsys)


def test_predict_runs_an_ungated_graph_only_if_told(
    ungated: Path, model: Model, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", str(ungated), TEXT]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"trunkline predict: {ungated}: no graph has passed the gates of all")
    assert main(["predict", str(ungated), TEXT, "--allow-ungated"]) == 0
    assert json.loads(out(capsys)[0]) == model.analyze(TEXT).to_dict()


def test_predict_runs_the_graph_that_is_named(
    bundle: Path, model: Model, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("padded-fp32", "graphs/model.onnx"):
        assert main(["predict", str(bundle), TEXT, "--graph", name]) == 0
        assert json.loads(out(capsys)[0]) == model.analyze(TEXT).to_dict()
    assert main(["predict", str(bundle), TEXT, "--graph", "packed-int8"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("has no graph 'packed-int8'; choose one of: padded-fp32")


def test_predict_prints_json_to_a_pipe(
    bundle: Path, model: Model, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", str(bundle), TEXT, "--question", QUESTION]) == 0
    (line,) = out(capsys)
    assert json.loads(line) == model.analyze(TEXT, [QUESTION]).to_dict()


@pytest.mark.usefixtures("terminal")
def test_predict_prints_json_to_a_terminal_if_asked(
    bundle: Path, model: Model, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", str(bundle), "Zürich 😀", "--task", "ner", "--json"]) == 0
    (line,) = out(capsys)
    assert "Zürich 😀" in line
    assert json.loads(line) == model.analyze("Zürich 😀", tasks=["ner"]).to_dict()


@pytest.mark.usefixtures("terminal")
def test_predict_prints_readably_to_a_terminal(
    bundle: Path, model: Model, capsys: pytest.CaptureFixture[str]
) -> None:
    questions = [QUESTION, "Who?"]
    arguments = [argument for question in questions for argument in ("--question", question)]
    assert main(["predict", str(bundle), TEXT, *arguments]) == 0
    result = model.analyze(TEXT, questions)
    wanted = [TEXT]
    for task in ("ner", "pos"):
        wanted += [
            f"  {task:<8} {span.label:<8} {span.text}  ({span.score:.2f})"
            for span in result.tasks[task]
            if isinstance(span, Span)
        ]
    for task in ("topic", "mood"):
        wanted += [f"  {task:<8} {one.label}  ({one.score:.2f})" for one in result.tasks[task]]
    for asked in result.questions:
        wanted.append(f"  ? {asked.question}")
        wanted += [f"    {answer.text}  ({answer.score:.2f})" for answer in asked.answers]
    assert out(capsys) == wanted


@pytest.mark.usefixtures("terminal")
def test_labels_of_hardly_any_probability_are_not_shown_to_a_person(
    bundle: Path, model: Model, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "Rome " * 200
    (first, *rest) = model.analyze(text, tasks=["topic"]).tasks["topic"]
    assert all(one.score < 0.005 for one in rest)
    assert main(["predict", str(bundle), text, "--task", "topic"]) == 0
    assert out(capsys) == [text, f"  topic    {first.label}  (1.00)"]


@pytest.mark.usefixtures("terminal")
def test_predict_takes_and_shows_the_second_text_of_a_pair(
    bundle: Path, model: Model, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["predict", str(bundle), TEXT, "--task", "match", "--text-pair", QUESTION]
    result = model.analyze(TEXT, tasks=["match"], text_pair=QUESTION)
    assert main(arguments) == 0
    labels = [f"  match    {one.label}  ({one.score:.2f})" for one in result.tasks["match"]]
    assert out(capsys) == [TEXT, f"  & {QUESTION}", *labels]
    assert main([*arguments, "--json"]) == 0
    assert json.loads(out(capsys)[0]) == result.to_dict()


@pytest.mark.usefixtures("terminal")
def test_predict_says_if_there_is_no_answer(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", str(bundle), "", "--question", "Who?", "--task", "qa"]) == 0
    assert out(capsys) == ["", "  ? Who?", "    no answer"]


def test_tasks_may_be_repeated(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", str(bundle), TEXT, "--task", "pos", "--task", "ner"]) == 0
    (line,) = out(capsys)
    assert list(json.loads(line)["tasks"]) == ["pos", "ner"]


def test_a_manifest_may_come_from_any_editor(bundle: Path, tmp_path: Path) -> None:
    manifest = shutil.copytree(bundle, tmp_path / "edited") / "manifest.json"
    text = manifest.read_text(encoding="utf-8").replace("\n", "\r\n")
    manifest.write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert open_bundle(tmp_path / "edited").manifest == open_bundle(bundle).manifest


def test_golden_texts_may_hold_any_line_end(model: Model, tmp_path: Path) -> None:
    texts = ["Ada\u2028lives", "in\x85Bern", "\u2029", "a\r\nb\x0bc"]
    write_golden(tmp_path / "golden.jsonl", [model.analyze(text) for text in texts])
    assert check_golden(tmp_path / "golden.jsonl", model.pipeline) == 4


@pytest.mark.parametrize("form", FORMATS)
def test_predict_writes_spans_for_annotation_tools(
    form: str, bundle: Path, model: Model, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "🎉 Ada in Bern."
    assert main(["predict", str(bundle), text, "--task", "ner", "--format", form]) == 0
    found = predicted(model.analyze(text, tasks=["ner"]), "ner", model.pipeline.encoder)
    assert found.spans
    assert capsys.readouterr().out == "".join(
        f"{line}\n" for line in written([found], form, predicted=True)
    )


def test_predict_writes_columns_of_the_models_words(
    bundle: Path, model: Model, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "Ada-Bern"
    assert main(["predict", str(bundle), text, "--format", "conll"]) == 0
    words = [line.split("\t")[0] for line in out(capsys) if line]
    tokens = model.pipeline.encoder.tokenize(text).words
    assert words == [text[a:b] for a, b in zip(tokens.starts, tokens.ends, strict=True)]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--task", "topic"], "task: choose one task that marks spans; there are: ner"),
        (["--task", "pos"], "task: choose one task that marks spans; there are: ner"),
        (["--task", "nre"], "unknown task 'nre' (did you mean 'ner'?)"),
        (["--question", QUESTION], "--format: writes spans of a text; leave --question"),
    ],
)
def test_predict_refuses_what_is_no_span(
    arguments: list[str], told: str, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", str(bundle), TEXT, "--format", "doccano", *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"trunkline predict: {told}")
