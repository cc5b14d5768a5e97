import json
import os
import pwd
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tests.small import OVERLAP, POSITIONS, Corpus, wordpiece
from trunkline.encode import TextEncoder
from trunkline.errors import ConfigError, DataError
from trunkline_train.config import Limit, TaskConfig, load_config
from trunkline_train.data.source import read_splits
from trunkline_train.features import cache as caching
from trunkline_train.features import load as loading
from trunkline_train.features.build import Feature, build_features
from trunkline_train.features.cache import fingerprint
from trunkline_train.features.load import LoadedTask, load_task
from trunkline_train.features.table import tabled
from trunkline_train.paths import cache_folder

TASKS = ("ner", "qa", "topic", "names", "named")


@pytest.fixture(scope="module")
def encoder() -> TextEncoder:
    return TextEncoder(wordpiece(), POSITIONS, OVERLAP)


@pytest.fixture
def load(corpus: Corpus, encoder: TextEncoder, tmp_path: Path) -> Callable[..., LoadedTask]:
    """Loads a task of the small world through a cache of the test's own."""

    def load(name: str = "ner", **changes: object) -> LoadedTask:
        task = replace(load_config(corpus.every).tasks[name], **changes)
        return load_task(name, task, encoder, tmp_path / "cache")

    return load


Load = Callable[..., LoadedTask]


def plain(feature: Feature) -> dict[str, object]:
    """Returns all of a feature, with the types of its arrays."""
    whole = {**vars(feature.row), **feature.targets}
    return {
        name: (np.asarray(value).dtype, np.shape(value), np.asarray(value).tolist())
        for name, value in whole.items()
    }


def files(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "cache").iterdir())


@pytest.mark.parametrize("name", TASKS)
def test_rows_of_every_kind_come_back_exactly(
    load: Load, name: str, corpus: Corpus, encoder: TextEncoder
) -> None:
    first = load(name)
    train, dev, _ = read_splits(load_config(corpus.every).tasks[name])
    wanted = build_features(first.spec, train, encoder)
    for loaded in (first, load(name)):
        assert (loaded.spec, loaded.dev) == (first.spec, dev)
        assert list(map(plain, loaded.features)) == list(map(plain, wanted))
        assert loaded.features.lengths.tolist() == [len(feature.row) for feature in wanted]
    assert plain(first.features[-1]) == plain(wanted[-1])
    with pytest.raises(IndexError):
        first.features[len(wanted)]


