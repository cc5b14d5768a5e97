"""The defects of the usual multitask notebook, one by one: each test claims its absence.

The numbers are those of the list the project began with: D data, O mixing and optimisation,
E evaluation, I inference, S saving. Without a test here: D10, a matter of speed; O8, for gradients
are not accumulated over steps; E6, a matter of experiments.
"""

import inspect
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.small import OVERLAP, POSITIONS, Corpus, bert, long_sentence, wordpiece
from tests.train.oracle import oracle, outputs
from trunkline import Answer, Document, DocumentResult, Question, QuestionResult
from trunkline.encode import Encoded, TextEncoder
from trunkline.errors import DataError
from trunkline.kinds import decode, task_outputs
from trunkline.tasks import AnswerOptions, TaskSpec, TokenOptions
from trunkline_train import loop
from trunkline_train.checkpoint import Checkpoint, load_checkpoint
from trunkline_train.config import Limit, TaskConfig
from trunkline_train.data.examples import AnswerExample, TokenExample, token_example
from trunkline_train.data.source import load_test, read_splits
from trunkline_train.evaluate import evaluate, score
from trunkline_train.features.build import build_features
from trunkline_train.features.targets import IGNORE
from trunkline_train.loop import Run
from trunkline_train.model.multitask import MultitaskModel
from trunkline_train.parallel import Workers
from trunkline_train.step import Stepper, StepResult

NER = TaskSpec(
    "ner",
    "token-classification",
    ("O", "B-LOC", "I-LOC", "B-PER", "I-PER"),
    TokenOptions("spans"),
)
QA = TaskSpec("qa", "question-answering", (), AnswerOptions())
STILL = (
    "model.dropout=0",
    "model.attention_dropout=0",
    "tasks.ner.limit.train=24",
    "tasks.qa.limit.train=40",
)


@pytest.fixture(scope="module")
def encoder() -> TextEncoder:
    return TextEncoder(wordpiece(), POSITIONS, OVERLAP)


def tagged(pairs: Sequence[tuple[str, str]]) -> TokenExample:
    return token_example([word for word, _ in pairs], [tag for _, tag in pairs], "here")


def prepared(corpus: Corpus, *changes: str) -> Run:
    torch.manual_seed(0)
    return loop._prepare(corpus.load(*STILL, *changes), Workers("cpu"), None)


def step(run: Run, number: int = 0) -> StepResult:
    """Leaves a step's gradient on the model."""
    workers = Workers("cpu")
    made = Stepper(
        run.checkpoint, run.streams, mixer=run.mixer, balancer=run.balancer, workers=workers
    )
    return made.run(number)


def answered(text: str) -> DocumentResult:
    found = QuestionResult("Where?", "qa", (Answer(0, len(text), text, 1.0),), 0.0)
    return DocumentResult("", {}, (found,))


def predicted(tags: Sequence[str], encoder: TextEncoder) -> list[tuple[str, str]]:
    """Returns (text, label) of what decodes where these are the most probable tags, B- the next."""
    tokens = encoder.tokenize("Ada Brown Bern")
    (row,) = encoder.rows(tokens)
    logits = np.zeros((len(row), len(NER.labels)), np.float32)
    for place, tag in enumerate(tags, start=1):
        logits[place, NER.labels.index(tag.replace("I-", "B-"))] = 1.0
        logits[place, NER.labels.index(tag)] = 5.0
    spans = decode(NER, Encoded(tokens, (row,)), [{"ner.logits": logits}])
    return [(span.text, span.label) for span in spans]


# Data


def test_d1_a_limit_takes_examples_of_many_articles(corpus: Corpus) -> None:
    path = str(corpus.folder / "qa.train.json")
    train, dev, _ = read_splits(TaskConfig("question-answering", path, limit=Limit(20, 2)))
    assert len({example.group for example in train}) > 10
    assert not {example.group for example in train} & {example.group for example in dev}


