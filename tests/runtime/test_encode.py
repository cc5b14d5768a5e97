import time
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from tests.runtime.samples import (
    ACCENT,
    ENCODERS,
    FAMILY,
    MAKES,
    bert,
    modern,
    roberta,
    sentencepiece,
    texts,
    untyped,
)
from trunkline.encode import Row, TextEncoder, Tokens
from trunkline.errors import InvalidInput

MAKE = pytest.mark.parametrize("name", MAKES)
PAIR_SPECIAL = 3  # of `bert`: [CLS] question [SEP] text [SEP]


def own(name: str) -> Tokenizer:
    """Returns the tokenizer itself, told like ours to read no special tokens out of a text."""
    tokenizer = MAKES[name]()
    tokenizer.encode_special_tokens = True
    return tokenizer


def own_ids(tokenizer: Tokenizer, text: str) -> list[int]:
    tokenizer.encode_special_tokens = True
    return tokenizer.encode(text, add_special_tokens=False).ids


def spelt_in_vocabulary(name: str, text: str) -> bool:
    """Says if the tokenizer itself would read a special token out of the text."""
    return name == "sentencepiece" and ("[SEP]" in text or "[CLS]" in text)


def numbered(count: int) -> Tokens:
    """Returns a document whose ids say where they stand."""
    at = np.arange(count)
    return Tokens("x" * count, at, at, at + 1, at)


def words(tokens: Tokens) -> list[str]:
    if not len(tokens):
        return []
    firsts, lasts, *_ = tokens.words
    bounds = zip(tokens.starts[firsts], tokens.ends[lasts], strict=True)
    return [tokens.text[start:end] for start, end in bounds]


def context(row: Row, token: int) -> int:
    return min(token - row.begin, row.end - 1 - token)


@st.composite
def cuts(draw: st.DrawFn) -> tuple[TextEncoder, Tokens, Tokens | None]:
    """Draws row length, overlap, document and question."""
    overlap = draw(st.integers(0, 8))
    length = draw(st.integers(PAIR_SPECIAL + 2 * (overlap + 1), 40))
    encoder = TextEncoder(bert(), length, overlap)
    document = numbered(draw(st.integers(1, 150)))
    asked = draw(st.none() | st.integers(0, encoder.max_question_tokens))
    return encoder, document, None if asked is None else numbered(asked)


@MAKE
@given(text=texts)
@settings(max_examples=40)
def test_a_row_is_the_tokenizers_own_encoding(name: str, text: str) -> None:
    encoder = ENCODERS[name]
    tokens = encoder.tokenize(text)
    assume(len(tokens) and not spelt_in_vocabulary(name, text))
    wanted = own(name).encode(text)
    (row,) = encoder.rows(tokens)
    assert row.input_ids.tolist() == wanted.ids
    assert row.token_type_ids.tolist() == wanted.type_ids
    assert [part is None for part in wanted.sequence_ids] == [
        not row.context.start <= at < row.context.stop for at in range(len(row))
    ]


@MAKE
@given(text=texts, question=texts)
@settings(max_examples=40)
def test_a_row_with_a_question_is_the_tokenizers_own_pair(
    name: str, text: str, question: str
) -> None:
    encoder = ENCODERS[name]
    tokens, asked = encoder.tokenize(text), encoder.tokenize(question)
    assume(len(tokens) and len(asked) and not spelt_in_vocabulary(name, question + text))
    wanted = own(name).encode(question, text)
    (row,) = encoder.rows(tokens, asked)
    assert row.input_ids.tolist() == wanted.ids
    assert row.token_type_ids.tolist() == wanted.type_ids
    context = [at for at, part in enumerate(wanted.sequence_ids) if part == 1]
    assert list(range(row.context.start, row.context.stop)) == context


@MAKE
@given(text=texts, second=texts)
@settings(max_examples=40)
def test_a_pair_of_texts_is_the_tokenizers_own_pair_text_first(
    name: str, text: str, second: str
) -> None:
    encoder = ENCODERS[name]
    tokens, behind = encoder.tokenize(text), encoder.tokenize(second)
    assume(len(tokens) and len(behind) and not spelt_in_vocabulary(name, text + second))
    wanted = own(name).encode(text, second)
    (row,) = encoder.rows(tokens, pair=behind)
    assert row.input_ids.tolist() == wanted.ids
    assert row.token_type_ids.tolist() == wanted.type_ids
    context = [at for at, part in enumerate(wanted.sequence_ids) if part == 0]
    assert list(range(row.context.start, row.context.stop)) == context


