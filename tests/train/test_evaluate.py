import json
import random
import re
import string
from collections import Counter

import pytest
from seqeval import metrics
from seqeval.scheme import IOB2

from tests.small import OVERLAP, POSITIONS, long_sentence, sentences, wordpiece
from tests.train.oracle import oracle
from trunkline import Answer, DocumentResult, QuestionResult, Span
from trunkline.annotations import Label
from trunkline.decode.spans import join_tags
from trunkline.encode import TextEncoder
from trunkline.tasks import AnswerOptions, TaskSpec, TextOptions, TokenOptions
from trunkline_train.checkpoint import Checkpoint
from trunkline_train.data.examples import (
    AnswerExample,
    TextExample,
    TokenExample,
    token_example,
)
from trunkline_train.data.source import load_test
from trunkline_train.evaluate import evaluate, records, score, tuned
from trunkline_train.scores import compare
from trunkline_train.scoring.entities import Counts

LABELS = ("O", "B-LOC", "I-LOC", "B-PER", "I-PER")
NER = TaskSpec("ner", "token-classification", LABELS, TokenOptions("spans"))
POS = TaskSpec("pos", "token-classification", ("NN", "VB"), TokenOptions("tags"))
QA = TaskSpec("qa", "question-answering", (), AnswerOptions())
TOPIC = TaskSpec("topic", "text-classification", ("life", "weather"), TextOptions())
MANY = TaskSpec("topic", "text-classification", ("life", "weather"), TextOptions(multi_label=True))

# (gold answers, prediction): what the official rules treat in their own way.
RECORDED = [
    (["Bern", "in Bern"], "in Bern."),
    (["the city of Bern"], "City of  Bern"),
    (["the city of Bern", "Bern"], "Bern city"),
    (["a an the"], "the"),
    (["a an the"], "an answer"),
    (["Denver Broncos"], "The Broncos of Denver"),
    (["$1,500"], "1500"),
    (["Saint-Denis"], "Saint Denis"),
    (["naïve café"], "Naïve Café!"),
    (["42", "forty-two"], "forty two"),
    (["so so so what"], "so so"),
    ([], ""),
    ([], "Bern"),
    (["Bern"], ""),
    (["Bern"], "Lima"),
]


@pytest.fixture(scope="module")
def encoder() -> TextEncoder:
    return TextEncoder(wordpiece(), POSITIONS, OVERLAP)


def well_formed(chosen: random.Random, length: int) -> list[str]:
    tags: list[str] = []
    while len(tags) < length:
        kind, inner = chosen.choice(("LOC", "PER")), chosen.randrange(3)
        span = [f"B-{kind}", *[f"I-{kind}"] * inner]
        tags += chosen.choice((["O"], ["O"], span))
    return tags[:length]


def predicted(example: TokenExample, tags: list[str]) -> DocumentResult:
    spans = tuple(
        Span(example.words[a][0], example.words[b - 1][1], "", label, 1.0)
        for a, b, label in join_tags(tags)
    )
    return DocumentResult(example.text, {"ner": spans}, ())


@pytest.mark.parametrize("seed", range(5))
def test_entity_scores_are_those_of_seqeval(seed: int) -> None:
    chosen = random.Random(seed)
    lengths = [chosen.randrange(1, 15) for _ in range(60)]
    gold = [well_formed(chosen, length) for length in lengths]
    # Half of the sentences are predicted right, so that there is something to find.
    guess = [tags if chosen.random() < 0.5 else well_formed(chosen, len(tags)) for tags in gold]
    examples = [token_example(["word"] * len(tags), tags, "") for tags in gold]
    results = [predicted(*pair) for pair in zip(examples, guess, strict=True)]
    scores = score(NER, examples, results)
    wanted = {
        "f1": 100 * metrics.f1_score(gold, guess),
        "precision": 100 * metrics.precision_score(gold, guess),
        "recall": 100 * metrics.recall_score(gold, guess),
        "conlleval_f1": 100 * metrics.f1_score(gold, guess),
        "strict_f1": 100 * metrics.f1_score(gold, guess, mode="strict", scheme=IOB2),
    }
    assert scores.metrics == pytest.approx(wanted)
    report = metrics.classification_report(gold, guess, output_dict=True)
    for label in ("LOC", "PER"):
        assert scores.by_label[label].f1 == pytest.approx(100 * report[label]["f1-score"])
        assert scores.by_label[label].gold == report[label]["support"]
    assert (scores.main, scores.n, scores.kind) == ("f1", 60, NER.kind)
    assert 0 < scores.value < 100
    assert scores.intervals.keys() == scores.metrics.keys()
    bounds = scores.intervals["f1"]
    assert bounds.low < scores.value < bounds.high