def test_d2_nothing_depends_on_an_unset_seed(corpus: Corpus) -> None:
    def weights() -> list[torch.Tensor]:
        random.seed()
        np.random.seed()
        run = prepared(corpus)
        step(run, 3)
        return [p.grad for p in run.checkpoint.model.parameters() if p.grad is not None]

    one, two = weights(), weights()
    assert all(torch.equal(*pair) for pair in zip(one, two, strict=True))


def test_d3_the_case_of_the_text_reaches_the_model(encoder: TextEncoder) -> None:
    assert encoder.tokenize("Bern").ids.tolist() != encoder.tokenize("bern").ids.tolist()


def test_d4_a_source_that_fails_is_never_replaced_by_another(corpus: Corpus) -> None:
    with pytest.raises(DataError, match="hub:eriktks/conll2003#train: cannot be loaded"):
        read_splits(corpus.load("tasks.ner.train=hub:eriktks/conll2003#train").tasks["ner"])


def test_d5_labels_come_from_the_data_and_stay_with_the_model(checkpoint: Checkpoint) -> None:
    assert checkpoint.tasks[0].labels == NER.labels
    assert checkpoint.model.head("ner").linear.out_features == len(NER.labels)


def test_d6_a_long_sentence_keeps_its_gold_in_training_and_score(encoder: TextEncoder) -> None:
    example = tagged(long_sentence())
    features = build_features(NER, [example], encoder)
    assert len(features) > 1
    labelled = sum(int((f.targets["labels"] != IGNORE).sum()) for f in features)
    assert labelled == len(set(encoder.tokenize(example.text).units.tolist()))
    blind = oracle(NER, [example], encoder, deaf=len(features))
    assert evaluate(NER, blind, [example]).metrics["recall"] == 0.0
    assert evaluate(NER, oracle(NER, [example], encoder), [example]).value == 100.0


def test_d7_a_batch_is_padded_little_over_its_longest_row(corpus: Corpus) -> None:
    run = prepared(corpus)
    for stream in run.streams:
        for number in range(stream.batches.per_pass):
            batch = stream.batch(number, run.checkpoint.pad_id, POSITIONS)
            longest = int(batch.inputs["attention_mask"].sum(dim=1).max())
            assert longest <= batch.shape[1] < min(longest + 16, POSITIONS + 1)


def test_d8_a_long_question_is_named_and_every_window_is_full(encoder: TextEncoder) -> None:
    context = "it rained . " * 60
    example = AnswerExample("1", "where " * 40, context, (), (), "qa.json question 7")
    with pytest.raises(DataError, match=r"qa.json question 7: question: has 40 tokens"):
        build_features(QA, [example], encoder)
    rows = encoder.rows(encoder.tokenize(context), encoder.tokenize("where " * 20))
    assert {len(row) for row in rows} == {POSITIONS}


def test_d9_the_model_sees_which_segment_is_the_context(corpus: Corpus) -> None:
    run = prepared(corpus)
    inputs = run.streams[1].batch(0, run.checkpoint.pad_id, POSITIONS).inputs
    assert inputs["token_type_ids"].unique().tolist() == [0, 1]
    flat = {**inputs, "token_type_ids": torch.zeros_like(inputs["token_type_ids"])}
    model = run.checkpoint.model.eval()
    assert not torch.allclose(model.hidden(**inputs), model.hidden(**flat))


# Mixing and optimisation


def test_o1_every_step_trains_every_task_to_the_end(corpus: Corpus) -> None:
    run = prepared(corpus)
    small, large = (stream.batches.per_pass for stream in run.streams)
    assert (small, large) == (3, 5)
    for number in (0, small, large - 1, 3 * large - 1):
        run.checkpoint.model.zero_grad()
        losses = step(run, number).losses
        assert set(losses) == {"ner", "qa"}
        for task in losses:
            gradient = run.checkpoint.model.head(task).linear.weight.grad
            assert gradient is not None
            assert float(gradient.abs().max()) > 0.0


