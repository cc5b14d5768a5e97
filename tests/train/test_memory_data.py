import json
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest

from tests.small import OVERLAP, POSITIONS, sentences, wordpiece
from tests.small import Corpus as Small
from trunkline.encode import TextEncoder
from trunkline.errors import ConfigError, DataError
from trunkline_train import Task, train
from trunkline_train.api import configure
from trunkline_train.config import TaskConfig
from trunkline_train.corpora import Corpus
from trunkline_train.data.examples import TokenExample
from trunkline_train.data.source import load_test
from trunkline_train.features.cache import fingerprint

SPANS = {"text": "IBM grew", "spans": [(0, 3, "ORG")]}
WORDS = datasets.Dataset.from_dict(
    {"tokens": [["IBM", "grew"]], "ner_tags": [[1, 0]]},
    datasets.Features(
        {
            "tokens": datasets.List(datasets.Value("string")),
            "ner_tags": datasets.List(datasets.ClassLabel(names=["O", "B-ORG"])),
        }
    ),
)


def configured(data: Any, **options: Any) -> TaskConfig:
    corpus = Corpus("token-classification", data, test=data, **options)
    config = configure([Task("ner", corpus)], name="x", encoder="a/b", settings={})
    return config.tasks["ner"]


def read(data: Any, **options: Any) -> list[TokenExample]:
    return load_test(configured(data, **options), "test")


@pytest.mark.parametrize(
    "data",
    [
        [SPANS],
        [("IBM grew", {"entities": [(0, 3, "ORG")]})],
        [{"tokens": np.array(["IBM", "grew"]), "ner_tags": ["B-ORG", "O"]}],
        [{"text": "IBM grew", "spans": [{"start": np.int64(0), "end": 3, "label": "ORG"}]}],
        WORDS,
        datasets.Dataset.from_list(
            [{"text": "IBM grew", "spans": [{"start": 0, "end": 3, "label": "ORG"}]}]
        ),
    ],
)
def test_data_of_a_program_is_read_as_a_file_is(data: Any) -> None:
    (example,) = read(data)
    assert (example.text, example.tags) == ("IBM grew", ("B-ORG", "O"))


def test_the_same_data_is_kept_once() -> None:
    assert configured([SPANS]).train == configured([dict(SPANS)]).train
    assert configured([SPANS]).train != configured([SPANS, SPANS]).train
    assert configured(WORDS).train == configured(WORDS).train


def test_sources_of_several_kinds_are_read_as_one(tmp_path: Path) -> None:
    (tmp_path / "a.conll").write_text("IBM B-ORG\ngrew O\n")
    found = read([tmp_path / "a.conll", WORDS, [SPANS]])
    assert [example.tags for example in found] == [("B-ORG", "O")] * 3


def test_overlaps_and_offsets_are_keys_of_a_corpus() -> None:
    rows = [{"text": "🎉 New York", "spans": [[3, 11, "LOC"], [7, 11, "X"]]}]
    (example,) = read(rows, offsets="utf16-unit", overlaps="longest")
    assert [mark[:3] for mark in example.spans] == [(2, 10, "LOC")]


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (3, "train: is int 3; give a path, a datasets.Dataset, or a list of dictionaries"),
        ([], "train: is list []; give a path"),
        ([SPANS, "b"], "train[1]: is str 'b'; rows must be dictionaries"),
        ([SPANS | {"id": {1}}], "train: cannot be kept as JSON lines: set {1} is no value"),
        (datasets.DatasetDict(train=WORDS), "train: has the splits train; give one of them"),
        (WORDS.to_iterable_dataset(), "train: is IterableDataset"),
        ([["a.conll"]], "train[0]"),
    ],
)
def test_what_cannot_be_read_is_refused(data: Any, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        configured(data)
    assert str(caught.value).startswith(told)


def test_a_folder_saved_to_disk_is_read(tmp_path: Path) -> None:
    WORDS.save_to_disk(tmp_path / "one")
    (example,) = read(tmp_path / "one")
    assert (example.tags, example.where) == (("B-ORG", "O"), f"{tmp_path / 'one'} row 0")


def test_a_folder_of_splits_asks_for_one(tmp_path: Path) -> None:
    datasets.DatasetDict(train=WORDS, test=WORDS).save_to_disk(tmp_path / "all")
    (example,) = read(tmp_path / "all" / "test")
    assert example.tags == ("B-ORG", "O")
    with pytest.raises(
        DataError, match=r"all: holds several splits; name one: .*all/train, .*test"
    ):
        read(tmp_path / "all")


def test_a_folder_of_files_is_told_how_it_is_read(tmp_path: Path) -> None:
    WORDS.to_parquet(tmp_path / "train.parquet")
    with pytest.raises(DataError, match=r"is a folder, but none that Dataset.save_to_disk wrote"):
        read(tmp_path)


def test_saved_data_that_changed_is_encoded_anew(tmp_path: Path) -> None:
    encoder = TextEncoder(wordpiece(), POSITIONS, OVERLAP)
    WORDS.save_to_disk(tmp_path / "a")
    before = fingerprint(configured(tmp_path / "a"), encoder)
    datasets.concatenate_datasets([WORDS, WORDS]).save_to_disk(tmp_path / "a")
    assert fingerprint(configured(tmp_path / "a"), encoder) != before


def row(sentence: tuple[tuple[str, str], ...]) -> dict[str, object]:
    """Returns a sentence as doccano exports it, behind an emoji, which counts two."""
    text, spans = "🎉", []
    for word, tag in sentence:
        start = len(text) + 1 + (0 if word in ".," else 1)
        text += word if word in ".," else f" {word}"
        end = start + len(word)
        if tag.startswith("B-"):
            spans.append([start, end, tag[2:]])
        elif tag.startswith("I-"):
            spans[-1][1] = end
    return {"text": text, "label": spans}


@pytest.mark.usefixtures("undrawn")
def test_a_file_of_doccano_trains_a_model_that_finds_its_spans(
    tmp_path: Path, corpus: Small
) -> None:
    for name, count, seed in (("train", 80, 1), ("dev", 20, 2)):
        rows = [json.dumps(row(one), ensure_ascii=False) for one in sentences(count, seed)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(rows), encoding="utf-8")
    data = Corpus("token-classification", tmp_path / "train.jsonl", dev=tmp_path / "dev.jsonl")
    model = train(
        [Task("ner", data, batch_size=8)],
        encoder=corpus.encoder,
        out=tmp_path / "run",
        max_length=64,
        overlap=16,
        epochs=3,
        learning_rate=1e-2,
        head_learning_rate=2e-2,
    )
    assert model.scores["ner"]["f1"] > 95.0
    gold = load_test(configured(tmp_path / "dev.jsonl"), "test")
    found = model.analyze([example.text for example in gold])
    right = [
        [(one.start, one.end, one.label) for one in result.tasks["ner"]]
        == [mark[:3] for mark in example.spans]
        for example, result in zip(gold, found, strict=True)
    ]
    assert sum(right) > 0.9 * len(right)


def test_a_data_frame_is_refused_with_what_to_give() -> None:
    task = Task("ner", Corpus("token-classification", train=WORDS.to_pandas()))
    told = r"train: is DataFrame .*; give a list of dictionaries: its to_dict\('records'\)$"
    with pytest.raises(ConfigError, match=told):
        configure([task], name="frame", encoder="x", settings={})