def test_a_type_training_never_saw_counts_as_missed() -> None:
    example = token_example(["Bern", "Ada"], ["B-LOC", "B-MISC"], "")
    scores = score(NER, [example], [predicted(example, ["B-LOC", "O"])])
    assert (scores.metrics["precision"], scores.metrics["recall"]) == (100.0, 50.0)
    assert scores.by_label == {"LOC": Counts(1, 1, 1), "MISC": Counts(0, 0, 1)}
    assert scores.confusion is not None
    assert scores.confusion.labels == ("LOC", "MISC", "(none)")
    assert scores.confusion.matrix() == ((1, 0, 0), (0, 0, 1), (0, 0, 0))


def test_a_tag_is_that_of_the_words_first_unit() -> None:
    words = [token_example(["Saint-Denis", "rained", "away"], ["NN", "VB", "NN"], "")]
    spans = tuple(
        Span(start, end, "", tag, 1.0)
        for start, end, tag in ((0, 5, "NN"), (5, 6, "VB"), (6, 11, "VB"), (12, 18, "NN"))
    )
    scores = score(POS, words, [DocumentResult(words[0].text, {"pos": spans}, ())])
    assert scores.value == pytest.approx(100 / 3)  # the word without a prediction is wrong
    assert scores.main == "accuracy"
    assert scores.by_label == {"NN": Counts(1, 2, 2), "VB": Counts(0, 0, 1)}
    assert scores.confusion is not None
    assert scores.confusion.labels == ("NN", "VB", "(none)")
    assert scores.confusion.matrix() == ((1, 0, 1), (1, 0, 0), (0, 0, 0))


def classified(spec: TaskSpec, gold: list[str], *labels: str) -> tuple[TextExample, DocumentResult]:
    found = tuple(Label(label, 0.9) for label in labels)
    return TextExample("a", None, tuple(gold), ""), DocumentResult("a", {spec.name: found}, ())


def test_a_text_is_taken_for_its_best_label() -> None:
    pairs = [
        classified(TOPIC, ["life"], "life", "weather"),
        classified(TOPIC, ["life"], "weather", "life"),
        classified(TOPIC, ["weather"], "weather"),
        classified(TOPIC, ["weather"]),  # an empty text has no label
    ]
    examples, results = zip(*pairs, strict=True)
    scores = score(TOPIC, examples, results)
    assert (scores.main, scores.value) == ("accuracy", 50.0)
    assert scores.metrics["macro_f1"] == pytest.approx(100 * (2 / 3 + 1 / 2) / 2)
    assert scores.by_label == {"life": Counts(1, 1, 2), "weather": Counts(1, 2, 2)}
    assert scores.confusion is not None
    assert scores.confusion.labels == ("life", "weather", "(none)")
    assert scores.confusion.matrix() == ((1, 1, 0), (0, 1, 1), (0, 0, 0))


def test_all_labels_of_a_multi_label_text_count() -> None:
    pairs = [
        classified(MANY, ["life", "weather"], "weather", "life"),
        classified(MANY, ["life"], "life", "weather"),
        classified(MANY, []),
    ]
    examples, results = zip(*pairs, strict=True)
    scores = score(MANY, examples, results)
    assert (scores.main, scores.confusion) == ("f1", None)
    assert scores.metrics == pytest.approx(
        {"f1": 600 / 7, "macro_f1": 100 * (1 + 2 / 3) / 2, "exact_match": 200 / 3}
    )


def answered(golds: list[str], guess: str) -> tuple[AnswerExample, DocumentResult]:
    example = AnswerExample("1", "Where?", "", tuple(golds), (0,) * len(golds), "")
    answers = (Answer(0, len(guess), guess, 1.0),) if guess else ()
    return example, DocumentResult("", {}, (QuestionResult("Where?", "qa", answers, 0.0),))


def official(text: str) -> list[str]:
    """The words that count, by the rules of evaluate-v2.0.py, written anew."""
    kept = "".join(c for c in text.lower() if c not in string.punctuation)
    return [word for word in re.split(r"\s+", kept) if word and word not in ("a", "an", "the")]


