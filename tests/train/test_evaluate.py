import random
import re
import string
from collections import Counter

import pytest
from seqeval import metrics
from seqeval.scheme import IOB2

from tests.small import OVERLAP, POSITIONS, long_sentence, sentences, wordpiece
from tests.train.oracle import Told, oracle
from trunkline import Answer, DocumentResult, QuestionResult, Span
from trunkline.decode.spans import join_tags
from trunkline.encode import TextEncoder
from trunkline.tasks import AnswerOptions, TaskSpec, TokenOptions
from trunkline_train.checkpoint import Checkpoint
from trunkline_train.data.examples import AnswerExample, TokenExample, token_example
from trunkline_train.data.source import load_test
from trunkline_train.evaluate import evaluate

LABELS = ("O", "B-LOC", "I-LOC", "B-PER", "I-PER")
NER = TaskSpec("ner", "token-classification", LABELS, TokenOptions("spans"))
POS = TaskSpec("pos", "token-classification", ("NN", "VB"), TokenOptions("tags"))
QA = TaskSpec("qa", "question-answering", (), AnswerOptions())

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
    scores = evaluate(NER, Told(results), examples)
    for scheme in ({}, {"mode": "strict", "scheme": IOB2}):
        assert scores.metrics == pytest.approx(
            {
                "f1": 100 * metrics.f1_score(gold, guess, **scheme),
                "precision": 100 * metrics.precision_score(gold, guess, **scheme),
                "recall": 100 * metrics.recall_score(gold, guess, **scheme),
            }
        )
        report = metrics.classification_report(gold, guess, output_dict=True, **scheme)
        assert scores.by_label == pytest.approx(
            {label: 100 * report[label]["f1-score"] for label in ("LOC", "PER")}
        )
    assert (scores.main, scores.n) == ("f1", 60)
    assert 0 < scores.value < 100


def test_a_type_training_never_saw_counts_as_missed() -> None:
    example = token_example(["Bern", "Ada"], ["B-LOC", "B-MISC"], "")
    scores = evaluate(NER, Told([predicted(example, ["B-LOC", "O"])]), [example])
    assert (scores.metrics["precision"], scores.metrics["recall"]) == (100.0, 50.0)
    assert scores.by_label == {"LOC": 100.0, "MISC": 0.0}


def test_a_tag_is_that_of_the_words_first_unit() -> None:
    words = [token_example(["Saint-Denis", "rained", "away"], ["NN", "VB", "NN"], "")]
    spans = tuple(
        Span(start, end, "", tag, 1.0)
        for start, end, tag in ((0, 5, "NN"), (5, 6, "VB"), (6, 11, "VB"), (12, 18, "NN"))
    )
    scores = evaluate(POS, Told([DocumentResult(words[0].text, {"pos": spans}, ())]), words)
    assert scores.value == pytest.approx(100 / 3)  # the word without a prediction is wrong
    assert (scores.main, scores.by_label) == ("accuracy", {"NN": 50.0, "VB": 0.0})


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
    scores = evaluate(QA, Told([result]), [example])
    counted = [gold for gold in golds if official(gold)] or [""]
    assert scores.metrics == pytest.approx(
        {
            "exact_match": 100 * max(official(gold) == official(guess) for gold in counted),
            "f1": 100 * max(official_f1(gold, guess) for gold in counted),
        }
    )


def test_answer_scores_are_those_of_transformers() -> None:
    squad = pytest.importorskip("transformers.data.metrics.squad_metrics")
    pairs = [answered(golds, guess) for golds, guess in RECORDED]
    scores = evaluate(QA, Told([result for _, result in pairs]), [example for example, _ in pairs])
    exact = f1 = 0.0
    for golds, guess in RECORDED:
        counted = [gold for gold in golds if squad.normalize_answer(gold)] or [""]
        exact += max(squad.compute_exact(gold, guess) for gold in counted)
        f1 += max(squad.compute_f1(gold, guess) for gold in counted)
    n = len(RECORDED)
    assert scores.metrics == pytest.approx({"exact_match": 100 * exact / n, "f1": 100 * f1 / n})
    assert scores.n == n


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
