"""Public copies of data sets become uniform files; the texts here are made up."""

import csv
import gzip
import io
import json
from pathlib import Path
from typing import Any

import pytest

from experiments.prepare import local_sources, prepare
from experiments.prepare_news import clean, from_samples, from_table
from experiments.prepare_questions import (
    hold_out,
    qamr_rows,
    squad_rows,
    to_squad,
    without,
    write_out,
)

ROOT = Path(__file__).parents[2]


def item(text: str, source: str, label: int = 2) -> str:
    return json.dumps({"text": text, "label": label, "src": [source]})


def texts(*items: str) -> list[str]:
    return [json.loads(line)["text"] for line in from_samples(items)]


@pytest.mark.parametrize(
    ("raw", "wanted"),
    [
        ("Lima #39;s rain", "Lima's rain"),
        ("he said  quot;no quot; twice", 'he said "no" twice'),
        ("rain  amp; wind", "rain & wind"),
        ("a line\\and another", "a line and another"),
        ("the rest &lt;b&gt;...&lt;/b&gt; here", "the rest ... here"),
        ("  two  blanks ", "two blanks"),
        ("2 < 3 and #1 stays", "2 < 3 and #1 stays"),
    ],
)
def test_leftovers_of_html_go(raw: str, wanted: str) -> None:
    assert clean(raw) == wanted


def test_titles_are_joined_alike_whatever_the_copy() -> None:
    wanted = "Rain in Lima Umbrellas sold well"
    known = item("Lima sold its Umbrellas well in Rain", "am")
    assert texts(known, item(wanted, "am"))[1] == wanted
    assert texts(known, item("Rain in Lima . Umbrellas sold well", "hhf"))[1] == wanted
    assert texts(known, item("Rain in LimaUmbrellas sold well", "zy"))[1] == wanted


def test_a_join_that_is_unclear_is_left_out() -> None:
    known = item("McRain and Lima meet; Umbrellas sold", "am")
    kept = texts(
        known,
        item("McRain meets LimaUmbrellas", "zy"),  # a known name is no join
        item("Rain in PeruOslo", "zy"),  # neither part is known
        item("LimaUmbrellas sold, LimaUmbrellas sold", "zy"),  # which of the two?
        item("Umbrellas sold in Lima", "zy"),  # had a blank
    )
    assert kept[1:] == ["McRain meets Lima Umbrellas", "Umbrellas sold in Lima"]


def test_topics_have_names_in_both_splits() -> None:
    (line,) = from_samples([item("Rain", "am", label=4)])
    assert json.loads(line)["label"] == "Sci/Tech"
    table = io.StringIO()
    csv.writer(table).writerow(["3", "Rain, and wind", 'He said "no"'])
    (line,) = from_table(table.getvalue())
    assert json.loads(line) == {"text": 'Rain, and wind He said "no"', "label": "Business"}


@pytest.mark.parametrize(
    ("tokens", "text"),
    [
        ("It rained , then stopped .", "It rained, then stopped."),
        ("`` Why not ? '' she asked", '"Why not?" she asked'),
        ("a ( -LRB- odd -RRB- ) one", "a ( (odd) ) one"),
        ("they did n't see Lima 's $ 5 note", "they didn't see Lima's $5 note"),
        ("up 3 % : no -- never", "up 3%: no -- never"),
    ],
)
def test_tokens_are_written_out(tokens: str, text: str) -> None:
    written, spans = write_out(tokens.split())
    assert written == text
    assert len(spans) == len(tokens.split())
    assert "".join(written[start:end] for start, end in spans) == "".join(written.split())


def qamr(question: str, *indices: str) -> str:
    return "\t".join(["s1", "0 1", "7", "0", "1", question, *indices])


def test_answers_of_tokens_are_slices_of_the_text() -> None:
    sentence = "s1\tAda lives in Lima , Peru ."
    rows = list(
        qamr_rows(
            [
                qamr("Where?", "3", "9:3 4 5", "4:3"),
                qamr("Who and where?", "0 3", "9:0", "4:Invalid"),
                qamr("What?", "0 3", "9:Redundant", "4:Invalid"),
            ],
            [sentence],
        )
    )
    assert [row["question"] for row in rows] == ["Where?", "Who and where?"]
    assert [[a["text"] for a in row["answers"]] for row in rows] == [
        ["Lima", "Lima, Peru"],
        ["Ada"],
    ]
    assert (
        json.loads(to_squad(rows))["data"][0]["paragraphs"][0]["context"]
        == "Ada lives in Lima, Peru."
    )


