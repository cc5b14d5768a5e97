"""Batches of one task and of several that share their documents."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from tests.small import wordpiece
from trunkline.encode import TextEncoder
from trunkline.tasks import AnswerOptions, TaskSpec, TextOptions, TokenOptions
from trunkline_train.config import Config, TaskConfig
from trunkline_train.features.build import Feature
from trunkline_train.features.targets import IGNORE, MASK, TEACHER
from trunkline_train.streams import Batch, Stream, build_streams

ENCODER = TextEncoder(wordpiece(), 64, 16)
NER = TaskSpec("ner", "token-classification", ("O", "B-X", "I-X"), TokenOptions())
POS = TaskSpec("pos", "token-classification", ("A", "B"), TokenOptions("tags"))
TOPIC = TaskSpec("topic", "text-classification", ("x", "y"), TextOptions(multi_label=True))
QA = TaskSpec("qa", "question-answering", (), AnswerOptions())


class Table(list[Feature]):
    @property
    def lengths(self) -> np.ndarray:
        return np.array([len(feature.row) for feature in self])


def text(number: int) -> str:
    return " ".join(["Ada lives in Bern ."] * (number % 4 + 1) + ["museum"] * number)


def table(spec: TaskSpec, numbers: Sequence[int]) -> Table:
    """Returns one row per number, with targets that tell the number."""
    made = Table()
    for number in numbers:
        (row,) = ENCODER.rows(ENCODER.tokenize(text(number)))
        if spec is TOPIC:
            targets = {"labels": np.array([number % 2, 1])}
        elif spec is QA:
            targets = {"start": np.int64(number), "end": np.int64(number)}
        else:
            targets = {"labels": np.full(len(row), number)}
        made.append(Feature(row, targets))
    return made


def config(**tasks: TaskConfig) -> Config:
    return Config("x", "y", tasks)


def task(spec: TaskSpec, source: str, **settings: object) -> TaskConfig:
    options = {"multi_label": True} if spec is TOPIC else {}
    return TaskConfig(spec.kind, source, options=options, **settings)


def all_of(stream: Stream) -> list[Batch]:
    return [stream.batch(number, 0, 64) for number in range(stream.batches.per_pass)]


def test_tasks_with_the_same_data_share_their_rows() -> None:
    features = {"ner": table(NER, range(20)), "topic": table(TOPIC, range(20))}
    shared = config(ner=task(NER, "a", batch_size=4), topic=task(TOPIC, "a", batch_size=8))
    (stream,) = build_streams([NER, TOPIC], features, shared)
    assert (stream.tasks, len(stream), stream.batches.per_pass) == (("ner", "topic"), 20, 3)
    for batch in all_of(stream):
        ner, topic = batch.parts["ner"].targets["labels"], batch.parts["topic"].targets["labels"]
        numbers = ner.max(dim=1).values
        assert torch.equal(topic[:, 0], numbers % 2)
    apart = config(ner=task(NER, "a"), topic=task(TOPIC, "b"))
    assert [s.tasks for s in build_streams([NER, TOPIC], features, apart)] == [("ner",), ("topic",)]


def test_a_document_without_labels_of_a_task_has_no_part_in_it() -> None:
    features = {"ner": table(NER, range(0, 12)), "pos": table(POS, range(6, 18))}
    both = config(ner=task(NER, "a", batch_size=5), pos=task(POS, "a", batch_size=5))
    (stream,) = build_streams([NER, POS], features, both)
    assert len(stream) == 18
    seen: dict[str, list[int]] = {"ner": [], "pos": []}
    for batch in all_of(stream):
        for name, part in batch.parts.items():
            rows = torch.arange(batch.shape[0]) if part.rows is None else part.rows
            assert len(rows) == len(part.targets["labels"])
            real = batch.inputs["attention_mask"][rows].bool()
            assert torch.equal(part.targets[MASK].bool(), real)
            assert torch.equal(part.targets["labels"] != IGNORE, real)
            seen[name] += part.targets["labels"].max(dim=1).values.tolist()
    assert {name: sorted(numbers) for name, numbers in seen.items()} == {
        "ner": list(range(12)),
        "pos": list(range(6, 18)),
    }


def test_equal_texts_stay_apart() -> None:
    features = {"ner": table(NER, [3, 3, 3]), "pos": table(POS, [3, 3])}
    both = config(ner=task(NER, "a"), pos=task(POS, "a"))
    (stream,) = build_streams([NER, POS], features, both)
    assert len(stream) == 3


@pytest.mark.parametrize("spec", [NER, QA, TOPIC], ids=lambda spec: spec.name)
def test_widths_are_few_and_targets_as_wide_as_they_must_be(spec: TaskSpec) -> None:
    stream = Stream([spec], {spec.name: table(spec, range(30))}, size=4, seed=(0,))
    for batch in all_of(stream):
        rows, width = batch.shape
        assert width % 16 == 0
        assert width <= 64
        assert batch.tokens == int(batch.inputs["attention_mask"].sum())
        targets = batch.parts[spec.name].targets
        wanted = {"ner": {"labels": (rows, width)}, "qa": {"start": (rows,), "end": (rows,)}}
        shapes = {name: tuple(t.shape) for name, t in targets.items() if name != MASK}
        assert shapes == wanted.get(spec.name, {"labels": (rows, 2)})


def test_a_teachers_outputs_are_padded_with_zeros() -> None:
    features = table(NER, range(6))
    for feature in features:
        feature.targets[TEACHER + "logits"] = np.ones((len(feature.row), 3), np.float32)
    (batch,) = all_of(Stream([NER], {"ner": features}, size=8, seed=(0,)))
    teacher = batch.parts["ner"].targets[TEACHER + "logits"]
    assert torch.equal(teacher[..., 0].bool(), batch.inputs["attention_mask"].bool())


@pytest.mark.parametrize("count", [2, 3, 7])
def test_shares_of_a_batch_make_the_whole(count: int) -> None:
    features = {"ner": table(NER, range(0, 9)), "pos": table(POS, range(5, 11))}
    both = config(ner=task(NER, "a", batch_size=5), pos=task(POS, "a", batch_size=5))
    (stream,) = build_streams([NER, POS], features, both)
    for batch in all_of(stream):
        shares = [batch.share(rank, count) for rank in range(count)]
        parts = [share for share in shares if share is not None]
        assert sum(part.tokens for part in parts) == batch.tokens
        for name, part in batch.parts.items():
            mine = [one.parts[name] for one in parts if name in one.parts]
            labels = torch.cat([one.targets["labels"].max(dim=1).values for one in mine])
            wanted = part.targets["labels"].max(dim=1).values
            assert sorted(labels.tolist()) == sorted(wanted.tolist())
            for one, share in ((p, s) for s in parts if (p := s.parts.get(name))):
                rows = torch.arange(share.shape[0]) if one.rows is None else one.rows
                numbers = one.targets["labels"].max(dim=1).values.tolist()
                ids = share.inputs["input_ids"][rows]
                for number, row in zip(numbers, ids, strict=True):
                    expected = ENCODER.rows(ENCODER.tokenize(text(number)))[0].input_ids
                    assert row[: len(expected)].tolist() == expected.tolist()
