"""The whole path by the command line, as a user walks it: each command is a process."""

import json
import re
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import trunkline
from tests.small import Corpus
from trunkline import Document, Model, Question
from trunkline.cli import main
from trunkline_serve.client import Client
from trunkline_serve.launch import serving
from trunkline_train.data.examples import AnswerExample
from trunkline_train.data.source import load_test
from trunkline_train.scoring.squad import score_answers

PATIENCE = 120.0  # seconds, for what takes a few
TEXT = "Ada Brown lives in Saint-Denis 😀."
QUESTION = "Where does Ada Brown live?"
SHORT = ["--set", "training.epochs=3"]
FP32 = "packed-fp32"
GRAPHS = ("padded-fp32", FP32, "packed-int8")

Done = subprocess.CompletedProcess[str]


def call(*arguments: str | Path, given: str | bytes = "") -> Done:
    """Runs a command of `trunkline`; its output is not a terminal."""
    data = given.encode() if isinstance(given, str) else given
    command = [sys.executable, "-m", "trunkline", *map(str, arguments)]
    done = subprocess.run(command, input=data, capture_output=True, timeout=PATIENCE, check=False)
    return Done(command, done.returncode, done.stdout.decode(), done.stderr.decode())


def succeed(*arguments: str | Path, given: str = "") -> str:
    done = call(*arguments, given=given)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout


@dataclass(frozen=True)
class Walk:
    """What the commands left behind."""

    run: Path
    bundle: Path
    trained: str
    exported: str
    scores: dict[str, Any]  # of the checkpoint


