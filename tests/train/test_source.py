from collections.abc import Callable
from pathlib import Path

import datasets
import pytest

from tests.small import Corpus, sentences, write_conll
from trunkline.errors import DataError
from trunkline_train.config import Limit, TaskConfig
from trunkline_train.data.examples import Example
from trunkline_train.data.source import load_splits, load_test

Hub = Callable[..., str]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """Saves a data set as a folder of parquet, which loads as one of the hub does."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()

    def save(columns: dict[str, list[object]], features: datasets.Features | None = None) -> str:
        folder = tmp_path / "set"
        folder.mkdir()
        made = datasets.Dataset.from_dict(columns, features)
        for split in ("train", "validation"):
            made.to_parquet(folder / f"{split}-00000-of-00001.parquet")
        return f"hub:{folder}"

    return save


def tokens(train: str, **options: object) -> TaskConfig:
    return TaskConfig("token-classification", train, **options)


def words(tags: list[object], column: str = "ner_tags") -> dict[str, list[object]]:
    return {"tokens": [["Ada", "of", "Bern"], []], column: [tags, []]}


def class_labels(*names: str) -> datasets.Features:
    label = datasets.ClassLabel(names=list(names))
    return datasets.Features(
        {
            "tokens": datasets.List(datasets.Value("string")),
            "ner_tags": datasets.List(label),
        }
    )


def test_hub_labels_take_their_names_from_the_data(hub: Hub) -> None:
    names = class_labels("B-LOC", "I-PER", "O")
    source = hub(words([1, 2, 0]), names)
    task = tokens(f"{source}#train", dev=f"{source}#validation")
    (train,), (dev,) = load_splits(task)
    assert train.tags == dev.tags == ("B-PER", "O", "B-LOC")
    assert train.text == "Ada of Bern"


def test_hub_tags_may_be_words_in_a_column_of_another_name(hub: Hub) -> None:
    source = hub(words(["NNP", "IN", "NNP"], "upos"))
    options = {"aggregation": "tags"}
    (example,) = load_test(tokens(source, test=source, column="upos", options=options), "test")
    assert example.tags == ("NNP", "IN", "NNP")


def test_hub_questions_are_read(hub: Hub) -> None:
    answers = {"text": ["Bern"], "answer_start": [13]}
    row = {"id": "7", "question": "Where?", "context": "Ada lives in Bern.", "answers": answers}
    source = hub({name: [value] for name, value in row.items()})
    (example,) = load_test(TaskConfig("question-answering", source, test=source), "test")
    assert (example.id, example.answers, example.starts) == ("7", ("Bern",), (13,))


def test_missing_feature_names_those_there_are(hub: Hub) -> None:
    source = hub(words(["O", "O", "O"], "tags"))
    with pytest.raises(DataError, match="no feature 'ner_tags'; it has tokens, tags: set column"):
        load_splits(tokens(source))


def test_hub_label_that_is_not_iob_names_the_row(hub: Hub) -> None:
    source = hub(words(["O", "IN", "O"]))
    with pytest.raises(DataError, match="label 'IN' is not IOB"):
        load_splits(tokens(source))


@pytest.mark.parametrize("name", ["hub:no/such-set", "hub:no/such-set#nothing"])
def test_data_set_that_cannot_be_loaded_is_one_line(hub: Hub, name: str) -> None:
    with pytest.raises(DataError, match="cannot be loaded from the hub") as caught:
        load_splits(tokens(name))
    assert len(str(caught.value).splitlines()) == 1


def test_empty_source_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n\n")
    with pytest.raises(DataError, match="empty: holds no examples"):
        load_splits(tokens(str(tmp_path / "empty")))


def test_test_split_must_be_named(corpus: Corpus) -> None:
    with pytest.raises(DataError, match="no test split"):
        load_test(tokens(str(corpus.folder / "ner.train")), "test")


def questions(corpus: Corpus, **options: object) -> TaskConfig:
    path = str(corpus.folder / "qa.train.json")
    return TaskConfig("question-answering", path, **options)


def test_hold_out_keeps_contexts_apart(corpus: Corpus) -> None:
    train, dev = load_splits(questions(corpus))
    assert len(train) + len(dev) == 80
    assert len(dev) >= 4  # a twentieth, in whole contexts
    assert not {e.group for e in train} & {e.group for e in dev}


def test_hold_out_is_the_same_every_time_and_not_the_head(corpus: Corpus) -> None:
    train, dev = load_splits(questions(corpus))
    assert (train, dev) == load_splits(questions(corpus))
    everything = load_test(questions(corpus, test=str(corpus.folder / "qa.train.json")), "test")
    assert dev != everything[: len(dev)]
    assert [e for e in everything if e in dev] == dev  # in the order of the file


def test_hold_out_of_one_context_is_refused(tmp_path: Path) -> None:
    write_conll(tmp_path / "one", sentences(1, 1) * 3)
    with pytest.raises(DataError, match="too little data to hold out a dev split; give dev"):
        load_splits(tokens(str(tmp_path / "one")))


def places(all_examples: list[Example], chosen: list[Example]) -> list[int]:
    return [all_examples.index(example) for example in chosen]


def test_limit_samples_the_whole_file_the_same_way_every_time(corpus: Corpus) -> None:
    dev = str(corpus.folder / "qa.dev.json")
    everything, _ = load_splits(questions(corpus, dev=dev))
    limited, few = load_splits(questions(corpus, dev=dev, limit=Limit(train=10, dev=3)))
    assert (len(limited), len(few)) == (10, 3)
    assert limited == load_splits(questions(corpus, dev=dev, limit=Limit(train=10)))[0]
    found = places(everything, limited)
    assert found == sorted(set(found))
    assert found[-1] > 40  # the head of the file is one article


def test_limit_over_the_size_takes_all(corpus: Corpus) -> None:
    dev = str(corpus.folder / "qa.dev.json")
    assert len(load_splits(questions(corpus, dev=dev, limit=Limit(train=1000)))[0]) == 80
