import gzip
import json
import math
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from tests.small import sentences, write_conll
from trunkline.errors import DataError
from trunkline_train.config import TaskConfig
from trunkline_train.data.examples import TokenExample
from trunkline_train.data.source import load_test, read_splits

Read = Callable[..., list[TokenExample]]
TAGS = {"aggregation": "tags"}


def examples(path: Path, **options: object) -> list[TokenExample]:
    return load_test(TaskConfig("token-classification", "x", test=str(path), **options), "test")


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Writes a file and reads it."""

    def read(
        content: str | bytes, name: str = "data.conll", **options: object
    ) -> list[TokenExample]:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return examples(path, **options)

    return read


def refusal(read: Read, content: str | bytes, name: str = "data.conll", **options: object) -> str:
    with pytest.raises(DataError) as caught:
        read(content, name, **options)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def test_words_tags_and_bounds_are_read(tmp_path: Path) -> None:
    write_conll(tmp_path / "a.conll", sentences(25, 1))
    found = examples(tmp_path / "a.conll")
    assert [tuple(zip(e.text.split(), e.tags, strict=True)) for e in found] == sentences(25, 1)
    for example in found:
        assert [example.text[a:b] for a, b in example.words] == example.text.split()
        assert "DOCSTART" not in example.text


def test_iob1_comes_out_as_iob2(tmp_path: Path) -> None:
    neighbours = (("Bern", "B-LOC"), ("Lima", "B-LOC"), ("York", "I-LOC"), ("Ada", "B-PER"))
    given = [*sentences(25, 1), neighbours]
    write_conll(tmp_path / "one", given, iob1=True)
    write_conll(tmp_path / "two", given)
    one, two = (examples(tmp_path / name) for name in ("one", "two"))
    assert (tmp_path / "one").read_text() != (tmp_path / "two").read_text()
    assert [example.tags for example in one] == [example.tags for example in two]


def test_gzip_reads_as_the_plain_file(tmp_path: Path) -> None:
    for name in ("a.conll", "a.conll.gz"):
        write_conll(tmp_path / name, sentences(5, 1))
    plain, packed = (examples(tmp_path / name) for name in ("a.conll", "a.conll.gz"))
    assert [e.text for e in plain] == [e.text for e in packed]


@pytest.mark.parametrize("column", [1, -2])
def test_column_is_chosen_from_either_end(read: Read, column: int) -> None:
    (example,) = read("IBM NNP B-ORG\n", column=column, options=TAGS)
    assert example.tags == ("NNP",)


def test_windows_lines_tabs_and_a_last_line_without_end_are_read(read: Read) -> None:
    (first, second) = read("Ada\tB-PER\r\n\r\n\r\nNew York\tB-LOC")
    assert (first.text, first.tags) == ("Ada", ("B-PER",))
    assert (second.words, second.tags) == (((0, 8),), ("B-LOC",))


def test_unequal_columns_are_named_by_file_and_line(read: Read) -> None:
    told = refusal(read, "IBM NNP B-ORG\nin IN O\n\nBern B-LOC\n")
    assert "data.conll:4: has 2 columns, the lines before have 3" in told


COMMENTS = """\
# id 5239d808 domain=en
# text = Ada , #1 !
Ada _ _ B-PER
# _ _ O
#1 _ _ O

# O rest
#Oslo _ _ B-LOC
# = _ O
#begin document (bc/cctv/00); part 000