@given(cuts())
def test_windows_hold_every_token_and_own_each_once(
    cut: tuple[TextEncoder, Tokens, Tokens | None],
) -> None:
    encoder, document, question = cut
    rows = encoder.rows(document, question)
    held = [token for row in rows for token in row.input_ids[row.context].tolist()]
    owned = [token for row in rows for token in row.input_ids[row.owned].tolist()]
    assert set(held) == set(range(len(document)))
    assert owned == list(range(len(document)))
    for row in rows:
        assert row.begin <= row.own_begin <= row.own_end <= row.end
        assert len(row) == len(row.token_type_ids) <= encoder.max_length


@given(cuts())
def test_a_token_is_owned_by_a_window_where_it_has_most_context(
    cut: tuple[TextEncoder, Tokens, Tokens | None],
) -> None:
    encoder, document, question = cut
    rows = encoder.rows(document, question)
    for owner in rows:
        for token in range(owner.own_begin, owner.own_end):
            others = [context(row, token) for row in rows if row.begin <= token < row.end]
            assert context(owner, token) == max(others)


@given(cuts())
def test_windows_are_full_and_share_the_overlap(
    cut: tuple[TextEncoder, Tokens, Tokens | None],
) -> None:
    encoder, document, question = cut
    rows = encoder.rows(document, question)
    if len(rows) > 1:
        assert all(len(row) == encoder.max_length for row in rows)
    room = rows[0].end - rows[0].begin
    overlap = min(encoder.overlap, room // 2)
    shared = [before.end - after.begin for before, after in pairwise(rows)]
    assert shared[:-1] == [overlap] * len(shared[:-1])
    assert all(overlap <= count < room for count in shared[-1:])


@given(cuts())
def test_every_window_has_the_whole_question_in_front(
    cut: tuple[TextEncoder, Tokens, Tokens | None],
) -> None:
    encoder, document, question = cut
    assume(question is not None)
    assert question is not None
    for row in encoder.rows(document, question):
        assert row.input_ids[1 : len(question) + 1].tolist() == question.ids.tolist()


@given(cuts())
def test_every_window_has_the_whole_second_text_behind(
    cut: tuple[TextEncoder, Tokens, Tokens | None],
) -> None:
    encoder, document, second = cut
    assume(second is not None)
    assert second is not None
    rows = encoder.rows(document, pair=second)
    held = [token for row in rows for token in row.input_ids[row.owned].tolist()]
    assert held == list(range(len(document)))
    for row in rows:
        begin = row.context.stop + 1
        assert row.input_ids[begin : begin + len(second)].tolist() == second.ids.tolist()


def test_a_short_text_is_one_row_and_one_token_more_makes_two() -> None:
    encoder = TextEncoder(bert(), 20, 4)
    assert len(encoder.rows(numbered(18))) == 1
    first, second = encoder.rows(numbered(19))
    assert (first.begin, first.end, second.begin, second.end) == (0, 18, 1, 19)


@MAKE
@pytest.mark.parametrize("text", ["[SEP]", "a [CLS] b", "[MASK]", "</s>", "<s>a</s>"])
def test_special_tokens_written_in_a_text_stay_text(name: str, text: str) -> None:
    encoder = ENCODERS[name]
    tokens = encoder.tokenize(text)
    special = {
        token
        for token, added in MAKES[name]().get_added_tokens_decoder().items()
        if added.special and added.content not in ("[UNK]", "<unk>")
    }
    assert not special & set(tokens.ids.tolist())
    assert "".join(words(tokens)) == text.replace(" ", "")


@MAKE
@pytest.mark.parametrize("limit", [1, 3, 5, 64])
def test_truncation_in_the_tokenizer_file_has_no_effect(name: str, limit: int) -> None:
    tokenizer = MAKES[name]()
    tokenizer.enable_truncation(limit)
    check_same_rows(name, TextEncoder(tokenizer, 512, 32))


@MAKE
@pytest.mark.parametrize("direction", ["left", "right"])
def test_padding_in_the_tokenizer_file_has_no_effect(name: str, direction: str) -> None:
    tokenizer = MAKES[name]()
    tokenizer.enable_padding(direction=direction, length=64, pad_to_multiple_of=8)
    check_same_rows(name, TextEncoder(tokenizer, 512, 32))


def check_same_rows(name: str, encoder: TextEncoder) -> None:
    text, question = "IBM opened an office in Bern. " * 10, "Where is IBM?"
    for given_question in (None, question):
        rows = []
        for one in (ENCODERS[name], encoder):
            asked = None if given_question is None else one.tokenize(given_question)
            rows.append(one.rows(one.tokenize(text), asked))
        plain, tested = rows
        assert [row.input_ids.tolist() for row in plain] == [
            row.input_ids.tolist() for row in tested
        ]


@MAKE
def test_the_callers_tokenizer_is_left_alone(name: str) -> None:
    tokenizer = MAKES[name]()
    tokenizer.enable_truncation(7)
    tokenizer.enable_padding(length=7)
    before = tokenizer.to_str()
    TextEncoder(tokenizer, 64, 8).tokenize("[SEP]")
    assert tokenizer.to_str() == before
    assert tokenizer.truncation["max_length"] == tokenizer.padding["length"] == 7
    assert not tokenizer.encode_special_tokens


def test_the_written_tokenizer_file_neither_cuts_nor_pads() -> None:
    tokenizer = bert()
    tokenizer.enable_truncation(7)
    tokenizer.enable_padding(length=7)
    written = Tokenizer.from_str(TextEncoder(tokenizer, 64, 8).to_json())
    assert written.truncation is None
    assert written.padding is None


def test_a_question_of_half_the_room_is_read_and_one_token_more_refused() -> None:
    encoder = TextEncoder(bert(), 23, 4)
    assert encoder.max_question_tokens == 10
    assert encoder.rows(numbered(50), numbered(10))
    with pytest.raises(InvalidInput, match="question: has 11 tokens, at most 10 are read"):
        encoder.rows(numbered(50), numbered(11))


@pytest.mark.parametrize("text", ["\ud800", "a\udfffb", "Bern \ud83d"])
def test_lone_surrogates_are_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="valid Unicode") as caught:
        ENCODERS["bert"].tokenize(text, "documents[2].text")
    assert caught.value.field == "documents[2].text"


