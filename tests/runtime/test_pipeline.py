from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import trunkline
from tests.runtime.samples import texts
from tests.tiny import POISON, TASKS
from tests.unfit import UNFIT
from trunkline import (
    Answer,
    Document,
    DocumentResult,
    Label,
    Model,
    Question,
    QuestionResult,
    Span,
)
from trunkline import pipeline as module
from trunkline.device import CudaOptions
from trunkline.encode import Row
from trunkline.errors import BundleError, ConfigError, InvalidInput, NotFound, RuntimeFault
from trunkline.kinds import Output
from trunkline.pipeline import Pipeline
from trunkline.runner import RowOutputs, Runner

TEXT = "Ada opened an office in Bern."
LONG = "Ada lives in Zürich 😀 and IBM is in 東京. " * 20
PAIR = "Who opened the office in London?"
QUESTIONS = ["Where is the office?", "Who lives in Zürich?"]
LONE = "a\ud800"


class Counting:
    """Notes how many rows and which outputs each run has."""

    def __init__(self, runner: Runner) -> None:
        self.runner = runner
        self.rows: list[int] = []
        self.outputs: list[list[str]] = []

    def run(self, rows: Sequence[Row], outputs: Sequence[Output]) -> list[RowOutputs]:
        self.rows.append(len(rows))
        self.outputs.append([output.name for output in outputs])
        return self.runner.run(rows, outputs)


@pytest.fixture
def counted(model: Model) -> tuple[Pipeline, Counting]:
    counting = Counting(model.pipeline.runner)
    return Pipeline(TASKS, model.pipeline.encoder, counting), counting


def two_asking(model: Model) -> Pipeline:
    """Returns a pipeline with two question tasks, over the one head of the tiny graph."""
    tasks = (*TASKS, replace(TASKS[2], name="qa-2"))
    return Pipeline(tasks, model.pipeline.encoder, model.pipeline.runner)


def chosen(pipeline: Pipeline, question: Question, tasks: tuple[str, ...] | None = None) -> str:
    prepared = pipeline.prepare(Document(TEXT, (question,), tasks))
    return prepared.asked[0].spec.name


def test_a_text_gives_a_result_and_a_list_a_list(model: Model) -> None:
    alone = model.analyze(TEXT, QUESTIONS)
    assert isinstance(alone, DocumentResult)
    assert model.analyze([TEXT], QUESTIONS) == [alone]
    assert model.analyze((TEXT, TEXT), QUESTIONS) == [alone, alone]
    assert model.analyze([]) == []


def test_a_document_brings_its_own_questions_and_tasks(model: Model) -> None:
    document = Document(TEXT, (Question(QUESTIONS[0], "qa"),), ("pos",))
    result = model.analyze(document)
    assert list(result.tasks) == ["pos"]
    assert [asked.question for asked in result.questions] == QUESTIONS[:1]
    assert model.analyze((document, TEXT)) == [result, model.analyze(TEXT)]


@given(st.lists(texts, max_size=5))
@settings(max_examples=25)
def test_a_list_gives_what_each_text_gives_alone(model: Model, given_: list[str]) -> None:
    assert model.analyze(given_, QUESTIONS, text_pair=PAIR) == [
        model.analyze(text, QUESTIONS, text_pair=PAIR) for text in given_
    ]


def test_long_and_short_texts_together_give_what_each_gives_alone(model: Model) -> None:
    given_ = [TEXT, LONG, "", "Rome", LONG + TEXT]
    pairs = [PAIR, "", "Rome", PAIR * 3, TEXT]
    assert model.analyze(given_, QUESTIONS, text_pair=pairs) == [
        model.analyze(text, QUESTIONS, text_pair=pair)
        for text, pair in zip(given_, pairs, strict=True)
    ]


def test_all_tasks_are_run_unless_some_are_named(model: Model) -> None:
    assert list(model.analyze(TEXT).tasks) == ["ner", "pos", "topic", "mood"]
    assert list(model.analyze(TEXT, tasks=["pos"]).tasks) == ["pos"]
    assert list(model.analyze(TEXT, tasks=["pos", "ner", "pos"]).tasks) == ["pos", "ner"]
    assert dict(model.analyze(TEXT, QUESTIONS, ["qa"]).tasks) == {}
    paired = model.analyze(TEXT, text_pair=PAIR)
    assert list(paired.tasks) == ["ner", "pos", "topic", "mood", "match"]
    assert list(model.analyze(TEXT, tasks=["match", "pos"], text_pair=PAIR).tasks) == [
        "match",
        "pos",
    ]


