import gzip
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.small import sentences, write_conll
from trunkline.errors import DataError
from trunkline_train.config import TaskConfig
from trunkline_train.data.examples import TokenExample
from trunkline_train.data.tokens import collect_labels, read_token_file

Read = Callable[..., list[TokenExample]]


def task(**options: object) -> TaskConfig:
    return TaskConfig("token-classification", "x", **options)


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Writes a file and reads it."""

    def read(
        content: str | bytes, name: str = "data.conll", **options: object
    ) -> list[TokenExample]:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return list(read_token_file(path, task(**options)))

    return read


def refusal(read: Read, content: str | bytes, name: str = "data.conll", **options: object) -> str:
    with pytest.raises(DataError) as caught:
        read(content, name, **options)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def test_words_tags_and_bounds_are_read(tmp_path: Path) -> None:
    write_conll(tmp_path / "a.conll", sentences(25, 1))
    found = list(read_token_file(tmp_path / "a.conll", task()))
    assert [tuple(zip(e.text.split(), e.tags, strict=True)) for e in found] == sentences(25, 1)
    for example in found:
        assert [example.text[a:b] for a, b in example.words] == example.text.split()
        assert "DOCSTART" not in example.text


def test_iob1_comes_out_as_iob2(tmp_path: Path) -> None:
    neighbours = (("Bern", "B-LOC"), ("Lima", "B-LOC"), ("York", "I-LOC"), ("Ada", "B-PER"))
    given = [*sentences(25, 1), neighbours]
    write_conll(tmp_path / "one", given, iob1=True)
    write_conll(tmp_path / "two", given)
    one, two = (list(read_token_file(tmp_path / name, task())) for name in ("one", "two"))
    assert (tmp_path / "one").read_text() != (tmp_path / "two").read_text()
    assert [example.tags for example in one] == [example.tags for example in two]


def test_gzip_reads_as_the_plain_file(tmp_path: Path) -> None:
    for name in ("a.conll", "a.conll.gz"):
        write_conll(tmp_path / name, sentences(5, 1))
    plain, packed = (list(read_token_file(tmp_path / n, task())) for n in ("a.conll", "a.conll.gz"))
    assert [e.text for e in plain] == [e.text for e in packed]


@pytest.mark.parametrize("column", [1, -2])
def test_column_is_chosen_from_either_end(read: Read, column: int) -> None:
    (example,) = read("IBM NNP B-ORG\n", column=column, options={"aggregation": "tags"})
    assert example.tags == ("NNP",)


def test_windows_lines_tabs_and_a_last_line_without_end_are_read(read: Read) -> None:
    (first, second) = read("Ada\tB-PER\r\n\r\n\r\nNew York\tB-LOC")
    assert (first.text, first.tags) == ("Ada", ("B-PER",))
    assert (second.words, second.tags) == (((0, 8),), ("B-LOC",))


def test_unequal_columns_are_named_by_file_and_line(read: Read) -> None:
    told = refusal(read, "IBM NNP B-ORG\nin IN O\n\nBern B-LOC\n")
    assert "data.conll:4: has 2 columns, the lines before have 3" in told


@pytest.mark.parametrize(("column", "line"), [(3, "A B O"), (-4, "A B O"), (-1, "A")])
def test_missing_column_is_named(read: Read, column: int, line: str) -> None:
    assert "data.conll:1: has" in refusal(read, line, column=column)


def test_named_column_is_refused_for_a_file(read: Read) -> None:
    assert "give a number for files" in refusal(read, "A O", column="ner_tags")


def test_label_that_is_not_iob_is_named_by_file_and_line(read: Read) -> None:
    told = refusal(read, "-DOCSTART- O\n\nIBM B-ORG\nruns VBZ\n")
    assert "data.conll:4: label 'VBZ' is not IOB" in told
    assert "options.aggregation to 'tags'" in told


def test_not_utf8_is_named_by_file_and_line(read: Read) -> None:
    assert "data.conll:2: is not UTF-8" in refusal(read, "Ada O\nZürich O\n".encode("latin-1"))


def test_truncated_gzip_is_refused(read: Read) -> None:
    packed = gzip.compress(b"Ada B-PER\n\n" * 5000)
    assert "is not a whole gzip file" in refusal(read, packed[: len(packed) // 2], "data.gz")
    assert "is not a whole gzip file" in refusal(read, b"Ada B-PER\n", "data.gz")


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere: cannot be read: No such file"):
        list(read_token_file(tmp_path / "nowhere", task()))


def test_labels_are_o_and_both_prefixes_of_each_type(read: Read) -> None:
    examples = read("Ada B-PER\nin O\nBern B-LOC\n")
    assert collect_labels(examples, task()) == ("O", "B-LOC", "I-LOC", "B-PER", "I-PER")


def test_labels_of_tags_are_those_seen(read: Read) -> None:
    tags = {"aggregation": "tags"}
    examples = read("runs VBZ\nAda NNP\n", options=tags)
    assert collect_labels(examples, task(options=tags)) == ("NNP", "VBZ")
