from collections.abc import Callable
from pathlib import Path

import datasets
import pytest

from tests.small import OVERLAP, POSITIONS, Corpus, sentences, wordpiece, write_conll
from trunkline.encode import TextEncoder
from trunkline.errors import DataError
from trunkline_train.config import Limit, TaskConfig
from trunkline_train.data.examples import Example
from trunkline_train.data.source import load_test, read_splits
from trunkline_train.data.tables import load_hub
from trunkline_train.features.cache import fingerprint

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


def texts(train: str, **options: object) -> TaskConfig:
    return TaskConfig("text-classification", train, **options)


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
    (train,), (dev,), _ = read_splits(task)
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


def test_hub_texts_take_class_names_and_lists_of_them(hub: Hub) -> None:
    label = datasets.ClassLabel(names=["World", "Sports"])
    text = datasets.Value("string")
    features = datasets.Features({"text": text, "label": label, "all": datasets.List(label)})
    source = hub({"text": ["a", "b"], "label": [1, 0], "all": [[1, 0], []]}, features)
    one, two = load_test(texts(source, test=source), "test")
    assert (one.labels, two.labels) == (("Sports",), ("World",))
    multi = texts(source, test=source, column="all", options={"multi_label": True})
    assert [e.labels for e in load_test(multi, "test")] == [("Sports", "World"), ()]
    assert one.where == f"{source} row 0"


def test_hub_data_has_the_same_fingerprint_at_every_load(hub: Hub) -> None:
    source = hub(words(["O", "O", "O"]))
    encoder = TextEncoder(wordpiece(), POSITIONS, OVERLAP)
    found = set()
    for _ in range(2):
        load_hub.cache_clear()
        found.add(fingerprint(tokens(f"{source}#train"), encoder))
    assert len(found) == 1
    assert fingerprint(tokens(f"{source}#validation"), encoder) not in found


def test_local_parquet_keeps_the_class_names_of_datasets(hub: Hub) -> None:
    source = hub(words([1, 2, 0]), class_labels("B-LOC", "I-PER", "O"))
    path = f"{source.removeprefix('hub:')}/train-00000-of-00001.parquet"
    (example,) = load_test(tokens(path, test=path), "test")
    assert example.tags == ("B-PER", "O", "B-LOC")


def test_minus_one_is_no_class_but_says_that_there_is_none(hub: Hub) -> None:
    label = datasets.ClassLabel(names=["World", "Sports"])
    text, many = datasets.Value("string"), datasets.List(label)
    features = datasets.Features({"text": text, "label": label, "all": many})
    given = {"text": ["a", "b", "c"], "label": [1, -1, 0], "all": [[1], [0, -1], []]}
    source = hub(given, features)
    assert [e.text for e in load_test(texts(source, test=source), "test")] == ["a", "c"]
    multi = texts(source, test=source, column="all", options={"multi_label": True})
    assert [e.text for e in load_test(multi, "test")] == ["a", "c"]


def test_split_without_labels_is_refused(hub: Hub) -> None:
    features = class_labels("B-LOC", "O")
    source = hub({"tokens": [["Ada", "runs"]] * 2, "ner_tags": [[-1, -1], [1, -1]]}, features)
    with pytest.raises(DataError, match="no row has a value in the column 'ner_tags'; set column"):
        load_test(tokens(source, test=source), "test")


@pytest.mark.parametrize(
    ("source", "asked"),
    [
        ("hub:imdb", (("imdb", None), {"split": "train", "revision": None})),
        ("hub:a/b#test", (("a/b", None), {"split": "test", "revision": None})),
        (
            "hub:a/b:sub-1.0@v2#train[:10%]",
            (("a/b", "sub-1.0"), {"split": "train[:10%]", "revision": "v2"}),
        ),
        ("hub:a/b@refs/pr/1#x", (("a/b", None), {"split": "x", "revision": "refs/pr/1"})),
    ],
)
def test_hub_source_names_subset_revision_and_split(
    monkeypatch: pytest.MonkeyPatch, source: str, asked: object
) -> None:
    monkeypatch.setattr("datasets.load_dataset", lambda *args, **options: (args, options))
    load_hub.cache_clear()
    assert load_hub(source) == asked
    load_hub.cache_clear()