# _ _ B-MISC
#end document
"""


@pytest.mark.parametrize("blank", [" ", "\t"])
def test_comments_are_no_tokens_and_tokens_with_a_hash_are(read: Read, blank: str) -> None:
    rows = [
        line.replace(" ", blank) if line.count(" ") == 3 else line for line in COMMENTS.split("\n")
    ]
    found = read("\n".join(["# id 5239d808 domain=en", *rows[1:]]))
    assert [example.text for example in found] == ["Ada # #1", "#Oslo #", "#"]
    assert [example.where.rpartition(":")[2] for example in found] == ["3", "8", "12"]


def test_hash_is_a_token_where_its_row_is_like_the_others(read: Read) -> None:
    found = read("# #\nAda NNP\n\n# comment\n1 CD\n# SYM\n", options=TAGS)
    assert [example.tags for example in found] == [("#", "NNP"), ("CD", "SYM")]


def test_comment_without_a_blank_is_named(read: Read) -> None:
    told = refusal(read, "Ada O\n#sent_id = 4\n")
    assert (
        "data.conll:2: has 3 columns, the lines before have 2; a comment begins with '# '" in told
    )


@pytest.mark.parametrize("blank", ["\u00a0", "\u3000", "\u2009", "\x85", "\u2028"])
def test_only_blanks_and_tabs_are_between_columns(read: Read, blank: str) -> None:
    (example,) = read(f"New{blank}York  \t B-LOC\nin O\n".replace("  \t ", " "))
    assert (example.words, example.tags) == (((0, 8), (9, 11)), ("B-LOC", "O"))
    (example,) = read(f"New{blank}York\tB-LOC\n")
    assert example.tags == ("B-LOC",)


def test_byte_order_mark_and_capital_suffixes_are_read(read: Read) -> None:
    packed = gzip.compress("\ufeffAda B-PER\r\n".encode())
    for name in ("A.CONLL.GZ", "a.conll.Gz"):
        (example,) = read(packed, name)
        assert (example.text, example.tags) == ("Ada", ("B-PER",))


@pytest.mark.parametrize("column", [3, -4, "ner_tags"])
def test_missing_column_is_named_with_those_there_are(read: Read, column: int | str) -> None:
    told = refusal(read, "A B O", column=column)
    assert f"data.conll: no row has the column {column!r}; there are 0, 1, 2; set column" in told


def test_one_column_is_too_few(read: Read) -> None:
    assert "data.conll:1: has one column; words and labels need two" in refusal(read, "A\nB\n")


def test_words_may_stand_in_another_column(read: Read) -> None:
    (example,) = read("1 Ada B-PER\n2 runs O\n", text=(1,))
    assert example.text == "Ada runs"


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
        examples(tmp_path / "nowhere")


CONLLU = """\
# sent_id = 1
# text = We don't
1\tWe\twe\tPRON\tPRP\tCase=Nom\t3\tnsubj\t_\t_
2-3\tdon't\t_\t_\t_\t_\t_\t_\t_\t_
2\tdo\tdo\tAUX\tVBP\t_\t0\troot\t_\t_
3\tn't\tnot\tPART\tRB\t_\t2\tadvmod\t_\t_
3.1\tgo\tgo\tVERB\tVB\t_\t_\t_\t_\t_

