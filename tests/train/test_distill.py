from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from tests.small import POSITIONS, Corpus, bert, wordpiece
from trunkline.encode import TextEncoder
from trunkline.errors import CheckpointError, ConfigError
from trunkline.tasks import AnswerOptions, TaskSpec, TextOptions, TokenOptions
from trunkline_train import distill
from trunkline_train.checkpoint import Checkpoint, Progress, save_checkpoint
from trunkline_train.distill import TaughtFeatures, attach_teacher
from trunkline_train.features.build import Feature
from trunkline_train.features.table import FeatureTable, tabled
from trunkline_train.model.multitask import MultitaskModel

NER = TaskSpec("ner", "token-classification", ("O", "B-PER", "I-PER"), TokenOptions())
QA = TaskSpec("qa", "question-answering", (), AnswerOptions())
TOPIC = TaskSpec("topic", "text-classification", ("a", "b", "c", "d"), TextOptions())
MANY = TaskSpec("many", "text-classification", ("a", "b"), TextOptions(multi_label=True))
TEXTS = ("Ada Brown lives in Bern .", "it rained .", "Tom Reed met Eva Stone in Lima yesterday .")
TASKS = {spec.name: spec for spec in (NER, QA, TOPIC, MANY)}


def text_encoder(tokenizer: Tokenizer | None = None) -> TextEncoder:
    return TextEncoder(tokenizer or wordpiece(), POSITIONS, 16)


def features(spec: TaskSpec, texts: Sequence[str] = TEXTS) -> FeatureTable:
    encoder = text_encoder()
    question = encoder.tokenize("who ?") if spec is QA else None
    rows = [row for text in texts for row in encoder.rows(encoder.tokenize(text), question)]
    targets = {
        "ner": lambda row: {"labels": np.zeros(len(row), np.int64)},
        "qa": lambda row: {"start": np.int64(1), "end": np.int64(2)},
    }
    of = targets.get(spec.name, lambda row: {"label": np.int64(1)})
    return tabled(Feature(row, of(row)) for row in rows)


