from collections.abc import Callable, Sequence

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers

from tests.small import OVERLAP, POSITIONS, Corpus, long_sentence, sentences, wordpiece
from tests.train.oracle import outputs
from trunkline.annotations import Answers
from trunkline.decode.spans import join_tags
from trunkline.encode import Encoded, Row, TextEncoder
from trunkline.errors import DataError
from trunkline.kinds import decode
from trunkline.tasks import AnswerOptions, TaskSpec, TextOptions, TokenOptions
from trunkline_train.data.examples import (
    AnswerExample,
    TextExample,
    TokenExample,
    token_example,
)
from trunkline_train.data.source import read_splits
from trunkline_train.features.build import build_features, check_room
from trunkline_train.features.targets import IGNORE

NER = TaskSpec(
    "ner",
    "token-classification",
    ("O", "B-LOC", "I-LOC", "B-PER", "I-PER"),
    TokenOptions("spans"),
)
QA = TaskSpec("qa", "question-answering", (), AnswerOptions())
TOPIC = TaskSpec("topic", "text-classification", ("life", "news"), TextOptions())


def bytelevel(*, trim: bool) -> Tokenizer:
    """Returns a byte-level BPE tokenizer, whose tokens may count the blank before a word."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=330,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = [" ".join(word for word, _ in sentence) for sentence in sentences(60, 1)]
    tokenizer.train_from_iterator(texts, trainer)
    if trim:
        tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    else:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>",
            pair="<s> $A </s> $B </s>",
            special_tokens=[("<s>", 0), ("</s>", 2)],
        )
    return tokenizer


ENCODERS: dict[str, Callable[[], TextEncoder]] = {
    "word pieces": lambda: TextEncoder(wordpiece(), POSITIONS, OVERLAP),
    "bytes": lambda: TextEncoder(bytelevel(trim=True), POSITIONS, OVERLAP),
    "bytes with blanks": lambda: TextEncoder(bytelevel(trim=False), POSITIONS, OVERLAP),
}


@pytest.fixture(scope="module", params=ENCODERS.values(), ids=ENCODERS.keys())
def encoder(request: pytest.FixtureRequest) -> TextEncoder:
    made: TextEncoder = request.param()
    return made


@pytest.fixture(scope="module")
def pieces() -> TextEncoder:
    return ENCODERS["word pieces"]()


def tagged(sentence: Sequence[tuple[str, str]]) -> TokenExample:
    return token_example([word for word, _ in sentence], [tag for _, tag in sentence], "here")


def gold(example: TokenExample) -> list[tuple[int, int, str]]:
    words = example.words
    return [(words[a][0], words[b - 1][1], label) for a, b, label in join_tags(example.tags)]


def asked(context: str, answer: str, question: str = "Where ?") -> AnswerExample:
    start = context.rindex(answer) if answer else 0
    found = ((answer,), (start,)) if answer else ((), ())
    return AnswerExample("1", question, context, *found, "here")


@pytest.mark.parametrize("sentence", [*sentences(12, 8), long_sentence()], ids=len)
def test_targets_decode_to_the_gold_spans(
    encoder: TextEncoder, sentence: tuple[tuple[str, str], ...]
) -> None:
    example = tagged(sentence)
    features = build_features(NER, [example], encoder)
    encoded = Encoded(encoder.tokenize(example.text), tuple(f.row for f in features))
    spans = decode(NER, encoded, [outputs(NER, feature) for feature in features])
    assert isinstance(spans, tuple)
    assert [(s.start, s.end, s.label) for s in spans] == gold(example)


def test_targets_decode_to_the_gold_answers(encoder: TextEncoder, corpus: Corpus) -> None:
    examples = read_splits(corpus.load().tasks["qa"]).train
    for example in examples[:20]:
        assert isinstance(example, AnswerExample)
        features = build_features(QA, [example], encoder)
        encoded = Encoded(encoder.tokenize(example.context), tuple(f.row for f in features))
        found = decode(QA, encoded, [outputs(QA, feature) for feature in features])
        assert isinstance(found, Answers)
        assert found.best[0].text == example.answers[0]
        assert found.best[0].start == example.starts[0]


def test_every_unit_of_a_long_sentence_is_labelled_exactly_once(encoder: TextEncoder) -> None:
    example = tagged(long_sentence())
    features = build_features(NER, [example], encoder)
    assert len(features) > 1
    tokens = encoder.tokenize(example.text)
    seen = np.zeros(len(tokens), int)
    for feature in features:
        labelled = feature.targets["labels"][feature.row.context] != IGNORE
        seen[feature.row.begin : feature.row.end] += labelled
        outside = np.delete(feature.targets["labels"], np.r_[feature.row.context])
        assert (outside == IGNORE).all()
    firsts = np.concatenate([[True], tokens.units[1:] != tokens.units[:-1]])
    assert seen.tolist() == firsts.astype(int).tolist()


def labels(example: TokenExample, encoder: TextEncoder, spec: TaskSpec = NER) -> list[str]:
    (feature,) = build_features(spec, [example], encoder)
    wanted = feature.targets["labels"][1:-1]
    return ["-" if label == IGNORE else spec.labels[label] for label in wanted]


def test_a_word_of_several_units_goes_on_inside_its_span(pieces: TextEncoder) -> None:
    example = tagged([("Saint-Denis", "B-LOC"), ("and", "O"), ("Bern", "B-LOC")])
    assert labels(example, pieces) == ["B-LOC", "I-LOC", "I-LOC", "O", "B-LOC"]


def test_continuation_pieces_have_no_label(pieces: TextEncoder) -> None:
    example = tagged([("Ivo", "B-PER"), ("Wilson", "I-PER"), ("in", "O"), ("Hamburg", "B-LOC")])
    assert labels(example, pieces) == ["B-PER", "I-PER", "-", "O", "B-LOC", "-"]


def test_tags_of_a_word_of_several_units_stay_as_they_are(pieces: TextEncoder) -> None:
    spec = TaskSpec("pos", "token-classification", ("B-X", "NOUN"), TokenOptions("tags"))
    example = token_example(["Saint-Denis", "rained"], ["B-X", "NOUN"], "here")
    assert labels(example, pieces, spec) == ["B-X", "B-X", "B-X", "NOUN"]


def test_unknown_label_names_the_place_and_the_known_ones(pieces: TextEncoder) -> None:
    example = token_example(["Ada"], ["B-MISC"], "ner.dev:7")
    with pytest.raises(
        DataError, match=r"ner.dev:7, token 0: label 'B-MISC' is not in the training data"
    ):
        build_features(NER, [example], pieces)


def test_a_sentence_without_tokens_gives_no_rows(pieces: TextEncoder) -> None:
    blank = TokenExample("  ", ((0, 2),), ("O",), "here")
    assert build_features(NER, [blank], pieces) == []


CONTEXT = " ".join(["it rained ."] * 50) + " Ada lives in Bern ."


def test_windows_without_the_answer_point_to_their_first_token(pieces: TextEncoder) -> None:
    features = build_features(QA, [asked(CONTEXT, "Bern")], pieces)
    pointing = [(int(f.targets["start"]), int(f.targets["end"])) for f in features]
    assert len(pointing) > 2
    assert pointing[:-1] == [(0, 0)] * (len(pointing) - 1)
    assert pointing[-1][0] == pointing[-1][1] > 0


def test_an_answer_across_the_edge_of_a_window_is_not_in_it(pieces: TextEncoder) -> None:
    tokens = pieces.tokenize(CONTEXT)
    question = pieces.tokenize("Where ?")
    edge = pieces.rows(tokens, question)[0].end
    answer = CONTEXT[tokens.starts[edge - 1] : tokens.ends[edge]]
    example = AnswerExample("1", "Where ?", CONTEXT, (answer,), (int(tokens.starts[edge - 1]),), "")
    first, second, *_ = build_features(QA, [example], pieces)
    assert (first.targets["start"], first.targets["end"]) == (0, 0)
    assert second.targets["end"] - second.targets["start"] == 1


def test_a_question_without_an_answer_points_to_the_first_token(pieces: TextEncoder) -> None:
    features = build_features(QA, [asked("it rained .", "")], pieces)
    assert [(int(f.targets["start"]), int(f.targets["end"])) for f in features] == [(0, 0)]


def test_the_context_is_the_second_segment(pieces: TextEncoder) -> None:
    for feature in build_features(QA, [asked(CONTEXT, "Bern")], pieces):
        types = feature.row.token_type_ids
        assert (types[feature.row.context] == 1).all()
        assert (types[: feature.row.offset] == 0).all()
    for feature in build_features(NER, [tagged(long_sentence())], pieces):
        assert (feature.row.token_type_ids == 0).all()


def test_a_question_over_the_limit_is_named(pieces: TextEncoder) -> None:
    most = pieces.max_question_tokens
    example = asked("Ada lives in Bern .", "Bern", "where " * (most + 1))
    with pytest.raises(DataError, match=f"here: question: has {most + 1} tokens, at most {most}"):
        build_features(QA, [example], pieces)


def test_rows_are_those_of_serving(pieces: TextEncoder) -> None:
    example = tagged(long_sentence())
    served = pieces.rows(pieces.tokenize(example.text))
    trained = [feature.row for feature in build_features(NER, [example], pieces)]
    assert list(map(ids, trained)) == list(map(ids, served))


def test_rows_of_questions_are_those_of_serving(pieces: TextEncoder) -> None:
    examples = [asked(CONTEXT, "Bern", "Who ?"), asked(CONTEXT, "Ada")]
    served = [
        row
        for example in examples
        for row in pieces.rows(pieces.tokenize(CONTEXT), pieces.tokenize(example.question))
    ]
    trained = [feature.row for feature in build_features(QA, examples, pieces)]
    assert list(map(ids, trained)) == list(map(ids, served))


def text(label: str | tuple[str, ...], pair: str | None = None) -> TextExample:
    return TextExample(CONTEXT, pair, (label,) if isinstance(label, str) else label, "here")


def test_every_window_has_the_label_of_the_text(pieces: TextEncoder) -> None:
    features = build_features(TOPIC, [text("news"), text("life")], pieces)
    windows = len(pieces.rows(pieces.tokenize(CONTEXT)))
    assert windows > 1
    found = [feature.targets["label"] for feature in features]
    assert [(label.ndim, int(label)) for label in found] == [(0, 1)] * windows + [(0, 0)] * windows


@pytest.mark.parametrize(
    ("labels", "wanted"), [((), [0, 0]), (("news",), [0, 1]), (("news", "life"), [1, 1])]
)
def test_many_labels_are_ones_among_zeros(
    pieces: TextEncoder, labels: tuple[str, ...], wanted: list[int]
) -> None:
    spec = TaskSpec("t", "text-classification", TOPIC.labels, TextOptions(multi_label=True))
    for feature in build_features(spec, [text(labels)], pieces):
        assert feature.targets["labels"].tolist() == wanted


def test_the_second_text_of_a_pair_stands_behind_the_text(pieces: TextEncoder) -> None:
    spec = TaskSpec("t", "text-classification", TOPIC.labels, TextOptions(pair=True))
    features = build_features(spec, [text("life", "it rained")], pieces)
    served = pieces.rows(pieces.tokenize(CONTEXT), pair=pieces.tokenize("it rained"))
    assert [ids(feature.row) for feature in features] == [ids(row) for row in served]
    long = text("life", "it " * (pieces.max_question_tokens + 1))
    with pytest.raises(DataError, match=r"here: text_pair: has 31 tokens, at most 30 are read; sh"):
        build_features(spec, [long], pieces)
    with pytest.raises(DataError, match=r"here: text_pair: has 31 tokens"):
        check_room([text("life", "it"), long], pieces)


def test_unknown_label_of_a_text_is_named(pieces: TextEncoder) -> None:
    with pytest.raises(DataError, match=r"here: label 'sport' is not in the training data \(life,"):
        build_features(TOPIC, [text("sport")], pieces)


def test_examples_tokenised_together_give_what_each_gives_alone(encoder: TextEncoder) -> None:
    examples = [tagged(sentence) for sentence in sentences(700, 3)]
    together = build_features(NER, examples, encoder)
    alone = [feature for one in examples for feature in build_features(NER, [one], encoder)]
    assert [ids(feature.row) for feature in together] == [ids(feature.row) for feature in alone]
    for one, other in zip(together, alone, strict=True):
        assert one.targets["labels"].tolist() == other.targets["labels"].tolist()


def ids(row: Row) -> list[int]:
    return [int(one) for one in row.input_ids]