def test_a_task_named_gives_what_it_gives_among_all(model: Model) -> None:
    every = model.analyze(LONG, text_pair=PAIR).tasks
    for name in ("ner", "pos", "topic", "mood", "match"):
        assert model.analyze(LONG, tasks=[name], text_pair=PAIR).tasks == {name: every[name]}


def test_the_second_text_of_a_pair_is_seen_by_tasks_that_read_pairs_alone(model: Model) -> None:
    alone = model.analyze(LONG, QUESTIONS)
    paired = model.analyze(LONG, QUESTIONS, text_pair=PAIR)
    other = model.analyze(LONG, QUESTIONS, text_pair="Rome")
    for name, found in alone.tasks.items():
        assert paired.tasks[name] == other.tasks[name] == found
    assert paired.questions == other.questions == alone.questions
    assert paired.tasks["match"] != other.tasks["match"]
    assert (alone.text_pair, paired.text_pair, other.text_pair) == (None, PAIR, "Rome")


@given(texts, texts)
@settings(max_examples=25)
def test_a_pair_stands_in_a_row_as_its_two_texts_in_their_order(
    model: Model, text: str, pair: str
) -> None:
    prepared = model.pipeline.prepare(Document(text, tasks=("match",), text_pair=pair))
    encoder = model.pipeline.encoder
    wanted = encoder.rows(encoder.tokenize(text), pair=encoder.tokenize(pair))
    assert len(prepared.rows) == len(wanted)
    for row, want in zip(prepared.rows, wanted, strict=True):
        assert row.input_ids.tolist() == want.input_ids.tolist()
        assert row.token_type_ids.tolist() == want.token_type_ids.tolist()


def test_a_second_text_may_be_blank_but_a_text_without_words_has_no_labels(model: Model) -> None:
    for pair in ("", " \n"):
        assert len(model.analyze(TEXT, text_pair=pair).tasks["match"]) == 2
    for text in ("", "  "):
        assert dict(model.analyze(text, text_pair=PAIR).tasks) == {
            name: () for name in ("ner", "pos", "topic", "mood", "match")
        }


def test_second_texts_are_given_for_all_or_one_by_one(model: Model) -> None:
    first, second = (model.analyze(TEXT, text_pair=pair) for pair in (PAIR, "Rome"))
    assert model.analyze([TEXT, TEXT], text_pair=PAIR) == [first, first]
    assert model.analyze([TEXT, TEXT], text_pair=[PAIR, "Rome"]) == [first, second]
    own = Document(TEXT, text_pair="Rome")
    assert model.analyze((Document(TEXT, text_pair=PAIR), own)) == [first, second]
    for pairs in ([], [PAIR], [PAIR] * 3):
        with pytest.raises(InvalidInput, match=rf"^text_pair: holds {len(pairs)}; give one, or"):
            model.analyze([TEXT, TEXT], text_pair=pairs)


def test_a_pair_task_asked_for_by_name_needs_the_second_text(model: Model) -> None:
    with pytest.raises(InvalidInput) as caught:
        model.analyze((TEXT, Document(TEXT, tasks=("ner", "match"))))
    assert caught.value.field == "documents[1].text_pair"
    assert caught.value.reason == "is missing; task 'match' reads a pair of texts"


def test_a_model_that_reads_no_pairs_refuses_a_second_text(model: Model) -> None:
    pipeline = Pipeline(TASKS[:4], model.pipeline.encoder, model.pipeline.runner)
    with pytest.raises(InvalidInput, match="no task of this model reads a pair") as caught:
        pipeline.prepare(Document(TEXT, text_pair=PAIR))
    assert caught.value.field == "document.text_pair"


def test_only_wanted_rows_and_outputs_are_run(counted: tuple[Pipeline, Counting]) -> None:
    pipeline, counting = counted
    pipeline.analyze([Document(TEXT, tasks=("ner",))])
    pipeline.analyze([Document(TEXT, (Question("Where?"),), ("qa",))])
    pipeline.analyze([Document(TEXT, (Question("Where?"),), ("pos",))])
    pipeline.analyze([Document(TEXT, tasks=("match",), text_pair=PAIR)])
    pipeline.analyze([Document(TEXT, tasks=("mood", "match", "ner"), text_pair=PAIR)])
    pipeline.analyze([Document(TEXT, tasks=("topic",), text_pair=PAIR)])
    assert counting.rows == [1, 1, 2, 1, 2, 1]
    asking = ["qa.start_logits", "qa.end_logits"]
    assert counting.outputs[:3] == [["ner.logits"], asking, ["pos.logits", *asking]]
    assert counting.outputs[3:] == [
        ["match.logits"],
        ["mood.logits", "match.logits", "ner.logits"],
        ["topic.logits"],
    ]