def official_f1(gold: str, guess: str) -> float:
    truth, found = official(gold), official(guess)
    same = sum((Counter(truth) & Counter(found)).values())
    if not truth or not found:
        return float(truth == found)
    precision, recall = same / len(found), same / len(truth)
    return 2 * precision * recall / (precision + recall) if same else 0.0


@pytest.mark.parametrize(("golds", "guess"), RECORDED)
def test_answer_scores_follow_the_official_rules(golds: list[str], guess: str) -> None:
    example, result = answered(golds, guess)
    scores = score(QA, [example], [result])
    counted = [gold for gold in golds if official(gold)] or [""]
    exact = 100 * max(official(gold) == official(guess) for gold in counted)
    f1 = 100 * max(official_f1(gold, guess) for gold in counted)
    wanted = {"exact_match": exact, "f1": f1} | ({} if golds else {"no_answer_accuracy": exact})
    assert scores.metrics == pytest.approx(wanted)


def test_answer_scores_are_those_of_transformers() -> None:
    # transformers 4 ships the official functions; 5 no longer does.
    squad = pytest.importorskip("transformers.data.metrics.squad_metrics")
    pairs = [answered(golds, guess) for golds, guess in RECORDED]
    scores = score(QA, *zip(*pairs, strict=True))
    exact = f1 = 0.0
    for golds, guess in RECORDED:
        counted = [gold for gold in golds if squad.normalize_answer(gold)] or [""]
        exact += max(squad.compute_exact(gold, guess) for gold in counted)
        f1 += max(squad.compute_f1(gold, guess) for gold in counted)
    n = len(RECORDED)
    assert scores.metrics["exact_match"] == pytest.approx(100 * exact / n)
    assert scores.metrics["f1"] == pytest.approx(100 * f1 / n)
    assert scores.n == n


def test_the_no_answer_threshold_is_tuned_where_some_questions_have_none(
    encoder: TextEncoder,
) -> None:
    has = AnswerExample("1", "Where ?", "Ada lives in Bern .", ("Bern",), (13,), "")
    lacks = AnswerExample("2", "Who ?", "it rained yesterday .", (), (), "")
    pipeline = oracle(QA, [has, lacks], encoder)
    before = evaluate(QA, pipeline, [has, lacks])
    assert before.metrics["no_answer_accuracy"] == 0.0  # without a threshold all are answered
    spec = tuned(QA, pipeline, [has, lacks])
    assert isinstance(spec.options, AnswerOptions)
    assert spec.options.no_answer_threshold is not None
    assert 0.0 < spec.options.no_answer_threshold < 1.0
    # The pipeline still holds the task as it was: what is scored is the task that is given.
    after = evaluate(spec, pipeline, [has, lacks])
    assert after.metrics == {
        "exact_match": 100.0,
        "f1": 100.0,
        "no_answer_accuracy": 100.0,
        "has_answer_exact_match": 100.0,
        "has_answer_f1": 100.0,
    }
    assert tuned(spec, pipeline, [has, lacks]) is spec  # what is set stays


def test_other_tasks_are_not_tuned(encoder: TextEncoder) -> None:
    has = AnswerExample("1", "Where ?", "Ada lives in Bern .", ("Bern",), (13,), "")
    assert tuned(QA, oracle(QA, [has], encoder), [has]) is QA
    example = token_example(["Bern"], ["B-LOC"], "")
    assert tuned(NER, oracle(NER, [example], encoder), [example]) is NER


def test_two_systems_are_compared_on_the_same_examples() -> None:
    examples = [token_example(["Bern", "Ada"], ["B-LOC", "B-PER"], "")] * 40
    good = [predicted(example, ["B-LOC", "B-PER"]) for example in examples]
    half = [predicted(example, ["B-LOC", "O"]) for example in examples]
    before = score(NER, examples, half[:20] + good[20:])
    after = score(NER, examples, good)
    found = compare(before, after)
    assert found.keys() == before.metrics.keys()
    assert found["recall"].value == pytest.approx(25.0)
    assert 0.0 < found["f1"].low < found["f1"].value < found["f1"].high
    assert compare(after, after)["strict_f1"].value == 0.0
    with pytest.raises(ValueError, match="40 examples cannot be paired with 20"):
        compare(before, score(NER, examples[:20], good[:20]))