@pytest.mark.parametrize("source", ["hub:", "hub:#train", "hub:a#", "hub:a:b:c#train"])
def test_malformed_hub_source_is_refused(source: str) -> None:
    with pytest.raises(DataError, match=r"does not have the form hub:NAME\[:SUBSET\]"):
        load_hub(source)


def test_missing_feature_names_those_there_are(hub: Hub) -> None:
    source = hub(words(["O", "O", "O"], "tags"))
    with pytest.raises(DataError, match="no row has the column 'ner_tags'; there are tokens, tags"):
        read_splits(tokens(source))


def test_hub_label_that_is_not_iob_names_the_row(hub: Hub) -> None:
    source = hub(words(["O", "IN", "O"]))
    with pytest.raises(DataError, match="set row 0, token 1: label 'IN' is not IOB"):
        read_splits(tokens(source))


@pytest.mark.parametrize("name", ["hub:no/such-set", "hub:no/such-set#nothing"])
def test_data_set_that_cannot_be_loaded_is_one_line(hub: Hub, name: str) -> None:
    with pytest.raises(DataError, match="cannot be loaded from the hub") as caught:
        read_splits(tokens(name))
    assert len(str(caught.value).splitlines()) == 1


def test_empty_source_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n\n")
    with pytest.raises(DataError, match="empty: holds no examples"):
        read_splits(tokens(str(tmp_path / "empty")))


def test_test_split_must_be_named(corpus: Corpus) -> None:
    with pytest.raises(DataError, match="no test split"):
        load_test(tokens(str(corpus.folder / "ner.train")), "test")


def questions(corpus: Corpus, **options: object) -> TaskConfig:
    path = str(corpus.folder / "qa.train.json")
    return TaskConfig("question-answering", path, **options)


def test_hold_out_keeps_contexts_apart(corpus: Corpus) -> None:
    train, dev, _ = read_splits(questions(corpus))
    assert len(train) + len(dev) == 80
    assert len(dev) >= 16  # a fifth, in whole contexts
    assert not {e.group for e in train} & {e.group for e in dev}


@pytest.mark.parametrize(
    ("examples", "held_out"), [(2, 1), (100, 20), (150, 30), (500, 50), (4000, 200), (50_000, 1000)]
)
def test_a_small_data_set_holds_out_a_larger_share(
    tmp_path: Path, examples: int, held_out: int
) -> None:
    rows = (f'{{"text": "{n}", "label": "{n % 2}"}}\n' for n in range(examples))
    (tmp_path / "texts.jsonl").write_text("".join(rows))
    train, dev, _ = read_splits(TaskConfig("text-classification", str(tmp_path / "texts.jsonl")))
    assert (len(train), len(dev)) == (examples - held_out, held_out)


def test_hold_out_is_the_same_every_time_and_not_the_head(corpus: Corpus) -> None:
    train, dev, _ = read_splits(questions(corpus))
    assert (train, dev, ()) == read_splits(questions(corpus))
    everything = load_test(questions(corpus, test=str(corpus.folder / "qa.train.json")), "test")
    assert dev != everything[: len(dev)]
    assert [e for e in everything if e in dev] == dev  # in the order of the file


def test_hold_out_of_one_context_is_refused(tmp_path: Path) -> None:
    write_conll(tmp_path / "one", sentences(1, 1) * 3)
    with pytest.raises(DataError, match="too little data to hold out a dev split; give dev"):
        read_splits(tokens(str(tmp_path / "one")))


def places(all_examples: list[Example], chosen: list[Example]) -> list[int]:
    return [all_examples.index(example) for example in chosen]


def test_limit_samples_the_whole_file_the_same_way_every_time(corpus: Corpus) -> None:
    dev = str(corpus.folder / "qa.dev.json")
    everything, _, _ = read_splits(questions(corpus, dev=dev))
    limited, few, _ = read_splits(questions(corpus, dev=dev, limit=Limit(train=10, dev=3)))
    assert (len(limited), len(few)) == (10, 3)
    assert limited == read_splits(questions(corpus, dev=dev, limit=Limit(train=10))).train
    found = places(everything, limited)
    assert found == sorted(set(found))
    assert found[-1] > 40  # the head of the file is one article


def test_limit_over_the_size_takes_all(corpus: Corpus) -> None:
    dev = str(corpus.folder / "qa.dev.json")
    assert len(read_splits(questions(corpus, dev=dev, limit=Limit(train=1000))).train) == 80