def row(number: int, context: str, answer: str = "Ada", start: int = 0) -> dict[str, Any]:
    answers = [{"text": answer, "answer_start": start}]
    return {
        "id": str(number),
        "title": None,
        "context": context,
        "question": "Who?",
        "answers": answers,
    }


def test_guessed_positions_are_kept_only_if_wanted() -> None:
    answers = {"text": ["Ada"], "answer_start": [0]}
    lines = [
        json.dumps({**row(0, "Ada"), "answers": answers, "start": start})
        for start in ("gold", "first-of-N-matches")
    ]
    assert len(list(squad_rows(lines, guessed=False))) == 1
    assert len(list(squad_rows(lines, guessed=True))) == 2


def test_contexts_are_held_out_whole() -> None:
    rows = [row(number, f"Ada {number // 3}") for number in range(30)]
    rows.append(row(30, "ADA  0"))  # the same but for blanks and case
    kept, held = hold_out(rows, 5)
    assert len(held) >= 5
    assert len(kept) + len(held) == 31
    alike = [{"".join(one["context"].lower().split()) for one in side} for side in (kept, held)]
    assert not alike[0] & alike[1]


def test_texts_of_the_test_set_are_left_out_of_training() -> None:
    rows = [row(0, "Ada went to Lima by train."), row(1, "Ada went to Oslo by train yesterday.")]
    seen = ["Once, Ada went to Lima by train; it rained."]
    assert [one["id"] for one in without(rows, seen)] == ["1"]


def test_an_answer_that_is_no_slice_stops_it() -> None:
    with pytest.raises(ValueError, match="question 0: 'Ada' is not at 3"):
        to_squad([row(0, "Ada lives", start=3)])


def test_folder_is_what_the_configuration_reads(tmp_path: Path) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    _write_copies(data)
    prepare(data, out)
    changes = [change.partition("=")[::2] for change in local_sources(out)]
    sources = [
        value for key, value in changes if key.rpartition(".")[2] in ("train", "dev", "test")
    ]
    assert len(sources) == 13
    assert all(Path(source).stat().st_size for source in sources)
    natural = json.loads((out / "qa.natural.json").read_text("utf-8"))
    contexts = [p["context"] for article in natural["data"] for p in article["paragraphs"]]
    assert contexts == ["Ada sings all day long"]  # the other is the text of a test or dev question


def _write_copies(data: Path) -> None:
    flat = json.dumps({**row(0, "Ada lives"), "answers": {"text": ["Ada"], "answer_start": [0]}})
    other = flat.replace("Ada lives", "Ada works")
    nested = to_squad([row(1, "Ada is asleep in the large house")])
    copies = {
        "conll2003/eng.train": "Ada N O I-PER\n",
        "conll2003/eng.testa": "Ada N O I-PER\n",
        "conll2003/eng.testb": "Ada N O I-PER\n",
        "conllpp/conllpp_test.txt": "Ada N O B-PER\n",
        "cleanconll/cleanconll.test": "Ada\tN\tO\tO\tB-PER\n",
        "conll2000/train.txt": "Ada N B-NP\n",
        "conll2000/test.txt": "Ada N B-NP\n",
        **{f"ud_ewt/en_ewt-ud-{s}.conllu": "1\tAda\n" for s in ("train", "dev", "test")},
        "ag_news/train.PARTIAL.jsonl": item("Rain", "am") + "\n",
        "ag_news/test.csv": '"1","Rain","and wind"\n',
        "squad/train-v1.1.rebuilt.jsonl": f"{flat}\n{other}\n",
        "squad/dev-v1.1.json": nested,
        "squadshifts/amazon_reviews_v1.0.json": nested,
        "squadshifts/reddit_v1.0.json": nested,
        "qa_extra/tydiqa_goldp_en.jsonl": flat.replace("Ada lives", "Ada sings all day long")
        + "\n",
        "qa_extra/nq_qed_train.jsonl": f"{other}\n",
        "qamr/filtered-dev.tsv": qamr("Who?", "0", "9:0", "4:0") + "\n",
        "qamr/filtered-test.tsv": qamr("Who?", "0", "9:0", "4:0") + "\n",
        "qamr/wiki-sentences.tsv": "s1\tAda lives in Lima , Peru .\n",
    }
    for name, text in copies.items():
        path = data / f"{name}.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(text.encode()))