# text = Rain
1\tRain\train\tNOUN\tNN\t_\t0\troot\t_\t_
"""


@pytest.mark.parametrize(
    ("column", "tags"),
    [
        (None, ("PRON", "AUX", "PART")),
        ("xpos", ("PRP", "VBP", "RB")),
        (4, ("PRP", "VBP", "RB")),
        ("feats", ("Case=Nom", "_", "_")),
        (-3, ("nsubj", "root", "advmod")),
    ],
)
def test_conllu_gives_syntactic_words_and_any_column(
    read: Read, column: int | str | None, tags: tuple[str, ...]
) -> None:
    first, second = read(CONLLU, "a.conllu", column=column, options=TAGS)
    assert (first.text, first.tags) == ("We do n't", tags)
    assert [first.text[a:b] for a, b in first.words] == ["We", "do", "n't"]
    assert (second.text, second.where.rpartition(":")[2]) == ("Rain", "10")


@pytest.mark.parametrize("column", ["upos", "xpos", 3, -6])
def test_conllu_sentences_that_are_not_annotated_are_left_out(
    read: Read, column: int | str
) -> None:
    bare = CONLLU.replace("\tNOUN\tNN\t", "\t_\t_\t")
    (example,) = read(bare, "a.conllu", column=column, options=TAGS)
    assert example.text == "We do n't"
    told = refusal(read, bare.partition("\n\n")[2], "a.conllu", column=column, options=TAGS)
    assert f"a.conllu: no row has a value in the column {column!r}; set column" in told


def test_an_underscore_in_conllu_may_be_a_word(read: Read) -> None:
    line = "1\t_\t_\tSYM\tNFP\t_\t0\troot\t_\t_\n"
    (example,) = read(line, "a.conllu", options=TAGS)
    assert (example.text, example.tags) == ("_", ("SYM",))


def test_conllu_tags_are_no_spans(read: Read) -> None:
    told = refusal(read, CONLLU, "a.conllu")
    assert "a.conllu:3: label 'PRON' is not IOB" in told
    assert "options.aggregation to 'tags'" in told


def test_conllu_line_with_other_columns_is_named(read: Read) -> None:
    assert "a.conllu:2: has 2 columns, CoNLL-U has 10" in refusal(read, "#\n1 We\n", "a.conllu")


def rows(*given: dict[str, object]) -> str:
    return "".join(json.dumps(row) + "\n" for row in given)


ROW = {"tokens": ["Ada", "of", "New York"], "ner_tags": ["I-PER", "O", "B-LOC"], "pos": [1, 2, 1]}


def test_json_lines_have_lists_of_tokens_and_labels(read: Read) -> None:
    (example,) = read("\n" + rows(ROW), "a.jsonl")
    assert (example.text, example.tags) == ("Ada of New York", ("B-PER", "O", "B-LOC"))
    assert [example.text[a:b] for a, b in example.words] == ROW["tokens"]
    assert example.where.endswith("a.jsonl:2")
    names = {"1": "NNP", "2": "IN"}
    (other,) = read(rows(ROW), "a.jsonl", column="pos", options=TAGS, label_names=names)
    assert other.tags == ("NNP", "IN", "NNP")


def test_parquet_reads_as_json_lines(tmp_path: Path) -> None:
    parquet.write_table(
        pa.Table.from_pylist([ROW, ROW | {"ner_tags": None}]), tmp_path / "a.parquet"
    )
    (example,) = examples(tmp_path / "a.parquet")
    assert (example.text, example.tags) == ("Ada of New York", ("B-PER", "O", "B-LOC"))
    assert example.where.endswith("a.parquet row 0")


def test_rows_without_the_tasks_label_are_left_out(read: Read) -> None:
    unlabelled = [{"tokens": ["Bern"]}, {"tokens": ["Bern"], "ner_tags": None}]
    assert len(read(rows(*unlabelled, ROW), "a.jsonl")) == 1
    told = refusal(read, rows(*unlabelled), "a.jsonl")
    assert "a.jsonl: no row has a value in the column 'ner_tags'; set column" in told


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"ner_tags": ["O"]}, "a.jsonl:2: has 3 tokens but 1 labels"),
        ({"ner_tags": "O O O"}, "a.jsonl:2: tokens and labels must be lists"),
        ({"tokens": None}, "a.jsonl:2: column 'tokens' is null"),
        (
            {"tokens": ["Ada", "of", " "]},
            "a.jsonl:2, token 2: token ' ' has no visible text, but a",
        ),
        ({"tokens": ["Ada", 3, "Bern"]}, "a.jsonl:2, token 1: token 3 is not a text"),
        ({"ner_tags": ["O", None, "O"]}, "a.jsonl:2, token 1: has None for a label"),
        ({"ner_tags": ["O", math.nan, "O"]}, "a.jsonl:2, token 1: has nan for a label"),
        ({"ner_tags": ["O", ["O"], "O"]}, "a.jsonl:2, token 1: has ['O'] for a label"),
        ({"ner_tags": ["O", "O", "PER"]}, "a.jsonl:2, token 2: label 'PER' is not IOB"),
        ({"tokens": ["Ada", "\ud800", "Bern"]}, "a.jsonl:2: is not valid Unicode"),
    ],
)
def test_row_that_does_not_fit_is_named(read: Read, change: dict[str, object], told: str) -> None:
    assert told in refusal(read, rows(ROW, ROW | change), "a.jsonl")


def test_json_line_that_is_no_table_is_named(read: Read) -> None:
    assert "a.jsonl:2: is not a JSON object" in refusal(read, rows(ROW) + "[1]\n", "a.jsonl")
    assert "a.jsonl:1: is not JSON" in refusal(read, "tokens\n", "a.jsonl")


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz"])
def test_formats_of_other_kinds_are_refused(read: Read, name: str) -> None:
    told = refusal(read, "Ada,O\n", name)
    assert "token-classification is read from .conllu, " in told
    assert "CoNLL columns from files of any other suffix" in told
    assert f"not from {Path(name.removesuffix('.gz')).suffix}" in told


def test_types_of_spans_take_other_names(read: Read) -> None:
    (example,) = read("Ada B-PER\nB I-PER\nin O\n", label_names={"PER": "person"})
    assert example.tags == ("B-person", "I-person", "O")


def labels(path: Path, **options: object) -> tuple[str, ...]:
    task = TaskConfig("token-classification", str(path), dev=str(path), **options)
    return read_splits(task).labels


@pytest.fixture
def two(tmp_path: Path) -> Path:
    (tmp_path / "two").write_text("Ada B-PER\nin O\nBern B-LOC\n")
    return tmp_path / "two"


def test_labels_are_o_and_both_prefixes_of_each_type(two: Path) -> None:
    assert labels(two) == ("O", "B-LOC", "I-LOC", "B-PER", "I-PER")


def test_labels_of_tags_are_those_seen(two: Path) -> None:
    assert labels(two, options=TAGS) == ("B-LOC", "B-PER", "O")


def test_labels_given_keep_their_order_as_types_or_as_tags(two: Path) -> None:
    tags = ("O", "B-PER", "B-LOC", "I-PER", "I-LOC")
    assert labels(two, labels=tags) == tags
    assert labels(two, labels=("PER", "LOC")) == ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")


def test_type_that_was_not_given_is_named(two: Path) -> None:
    with pytest.raises(
        DataError, match=r"two:3: label 'B-LOC' is not among the labels given \(O, "
    ):
        labels(two, labels=("PER",))


def test_type_without_examples_is_named(two: Path) -> None:
    with pytest.raises(DataError, match=r"two: no example has the label 'B-ORG'; add some"):
        labels(two, labels=("PER", "LOC", "ORG"))


@pytest.mark.parametrize(
    ("names", "tags"),
    [
        ({"PER": "name", "LOC": "name"}, ("B-name", "I-name", "B-name", "O", "B-name")),
        ({"PER": "O"}, ("O", "O", "B-LOC", "O", "B-LOC")),
        ({"LOC": "PER", "PER": "LOC"}, ("B-LOC", "I-LOC", "B-PER", "O", "B-PER")),
        ({"PER": "O", "LOC": "place"}, ("O", "O", "B-place", "O", "B-place")),
    ],
)
def test_types_may_be_merged_renamed_and_left_out(
    tmp_path: Path, names: dict[str, str], tags: tuple[str, ...]
) -> None:
    path = tmp_path / "a.conll"  # IOB1: Bern follows without a word between
    path.write_text("Ada I-PER\nBrown I-PER\nBern I-LOC\nin O\nOslo I-LOC\n\nLima I-LOC\n")
    first, _ = examples(path, label_names=names)
    assert first.tags == tags
    assert labels(path, label_names=names)[1:] == tuple(
        f"{prefix}-{kind}" for kind in sorted({t[2:] for t in tags} - {""}) for prefix in "BI"
    )


def test_spans_of_texts_may_be_merged_and_left_out(read: Read) -> None:
    row = {"text": "Ada in Bern", "spans": [[0, 3, "PER"], [7, 11, "LOC"]]}
    (example,) = read(rows(row), "a.jsonl", label_names={"PER": "O", "LOC": "place"})
    assert example.tags == ("O", "O", "B-place")


def test_data_without_any_span_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.conll"
    path.write_text("Ada O\n\nBern O\n")
    told = r"a.conll: every word has the label 'O': there is nothing to learn; label some, or set a"
    with pytest.raises(DataError, match=told):
        labels(path)
    path.write_text("Ada NN\n\nBern NN\n")
    with pytest.raises(DataError, match=told.replace("'O'", "'NN'")):
        labels(path, options=TAGS)
    path.write_text("Ada B-PER\n\nBern B-PER\n")
    with pytest.raises(DataError, match=told):
        labels(path, label_names={"PER": "O"})