def test_several_sources_are_read_as_one_corpus(tmp_path: Path) -> None:
    write_conll(tmp_path / "a", sentences(7, 1))
    (tmp_path / "b.jsonl").write_text('{"tokens": ["Rain"], "ner_tags": ["B-MISC"]}\n')
    both = (str(tmp_path / "a"), str(tmp_path / "b.jsonl"))
    train, dev, labels = read_splits(tokens(both, dev=both))
    assert train == dev
    assert len(train) == 8
    assert {"B-LOC", "B-PER", "B-MISC"} < set(labels)


def test_each_of_several_sources_must_hold_something(tmp_path: Path) -> None:
    write_conll(tmp_path / "a", sentences(7, 1))
    (tmp_path / "b").write_text("")
    with pytest.raises(DataError, match="b: holds no examples"):
        read_splits(tokens((str(tmp_path / "a"), str(tmp_path / "b"))))


def test_downsample_keeps_a_share_of_every_split_before_the_limit(corpus: Corpus) -> None:
    paths = {split: str(corpus.folder / f"qa.{split}.json") for split in ("dev", "test")}
    everything, dev, _ = read_splits(questions(corpus, **paths))
    half = questions(corpus, **paths, downsample=0.5, limit=Limit(train=30))
    train, fewer, _ = read_splits(half)
    assert (len(train), len(fewer), len(load_test(half, "test"))) == (30, 8, 8)
    assert [len(one) for one in (everything, dev)] == [80, 16]
    assert (train, fewer) == read_splits(half)[:2]
    wider = read_splits(questions(corpus, **paths, downsample=0.5)).train
    assert len(wider) == 40
    assert places(wider, train) == sorted(places(wider, train))


def test_downsample_leaves_at_least_one(corpus: Corpus) -> None:
    train, dev, _ = read_splits(questions(corpus, downsample=1e-6))
    assert (len(train), len(dev)) == (1, 1)


def test_labels_are_those_of_all_training_data_sampled_or_not(corpus: Corpus) -> None:
    path = str(corpus.folder / "ner.train")
    assert (
        read_splits(tokens(path, limit=Limit(train=1))).labels == read_splits(tokens(path)).labels
    )


def test_dev_label_that_training_never_had_is_named(corpus: Corpus, tmp_path: Path) -> None:
    (tmp_path / "dev").write_text("it O\n\nthe O\nAlps B-MISC\n")
    with pytest.raises(DataError, match=r"dev:4: label 'B-MISC' is not in the training data"):
        read_splits(tokens(str(corpus.folder / "ner.train"), dev=str(tmp_path / "dev")))


def told(capsys: pytest.CaptureFixture[str], folder: Path) -> list[str]:
    """Returns what was printed, without the folder."""
    return capsys.readouterr().err.replace(f"{folder}/", "").splitlines()