def test_o2_batches_follow_from_the_step_without_any_iterator(corpus: Corpus) -> None:
    batches = prepared(corpus).streams[1].batches
    assert [batches.at(number) for number in (4, 0, 4)] == [
        batches.at(number) for number in (4, 0, 4)
    ]


def update(corpus: Corpus, *changes: str) -> torch.Tensor:
    """Returns what the first step does to the encoder, as one vector."""
    run = prepared(corpus, *changes)
    model = run.checkpoint.model
    before = torch.cat([p.detach().flatten() for p in model.encoder.parameters()])
    step(run)
    run.optimizer.step()
    return torch.cat([p.detach().flatten() for p in model.encoder.parameters()]) - before


def test_o3_a_weight_changes_the_update_even_under_clipping(corpus: Corpus) -> None:
    clipped = "training.clip_norm=0.001"
    even = update(corpus, clipped)
    assert torch.equal(update(corpus, clipped), even)
    tilted = update(corpus, clipped, "tasks.ner.weight=20")
    assert float(torch.cosine_similarity(even, tilted, dim=0)) < 0.9
    # A weight common to all tasks cancels out, as it does in a step of one task alone.
    common = update(corpus, clipped, "tasks.ner.weight=20", "tasks.qa.weight=20")
    assert float(torch.cosine_similarity(even, common, dim=0)) > 0.999


def test_o4_biases_and_norms_do_not_decay(corpus: Corpus) -> None:
    run = prepared(corpus)
    checkpoint, groups = run.checkpoint, run.optimizer.param_groups
    names = {id(parameter): name for name, parameter in checkpoint.model.named_parameters()}
    decays = {names[id(p)]: group["weight_decay"] for group in groups for p in group["params"]}
    assert decays.keys() == set(names.values())
    for name, decay in decays.items():
        bare = name.endswith(".bias") or "LayerNorm" in name
        assert decay == (0.0 if bare else checkpoint.config.training.weight_decay), name


def test_o5_the_logged_loss_is_not_the_weighted_one(corpus: Corpus) -> None:
    def losses(*changes: str) -> dict[str, float]:
        return step(prepared(corpus, *changes)).losses

    assert losses() == losses("tasks.ner.weight=20")


def test_o6_no_parameter_is_idle_and_the_best_model_is_kept(corpus: Corpus, trained: Path) -> None:
    run = prepared(corpus)
    step(run)
    idle = [name for name, p in run.checkpoint.model.named_parameters() if p.grad is None]
    assert idle == []
    assert load_checkpoint(trained / "best").progress.best is not None


def test_o7_a_head_knows_its_own_labels_and_a_batch_without_any_gives_no_nan() -> None:
    pos = TaskSpec("pos", "token-classification", tuple("ABCDEFG"), TokenOptions("tags"))
    model = MultitaskModel(bert(), (NER, pos), 0.0)
    ones = torch.ones(2, 5, dtype=torch.int64)
    shapes = [tuple(value.shape) for value in model(ones, ones, ones).values()]
    assert shapes == [(2, 5, 5), (2, 5, 7)]
    for spec in (NER, pos):
        head = model.head(spec.name)
        value = head.loss(head(model.hidden(ones, ones)), {"labels": ones * IGNORE})
        assert float(value.detach()) == 0.0


# Evaluation


@pytest.mark.parametrize("guess", ["Saint-Denis", "the city of Saint Denis", "saint denis."])
def test_e1_any_gold_answer_counts_after_normalising(guess: str) -> None:
    golds = ("City of Saint Denis", "SaintDenis", "Saint Denis")
    example = AnswerExample("1", "Where?", "", golds, (0, 0, 0), "")
    assert score(QA, [example], [answered(guess)]).metrics["exact_match"] == 100.0