@pytest.fixture(scope="module")
def teacher(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    torch.manual_seed(3)
    model = MultitaskModel(bert(), tuple(TASKS.values()), dropout=0.5)
    return Checkpoint(model, text_encoder(), 0, corpus.load(), Progress())


@pytest.fixture(scope="module")
def folder(teacher: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("teacher") / "run" / "best"
    save_checkpoint(path, teacher)
    return str(path.parent)


def taught(
    spec: TaskSpec,
    folder: str,
    cache: Path | None = None,
    *,
    rows: FeatureTable | None = None,
    encoder: TextEncoder | None = None,
) -> TaughtFeatures:
    given = features(TASKS[spec.name]) if rows is None else rows
    encoder = encoder or text_encoder()
    return attach_teacher(spec, folder, given, encoder, cache=cache, device=torch.device("cpu"))


@pytest.mark.parametrize(
    ("name", "shapes"),
    [
        ("ner", {"logits": (None, 3)}),
        ("qa", {"start_logits": (None,), "end_logits": (None,)}),
        ("topic", {"logits": (4,)}),
        ("many", {"logits": (2,)}),
    ],
)
def test_rows_hold_what_the_teacher_says_of_them_alone(
    teacher: Checkpoint, folder: str, name: str, shapes: dict[str, tuple[int | None, ...]]
) -> None:
    spec = TASKS[name]
    found, given = taught(spec, folder), features(spec)
    assert len(found) == len(given) == len(list(found))
    assert np.array_equal(found.lengths, given.lengths)
    for one, before in zip(found, given, strict=True):
        ids = torch.from_numpy(one.row.input_ids)[None]
        types = torch.from_numpy(one.row.token_type_ids)[None]
        with torch.no_grad():
            wanted = teacher.model.eval()(ids, torch.ones_like(ids), types)
        assert np.array_equal(one.row.input_ids, before.row.input_ids)
        assert set(one.targets) == {*before.targets, *(f"teacher.{part}" for part in shapes)}
        for part, shape in shapes.items():
            logits = one.targets[f"teacher.{part}"]
            assert logits.dtype == np.float32
            assert logits.shape == tuple(size or len(one.row) for size in shape)
            assert np.allclose(logits, wanted[f"{name}.{part}"][0].numpy(), atol=2e-3)


def test_rows_can_be_taken_in_any_order(folder: str) -> None:
    found = taught(NER, folder)
    assert np.array_equal(found[-1].targets["teacher.logits"], found[2].targets["teacher.logits"])
    with pytest.raises(IndexError):
        found[3]


def test_labels_in_another_order_are_matched_by_name(folder: str) -> None:
    turned = replace(NER, labels=("I-PER", "O", "B-PER"))
    for one, other in zip(taught(NER, folder), taught(turned, folder), strict=True):
        logits = one.targets["teacher.logits"]
        assert np.array_equal(other.targets["teacher.logits"], logits[:, [2, 0, 1]])


def no_teacher(*given: object) -> None:
    raise AssertionError("the teacher was asked")


def test_the_second_time_logits_come_from_the_cache(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = [one.targets["teacher.logits"] for one in taught(NER, folder, tmp_path)]
    assert len(list(tmp_path.iterdir())) == 1
    monkeypatch.setattr(distill, "_compute", no_teacher)
    second = [one.targets["teacher.logits"] for one in taught(NER, folder, tmp_path)]
    assert all(np.array_equal(one, other) for one, other in zip(first, second, strict=True))


def test_other_rows_tasks_labels_or_weights_are_computed_anew(
    teacher: Checkpoint, folder: str, tmp_path: Path
) -> None:
    taught(NER, folder, tmp_path)
    taught(NER, folder, tmp_path, rows=features(NER, TEXTS[:2]))
    taught(TOPIC, folder, tmp_path, rows=features(NER))
    taught(replace(NER, labels=("I-PER", "O", "B-PER")), folder, tmp_path)
    changed = MultitaskModel(bert(), teacher.tasks, dropout=0.5)
    torch.nn.init.ones_(changed.head("ner").linear.bias)
    save_checkpoint(tmp_path / "other", replace(teacher, model=changed))
    taught(NER, str(tmp_path / "other"), tmp_path)
    assert len(list(tmp_path.glob("*.teacher"))) == 5


def test_a_file_cut_short_counts_as_missing(folder: str, tmp_path: Path) -> None:
    first = [one.targets["teacher.logits"] for one in taught(NER, folder, tmp_path)]
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:-2])
    second = [one.targets["teacher.logits"] for one in taught(NER, folder, tmp_path)]
    assert all(np.array_equal(one, other) for one, other in zip(first, second, strict=True))


def test_where_nothing_can_be_written_training_goes_on(
    folder: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    found = taught(NER, folder, tmp_path / "file" / "cache")
    assert found[0].targets["teacher.logits"].shape == (found.lengths[0], 3)
    assert "cannot be written" in caplog.text


@pytest.mark.parametrize(
    ("spec", "wrong"),
    [
        (replace(NER, name="pos"), "has no task 'pos'; it has: ner, qa, topic, many"),
        (replace(TOPIC, name="ner"), "is of kind token-classification, not text-classification"),
        (replace(NER, labels=("O", "B-LOC")), "only the data has label 'B-LOC'"),
        (replace(NER, labels=("O",)), "only the teacher has label 'B-PER'"),
        (replace(MANY, options=TextOptions()), "multi_label is True there and False here"),
    ],
)
def test_a_teacher_of_something_else_is_refused(folder: str, spec: TaskSpec, wrong: str) -> None:
    with pytest.raises(ConfigError, match=f"^tasks.{spec.name}.teacher: .*{wrong}"):
        taught(spec, folder, rows=features(NER))


def test_a_teacher_with_another_tokenizer_is_refused(folder: str) -> None:
    other = wordpiece()
    other.add_tokens(["Zug"])
    with pytest.raises(ConfigError, match="encoder with a different tokenizer"):
        taught(NER, folder, encoder=text_encoder(other))


def test_rows_longer_than_the_teacher_reads_are_refused(folder: str) -> None:
    long = TextEncoder(wordpiece(), 2 * POSITIONS, 16)
    (row,) = long.rows(long.tokenize("it rained . " * 30))
    rows = tabled([Feature(row, {"labels": np.zeros(len(row), np.int64)})])
    with pytest.raises(ConfigError, match=f"reads {POSITIONS} tokens, but rows have up to 92"):
        taught(NER, folder, rows=rows)


def test_a_teacher_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="does not exist; check the path"):
        taught(NER, str(tmp_path / "none"))
