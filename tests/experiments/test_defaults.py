"""The comparison of defaults with settings by hand: what is trained on what, and what counts."""

import json
from pathlib import Path

import pytest

from experiments import defaults
from trunkline_train.data.source import load_test, read_splits
from trunkline_train.settings import TrainingConfig


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """What `experiments.prepare` writes, in small."""
    folder = tmp_path / "prepared"
    folder.mkdir()
    for split in ("train", "dev"):
        (folder / f"ner.{split}.conll").write_text("Bern NNP I-NP B-LOC\n\nA DT I-NP O\n" * 2)
        (folder / f"pos.{split}.conllu").write_text("1\tAda\t_\tPROPN\t_\t_\t_\t_\t_\t_\n\n")
    lines = [json.dumps({"text": f"text {at}", "label": f"{at % 2}"}) for at in range(40)]
    (folder / "topic.train.jsonl").write_text("".join(f"{line}\n" for line in lines))
    paragraphs = [
        {"context": f"{at} it is" + long, "qas": [question(f"{at}{long}", str(at))]}
        for at in range(10)
        for long in ("", "." * 400)
    ]
    squad = {"data": [{"title": "t", "paragraphs": paragraphs}]}
    (folder / "qa.train.json").write_text(json.dumps(squad))
    prepared = tmp_path / "data"
    defaults.prepare(folder, prepared)
    return prepared


def question(name: str, answer: str) -> dict:
    return {"id": name, "question": "What?", "answers": [{"text": answer, "answer_start": 0}]}


@pytest.mark.parametrize(
    ("cell", "train", "dev"), [("topic-all", 32, 8), ("topic-10", 10, 8), ("qa-all", 8, 2)]
)
def test_what_is_scored_was_held_out(data: Path, cell: str, train: int, dev: int) -> None:
    (task,) = defaults.configuration(cell, data, "encoder", "fp32").tasks.values()
    trained, scored = read_splits(task).train, load_test(task, "test")
    assert (len(trained), len(scored)) == (train, dev)
    assert not {one.document for one in trained} & {one.document for one in scored}
    assert all(len(one.document) < 400 for one in (*trained, *scored))


def test_a_setting_changes_one_thing(data: Path) -> None:
    plans = {name: defaults.plan("pos-100", name, data, "e", "auto") for name in defaults.SETTINGS}
    assert len({plan.name for plan in plans.values()}) == len(plans)
    training = plans["default"].config.training
    assert training == TrainingConfig(save_steps=training.save_steps)
    assert plans["rate 1e-4"].config.training.learning_rate == 1e-4
    assert plans["batches of 8"].config.tasks["pos"].batch_size == 8


def test_defaults_are_held_against_the_best_of_all() -> None:
    runs = {"default": {"value": 80.0}, "rate 1e-4": {"value": 82.5}, "heads 5e-3": {"value": 3.0}}
    (row,) = defaults.summarise({"ner-100": runs}).values()
    assert row == {"default": 80.0, "best": 82.5, "by": "rate 1e-4", "gap": 2.5, "tried": 3}