def test_e2_questions_are_counted_and_not_their_windows(encoder: TextEncoder) -> None:
    context = "it rained . " * 60 + "Ada lives in Bern ."
    example = AnswerExample("1", "Where ?", context, ("Bern",), (context.index("Bern"),), "")
    windows = len(build_features(QA, [example], encoder))
    assert windows > 3
    # Only the window with the answer is not understood; all others say "not here".
    scores = evaluate(QA, oracle(QA, [example], encoder, deaf=1), [example])
    assert (scores.n, scores.metrics["exact_match"]) == (1, 0.0)


def test_e3_f1_is_reported() -> None:
    example = AnswerExample("1", "Where?", "", ("New York City",), (0,), "")
    scores = score(QA, [example], [answered("New York")])
    assert scores.metrics == pytest.approx({"exact_match": 0.0, "f1": 80.0})


def test_e4_an_answer_never_ends_before_it_starts_nor_lies_in_the_question(
    encoder: TextEncoder,
) -> None:
    tokens = encoder.tokenize("Ada lives in Bern .")
    (row,) = encoder.rows(tokens, encoder.tokenize("Where does Ada live ?"))
    start, end = (np.zeros(len(row), np.float32) for _ in range(2))
    start[[1, row.offset + 3]] = 9.0, 5.0  # a word of the question, then Bern
    end[[2, row.offset]] = 9.0, 5.0  # the next word of the question, then Ada
    values = {"qa.start_logits": start, "qa.end_logits": end}
    found = decode(QA, Encoded(tokens, (row,)), [values])
    (best,) = found.best
    assert best.text
    assert tokens.text[best.start : best.end] == best.text
    assert best.text in ("Ada", "Bern", "Bern .")


def test_e5_test_data_is_scored_and_every_word_of_it(corpus: Corpus) -> None:
    examples = load_test(corpus.load().tasks["ner"], "test")
    written = (corpus.folder / "ner.test").read_text().splitlines()
    words = [line.split()[0] for line in written if line and "DOCSTART" not in line]
    assert [word for example in examples for word in example.text.split()] == words


# Inference


def test_i1_continuation_pieces_have_no_say(encoder: TextEncoder) -> None:
    example = tagged([("Ivo", "B-PER"), ("Wilson", "I-PER"), ("in", "O"), ("Hamburg", "B-LOC")])
    (feature,) = build_features(NER, [example], encoder)
    tokens = encoder.tokenize(example.text)
    values = outputs(NER, feature)  # nonsense where there is no target
    spans = decode(NER, Encoded(tokens, (feature.row,)), [values])
    assert [(s.text, s.label) for s in spans] == [
        ("Ivo Wilson", "PER"),
        ("Hamburg", "LOC"),
    ]


TEXTS = (
    "Ada  Brown lives in\tSaint-Denis .",
    "Eva Stone met Tom Reed in Hamburg (the city) yesterday.",
    "ADA BROWN: 'it rained'.",
    "Zoë 😀 lives in 東京, Mia Keller in Oslo.",
)


@pytest.mark.parametrize("text", TEXTS)
def test_i2_what_is_reported_is_a_slice_of_the_text(checkpoint: Checkpoint, text: str) -> None:
    (result,) = checkpoint.pipeline().analyze([Document(text, (Question("Where ?"),))])
    found = [*result.tasks["ner"], *result.questions[0].answers]
    assert found
    assert all(text[one.start : one.end] == one.text for one in found)


@pytest.mark.parametrize(
    ("tags", "found"),
    [
        (["I-PER", "I-PER", "O"], [("Ada Brown", "PER")]),
        (["B-PER", "I-PER", "I-LOC"], [("Ada Brown", "PER"), ("Bern", "LOC")]),
        (["B-PER", "B-PER", "B-LOC"], [("Ada", "PER"), ("Brown", "PER"), ("Bern", "LOC")]),
        (["O", "O", "I-LOC"], [("Bern", "LOC")]),
    ],
)
def test_i3_tags_that_do_not_follow_become_spans_all_the_same(
    encoder: TextEncoder, tags: list[str], found: list[tuple[str, str]]
) -> None:
    assert predicted(tags, encoder) == found