TELLS = {
    "reviews.csv": (
        "text-classification",
        "review;sentiment;\nGood;pos;\nBad;neg;\nSo;;\nFine;pos;!\n \t;pos;\n",
        {},
        [
            "read reviews.csv: 4 rows, text = review, label = sentiment (2 labels: neg, pos),"
            " columns apart by ';'",
            "reviews.csv: rows left out, which have no 'sentiment': 1 (line 4)",
            "reviews.csv: rows with something in a column without a name, which is not read: 1"
            " (line 5)",
            "reviews.csv: rows without any text, which train nothing: 1 (line 6)",
        ],
    ),
    "topics.csv": (
        "text-classification",
        "a,Rain.,Sun.\na,Goal!,!\n",
        {},
        ["read topics.csv: 2 rows, text = 1 + 2, label = 0 (1 label: a), no header"],
    ),
    "pairs.jsonl": (
        "text-classification",
        '{"text": "a", "text_pair": "b", "label": "-"}\n',
        {"options": {"pair": True}},
        ["read pairs.jsonl: 1 row, text = text, text_pair = text_pair, label = label (1 label: -)"],
    ),
    "ner.conll": (
        "token-classification",
        "-DOCSTART- O\n\n# id 1\nAda B-PER\nin O\nBern B-LOC\n\n# id 2\n\nBern I-LOC\n",
        {},
        [
            "read ner.conll: 2 sentences, 4 words, text = 0, labels = -1"
            " (3 spans, 2 types: LOC, PER)",
            "ner.conll: lines skipped, which begin a document: 1 (line 1)",
            "ner.conll: lines skipped, which are comments: 2 (line 3, line 8)",
        ],
    ),
    "none.conll": (
        "token-classification",
        "Ada O\n",
        {},
        ["read none.conll: 1 sentence, 1 word, text = 0, labels = -1 (0 spans, every word is O)"],
    ),
    "ud.conllu": (
        "token-classification",
        "# text = don't\n1-2\tdon't"
        + "\t_" * 8
        + "\n1\tdo\t_\tAUX"
        + "\t_" * 6
        + "\n2\tn't\t_\tPART"
        + "\t_" * 6
        + "\n2.1\tgo"
        + "\t_" * 8
        + "\n\n1\tgo"
        + "\t_" * 8
        + "\n",
        {"options": {"aggregation": "tags"}},
        [
            "read ud.conllu: 1 sentence, 2 words, text = form, labels = upos (2 tags: AUX, PART)",
            "ud.conllu: lines skipped, which are tokens of several words, read one by one:"
            " 1 (line 2)",
            "ud.conllu: lines skipped, which are empty nodes: 1 (line 5)",
            "ud.conllu: rows left out, which have no 'upos': 1 (line 7)",
        ],
    ),
    "qa.jsonl": (
        "question-answering",
        '{"context": "a", "question": "b", "answers": []}\n{"context": "a", "question": "b"}\n',
        {},
        [
            "read qa.jsonl: 1 question, context = context, answers = answers (1 without an answer)",
            "qa.jsonl: rows left out, which have no 'answers': 1 (line 2)",
        ],
    ),
}


@pytest.mark.parametrize("name", TELLS)
def test_what_was_read_and_what_was_not_is_told_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    kind, content, options, lines = TELLS[name]
    (tmp_path / name).write_text(content)
    load_test(TaskConfig(kind, "x", test=str(tmp_path / name), **options), "test")
    assert told(capsys, tmp_path) == lines


def test_names_for_labels_that_there_are_not_are_told(
    corpus: Corpus, capsys: pytest.CaptureFixture[str]
) -> None:
    names = {"PER": "person", "Location": "place"}
    read_splits(tokens(str(corpus.folder / "ner.train"), label_names=names))
    last = told(capsys, corpus.folder)[-1]
    assert last == "ner.train: no label is 'Location', for which label_names has another name"


def test_of_several_processes_the_first_tells(
    corpus: Corpus, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    read_splits(tokens(str(corpus.folder / "ner.train")))
    assert capsys.readouterr().err == ""


ALIKE = {
    "label,text\nBilling,a b c\nbilling,d e f\n": "'Billing', 'billing'",
    "label,text\nnot spam,a b c\nNot_Spam,d e f\nspam,g h i\n": "'Not_Spam', 'not spam'",
}


@pytest.mark.parametrize("content", ALIKE)
def test_labels_that_may_be_the_same_are_told_unless_they_are_given(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str
) -> None:
    (tmp_path / "a.csv").write_text(content)
    source = str(tmp_path / "a.csv")
    labels = read_splits(texts(source)).labels
    line = f"a.csv: labels that may be the same are learned apart: {ALIKE[content]};"
    assert [one for one in told(capsys, tmp_path) if one.startswith(line)]
    read_splits(texts(source, labels=labels))
    assert not [one for one in told(capsys, tmp_path) if "may be the same" in one]


def test_types_of_spans_that_may_be_the_same_are_told_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.conll").write_text("Ada B-PER\nLace I-PER\n\nBern B-LOC\n\nBo B-Per\nLi I-Per\n")
    read_splits(tokens(str(tmp_path / "a.conll")))
    alike = [one for one in told(capsys, tmp_path) if "may be the same" in one]
    assert len(alike) == 1
    assert "'B-PER', 'B-Per';" in alike[0]


def test_dev_examples_that_training_has_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "train.csv").write_text("label,text\nx,a b c\ny,d e f\n")
    (tmp_path / "dev.csv").write_text("label,text\nx,a b c\ny,new one\n")
    read_splits(texts(str(tmp_path / "train.csv"), dev=str(tmp_path / "dev.csv")))
    reason = "dev examples that are also in the training data, which raises the dev score"
    assert told(capsys, tmp_path)[-1] == f"dev.csv: {reason}: 1 (line 2)"