@MAKE
@pytest.mark.parametrize("text", ["", " ", "   ", "\n\t\r\n", "\u00a0\u3000\u2003"])
def test_a_blank_text_has_no_rows(name: str, text: str) -> None:
    encoder = ENCODERS[name]
    tokens = encoder.tokenize(text)
    assert len(tokens) == 0
    assert encoder.rows(tokens) == ()
    assert encoder.rows(tokens, encoder.tokenize("where")) == ()


@pytest.mark.parametrize("text", ["\0", "\0\0 \0", "\u200f\ufeff"])
def test_a_text_the_tokenizer_drops_whole_has_no_rows(text: str) -> None:
    encoder = ENCODERS["bert"]
    assert encoder.rows(encoder.tokenize(text)) == ()


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("IBM opened\nan  office in Bern. ", "IBM|opened|an|office|in|Bern|."),
        ("😀😀 Bern 🎉.", "😀😀|Bern|🎉|."),
        (f"a {FAMILY} b", f"a|{FAMILY}|b"),
        ("🇨🇭 ❤\ufe0f Bern", "🇨🇭|❤\ufe0f|Bern"),
        (f"caf{ACCENT} nai\u0308ve", f"caf{ACCENT}|nai\u0308ve"),
        ("Za\u0301\u0302\u0303 .", "Za\u0301\u0302\u0303|."),
        ("שָׁלוֹם, סלאםּ", "שָׁלוֹם|,|סלאםּ"),
        ("السَّلَامُ عليكم", "السَّلَامُ|عليكم"),
        ("हिन्दी नहीं", "हिन्दी|नहीं"),
        ("東京 is in 日本.", "東|京|is|in|日|本|."),
        ("ﬁne Straße", "ﬁne|Straße"),
        ("İstanbul ILGAZ", "İstanbul|ILGAZ"),
        ("İİİ x İ", "İİİ|x|İ"),
        ("a\0b \0 c", "a\0b|c"),
        ("\ufeffBern", "Bern"),
        ("x\u00a0y\u3000z", "x|y|z"),
    ],
)
def test_words_are_pieces_of_the_original_text(text: str, wanted: str) -> None:
    assert words(ENCODERS["bert"].tokenize(text)) == wanted.split("|")


@pytest.mark.parametrize("make", [roberta, modern], ids=["roberta", "modern"])
@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (" IBM  opened\n\nan office\t.  ", "IBM|opened|an|office|."),
        (f"a {FAMILY} 東京", f"a|{FAMILY}|東京"),
        ("שלום, 😀", "שלום|,|😀"),
        ("İ ﬁ", "İ|ﬁ"),
    ],
)
def test_words_of_byte_level_tokenizers_hold_no_white_space(
    make: Callable[[], Tokenizer], text: str, wanted: str
) -> None:
    assert words(ENCODERS[make.__name__].tokenize(text)) == wanted.split("|")


def test_words_of_sentencepiece_hold_no_white_space() -> None:
    tokens = ENCODERS[sentencepiece.__name__].tokenize(" IBM  opened 😀 \u00a0\n in\n \n\tBern.\n")
    assert words(tokens) == ["IBM", "opened", "😀", "in", "Bern."]