def test_i4_plain_text_is_read_as_the_words_of_training_were(encoder: TextEncoder) -> None:
    words = "Ada Brown lives in Saint-Denis , ( the city ) ."
    plain = "Ada Brown lives in Saint-Denis, (the city)."
    for field in ("ids", "units"):
        one, two = (getattr(encoder.tokenize(text), field) for text in (words, plain))
        assert one.tolist() == two.tolist()


def test_i5_a_text_that_names_special_tokens_is_only_a_text(checkpoint: Checkpoint) -> None:
    text = "[SEP] Ada Brown [CLS] lives in Bern [PAD] ."
    tokens = checkpoint.encoder.tokenize(text)
    special = {checkpoint.encoder._tokenizer.token_to_id(name) for name in ("[SEP]", "[CLS]")}
    assert not special & set(tokens.ids.tolist())
    (result,) = checkpoint.pipeline().analyze([Document(text)])
    assert all(text[span.start : span.end] == span.text for span in result.tasks["ner"])


def test_i6_no_part_of_a_long_text_vanishes(encoder: TextEncoder) -> None:
    document = encoder.tokenize("it rained . " * 200 + "in Bern .")
    for question in (None, encoder.tokenize("Where did it rain ?")):
        rows = encoder.rows(document, question)
        read = [at for row in rows for at in range(row.own_begin, row.own_end)]
        assert read == list(range(len(document)))
        if question is not None:  # nor of the question
            whole = question.ids.tolist()
            assert all(row.input_ids[1 : 1 + len(question)].tolist() == whole for row in rows)


def test_i7_answers_have_offsets_scores_and_alternatives(checkpoint: Checkpoint) -> None:
    text = "Ada Brown lives in Bern. It rained today. " * 12
    asked = (Question("Where does Ada Brown live?"),)
    (result,) = checkpoint.pipeline().analyze([Document(text, asked)])
    (question,) = result.questions
    assert len(question.answers) == 3  # n_best of the configuration
    scores = [answer.score for answer in question.answers]
    assert scores == sorted(scores, reverse=True)
    assert 0.0 < sum(scores) + question.no_answer_score <= 1.0 + 1e-6
    assert all(text[a.start : a.end] == a.text != "" for a in question.answers)


def test_i8_many_texts_at_once_give_what_each_gives_alone(checkpoint: Checkpoint) -> None:
    pipeline = checkpoint.pipeline()
    documents = [Document(text, (Question("Where ?"),)) for text in TEXTS]
    together = pipeline.analyze(documents)
    for document, result in zip(documents, together, strict=True):
        (alone,) = pipeline.analyze([document])
        assert _places(alone) == _places(result)


def _places(result: DocumentResult) -> list[tuple[int, int]]:
    found = [*result.tasks["ner"], *result.questions[0].answers]
    return [(one.start, one.end) for one in found]


# Saving


def test_s1_a_checkpoint_needs_nothing_beside_it(trained: Path) -> None:
    loaded = load_checkpoint(trained / "last")
    assert [spec.name for spec in loaded.tasks] == ["ner", "qa"]
    assert loaded.tasks[0].labels == NER.labels
    assert loaded.encoder.max_length == POSITIONS
    assert loaded.progress.step == 40
    (result,) = loaded.pipeline().analyze([Document("Ada Brown lives in Bern.")])
    assert result.tasks["ner"]


def test_s2_the_model_takes_tensors_alone_and_always_gives_every_output(
    checkpoint: Checkpoint,
) -> None:
    taken = list(inspect.signature(MultitaskModel.forward).parameters)
    assert taken == ["self", "input_ids", "attention_mask", "token_type_ids"]
    ones = torch.ones(1, 4, dtype=torch.int64)
    expected = [output.name for spec in checkpoint.tasks for output in task_outputs(spec)]
    assert list(checkpoint.model(ones, ones, ones)) == expected
    assert list(checkpoint.model(ones[:, :1], ones[:, :1])) == expected
