import pytest

from trunkline import Answer, DocumentResult, QuestionResult
from trunkline.annotations import Label
from trunkline.tasks import AnswerOptions, TaskSpec, TextOptions, TokenOptions
from trunkline_train.baseline import baseline
from trunkline_train.data.examples import AnswerExample, TextExample, token_example
from trunkline_train.evaluate import score

NER = TaskSpec("ner", "token-classification", ("O", "B-LOC", "I-LOC"), TokenOptions("spans"))
POS = TaskSpec("pos", "token-classification", ("NN", "VB"), TokenOptions("tags"))
QA = TaskSpec("qa", "question-answering", (), AnswerOptions())
TOPIC = TaskSpec("topic", "text-classification", ("life", "rain", "snow"), TextOptions())
MANY = TaskSpec(
    "topic", "text-classification", ("life", "rain", "snow"), TextOptions(multi_label=True)
)


def texts(*labels: tuple[str, ...]) -> list[TextExample]:
    return [TextExample(f"text {at}", None, some, f"f:{at}") for at, some in enumerate(labels)]


def answers(*gold: tuple[str, ...]) -> list[AnswerExample]:
    starts = [tuple(0 for _ in some) for some in gold]
    return [
        AnswerExample(str(at), "Where?", "Bern it is", some, start, f"f:{at}")
        for at, (some, start) in enumerate(zip(gold, starts, strict=True))
    ]


def test_entities_are_guessed_by_none() -> None:
    examples = [token_example(["Old", "Bern"], ["O", "B-LOC"], "f:1")]
    guess = baseline(NER, examples)
    assert (guess.main, guess.value, guess.n) == ("f1", 0.0, 1)


def test_tags_are_guessed_by_the_most_frequent() -> None:
    examples = [token_example(["a", "b", "c"], ["NN", "VB", "NN"], "f:1")]
    examples.append(token_example(["d"], ["NN"], "f:4"))
    guess = baseline(POS, examples)
    assert (guess.main, guess.value) == ("accuracy", 75.0)


def test_classes_are_guessed_by_the_most_frequent() -> None:
    guess = baseline(TOPIC, texts(("rain",), ("rain",), ("life",), ("snow",)))
    assert (guess.main, guess.value) == ("accuracy", 50.0)


def test_label_sets_are_guessed_by_the_one_of_highest_f1() -> None:
    # rain alone: 2*3 / (4 + 6); rain and life: 2*5 / (8 + 6); all: 2*6 / (12 + 6)
    examples = texts(("rain", "life"), ("rain", "life"), ("rain", "snow"), ())
    guess = baseline(MANY, examples)
    assert (guess.main, guess.value) == ("f1", pytest.approx(1000 / 14))


def test_label_sets_of_nothing_are_guessed_by_nothing() -> None:
    assert baseline(MANY, texts((), ())).value == 0.0


def test_answers_are_guessed_by_silence() -> None:
    assert baseline(QA, answers(("Bern",), ("it",))).value == 0.0
    assert baseline(QA, answers(("Bern",), (), (), ())).value == 75.0  # unanswerable: right


def named(labels: list[str], examples: list[TextExample]) -> list[DocumentResult]:
    pairs = zip(labels, examples, strict=True)
    return [DocumentResult(one.text, {"topic": (Label(label, 1.0),)}, ()) for label, one in pairs]


def test_what_answers_as_the_guess_does_is_no_better() -> None:
    examples = texts(*[("rain",)] * 6, *[("life",)] * 4)
    same = score(TOPIC, examples, named(["rain"] * 10, examples))
    one_more = score(TOPIC, examples, named([*["rain"] * 9, "life"], examples))
    right = score(TOPIC, examples, named([*["rain"] * 6, *["life"] * 4], examples))
    assert (same.baseline, one_more.baseline) == (60.0, 60.0)
    assert not same.beats_baseline
    assert not one_more.beats_baseline  # one example of ten: it may be chance
    assert right.beats_baseline
    assert right.to_dict()["baseline"] == 60.0


def test_any_answers_that_are_right_beat_silence() -> None:
    examples = answers(*[("Bern",)] * 4)
    results = [
        DocumentResult(
            one.context, {}, (QuestionResult("Where?", "qa", (Answer(0, 4, "Bern", 0.9),), 0.0),)
        )
        for one in examples
    ]
    assert score(QA, examples, results).beats_baseline