def test_documents_without_rows_run_nothing(counted: tuple[Pipeline, Counting]) -> None:
    pipeline, counting = counted
    result, _ = pipeline.analyze([Document("", (Question("Where?"),)), Document(TEXT, tasks=())])
    assert counting.rows == []
    assert result.tasks == {"ner": (), "pos": (), "topic": (), "mood": ()}
    assert result.questions == (QuestionResult("Where?", "qa", (), 1.0),)


def test_many_documents_are_run_in_groups_and_give_the_same(
    counted: tuple[Pipeline, Counting], monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline, counting = counted
    documents = [Document(text) for text in (TEXT, LONG, TEXT, "", TEXT, TEXT, TEXT, TEXT)]
    once = pipeline.analyze(documents)
    counting.rows.clear()
    monkeypatch.setattr(module, "_ROWS_AT_ONCE", 3)
    assert pipeline.analyze(documents) == once
    long_rows = len(pipeline.prepare(documents[1]).rows)
    assert counting.rows == [1, long_rows, 3, 2]


def test_the_only_question_task_is_taken_unnamed(model: Model) -> None:
    assert chosen(model.pipeline, Question("Where?")) == "qa"
    assert chosen(model.pipeline, Question("Where?", "qa")) == "qa"
    assert chosen(model.pipeline, Question("Where?"), ("ner",)) == "qa"


def test_of_two_question_tasks_one_must_be_named(model: Model) -> None:
    pipeline = two_asking(model)
    assert chosen(pipeline, Question("Where?", "qa-2")) == "qa-2"
    assert chosen(pipeline, Question("Where?"), ("ner", "qa-2")) == "qa-2"
    for tasks in (None, ("ner",), ("qa", "qa-2")):
        with pytest.raises(InvalidInput, match=r"task is meant; known: qa, qa-2$"):
            chosen(pipeline, Question("Where?"), tasks)


def test_a_model_without_question_tasks_refuses_questions(model: Model) -> None:
    pipeline = Pipeline(TASKS[:2], model.pipeline.encoder, model.pipeline.runner)
    with pytest.raises(InvalidInput, match="has no question-answering task; leave it") as caught:
        chosen(pipeline, Question("Where?"))
    assert caught.value.field == "document.questions[0]"
    with pytest.raises(NotFound, match="unknown question task 'qa'"):
        chosen(pipeline, Question("Where?", "qa"))


def test_an_unknown_task_is_not_found_and_the_nearest_named(model: Model) -> None:
    with pytest.raises(
        NotFound, match=r"unknown task 'nerr'.*did you mean 'ner'.*ner, pos, qa, topic"
    ):
        model.analyze(TEXT, tasks=["pos", "nerr"])
    with pytest.raises(NotFound, match="unknown question task 'ner'; known: qa"):
        model.analyze(Document(TEXT, (Question("Where?", "ner"),)))


@pytest.mark.parametrize(
    ("given_", "field"),
    [
        ([TEXT, LONE], "documents[1].text"),
        ([Document(TEXT, (Question("x"), Question(LONE)))], "documents[0].questions[1].text"),
        ([Document(TEXT, (Question("  "),))], "documents[0].questions[0].text"),
        ([Document(TEXT, (Question("where " * 200),))], "documents[0].questions[0].text"),
        ([Document(LONE, (Question("where " * 200),))], "documents[0].text"),
        ([TEXT, Document(TEXT, text_pair=LONE)], "documents[1].text_pair"),
        ([TEXT, Document(TEXT, text_pair="where " * 63)], "documents[1].text_pair"),
    ],
)
def test_errors_name_the_field(model: Model, given_: list[str | Document], field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        model.analyze(tuple(given_))
    assert caught.value.field == field
    assert str(caught.value) == f"{field}: {caught.value.reason}"


@pytest.mark.parametrize(("text", "options", "message"), UNFIT)
def test_what_is_not_understood_is_refused(
    model: Model, text: object, options: dict[str, object], message: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        model.analyze(text, **options)  # type: ignore[call-overload]
    assert str(caught.value).startswith(message)


def test_a_task_that_answers_is_not_named_without_a_question(model: Model) -> None:
    with pytest.raises(InvalidInput, match=r"questions: is empty; task 'qa' answers questions"):
        model.analyze(TEXT, tasks=["ner", "qa"])


def test_any_iterable_of_texts_will_do(model: Model) -> None:
    assert model.analyze(iter([TEXT, ""])) == model.analyze([TEXT, ""])  # type: ignore[call-overload]


def test_nan_is_a_fault_that_names_the_task(model: Model) -> None:
    with pytest.raises(RuntimeFault, match="pos: the model gave NaN"):
        model.analyze(f"Ada {POISON}", tasks=["pos"])
    assert model.analyze(TEXT, tasks=["pos"]).tasks["pos"]


def test_the_json_form_is_what_the_design_says() -> None:
    result = DocumentResult(
        text="IBM opened an office in Bern.",
        tasks={
            "ner": (Span(0, 3, "IBM", "ORG", 0.998004),),
            "pos": (),
            "topic": (Label("Business", 0.86), Label("World", 0.1399951)),
        },
        questions=(
            QuestionResult("Where?", "qa", (Answer(24, 28, "Bern", 0.97),), 0.012345),
            QuestionResult("Who?", "qa", (), 1.0),
        ),
    )
    assert result.to_dict() == {
        "text": "IBM opened an office in Bern.",
        "tasks": {
            "ner": [{"start": 0, "end": 3, "text": "IBM", "label": "ORG", "score": 0.998}],
            "pos": [],
            "topic": [
                {"label": "Business", "score": 0.86},
                {"label": "World", "score": 0.14},
            ],
        },
        "questions": [
            {
                "question": "Where?",
                "task": "qa",
                "answers": [{"start": 24, "end": 28, "text": "Bern", "score": 0.97}],
                "no_answer_score": 0.0123,
            },
            {"question": "Who?", "task": "qa", "answers": [], "no_answer_score": 1.0},
        ],
    }


def test_the_json_form_has_the_second_text_where_there_is_one(model: Model) -> None:
    assert "text_pair" not in model.analyze(TEXT).to_dict()
    found = model.analyze(TEXT, text_pair="").to_dict()
    assert list(found) == ["text", "text_pair", "tasks", "questions"]
    assert found["text_pair"] == ""


@given(texts)
@settings(max_examples=40)
def test_offsets_of_everything_found_are_into_the_original_text(model: Model, text: str) -> None:
    result = model.analyze(text, QUESTIONS)
    assert result.text == text
    spans = [one for found in result.tasks.values() for one in found if isinstance(one, Span)]
    found: list[Span | Answer] = [*spans]
    found += [answer for asked in result.questions for answer in asked.answers]
    for one in found:
        assert one.text == text[one.start : one.end]
        assert 0 <= one.score <= 1


def test_eight_threads_get_what_one_gets(model: Model) -> None:
    given_ = [TEXT, LONG, "", "Rome 😀", LONG + TEXT, "שלום سلام"] * 8
    wanted = [model.analyze(text, QUESTIONS) for text in given_[:6]] * 8
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda text: model.analyze(text, QUESTIONS), given_)) == wanted


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"threads": -1}, "threads: expected 1 or more, or None for the CPUs, got -1"),
        ({"threads": 0}, "threads: expected 1 or more"),
        ({"threads": "2"}, "threads: expected 1 or more"),
        ({"threads": True}, "threads: expected 1 or more"),
        ({"device": 3}, "device: expected a string such as 'cpu' or 'cuda:0', got 3"),
        ({"cuda": 3}, "cuda: expected CudaOptions, got 3"),
    ],
)
def test_options_that_could_not_be_are_refused(
    bundle: Path, options: dict[str, Any], told: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        trunkline.load(bundle, **options)
    assert str(caught.value).startswith(told)
    with pytest.raises(ConfigError, match=r"cuda\.memory: expected bytes"):
        CudaOptions(memory=-1)


@pytest.mark.parametrize("path", [None, 3, ""])
def test_what_is_no_path_is_no_bundle(path: Any) -> None:
    with pytest.raises(BundleError, match="expected a folder, got"):
        trunkline.load(path)


def test_the_golden_texts_pass_the_self_test(model: Model) -> None:
    assert model.self_test() == 2


def test_a_path_may_be_a_string_and_threads_default_to_the_machine(bundle: Path) -> None:
    model = trunkline.load(str(bundle))
    assert model.manifest.name == "tiny"
    assert model.manifest.tasks == TASKS
