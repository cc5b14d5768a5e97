from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.runtime.samples import cut
from trunkline.annotations import Answers
from trunkline.kinds import KINDS, decode, find_kind, parse_task, task_outputs
from trunkline.structure import plain
from trunkline.tasks import AnswerOptions, TaskSpec, TextOptions, TokenOptions

KIND = pytest.mark.parametrize("kind", KINDS)
GOLDEN = Path(__file__).parents[1] / "golden"
NER: dict[str, Any] = {
    "name": "ner",
    "kind": "token-classification",
    "labels": ["O", "B-A", "I-A"],
    "options": {"aggregation": "spans"},
}
QA: dict[str, Any] = {"name": "qa", "kind": "question-answering"}
TOPIC: dict[str, Any] = {"name": "topic", "kind": "text-classification", "labels": ["a", "b"]}


def example(kind: str) -> TaskSpec:
    """Returns a task of the kind with default options and as many labels as it needs."""
    options = find_kind(kind).options()
    for labels in ((), ("O", "B-A")):
        try:
            return TaskSpec("task", kind, labels, options)
        except ValueError:
            continue
    raise AssertionError(f"add labels that fit kind {kind}")


@KIND
def test_a_kind_goes_by_its_name_and_has_outputs(kind: str) -> None:
    found = find_kind(kind)
    assert found.name == kind
    assert found.suffixes
    outputs = task_outputs(example(kind))
    assert [output.name for output in outputs] == [f"task.{suffix}" for suffix in found.suffixes]
    assert all(output.axes[0] == "batch" for output in outputs)


@KIND
def test_a_kind_has_options_that_default_and_are_read_again(kind: str) -> None:
    spec = example(kind)
    assert isinstance(spec.options, find_kind(kind).options)
    assert parse_task(plain(spec)) == spec
    assert parse_task({"name": "task", "kind": kind, "labels": list(spec.labels)}) == spec


@KIND
def test_a_kind_decodes_its_outputs(kind: str) -> None:
    spec = example(kind)
    encoded = cut("IBM is in Bern .", "where ?" if find_kind(kind).asks else "")
    sizes = {"batch": (), "labels": (len(spec.labels),)}
    values = [
        {
            output.name: np.zeros(
                sum((sizes.get(axis, (len(row),)) for axis in output.axes), ()), np.float32
            )
            for output in task_outputs(spec)
        }
        for row in encoded.rows
    ]
    found = decode(spec, encoded, values)
    assert isinstance(found, Answers if find_kind(kind).asks else tuple)


@KIND
def test_a_kind_has_golden_examples(kind: str) -> None:
    assert (GOLDEN / f"{kind}.json").is_file(), f"write tests/golden/{kind}.json"


def test_tasks_are_read() -> None:
    assert parse_task(NER) == TaskSpec(
        "ner", "token-classification", ("O", "B-A", "I-A"), TokenOptions("spans")
    )
    assert parse_task(QA) == TaskSpec("qa", "question-answering", (), AnswerOptions())
    options = {"n_best": 3, "max_answer_tokens": 5, "no_answer_threshold": 1}
    assert parse_task({**QA, "options": options}).options == AnswerOptions(3, 5, 1.0)
    options = {"multi_label": True, "pair": True, "threshold": 0, "n_best": 2}
    assert parse_task({**TOPIC, "options": options}).options == TextOptions(True, True, 0.0, 2)
    assert parse_task(TOPIC).options == TextOptions(False, False, 0.5, None)


def test_only_tasks_that_read_pairs_say_so() -> None:
    pair = parse_task({**TOPIC, "options": {"pair": True}})
    assert pair.pair
    assert not any(parse_task(task).pair for task in (TOPIC, NER, QA))