@pytest.fixture(scope="module")
def walk(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Walk:
    """Trains, evaluates and exports."""
    folder = tmp_path_factory.mktemp("walk")
    run, bundle, scores = folder / "run", folder / "bundle", folder / "scores.json"
    trained = succeed("train", corpus.config, "--out", run, *SHORT)
    # In this process, where torch is loaded already: loading it takes seconds.
    assert main(["evaluate", str(run), "--config", str(corpus.config), "--json", str(scores)]) == 0
    exported = succeed("export", run, "--out", bundle, "--version", "3")
    return Walk(run, bundle, trained, exported, json.loads(scores.read_text()))


@pytest.fixture(scope="module")
def model(walk: Walk) -> Model:
    """The graph that every command takes on this machine: the times of one are kept for all."""
    return trunkline.load(walk.bundle)


def test_training_says_where_the_model_is(walk: Walk) -> None:
    assert f"best checkpoint in {walk.run / 'best'}" in walk.trained
    assert (walk.run / "curves.png").exists()


def test_export_says_what_it_checked(walk: Walk) -> None:
    for graph in GRAPHS:
        for told in ("gate ner passed: f1", "gate qa passed: f1", "written, opset 20"):
            assert f"{graph}: {told}" in walk.exported
    for graph in ("padded-fp32", FP32):
        assert re.search(rf"^{graph}: \d+ annotations .* as trained$", walk.exported, re.MULTILINE)
    assert f"exported small version 3 to {walk.bundle}" in walk.exported


def test_checkpoint_and_bundle_have_the_same_scores(
    walk: Walk, corpus: Corpus, tmp_path: Path
) -> None:
    file = tmp_path / "scores.json"
    given = ("--config", corpus.config, "--json", file, "--graph", FP32)
    told = succeed("evaluate", walk.bundle, *given)
    report = json.loads(file.read_text())
    assert report["scores"] == walk.scores["scores"]
    assert report["split"] == "test"
    assert [line.split(":")[0] for line in told.splitlines() if ":" in line] == ["ner", "qa"]
    assert f"f1 {report['scores']['qa']['metrics']['f1']:.2f} " in " ".join(told.split())


def test_dev_can_be_scored_too(walk: Walk, corpus: Corpus) -> None:
    told = succeed("evaluate", walk.bundle, "--config", corpus.config, "--split", "dev")
    assert "n=20" in told.splitlines()[0]


def test_inspect_shows_what_the_bundle_holds(walk: Walk, model: Model) -> None:
    told = succeed("inspect", walk.bundle)
    for part in ("small version 3", "ner: token-classification", "qa: question-answering", "gate"):
        assert part in told
    assert all(f"graph    {graph}: " in told for graph in GRAPHS)
    manifest = json.loads(succeed("inspect", walk.bundle, "--json"))
    hashes = {graph["file"]: graph["sha256"] for graph in manifest["graphs"]}
    assert hashes[model.graph.file] == model.graph.sha256


def test_verify_finds_the_bundle_whole(walk: Walk) -> None:
    told = succeed("verify", walk.bundle)
    assert "is whole" in told
    assert all(f"{graph}: " in told for graph in GRAPHS)
    assert told.count("golden texts as exported, gates passed") == len(GRAPHS)


def test_predict_gives_what_the_graph_that_is_named_gives(walk: Walk) -> None:
    for graph in GRAPHS:
        told = succeed("predict", walk.bundle, TEXT, "--json", "--graph", graph)
        assert json.loads(told) == trunkline.load(walk.bundle, graph=graph).analyze(TEXT).to_dict()


def test_predict_gives_what_the_model_gives(walk: Walk, model: Model) -> None:
    told = succeed("predict", walk.bundle, TEXT, "--json", "--question", QUESTION)
    assert json.loads(told) == model.analyze(TEXT, [QUESTION]).to_dict()


def test_predict_reads_a_text_per_line(walk: Walk, model: Model) -> None:
    texts = [TEXT, "", "It rained in Hamburg yesterday."]
    told = succeed("predict", walk.bundle, "--json", given="\n".join(texts))
    assert [json.loads(line) for line in told.splitlines()] == [
        result.to_dict() for result in model.analyze(texts)
    ]


def test_predict_gives_only_the_tasks_wanted(walk: Walk) -> None:
    asked = ["--task", "qa", "--question", "Who?"]
    (line,) = succeed("predict", walk.bundle, TEXT, "--json", *asked).splitlines()
    found = json.loads(line)
    assert (found["tasks"], len(found["questions"])) == ({}, 1)


def test_served_answers_are_those_that_were_scored(walk: Walk, corpus: Corpus) -> None:
    model = trunkline.load(walk.bundle, graph=FP32)
    examples = load_test(corpus.load().tasks["qa"], "test")
    assert all(isinstance(example, AnswerExample) for example in examples)
    documents = [Document(e.context, (Question(e.question),)) for e in examples]
    with serving([walk.bundle], "--graph", FP32) as server:
        with Client(server.address) as client:
            (listed,) = client.models()
            assert (listed.name, listed.version) == ("small", 3)
            answers = client.analyze(documents)
            alone = [client.analyze(document) for document in documents]
        status, log = server.end(signal.SIGTERM), server.log.read_text()
        assert status == 0, log
        assert "Traceback" not in log
    expected = [result.to_dict() for result in model.analyze(documents)]
    assert [result.to_dict() for result in answers] == expected
    assert [result.to_dict() for result in alone] == expected
    guesses = [result.questions[0].answers[0].text for result in answers]
    scores = score_answers([example.answers for example in examples], guesses)
    reported = walk.scores["scores"]["qa"]["metrics"]
    assert {"exact_match": scores.exact_match, "f1": scores.f1} == pytest.approx(reported)


BAD: dict[str, tuple[list[str], str]] = {
    "no configuration": (["train", "nowhere.toml"], "nowhere.toml: cannot be read"),
    "unknown key": (
        ["train", "{config}", "--set", "training.epoch=1"],
        "training.epoch: unknown key (did you mean 'epochs'?)",
    ),
    "no data to train on": (
        ["train", "{config}", "--set", "tasks.ner.train=nowhere", "--out", "{run}/new"],
        "nowhere: cannot be read",
    ),
    "a run in the way": (["train", "{config}", "--out", "{run}"], "holds a run; use --resume"),
    "no data to score": (
        ["evaluate", "{bundle}", "--config", "{config}", "--set", "tasks.ner.test=nowhere"],
        "nowhere: cannot be read",
    ),
    "no model to score": (
        ["evaluate", "nowhere", "--config", "{config}"],
        "nowhere: does not exist",
    ),
    "another kind to score": (
        [
            *["evaluate", "{bundle}", "--config", "{config}", "--set"],
            "tasks.ner={kind='question-answering',train='x'}",
        ],
        "has no token-classification task 'ner'",
    ),
    "no checkpoint": (["export", "nowhere", "--out", "new"], "nowhere: does not exist"),
    "no bundle": (["predict", "nowhere", "a"], "nowhere: does not exist"),
    "no bundle to serve": (["serve", "nowhere"], "nowhere: does not exist"),
    "a checkpoint for a bundle": (
        ["verify", "{run}/best"],
        "is a trained model, not yet a bundle; export it first",
    ),
    "unknown command": (["pedict"], "no such command (did you mean 'predict'?)"),
    "unknown task": (["predict", "{bundle}", "a", "--task", "nor"], "(did you mean 'ner'?)"),
    "unknown graph": (
        ["predict", "{bundle}", "a", "--graph", "packed-int4"],
        "has no graph 'packed-int4'; choose one of: padded-fp32, packed-fp32, packed-int8",
    ),
    "empty question": (["predict", "{bundle}", "a", "--question", " "], "is empty"),
    "not UTF-8": (["predict", "{bundle}"], "is not "),
}
# Each by a way of its own through a process: its standard input, its server, its list of commands.
APART = ("not UTF-8", "no bundle to serve", "unknown command", "no configuration")


def assert_one_line(status: int, out: str, err: str, told: str) -> None:
    assert (status, out) == (2, "")
    assert told in err
    assert len(err.splitlines()) == 1
    assert err.startswith("trunkline ")


def filled(arguments: list[str], walk: Walk, corpus: Corpus) -> list[str]:
    places = {"{config}": corpus.config, "{run}": walk.run, "{bundle}": walk.bundle}
    for name, path in places.items():
        arguments = [argument.replace(name, str(path)) for argument in arguments]
    return arguments


@pytest.mark.parametrize("case", APART)
def test_bad_input_is_one_line_and_status_2(walk: Walk, corpus: Corpus, case: str) -> None:
    arguments, told = BAD[case]
    given = b"Z\xfcrich" if case == "not UTF-8" else b""
    done = call(*filled(arguments, walk, corpus), given=given)
    assert_one_line(done.returncode, done.stdout, done.stderr, told)


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, in which the test runs."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("case", [case for case in BAD if case not in APART])
def test_any_other_bad_input_is_one_line_and_status_2_too(
    walk: Walk, corpus: Corpus, empty: Path, case: str, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments, told = BAD[case]
    status = main(filled(arguments, walk, corpus))
    assert_one_line(status, *capfd.readouterr(), told)
    assert list(empty.iterdir()) == []
