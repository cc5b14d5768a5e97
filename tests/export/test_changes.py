from dataclasses import replace
from pathlib import Path

import pytest

from trunkline.errors import ConfigError
from trunkline.tasks import AnswerOptions
from trunkline_export.changes import apply_changes
from trunkline_train.checkpoint import Checkpoint, load_checkpoint


@pytest.fixture
def fresh(trained: Path) -> Checkpoint:
    """A checkpoint whose tasks may be changed."""
    return load_checkpoint(trained)


@pytest.mark.parametrize(
    ("change", "options"),
    [
        ("tasks.qa.options.n_best=2", AnswerOptions(n_best=2)),
        ("tasks.qa.options.max_answer_tokens=7", AnswerOptions(n_best=3, max_answer_tokens=7)),
        # What is no longer named has its default again.
        ("tasks.qa.options={no_answer_threshold=0.25}", AnswerOptions(1, 30, 0.25)),
    ],
)
def test_options_of_decoding_reach_the_model(
    fresh: Checkpoint, change: str, options: AnswerOptions
) -> None:
    (ner, qa) = apply_changes(fresh, [change]).pipeline().tasks.values()
    assert qa.options == options
    assert ner == fresh.tasks[0]


def test_a_tuned_threshold_stays_beside_other_changes(fresh: Checkpoint) -> None:
    ner, qa = fresh.tasks
    fresh.model.tasks = (ner, replace(qa, options=AnswerOptions(3, 30, 0.4)))
    changed = apply_changes(fresh, ["tasks.qa.options.n_best=2"])
    assert changed.tasks[1].options == AnswerOptions(2, 30, 0.4)
    changed = apply_changes(changed, ["tasks.qa.options.no_answer_threshold=0.9"])
    assert changed.tasks[1].options == AnswerOptions(2, 30, 0.9)


def test_data_may_be_elsewhere(fresh: Checkpoint, tmp_path: Path) -> None:
    changed = apply_changes(fresh, [f"tasks.ner.dev={tmp_path}/ner.dev", "tasks.ner.column=1"])
    assert changed.config.tasks["ner"].dev == f"{tmp_path}/ner.dev"
    assert changed.tasks == fresh.tasks


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ("training.epochs=9", "training"),
        ("rows.max_length=32", "rows"),
        ("encoder=other", "encoder"),
        ("tasks.ner.batch_size=3", "tasks.ner.batch_size"),
        ("tasks.ner.labels=['O']", "tasks.ner.labels"),
        ("tasks.ner.test=x", "tasks.ner.test"),
        ("tasks.ner.train=x", "tasks.ner.train"),  # it has dev data of its own
        ("tasks.new={kind='question-answering', train='x'}", "tasks.new"),
    ],
)
def test_what_would_not_reach_the_bundle_is_refused(
    fresh: Checkpoint, change: str, key: str
) -> None:
    with pytest.raises(ConfigError, match=rf"^--set {key}: does not change an export"):
        apply_changes(fresh, [change])


@pytest.mark.parametrize("option", ["pair", "multi_label"])
def test_what_a_head_was_trained_for_is_no_option(every_trained: Path, option: str) -> None:
    fresh = load_checkpoint(every_trained)
    with pytest.raises(ConfigError, match=rf"^--set tasks\.topic\.options\.{option}: does not"):
        apply_changes(fresh, [f"tasks.topic.options.{option}=true"])


def test_options_that_do_not_fit_are_told(fresh: Checkpoint) -> None:
    changed = apply_changes(fresh, ["tasks.ner.options.aggregation='tags'"])
    assert changed.tasks[0].options.aggregation == "tags"  # type: ignore[union-attr]
    with pytest.raises(ConfigError, match=r"--set: tasks\.ner: options\.aggregation"):
        apply_changes(fresh, ["tasks.ner.options.aggregation='words'"])