def test_one_label_is_enough_if_it_may_be_absent() -> None:
    spec = parse_task({**TOPIC, "labels": ["spam"], "options": {"multi_label": True}})
    assert spec.labels == ("spam",)


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (5, "tasks[2]: expected a table, got 5"),
        (["ner"], "tasks[2]: expected a table, got ['ner']"),
        ({}, "tasks[2].name: missing or not a string"),
        ({**NER, "name": 3}, "tasks[2].name: missing or not a string"),
        ({"name": "ner"}, "tasks[2].kind: missing or not a string"),
        ({**NER, "kind": None}, "tasks[2].kind: missing or not a string"),
        (
            {**NER, "kind": "token-clasification"},
            "unknown kind of task 'token-clasification' (did you mean 'token-classification'?)",
        ),
        ({**NER, "kind": "x"}, "unknown kind of task 'x'; known: token-classification"),
        ({**NER, "lables": []}, "tasks[2].lables: unknown key"),
        ({**NER, "labels": "O"}, "tasks[2].labels: expected a list, got str"),
        ({**NER, "labels": ["O", 1]}, "tasks[2].labels[1]: expected str, got int"),
        ({**NER, "labels": ["O", "O"]}, "task 'ner': labels repeat"),
        ({**NER, "labels": []}, "task 'ner': has no labels"),
        ({**NER, "labels": ["O", "PER"]}, "task 'ner': label 'PER' is not O, B-TYPE or I-TYPE"),
        ({**NER, "labels": ["O", "B-"]}, "task 'ner': label 'B-' is not O, B-TYPE or I-TYPE"),
        ({**NER, "labels": ["O", "I-A"]}, "task 'ner': label 'I-A' cannot occur without B-A"),
        ({**NER, "options": {"aggregation": "max"}}, "tasks[2].options.aggregation: expected one"),
        ({**NER, "options": {"n_best": 2}}, "tasks[2].options.n_best: unknown key"),
        ({**NER, "options": []}, "tasks[2].options: expected a table"),
        ({**QA, "labels": ["O"]}, "task 'qa': takes no labels"),
        ({**QA, "options": {"n_best": 0}}, "tasks[2].options.n_best: must be at least 1, not 0"),
        ({**QA, "options": {"max_answer_tokens": 0}}, "tasks[2].options.max_answer_tokens: must"),
        ({**QA, "options": {"n_best": True}}, "tasks[2].options.n_best: expected int, got bool"),
        ({**QA, "options": {"no_answer_threshold": "x"}}, "tasks[2].options.no_answer_threshold:"),
        ({**TOPIC, "labels": []}, "task 'topic': has too few labels (none); it needs at least 2"),
        (
            {**TOPIC, "labels": ["a"]},
            "task 'topic': has too few labels ('a'); it needs at least 2",
        ),
        ({**TOPIC, "labels": ["a", ""]}, "task 'topic': a label is empty"),
        ({**TOPIC, "labels": ["a", "a"]}, "task 'topic': labels repeat"),
        (
            {**TOPIC, "labels": [], "options": {"multi_label": True}},
            "task 'topic': has too few labels (none); it needs at least 1",
        ),
        ({**TOPIC, "options": {"n_best": 0}}, "tasks[2].options.n_best: must be at least 1, not 0"),
        (
            {**TOPIC, "options": {"threshold": 1}},
            "tasks[2].options.threshold: must be at least 0 and below 1",
        ),
        ({**TOPIC, "options": {"threshold": -0.1}}, "tasks[2].options.threshold: must be"),
        ({**TOPIC, "options": {"pair": "x"}}, "tasks[2].options.pair: expected bool, got str"),
    ],
)
def test_a_task_that_does_not_fit_is_refused_by_name(task: Any, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_task(task, "tasks[2]")
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("name", ["", "Ner", "1a", "-a", "a.b", "a b", "a/b", "é", "a" * 64, "a\n"])
def test_names_that_could_not_prefix_an_output_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"task name .* use lower-case letters"):
        parse_task({**NER, "name": name})


@pytest.mark.parametrize("name", ["a", "ner", "ner-2", "a_b", "a" * 63])
def test_plain_names_are_taken(name: str) -> None:
    assert parse_task({**NER, "name": name}).name == name


def test_tags_may_be_any_labels() -> None:
    spec = parse_task({**NER, "labels": ["NOUN", "I-A", "."], "options": {"aggregation": "tags"}})
    assert spec.labels == ("NOUN", "I-A", ".")