@MAKE
@given(text=texts)
@settings(max_examples=40)
def test_tokens_lie_inside_the_text_and_words_neither_start_nor_end_blank(
    name: str, text: str
) -> None:
    tokens = ENCODERS[name].tokenize(text)
    assert (tokens.starts >= 0).all()
    assert (tokens.starts <= tokens.ends).all()
    assert (tokens.ends <= len(text)).all()
    assert all(word and word == word.strip() for word in words(tokens))


@pytest.mark.parametrize("name", ["bert", "modern"])
def test_a_megabyte_is_read_whole_in_linear_time(name: str) -> None:
    sentence = "IBM opened an office in Bern 😀. "
    encoder = ENCODERS[name]
    per_sentence = len(words(encoder.tokenize(sentence)))
    spent = []
    for count in (7_500, 30_000):
        text = sentence * count
        begin = time.process_time()
        tokens = encoder.tokenize(text)
        rows = encoder.rows(tokens)
        spent.append(time.process_time() - begin)
        assert len(words(tokens)) == per_sentence * count
        assert words(tokens)[-per_sentence:] == words(encoder.tokenize(sentence))
        assert sum(row.own_end - row.own_begin for row in rows) == len(tokens)
    # Four times the text; quadratic time would be sixteen times.
    assert spent[1] < 10 * spent[0]


def test_a_word_of_a_megabyte_is_one_word() -> None:
    text = "x" * 1_000_000
    assert words(ENCODERS["bert"].tokenize(text)) == [text]
    assert words(ENCODERS["roberta"].tokenize(text[:200_000])) == [text[:200_000]]


@pytest.mark.parametrize(("length", "overlap"), [(128, -1), (128, 62), (128, 128), (4, 0), (0, 0)])
def test_an_overlap_that_does_not_fit_is_refused(length: int, overlap: int) -> None:
    with pytest.raises(ValueError, match=f"overlap {overlap} does not fit rows of {length}"):
        TextEncoder(untyped(), length, overlap)


def test_the_largest_overlap_that_fits_is_taken() -> None:
    rows = TextEncoder(bert(), 128, 61).rows(numbered(1000))
    assert rows[0].end - rows[1].begin == 61


@pytest.mark.parametrize("make", [bert, sentencepiece])
def test_a_separator_that_is_a_word_of_the_vocabulary_becomes_an_unknown_word(
    make: Callable[[], Tokenizer],
) -> None:
    tokenizer = make()
    if make is bert:
        tokenizer.normalizer = normalizers.Sequence([])
        tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    encoder = TextEncoder(tokenizer, 64, 8)
    tokens = encoder.tokenize("a [SEP] b")
    separator = tokenizer.token_to_id("[SEP]")
    assert separator in tokenizer.encode("a [SEP] b", add_special_tokens=False).ids
    assert separator not in tokens.ids
    assert words(tokens) == ["a", "[SEP]", "b"]


def test_padding_that_is_a_word_of_the_vocabulary_becomes_an_unknown_word() -> None:
    pieces = ["<s>", "</s>", "<unk>", "<pad>", "▁", "▁a", "▁b", "<", ">", "p", "d"]
    tokenizer = Tokenizer(models.Unigram([(piece, -1.0) for piece in pieces], 2, False))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> $B </s>",
        special_tokens=[("<s>", 0), ("</s>", 1)],
    )
    tokenizer.add_special_tokens(["<s>", "</s>", "<unk>", "<pad>"])
    tokens = TextEncoder(tokenizer, 64, 8).tokenize("a <pad> b")
    padding = tokenizer.token_to_id("<pad>")
    assert padding in own_ids(tokenizer, "a <pad> b")
    assert padding not in tokens.ids
    assert words(tokens) == ["a", "<pad>", "b"]


@MAKE
@settings(max_examples=20)
@given(given=st.lists(texts, max_size=4))
def test_a_batch_gives_what_each_text_gives_alone(name: str, given: list[str]) -> None:
    encoder = ENCODERS[name]
    found = encoder.tokenize_batch(given, ["text"] * len(given))
    assert len(found) == len(given)
    for text, tokens in zip(given, found, strict=True):
        alone = encoder.tokenize(text)
        assert tokens.text == text
        for field in ("ids", "starts", "ends", "units"):
            assert getattr(tokens, field).tolist() == getattr(alone, field).tolist()


def test_the_text_of_a_batch_that_is_not_unicode_is_named() -> None:
    with pytest.raises(InvalidInput, match="b: is not valid Unicode"):
        ENCODERS["bert"].tokenize_batch(["Bern", "\ud800", "Oslo"], ["a", "b", "c"])
