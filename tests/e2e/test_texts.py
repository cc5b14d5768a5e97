"""Text classification as a user has it: trained, scored, predicted and served, one answer."""

import json
from pathlib import Path
from typing import Any

import pytest

import trunkline
from tests.small import Corpus
from trunkline import Document, DocumentResult, Model, Question
from trunkline.cli import main
from trunkline_serve.client import Client
from trunkline_serve.launch import serving

TASKS = ("topic", "names", "named")
TEXT = "Ada Brown lives in Saint-Denis 😀."
PAIR = "Ada Brown"


@pytest.fixture(scope="module")
def model(every_exported: Path) -> Model:
    """The graph that every command takes on this machine: the times of one are kept for all."""
    return trunkline.load(every_exported)


def near(number: str) -> Any:
    """Returns what equals a score and its neighbours: fp32 sums otherwise in another batch."""
    return pytest.approx(float(number), abs=2e-4)


def rows(corpus: Corpus) -> list[dict[str, Any]]:
    """Returns the test texts as they stand in their file."""
    lines = (corpus.folder / "texts.test.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def right(rows: list[dict[str, Any]], results: list[DocumentResult], task: str) -> float:
    """Returns the share of texts, in points, whose best label is the gold one."""
    best = [result.to_dict()["tasks"][task][0]["label"] for result in results]  # type: ignore[index]
    return 100 * sum(row[task] == label for row, label in zip(rows, best, strict=True)) / len(rows)


def test_served_labels_are_those_of_the_model_in_this_process(
    corpus: Corpus, every_exported: Path, model: Model
) -> None:
    given = rows(corpus)
    documents = [
        Document(row["text"], (Question("Who met whom?"),), text_pair=row["person"])
        for row in given
    ]
    documents += [Document(TEXT), Document(TEXT * 30, text_pair=PAIR), Document("", text_pair=PAIR)]
    with serving([every_exported]) as server, Client(server.address) as client:
        together: list[DocumentResult] = client.analyze(documents)
        alone = [client.analyze(document) for document in documents]
        described = {task.name: (task.kind, task.pair) for task in client.describe().tasks}
    wanted = json.dumps([result.to_dict() for result in model.analyze(documents)])
    expected = json.loads(wanted, parse_float=near)
    assert [result.to_dict() for result in together] == expected
    assert [result.to_dict() for result in alone] == expected
    assert described["named"] == ("text-classification", True)
    assert described["names"] == ("text-classification", False)


@pytest.fixture(scope="module")
def reports(
    corpus: Corpus,
    every_trained: Path,
    every_exported: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, dict[str, Any]]:
    """What `trunkline evaluate` says of the checkpoint and of the bundle."""
    found = {}
    for name, path in (("checkpoint", every_trained), ("bundle", every_exported)):
        out = tmp_path_factory.mktemp("scores") / f"{name}.json"
        arguments = ["evaluate", str(path), "--config", str(corpus.every), "--json", str(out)]
        assert main(arguments) == 0
        found[name] = json.loads(out.read_text())["scores"]
    return found


def test_checkpoint_and_bundle_have_the_same_scores(reports: dict[str, dict[str, Any]]) -> None:
    assert set(TASKS) < set(reports["bundle"])
    assert reports["bundle"] == reports["checkpoint"]


def test_scores_are_those_of_the_labels_that_a_client_gets(
    corpus: Corpus, model: Model, reports: dict[str, dict[str, Any]]
) -> None:
    given = rows(corpus)
    documents = [Document(row["text"], text_pair=row["person"]) for row in given]
    results = model.analyze(documents)
    for task in ("topic", "named"):
        accuracy = reports["bundle"][task]["metrics"]["accuracy"]
        assert right(given, results, task) == pytest.approx(accuracy, abs=1e-3)


def test_predict_gives_labels_of_a_text_and_of_a_pair(
    every_exported: Path, model: Model, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", str(every_exported), TEXT, "--text-pair", PAIR, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == model.analyze(TEXT, text_pair=PAIR).to_dict()
    assert main(["predict", str(every_exported), TEXT, "--task", "topic", "--json"]) == 0
    (name,) = json.loads(capsys.readouterr().out)["tasks"]
    assert name == "topic"
    assert main(["predict", str(every_exported), TEXT, "--task", "named"]) == 2
    assert "text_pair: is missing; task 'named' reads a pair" in capsys.readouterr().err