def forbid(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Makes functions that loading uses fail."""

    def fail(*given: object) -> None:
        raise AssertionError(f"called with {given}")

    for name in names:
        monkeypatch.setattr(loading, name, fail)


def test_second_run_neither_reads_nor_encodes_training_data(
    load: Load, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first = load()
    forbid(monkeypatch, "read_splits", "each_feature")
    capsys.readouterr()
    assert load().spec == first.spec
    assert "ner.train: 60 rows that an earlier run encoded, from " in capsys.readouterr().err


def test_dev_data_is_held_out_beside_cached_rows(
    load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = load(dev=None)
    forbid(monkeypatch, "each_feature")
    again = load(dev=None)
    assert again.dev == first.dev
    assert len(again.features) == len(first.features)
    assert len(again.features) + len(again.dev) == 60


@pytest.mark.parametrize(
    "change",
    [
        {"batch_size": 3},
        {"weight": 2.0},
        {"teacher": "runs/other"},
        {"limit": Limit(dev=3, test=3)},
        {"test": None},
    ],
)
def test_what_does_not_change_rows_keeps_the_fingerprint(
    corpus: Corpus, encoder: TextEncoder, change: dict[str, object]
) -> None:
    task = corpus.load().tasks["ner"]
    assert fingerprint(replace(task, **change), encoder) == fingerprint(task, encoder)


@pytest.mark.parametrize(
    "change",
    [
        {"labels": ("O", "B-LOC", "I-LOC", "B-PER", "I-PER")},
        {"label_names": {"PER": "person"}},
        {"column": 1},
        {"text": (0,)},
        {"downsample": 0.5},
        {"limit": Limit(train=7)},
        {"dev": None},
        {"options": {"aggregation": "tags"}},
    ],
)
def test_what_changes_rows_changes_the_fingerprint(
    corpus: Corpus, encoder: TextEncoder, change: dict[str, object]
) -> None:
    task = corpus.load().tasks["ner"]
    assert fingerprint(replace(task, **change), encoder) != fingerprint(task, encoder)


def test_content_tokenizer_and_rows_change_the_fingerprint(
    corpus: Corpus, encoder: TextEncoder, tmp_path: Path
) -> None:
    path = tmp_path / "train"
    task = TaskConfig("token-classification", str(path))
    path.write_text("Ada B-PER\n")
    seen = {fingerprint(task, encoder)}
    (tmp_path / "moved").write_text("Ada B-PER\n")
    moved = replace(task, train=str(tmp_path / "moved"))
    assert fingerprint(moved, encoder) in seen
    path.write_text("Ada B-LOC\n")
    seen.add(fingerprint(task, encoder))
    seen.add(fingerprint(task, TextEncoder(wordpiece(), POSITIONS - 1, OVERLAP)))
    seen.add(fingerprint(task, TextEncoder(wordpiece(), POSITIONS, OVERLAP - 1)))
    other = wordpiece()
    other.add_tokens(["Alps"])
    seen.add(fingerprint(task, TextEncoder(other, POSITIONS, OVERLAP)))
    assert len(seen) == 5


def test_missing_training_file_is_named_though_rows_are_cached(
    encoder: TextEncoder, tmp_path: Path
) -> None:
    task = TaskConfig("token-classification", str(tmp_path / "gone"))
    with pytest.raises(DataError, match="gone: cannot be read: No such file"):
        load_task("ner", task, encoder, tmp_path / "cache")


def damage(content: bytes) -> list[bytes]:
    """Returns files that are not what was written."""
    flipped = bytearray(content)
    flipped[len(content) // 2] ^= 1
    sink = pa.BufferOutputStream()
    other = pa.table({"a": [1]}).replace_schema_metadata({"labels": "[]", "crc32": "1"})
    with pa.ipc.new_file(sink, other.schema) as writer:
        writer.write_table(other)
    return [b"", b"ARROW1", content[: len(content) // 2], bytes(flipped), bytes(sink.getvalue())]


@pytest.mark.parametrize("case", range(5))
def test_broken_cache_is_made_anew(load: Load, tmp_path: Path, case: int) -> None:
    first = [plain(feature) for feature in load().features]
    (file,) = files(tmp_path)
    whole = file.read_bytes()
    file.write_bytes(damage(whole)[case])
    assert [plain(feature) for feature in load().features] == first
    assert file.read_bytes() == whole


def test_cache_that_cannot_be_written_does_no_harm(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*given: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(caching.pa.ipc, "new_file", full)
    assert len(load().features) == 60
    assert files(tmp_path) == []
    assert "No space left on device" in caplog.text


def test_without_a_cache_nothing_is_written(
    corpus: Corpus, encoder: TextEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    loaded = load_task("ner", corpus.load().tasks["ner"], encoder, None)
    assert len(loaded.features) == 60
    assert list(tmp_path.iterdir()) == []


_LOADS = """
import sys
from pathlib import Path
from trunkline.encode import TextEncoder
from trunkline_train.config import TaskConfig
from trunkline_train.features.load import load_task
_, train, tokenizer, cache = sys.argv
encoder = TextEncoder.from_file(Path(tokenizer), 64, 16)
task = TaskConfig("token-classification", train, dev=train)
for _ in range(8):
    loaded = load_task("ner", task, encoder, Path(cache))
    print(sum(int(feature.row.input_ids.sum()) for feature in loaded.features))
    for file in Path(cache).glob("*.arrow"):
        file.unlink(missing_ok=True)
"""


def test_processes_that_write_at_once_do_not_harm_each_other(
    corpus: Corpus, encoder: TextEncoder, tmp_path: Path
) -> None:
    (tmp_path / "tokenizer.json").write_text(encoder.to_json())
    train, cache = corpus.folder / "ner.train", tmp_path / "cache"
    given = [str(train), str(tmp_path / "tokenizer.json"), str(cache)]
    command = [sys.executable, "-c", _LOADS, *given]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    running = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        for _ in range(2)
    ]
    told = [process.communicate()[0].split() for process in running]
    assert [process.returncode for process in running] == [0, 0]
    assert len(told[0] + told[1]) == 16
    assert len(set(told[0] + told[1])) == 1
    assert not [name for name in os.listdir(cache) if name.endswith(".new")]


def test_a_user_without_a_home_has_no_cache(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def nobody(user: object) -> None:
        raise KeyError("uid not found")

    for name in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    assert cache_folder(None) is None
    assert "no home directory" in caplog.text


def test_cache_folder_is_the_users_unless_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder(None) == tmp_path / "trunkline" / "features"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder(None) == tmp_path / ".cache" / "trunkline" / "features"
    assert cache_folder("here") == Path("here")
    assert cache_folder("") is None


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"labels": ("PER", "LOC", "PER")}, r"tasks.ner.labels: 'PER' stands there twice"),
        (
            {"labels": ("O", "B-PER", "B-LOC", "PER")},
            r"tasks.ner: task 'ner': label 'PER' is not O",
        ),
    ],
)
def test_labels_that_could_not_be_are_named_by_key(
    load: Load, change: dict[str, object], told: str
) -> None:
    with pytest.raises(ConfigError, match=told):
        load(**change)


def test_dev_question_over_the_limit_is_named_before_training(
    corpus: Corpus, encoder: TextEncoder, tmp_path: Path
) -> None:
    question = {"question": "where " * 40, "context": "Ada", "answers": []}
    (tmp_path / "dev.jsonl").write_text(json.dumps(question))
    train = str(corpus.folder / "qa.train.json")
    task = TaskConfig("question-answering", train, dev=str(tmp_path / "dev.jsonl"))
    for _ in range(2):
        with pytest.raises(DataError, match=r"dev.jsonl:1: question: has 40 tokens, at most 30"):
            load_task("qa", task, encoder, tmp_path / "cache")


def test_texts_without_tokens_give_an_empty_table(encoder: TextEncoder, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("life, \nnews, \nlife, \n")
    task = TaskConfig("text-classification", str(tmp_path / "a.csv"), dev=str(tmp_path / "a.csv"))
    for _ in range(2):
        loaded = load_task("topic", task, encoder, tmp_path / "cache")
        assert (len(loaded.features), loaded.features.lengths.tolist()) == (0, [])
        assert list(loaded.features) == []


def test_a_table_holds_more_than_it_takes_at_once(load: Load) -> None:
    features = list(load().features) * 100
    table = tabled(features)
    assert len(table) == len(features) == 6000
    assert all(plain(table[at]) == plain(features[at]) for at in (0, 4095, 4096, 5999))