def test_scores_as_json_hold_all_but_the_examples() -> None:
    example = token_example(["Bern", "Ada"], ["B-LOC", "B-PER"], "")
    scores = score(NER, [example], [predicted(example, ["B-LOC", "B-LOC"])])
    data = json.loads(json.dumps(scores.to_dict()))
    assert data["kind"] == "token-classification"
    assert data["metrics"]["f1"] == data["intervals"]["f1"][0] == 50.0
    assert data["by_label"]["PER"] == {
        "correct": 0,
        "predicted": 0,
        "gold": 1,
        "precision": 0.0,
        "recall": 0.0,
        "f1": 0.0,
    }
    pairs = [["LOC", "LOC", 1], ["PER", "LOC", 1]]
    assert data["confusion"] == {"labels": ["LOC", "PER"], "pairs": pairs}
    assert (data["main"], data["n"]) == ("f1", 1)


def test_records_hold_gold_and_what_a_client_gets() -> None:
    example = token_example(["Ada", "Brown", "left"], ["B-PER", "I-PER", "O"], "file:3")
    (record,) = records(NER, [example], [predicted(example, ["B-PER", "O", "O"])])
    assert record["gold"] == [{"start": 0, "end": 9, "text": "Ada Brown", "label": "PER"}]
    assert (record["task"], record["where"]) == ("ner", "file:3")
    assert [span["end"] for span in record["predicted"]["tasks"]["ner"]] == [3]
    tags = token_example(["Ada", "left"], ["NN", "VB"], "")
    (record,) = records(POS, [tags], [DocumentResult("Ada left", {"pos": ()}, ())])
    assert [gold["label"] for gold in record["gold"]] == ["NN", "VB"]
    (record,) = records(QA, *([one] for one in answered(["Bern", "in Bern"], "Bern")))
    assert record["gold"] == ["Bern", "in Bern"]
    assert record["predicted"]["questions"][0]["answers"][0]["text"] == "Bern"
    (record,) = records(TOPIC, *([one] for one in classified(TOPIC, ["life"], "weather")))
    assert record["gold"] == ["life"]
    assert record["predicted"]["tasks"]["topic"][0]["label"] == "weather"


def test_gold_past_the_first_window_counts(encoder: TextEncoder) -> None:
    example = token_example(*map(list, zip(*long_sentence(), strict=True)), "here")
    assert evaluate(NER, oracle(NER, [example], encoder), [example]).value == 100.0
    deaf = evaluate(NER, oracle(NER, [example], encoder, deaf=1), [example])
    assert deaf.metrics["recall"] < 90.0


def test_questions_count_once_however_many_windows_they_take(encoder: TextEncoder) -> None:
    context = "it rained . " * 60 + "Ada lives in Bern ."
    start = context.index("Bern")
    long = AnswerExample("1", "Where ?", context, ("Bern",), (start,), "")
    short = AnswerExample("2", "Where ?", "in Lima .", ("Lima",), (3,), "")
    examples = [long, short]
    assert len(encoder.rows(encoder.tokenize(context), encoder.tokenize("Where ?"))) > 3
    scores = evaluate(QA, oracle(QA, examples, encoder), examples)
    assert (scores.n, scores.metrics["exact_match"]) == (2, 100.0)
    # A model that finds nothing wins no points with the windows that hold nothing.
    none = oracle(QA, [long], encoder, deaf=1)
    assert evaluate(QA, none, [long]).metrics["exact_match"] == 0.0


def test_the_small_model_has_learnt(checkpoint: Checkpoint) -> None:
    ner, qa = checkpoint.tasks
    pipeline = checkpoint.pipeline()
    scores = {
        spec.name: evaluate(spec, pipeline, load_test(checkpoint.config.tasks[spec.name], "test"))
        for spec in (ner, qa)
    }
    assert scores["ner"].value > 60.0
    assert scores["qa"].value > 20.0
    assert (scores["ner"].n, scores["qa"].n) == (20, 16)


def test_evaluation_does_not_change_the_model(checkpoint: Checkpoint) -> None:
    example = token_example(*map(list, zip(*sentences(1, 1)[0], strict=True)), "here")
    before = {name: value.clone() for name, value in checkpoint.model.state_dict().items()}
    checkpoint.model.train()
    evaluate(checkpoint.tasks[0], checkpoint.pipeline(), [example])
    assert checkpoint.model.training  # evaluation puts the mode back
    checkpoint.model.eval()
    after = checkpoint.model.state_dict()
    assert all(bool((before[name] == after[name]).all()) for name in before)
