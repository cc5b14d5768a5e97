import json
import re
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from trunkline.errors import DataError
from trunkline_train.config import TaskConfig
from trunkline_train.data.examples import TextExample
from trunkline_train.data.source import load_test, read_splits

Read = Callable[..., list[TextExample]]
MULTI = {"multi_label": True}
PAIR = {"pair": True}


def examples(path: Path, **options: object) -> list[TextExample]:
    return load_test(TaskConfig("text-classification", "x", test=str(path), **options), "test")


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Writes a file and reads it."""

    def read(content: str | bytes, name: str = "a.csv", **options: object) -> list[TextExample]:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return examples(path, **options)

    return read


def refusal(read: Read, content: str | bytes, name: str = "a.csv", **options: object) -> str:
    with pytest.raises(DataError) as caught:
        read(content, name, **options)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def found(examples: list[TextExample]) -> list[tuple[str, tuple[str, ...]]]:
    return [(example.text, example.labels) for example in examples]


def lines(examples: list[TextExample]) -> list[int]:
    return [int(example.where.rpartition(":")[2]) for example in examples]


NEWS = """\
"3","Pension","Talks, held ""late""
again"

"1","Ö","Second"\r
4,Third,one
"""


def test_csv_without_a_header_has_the_label_first_and_text_in_all_others(read: Read) -> None:
    read_news = read(NEWS)
    assert found(read_news) == [
        ('Pension Talks, held "late"\nagain', ("3",)),
        ("Ö Second", ("1",)),
        ("Third one", ("4",)),
    ]
    assert lines(read_news) == [1, 4, 5]


def test_columns_of_csv_may_be_chosen_by_number(read: Read) -> None:
    assert found(read(NEWS, column=-1, text=(1,)))[1:] == [("Ö", ("Second",)), ("Third", ("one",))]
    assert found(read("a,b,c\n", column=2)) == [("a b", ("c",))]


@pytest.mark.parametrize(
    "options",
    [{}, {"column": "label"}, {"text": ("text",)}, {"column": "label", "text": ("text",)}],
)
def test_header_is_found_by_label_or_by_names_given(read: Read, options: dict[str, object]) -> None:
    read_rows = read("\ufeffid,text,label\n7,It rained.,weather\n", **options)
    assert found(read_rows) == [("It rained.", ("weather",))]
    assert lines(read_rows) == [2]


REVIEWS = """\
review,sentiment
"Loved it, truly.<br />Twice.",positive
Dull; slow.,negative
"""
SPAM = """\
v1,v2,,
ham,"Go until jurong point, crazy..",,
spam,Free entry," call now",
ham,U dun say so early hor... U c already then say...,,
"""
NEWS_WITH_HEADER = """\
Class Index,Title,Description
3,Fears for T N pension after talks,Unions representing workers say they are 'disappointed'.
4,The Race is On: Second Private Team,A second team of rocketeers competing.
"""
TICKETS = """\
ticket_id,body,category
1001,Printer is on fire,hardware
1002,Cannot log in,account
1003,Please reset it,account
"""


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        (REVIEWS, [("Loved it, truly.<br />Twice.", "positive"), ("Dull; slow.", "negative")]),
        ("Label,Text\n1,Rain\n0,Sun\n", [("Rain", "1"), ("Sun", "0")]),
        ("text,category\nRain,weather\nGoal,sport\n", [("Rain", "weather"), ("Goal", "sport")]),
        ("Text;Genre\nRain, sun;weather\n", [("Rain, sun", "weather")]),
        ("text\tstars\nGood, really\tfive\nBad\tone\n", [("Good, really", "five"), ("Bad", "one")]),
        ("label|message\na|b, c; d\n", [("b, c; d", "a")]),
        ("\ufeff,label,text\n0,a,b\n1,c,d\n", [("b", "a"), ("d", "c")]),
        (TICKETS, [("Printer is on fire", "hardware"), ("Cannot log in", "account")]),
        ("id,text,queue\n7,a,b\n8,c,d\n", [("a", "b"), ("c", "d")]),
        ("label,user_id,wording\na,7,b\nc,8,d\n", [("b", "a"), ("d", "c")]),
        ("category\tfilename\ttitle\tcontent\na\t1.txt\tb\tc, d\n", [("b c, d", "a")]),
        ("weather,It rains.\nsport,A goal!\n", [("It rains.", "weather"), ("A goal!", "sport")]),
        ("a;b\na;c, d\n", [("b", "a"), ("c, d", "a")]),
    ],
)
def test_files_as_people_have_them_are_read(
    read: Read, content: str, wanted: list[tuple[str, str]]
) -> None:
    given = [(text, labels[0]) for text, labels in found(read(content))]
    assert given[: len(wanted)] == wanted
    windows = b"\xef\xbb\xbf" + content.removeprefix("\ufeff").replace("\n", "\r\n").encode()
    assert found(read(windows)) == found(read(content))


def test_questions_given_to_another_kind_are_recognised(read: Read) -> None:
    row = {"context": "Lima is dry.", "question": "Who?", "answers": [], "id": "1"}
    told = refusal(read, json.dumps(row), "a.jsonl")
    assert 'a.jsonl: holds questions with answers; give kind = "question-answering"' in told


def test_a_column_that_tells_rows_apart_is_no_label(read: Read) -> None:
    told = refusal(read, "id,text\n1,a\n2,b\n")
    assert "a.csv: no row has the column 'label'; there are id, text; set column" in told
    told = refusal(read, "label,tweet_id\na,1\nb,2\n")
    assert "there are label, tweet_id: no name tells which column holds the text" in told


@pytest.mark.parametrize(("rows", "kept"), [(3, 4), (10, 10)])
def test_a_header_of_any_names_is_found_where_columns_go_by_number(
    read: Read, rows: int, kept: int
) -> None:
    content = "Kommentar;Kategorie\n" + "".join(f"Satz {at};Lob\n" for at in range(rows))
    assert len(read(content, column=1, text=0)) == kept
    told = refusal(read, content)
    assert "a.csv:1: cannot tell if the first row (Kommentar, Kategorie) names the columns" in told


def test_columns_without_a_name_are_not_read(read: Read) -> None:
    assert found(read(SPAM))[1:2] == [("Free entry", ("spam",))]


def test_title_and_text_are_joined_whether_they_have_names_or_not(read: Read) -> None:
    bare = NEWS_WITH_HEADER.partition("\n")[2]
    named = found(read(NEWS_WITH_HEADER))
    assert named == found(read(bare)) == found(read(NEWS_WITH_HEADER, column=0, text=(1, 2)))
    assert named[1][0].startswith("The Race is On: Second Private Team A second team")


def test_columns_of_json_lines_are_found_by_the_same_names(read: Read) -> None:
    content = jsonl({"review": "a", "sentiment": "b", "stars": 3}, {"review": "c"})
    assert found(read(content, "a.jsonl")) == [("a", ("b",))]


@pytest.mark.parametrize("empty", ["", "  ", "nan", "NaN"])
def test_rows_of_csv_without_a_label_are_left_out(read: Read, empty: str) -> None:
    assert found(read(f"label,text\na,b\n{empty},c\n")) == [("b", ("a",))]
    told = refusal(read, f"label,text\n{empty},c\n")
    assert "a.csv: no row has a value in the column 'label'; set column" in told


@pytest.mark.parametrize(("column", "kept"), [("gold_label", 1), ("polarity", 2)])
def test_a_dash_is_no_label_of_snli(read: Read, column: str, kept: int) -> None:
    content = jsonl({"text": "a", column: "-"}, {"text": "b", column: "neutral"})
    assert len(read(content, "a.jsonl", column=column)) == kept


@pytest.mark.parametrize("value", ["['x', 'y']", "[]", '[""x""]', "[1, 0]", "[ 'a'\n 'b']"])
@pytest.mark.parametrize("options", [{}, {"options": MULTI}])
def test_lists_as_text_are_no_labels(read: Read, value: str, options: dict[str, object]) -> None:
    told = refusal(read, f'text,label\na,"{value}"\n', **options)
    assert "a.csv:2: has the text " in told and "JSON lines and Parquet have lists" in told


def test_a_label_in_brackets_is_one(read: Read) -> None:
    assert found(read("text,label\na,[noise]\n")) == [("a", ("[noise]",))]


LABELS = ("toxic", "rude", "threat")


@pytest.mark.parametrize("value", [[1, 0, 1], [True, False, True], [1.0, 0.0, 1.0]])
def test_ones_and_zeros_stand_for_the_labels_given(read: Read, value: list[float]) -> None:
    content = jsonl(row(label=value), row(label=[0, 0, 0]))
    examples = read(content, "a.jsonl", options=MULTI, labels=LABELS)
    assert [e.labels for e in examples] == [("toxic", "threat"), ()]
    for labels in ((), LABELS[:2]):
        told = refusal(read, content, "a.jsonl", options=MULTI, labels=labels)
        assert f"a.jsonl:1: has {value} for labels, which says of each label if it fits" in told


@pytest.mark.parametrize("options", [{}, {"labels": ("0", "1")}, {"label_names": {"0": "x"}}])
def test_lists_of_numbered_labels_name_them(read: Read, options: dict[str, object]) -> None:
    examples = read(jsonl(row(label=[0, 1]), row(label=[1])), "a.jsonl", options=MULTI, **options)
    assert [len(e.labels) for e in examples] == [2, 1]


def test_texts_of_several_columns_are_joined_by_blanks(read: Read) -> None:
    content = "topic,title,body\nlife,Ada,lives\n"
    (example,) = read(content, column="topic", text=("title", "body"))
    assert example.text == "Ada lives"


def test_tsv_has_no_quotes(read: Read) -> None:
    content = 'label\ttext\nlife\t"Ada" lives\nculture\t"It\n'
    assert found(read(content, "a.tsv")) == [
        ('"Ada" lives', ("life",)),
        ('"It', ("culture",)),
    ]


def test_a_very_long_field_is_read(read: Read) -> None:
    (example,) = read(f"life,{'word ' * 50_000}\n")
    assert len(example.text) == 250_000


def row(**change: object) -> dict[str, object]:
    return {"text": "It rained.", "label": "weather"} | change


def jsonl(*rows: dict[str, object]) -> str:
    return "".join(json.dumps(one) + "\n" for one in rows)


@pytest.mark.parametrize(
    ("value", "label"),
    [("weather", "weather"), (3, "3"), (3.0, "3"), (True, "true"), ("03", "03"), ("None", "None")],
)
def test_labels_may_be_numbers_and_truth_values(read: Read, value: object, label: str) -> None:
    assert found(read(jsonl(row(label=value)), "a.jsonl")) == [("It rained.", (label,))]


def test_labels_stand_for_names(read: Read) -> None:
    names = {"1": "World", "3": "Business"}
    assert [e.labels for e in read(NEWS, label_names=names)] == [("Business",), ("World",), ("4",)]


def test_multi_label_rows_have_lists_which_may_be_empty(read: Read) -> None:
    content = jsonl(row(label=["a", "b", "a"]), row(label=[]), row(label=None), {"text": "x"})
    assert [e.labels for e in read(content, "a.jsonl", options=MULTI)] == [("a", "b"), ()]


def test_parquet_reads_as_json_lines(tmp_path: Path) -> None:
    rows = [row(label=["a"]), row(label=None), row(label=["b", "a"])]
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    read = examples(tmp_path / "a.parquet", options=MULTI)
    assert [example.labels for example in read] == [("a",), ("b", "a")]
    assert [example.where.rpartition(" ")[2] for example in read] == ["0", "2"]


def test_pairs_have_a_second_text(read: Read) -> None:
    (example,) = read("label,text,text_pair\nyes,It rained.,Rain fell.\n", options=PAIR)
    assert (example.text, example.text_pair) == ("It rained.", "Rain fell.")
    (example,) = read("yes,It rained.,Rain fell.\n", text_pair=-1, options=PAIR)
    assert (example.text, example.text_pair, example.labels) == (
        "It rained.",
        "Rain fell.",
        ("yes",),
    )
    (example,) = read(jsonl(row(other="Rain.")), "a.jsonl", text_pair="other", options=PAIR)
    assert example.text_pair == "Rain."


def test_single_texts_have_no_second_one(read: Read) -> None:
    (example,) = read(jsonl(row(text_pair="Rain.")), "a.jsonl", text="text")
    assert example.text_pair is None


def test_pairs_are_not_read_as_single_texts_unless_that_is_said(read: Read) -> None:
    told = refusal(read, jsonl(row(text_pair="Rain.")), "a.jsonl")
    assert "a.jsonl:1: has the column 'text_pair', but the task reads one text; set opt" in told


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("1,a,b\n2,c\n", "a.csv:2: has 2 fields, the first row has 3"),
        ('1,"a\nb"\n\n2,c,d\n', "a.csv:4: has 3 fields, the first row has 2"),
        ('1,a\n2,"b\n3,c\n', "a.csv:2: is not CSV: unexpected end of data; check the quotes"),
        ('1,a\n2,"b"c\n', "a.csv:2: is not CSV:"),
        ("label,text,text\n1,a,b\n", "a.csv:1: the header names a column twice"),
        (
            "label,one,two\n1,a,b\n",
            "a.csv:2: there are label, one, two: no name tells which column",
        ),
        (
            "label,body,post\n1,a,b\n",
            "a.csv:2: there are label, body, post: body or post may be the",
        ),
        (
            "text,topic,genre\na,b,c\n",
            "a.csv:2: there are text, topic, genre: topic or genre may be",
        ),
        ("label,text\n1,a\nlabel,text\n2,b\n", "a.csv:3: repeats the header; delete the line"),
        ("one\ntwo\n", "a.csv:1: has one column; columns are apart by ',', ';', a tab, '|'"),
        ("a,b;c\nd,e;f\n", "a.csv:1: cannot tell if ',' or ';' stands between columns; put fields"),
        ("good,fine\nbad,poor\n", "a.csv:1: cannot tell if the first row (good, fine) names the"),
        ("", "a.csv: holds no examples"),
        ("label,text\n", "a.csv: holds no examples"),
        ("1,Z\xfcrich\n".encode("latin-1"), "a.csv:1: is not UTF-8 at byte 3 of the line; save it"),
        ("1,Bern\n".encode("utf-16"), "a.csv:1: is UTF-16; save it as UTF-8"),
    ],
)
def test_csv_that_does_not_fit_is_named_by_line(
    read: Read, content: str | bytes, told: str
) -> None:
    assert told in refusal(read, content)


@pytest.mark.parametrize(
    ("content", "options", "told"),
    [
        ("1,a\n", {"column": 5}, "a.csv: no row has the column 5; there are 0, 1; set column"),
        ("a,b\n1,2\n", {"column": "topic"}, "no row has the column 'topic'; there are a, b"),
        ("1,a\n", {"column": 0, "text": ("b",)}, "must all be names, or all numbers"),
        ("1,a\n", {"options": PAIR}, "a.csv:1: columns have no names; set text_pair to a number"),
        ("1,a\n", {"options": MULTI}, "a.csv:1: has '1' for labels; a multi-label task needs"),
    ],
)
def test_columns_that_are_not_there_are_named(
    read: Read, content: str, options: dict[str, object], told: str
) -> None:
    assert told in refusal(read, content, **options)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"label": ["a", "b"]}, "a.jsonl:2: has a list of labels; set options.multi_label to"),
        ({"label": {}}, "a.jsonl:2: has {} for a label"),
        ({"label": 1.5}, "a.jsonl:2: has 1.5 for a label"),
        ({"text": None}, "a.jsonl:2: column 'text' is null"),
        ({"text": 3}, "a.jsonl:2: column 'text' must be a text, not 3"),
        ({"text": "\ud800"}, "a.jsonl:2: is not valid Unicode"),
    ],
)
def test_row_that_does_not_fit_is_named(read: Read, change: dict[str, object], told: str) -> None:
    assert told in refusal(read, jsonl(row(), row(**change)), "a.jsonl")


@pytest.mark.parametrize("text", ["[" * 100_000, '{"text": ' + "9" * 5000 + "}"])
@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("text-classification", "a.jsonl"),
        ("token-classification", "a.json"),
        ("question-answering", "a.json"),
        ("question-answering", "a.jsonl"),
    ],
)
def test_json_that_python_cannot_read_is_refused(
    tmp_path: Path, text: str, kind: str, name: str
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match="is not JSON: "):
        load_test(TaskConfig(kind, "x", test=str(tmp_path / name)), "test")


def test_labels_of_no_row_are_named(read: Read) -> None:
    told = refusal(read, jsonl({"text": "a", "by": "b", "kind": "c"}), "a.jsonl")
    assert "a.jsonl: no row has the column 'label'; there are text, by, kind; set column" in told


def test_broken_parquet_is_one_line(read: Read, tmp_path: Path) -> None:
    assert "a.parquet: is not a whole Parquet file" in refusal(read, b"PAR1 no", "a.parquet")
    with pytest.raises(DataError, match=r"b.parquet: cannot be read: No such file"):
        examples(tmp_path / "b.parquet")
    parquet.write_table(pa.Table.from_pylist([row()] * 5000), tmp_path / "c.parquet")
    content = bytearray((tmp_path / "c.parquet").read_bytes())
    content[20:60] = bytes(40)
    told = refusal(read, bytes(content), "c.parquet")
    assert "c.parquet: is not a whole" in told or "c.parquet: cannot be read" in told


@pytest.fixture
def task(tmp_path: Path) -> Callable[..., TaskConfig]:
    """Writes training and dev data."""

    def task(train: str, dev: str, **options: object) -> TaskConfig:
        for name, content in (("train.csv", train), ("dev.csv", dev)):
            (tmp_path / name).write_text(content)
        paths = [str(tmp_path / name) for name in ("train.csv", "dev.csv")]
        return TaskConfig("text-classification", paths[0], dev=paths[1], **options)

    return task


def test_labels_are_those_of_the_training_data_sorted(task: Callable[..., TaskConfig]) -> None:
    assert read_splits(task("b,x\na,y\nb,z\n", "a,x.\n")).labels == ("a", "b")


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        ((), r"dev.csv:2: label 'c' is not in the training data \(a, b\); mend it, or train on"),
        (("b", "a", "c"), r"train.csv: no example has the label 'c'; add some, or take it out"),
        (("b",), r"train.csv:2: label 'a' is not among the labels given \(b\); mend it, or add"),
    ],
)
def test_labels_that_do_not_fit_are_named(
    task: Callable[..., TaskConfig], labels: tuple[str, ...], told: str
) -> None:
    with pytest.raises(DataError, match=told):
        read_splits(task("b,x.\na,y\n", "a,x.\nc,y\n", labels=labels))


def test_labels_given_keep_their_order(task: Callable[..., TaskConfig]) -> None:
    assert read_splits(task("b,x.\na,y\n", "a,x.\n", labels=("b", "a"))).labels == ("b", "a")


def table(values: list[object], header: str = "text,label") -> str:
    return "\n".join([header, *(f"text {at},{value}" for at, value in enumerate(values))]) + "\n"


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        (
            [*range(30)],
            "30 values in 30 rows ('0', '1', '10', ...): most stand in one row alone; set",
        ),
        ([f"t{at}" for at in range(12)] + ["t0"] * 9, "12 values in 21 rows"),
        ([at * 97 for at in range(25)] * 3, "they are numbers with gaps, as identifiers have; set"),
        ([at + 0.5 for at in range(25)] * 3, "they are numbers with gaps"),
    ],
)
def test_values_that_are_no_classes_are_refused(
    task: Callable[..., TaskConfig], values: list[object], fault: str
) -> None:
    content = table(values)
    with pytest.raises(DataError, match=re.escape(fault)) as caught:
        read_splits(task(content, content))
    assert "train.csv: the column 'label' has" in str(caught.value)
    given = tuple(sorted({str(value) for value in values}))
    assert read_splits(task(content, content, labels=given)).labels == given


@pytest.mark.parametrize(
    "values", [[*range(5)], [*range(1, 78)] * 2, ["1", "3", "5", "9"] * 3, ["a", "b"] * 5]
)
def test_numbered_classes_ratings_and_few_rows_are_fine(
    task: Callable[..., TaskConfig], values: list[object]
) -> None:
    content = table(values)
    assert len(read_splits(task(content, content)).labels) == len(set(values))


def test_a_multi_label_task_where_all_labels_fit_every_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(jsonl(*[row(label=[1, 0])] * 6, *[row(label=[0, 1])] * 6))
    path = str(tmp_path / "a.jsonl")
    with pytest.raises(DataError, match=r"a.jsonl: the column 'label' has 2 values in 12 rows"):
        read_splits(TaskConfig("text-classification", path, dev=path, options=MULTI))


CHOICE = {"from_name": "mood", "to_name": "text", "type": "choices"}
TASK = {
    "id": 1,
    "data": {"text": "It rained."},
    "annotations": [
        {"was_cancelled": True, "result": [CHOICE | {"value": {"choices": ["good"]}}]},
        {"was_cancelled": False, "result": [CHOICE | {"value": {"choices": ["bad"]}}]},
    ],
}
FACTS = {"annotator": 1, "annotation_id": 3, "created_at": "2024-01-01", "lead_time": 1.5}
HASHES = {"_input_hash": 1, "_task_hash": 2}


@pytest.mark.parametrize(
    ("row", "options"),
    [
        (TASK, {}),
        (TASK, {"column": "mood"}),
        ({"text": "It rained.", "label": "bad"} | FACTS, {}),
        ({"sentence": "It rained.", "mood": {"choices": ["bad"]}} | FACTS, {"column": "mood"}),
        ({"text": "It rained.", "label": "bad", "answer": "accept"} | HASHES, {}),
        (
            {
                "text": "It rained.",
                "options": [{"id": "bad"}],
                "accept": ["bad"],
                "answer": "accept",
            },
            {},
        ),
        (["It rained.", {"cats": {"good": 0.0, "bad": 1.0}}], {}),
        ({"text": "It rained.", "cats": {"good": 0, "bad": 1}, "ents": [], "tokens": []}, {}),
        ({"id": 4, "text": "It rained.", "label": ["bad"], "Comments": []}, {}),
    ],
)
@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
def test_exports_of_annotation_tools_are_read(
    read: Read, row: object, options: dict[str, object], name: str
) -> None:
    rows = json.dumps([row, row], indent=1) if name == "a.json" else f"{json.dumps(row)}\n" * 2
    assert found(read(rows, name, **options)) == [("It rained.", ("bad",))] * 2


def test_what_annotators_did_not_say_is_left_out_and_told(
    read: Read, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    rows: list[object] = [
        {"text": "a", "label": "x", "answer": "reject"} | HASHES,
        {"text": "a", "label": "x", "answer": "ignore"} | HASHES,
        {"data": {"text": "a"}, "annotations": []},
        {"data": {"text": "a"}, "annotations": [{"result": []}]},
        {"text": "a", "label": []},
        TASK,
    ]
    assert len(read("".join(json.dumps(row) + "\n" for row in rows), "a.jsonl")) == 1
    told = caplog.text + capsys.readouterr().err
    for reason in (
        "texts skipped, which the annotator rejected: 1 (",
        "texts skipped, which the annotator ignored: 1 (",
        "texts skipped, which have no annotation: 2 (",
        "annotations skipped, which the annotator cancelled: 1 (",
        "rows left out, which have no 'label': 1 (",
    ):
        assert reason in told


def test_several_choices_are_labels_of_a_multi_label_task(read: Read) -> None:
    row = {"text": "It rained.", "options": [], "accept": ["a", "b"], "answer": "accept"}
    assert found(read(json.dumps(row), "a.jsonl", options=MULTI)) == [("It rained.", ("a", "b"))]
    assert "has a list of labels; set options.multi_label" in refusal(
        read, json.dumps(row), "a.jsonl"
    )
