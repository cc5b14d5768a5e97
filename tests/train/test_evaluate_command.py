import json
from pathlib import Path

import pytest

from tests.small import Corpus
from trunkline.cli import main

TASKS = {"ner": "f1", "qa": "f1", "topic": "accuracy", "names": "f1", "named": "accuracy"}


def evaluated(corpus: Corpus, model: Path, out: Path, *more: str) -> dict:
    status = main(
        ["evaluate", str(model), "--config", str(corpus.every), "--json", str(out), *more]
    )
    assert status == 0
    return json.loads(out.read_text())


def test_a_checkpoint_and_its_bundle_have_the_same_scores(
    corpus: Corpus, every_trained: Path, every_exported: Path, tmp_path: Path
) -> None:
    files = [tmp_path / "torch.jsonl", tmp_path / "graph.jsonl"]
    torch, graph = (
        evaluated(corpus, model, tmp_path / "scores.json", "--predictions", str(file))
        for model, file in zip((every_trained, every_exported), files, strict=True)
    )
    assert torch.pop("model") == "run"
    assert graph.pop("model") == "bundle"
    assert torch == graph
    assert {name: scores["main"] for name, scores in torch["scores"].items()} == TASKS
    # Not the figures alone: the answers are the same, but for the last digits of their scores.
    one, two = ([json.loads(line) for line in file.read_text().splitlines()] for file in files)
    assert [without_scores(line) for line in one] == [without_scores(line) for line in two]


def without_scores(value: object) -> object:
    if isinstance(value, dict):
        return {key: without_scores(item) for key, item in value.items() if "score" not in key}
    return [without_scores(item) for item in value] if isinstance(value, list) else value


def test_scores_are_printed_as_a_table(
    corpus: Corpus, every_exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = evaluated(corpus, every_exported, tmp_path / "s.json", "--task", "ner", "--task", "qa")
    assert set(found["scores"]) == {"ner", "qa"}
    ner = found["scores"]["ner"]
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "ner: token-classification, n=20"
    low, high = ner["intervals"]["f1"]
    assert lines[1].split() == [
        *("*", "f1", f"{ner['metrics']['f1']:.2f}", "95", "%", "in"),
        *(f"[{low:.2f},", f"{high:.2f}]", "guessing", "0.00"),
    ]
    assert "  precision  recall      f1     gold  predicted" in lines[6]
    assert lines[7].split()[0] == "LOC"
    assert lines[7].split()[-2:] == [
        str(ner["by_label"]["LOC"][part]) for part in ("gold", "predicted")
    ]
    assert "qa: question-answering, n=16" in lines


def test_predictions_and_pictures_are_written_where_asked(
    corpus: Corpus, every_exported: Path, tmp_path: Path
) -> None:
    predictions, pictures = tmp_path / "new" / "p.jsonl", tmp_path / "pictures"
    found = evaluated(
        corpus,
        every_exported,
        tmp_path / "s.json",
        *("--predictions", str(predictions), "--confusion", str(pictures), "--split", "dev"),
    )
    lines = [json.loads(line) for line in predictions.read_text().splitlines()]
    for name, scores in found["scores"].items():
        assert sum(line["task"] == name for line in lines) == scores["n"]
    pair = next(line for line in lines if line["task"] == "named")
    assert pair["gold"][0] in ("yes", "no")
    assert pair["predicted"]["text_pair"]
    drawn = {file.stem for file in pictures.iterdir()}
    assert drawn == {name for name, scores in found["scores"].items() if scores["confusion"]}
    assert {"topic", "named"} <= drawn
    assert not {"qa", "names"} & drawn


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ((), "has no text-classification task 'topic', which the model has; add it, or"),
        (("--task", "nre"), "unknown task 'nre' (did you mean 'ner'?)"),
        (
            ("--task", "ner", "--set", "tasks.ner.kind=question-answering"),
            "has no token-classification task",
        ),
        (("--task", "qa", "--set", "tasks.qa.test=gone.json"), "gone.json"),
    ],
)
def test_what_does_not_fit_is_said_in_a_line(
    corpus: Corpus,
    every_exported: Path,
    capsys: pytest.CaptureFixture[str],
    more: tuple[str, ...],
    reason: str,
) -> None:
    config = str(corpus.config)
    assert main(["evaluate", str(every_exported), "--config", config, *more]) == 2
    out, said = capsys.readouterr()
    assert out == ""
    assert reason in said
    assert len(said.splitlines()) == 1


def test_what_is_no_model_is_said(
    corpus: Corpus, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(tmp_path), "--config", str(corpus.config)]) == 2
    assert "is neither a run nor a checkpoint" in capsys.readouterr().err


@pytest.mark.parametrize(
    "change", ["training.epochs=3", "tasks.ner.weight=2.0", "tasks.topic.options.n_best=1"]
)
def test_what_would_not_change_the_scores_is_refused(
    corpus: Corpus, every_exported: Path, capsys: pytest.CaptureFixture[str], change: str
) -> None:
    command = ["evaluate", str(every_exported), "--config", str(corpus.every), "--set", change]
    assert main(command) == 2
    assert "does not change how a model is scored" in capsys.readouterr().err
