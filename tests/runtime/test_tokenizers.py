"""Of any make of tokenizer: each character that is seen lies in one word, or it is refused."""

from collections.abc import Callable
from typing import Any
from unicodedata import category

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

from trunkline.coverage import PARAGRAPH, Uncovered
from trunkline.encode import TextEncoder

_ADDED = ("COVID-19", "New York", "naïve", "#1", "ß")
_SPECIAL = ("[CLS]", "[SEP]", "[UNK]")
_LETTERS = sorted({*PARAGRAPH, *PARAGRAPH.lower()} - {*" \u200d"})
_SPLIT = pre_tokenizers.Split
_META = pre_tokenizers.Metaspace


def _finished(tokenizer: Tokenizer, *parts: Any, post: Any = None, **added: bool) -> Tokenizer:
    """Returns a tokenizer with normaliser and pre-tokenizer, a template, and tokens added."""
    tokenizer.add_special_tokens(list(_SPECIAL))
    normalizer, pre_tokenizer = parts
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    if pre_tokenizer is not None:
        tokenizer.pre_tokenizer = pre_tokenizer
    special = [(name, tokenizer.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = post or processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=special
    )
    tokenizer.add_tokens([AddedToken(token, **added) for token in _ADDED])
    return tokenizer


def _pieces(*parts: Any, **added: bool) -> Tokenizer:
    """Returns word pieces of every letter in the paragraph."""
    pieces = [*_SPECIAL, *_LETTERS, *(f"##{one}" for one in _LETTERS), "in", "city", "##ty"]
    vocabulary = {piece: at for at, piece in enumerate(dict.fromkeys(pieces))}
    model = models.WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=100)
    return _finished(Tokenizer(model), *parts, **added)


def _bytes(*parts: Any, post: Any = None, **added: bool) -> Tokenizer:
    """Returns byte-level pairs."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = [*_SPECIAL, *letters, "in", "Ġin", "Ġc", "ci"]
    merges = [("i", "n"), ("Ġ", "in"), ("Ġ", "c"), ("c", "i")]
    model = models.BPE({piece: at for at, piece in enumerate(pieces)}, merges)
    return _finished(Tokenizer(model), *parts, post=post, **added)


def _pairs(*parts: Any, unknown: str | None = "[UNK]", **added: bool) -> Tokenizer:
    """Returns pairs of characters, of the letters a to z alone."""
    pieces = [*_SPECIAL, *"abcdefghijklmnopqrstuvwxyz▁", "in"]
    vocabulary = {piece: at for at, piece in enumerate(pieces)}
    model = models.BPE(vocabulary, [("i", "n")], unk_token=unknown)
    return _finished(Tokenizer(model), *parts, **added)


def _unigram(
    *parts: Any, unknown: int | None = 2, fallback: bool = False, **added: bool
) -> Tokenizer:
    pieces = [*_SPECIAL, "▁", *_LETTERS, "▁in", "▁New", "▁city", "ty", "▁a"]
    pieces += [f"<0x{number:02X}>" for number in range(256)] if fallback else []
    scores = [(piece, -1.0 - len(piece) / 10) for piece in dict.fromkeys(pieces)]
    return _finished(Tokenizer(models.Unigram(scores, unknown, fallback)), *parts, **added)


def _words(*parts: Any, unknown: str = "[UNK]", **added: bool) -> Tokenizer:
    vocabulary = {piece: at for at, piece in enumerate((*_SPECIAL, "in", "city", "A"))}
    return _finished(Tokenizer(models.WordLevel(vocabulary, unk_token=unknown)), *parts, **added)


def _roberta(*, space: bool, trim: bool) -> Any:
    return processors.RobertaProcessing(
        ("[SEP]", 1), ("[CLS]", 0), trim_offsets=trim, add_prefix_space=space
    )


def _in_turn(*parts: Any) -> Any:
    return pre_tokenizers.Sequence(list(parts))


def _normal(*parts: Any) -> Any:
    return normalizers.Sequence(list(parts))


_BERT = pre_tokenizers.BertPreTokenizer()
_BYTES, _SPACED = (pre_tokenizers.ByteLevel(add_prefix_space=space) for space in (False, True))
_SPACE = normalizers.Replace(" ", "▁")

ACCEPTED: dict[str, Callable[[], Tokenizer]] = {
    "word pieces, lower case": lambda: _pieces(normalizers.BertNormalizer(), _BERT),
    "word pieces, cased": lambda: _pieces(normalizers.BertNormalizer(lowercase=False), _BERT),
    "word pieces, stripped": lambda: _pieces(
        _normal(normalizers.NFD(), normalizers.StripAccents(), normalizers.Lowercase()), _BERT
    ),
    "word pieces, expanded": lambda: _pieces(normalizers.NFKC(), _BERT, single_word=True),
    "word pieces, expanded and taken apart": lambda: _pieces(
        normalizers.NFKD(), _in_turn(_BERT, pre_tokenizers.Digits(individual_digits=True))
    ),
    "word pieces, spelt out": lambda: _pieces(
        _normal(normalizers.Replace("&", " and "), normalizers.Replace("½", "1 / 2")), _BERT
    ),
    "bytes": lambda: _bytes(None, _BYTES, post=_roberta(space=False, trim=True)),
    "bytes, spaced": lambda: _bytes(None, _SPACED, post=_roberta(space=True, trim=True)),
    "bytes, spaced and whole": lambda: _bytes(None, _SPACED, post=_roberta(space=True, trim=False)),
    "bytes, spaced, by a sequence": lambda: _bytes(
        None,
        _SPACED,
        post=processors.Sequence([processors.ByteLevel(), _roberta(space=True, trim=True)]),
        lstrip=True,
    ),
    "bytes, template": lambda: _bytes(normalizers.NFC(), _BYTES, rstrip=True),
    "bytes, digits and punctuation": lambda: _bytes(
        None,
        _in_turn(
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.Punctuation(),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ),
        lstrip=True,
        rstrip=True,
    ),
    "bytes, pattern": lambda: _bytes(
        None,
        _in_turn(
            _SPLIT(Regex(r"\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+|\s+"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ),
        normalized=True,
    ),
    "unigram": lambda: _unigram(normalizers.NFKC(), _META()),
    "unigram, first": lambda: _unigram(None, _META(prepend_scheme="first"), lstrip=True),
    "unigram, never": lambda: _unigram(
        normalizers.Nmt(), _META(prepend_scheme="never"), single_word=True
    ),
    "unigram, bytes": lambda: _unigram(normalizers.NFKC(), _META(), fallback=True),
    "unigram, by white space": lambda: _unigram(
        _normal(normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")),
        _in_turn(pre_tokenizers.WhitespaceSplit(), _META()),
    ),
    "unigram, not parted": lambda: _unigram(None, _META(split=False)),
    "unigram, written by the normaliser": lambda: _unigram(
        _normal(normalizers.Prepend("▁"), _SPACE), None, rstrip=True
    ),
    "unigram, stripped": lambda: _unigram(
        _normal(normalizers.Strip(), normalizers.Lowercase(), normalizers.NFKD()),
        _in_turn(pre_tokenizers.Punctuation(), _META()),
    ),
    "words": lambda: _words(normalizers.Lowercase(), pre_tokenizers.Whitespace()),
    "words, by script": lambda: _words(
        None, _in_turn(pre_tokenizers.WhitespaceSplit(), pre_tokenizers.UnicodeScripts())
    ),
    "words, contiguous": lambda: _words(
        None, _in_turn(_SPLIT(" ", "removed"), pre_tokenizers.Punctuation("contiguous"))
    ),
    "pairs": lambda: _pairs(None, pre_tokenizers.Whitespace()),
    "pairs, merged": lambda: _pairs(
        None, _in_turn(_SPLIT(" ", "merged_with_next"), pre_tokenizers.Punctuation())
    ),
}

REFUSED: dict[str, tuple[Callable[[], Tokenizer], str]] = {
    "punctuation is removed": (
        lambda: _pieces(None, _in_turn(_BERT, pre_tokenizers.Punctuation("removed"))),
        r"leaves out '.' of",
    ),
    "digits are replaced by nothing": (
        lambda: _pieces(normalizers.Replace(Regex(r"\d"), ""), _BERT),
        r"leaves out '1' of 'In 1984",
    ),
    "emoji are replaced by nothing": (
        lambda: _bytes(normalizers.Replace(Regex(r"\p{So}"), ""), _BYTES),
        r"leaves out ",
    ),
    "unknown characters are dropped": (
        lambda: _pairs(None, pre_tokenizers.Whitespace(), unknown=None),
        r"leaves out '.' of 'In 1984",
    ),
    "unknown words are an error": (
        lambda: _words(None, pre_tokenizers.Whitespace(), unknown="none"),
        r"cannot read \"In 1984.*Missing",
    ),
    "unknown pieces are an error": (
        lambda: _unigram(normalizers.Lowercase(), _META(), unknown=None),
        r"cannot read \"In 1984.*unk_id",
    ),
    "all of a text is one word": (lambda: _words(None, None), r"holds white space"),
}

# Marks alone are dropped by some: they belong behind letters.
_seen = st.characters(exclude_categories=["C", "Z", "M"])
_parts = (
    st.sampled_from([*_ADDED, " ", "  ", "\n", "\u00a0", ", ", ".", "in", "A city", "½", "1,984.5"])
    | st.sampled_from([one for one in PARAGRAPH if category(one)[0] not in "CM"])
    | st.sampled_from(["e\u0301", "x\u0302\u0303", "שָׁ", "नहीं", "👩\u200d💻", "❤\ufe0f"])
    | st.text(_seen, max_size=3)
)
texts = st.lists(_parts, max_size=10).map("".join)
_made: dict[str, TextEncoder] = {}


def encoder_of(name: str) -> TextEncoder:
    if name not in _made:
        _made[name] = TextEncoder(ACCEPTED[name](), 128, 16)
    return _made[name]


def words(encoder: TextEncoder, text: str) -> list[str]:
    tokens = encoder.tokenize(text)
    if not len(tokens):
        return []
    bounds = zip(tokens.words.starts, tokens.words.ends, strict=True)
    return [text[start:end] for start, end in bounds]


def in_words(encoder: TextEncoder, text: str) -> list[int]:
    """Returns of each character the number of words that it lies in."""
    tokens, counts = encoder.tokenize(text), [0] * len(text)
    if len(tokens):
        for start, end in zip(tokens.words.starts, tokens.words.ends, strict=True):
            for at in range(start, end):
                counts[at] += 1
    return counts


@pytest.mark.parametrize("name", ACCEPTED)
@given(text=texts)
@settings(max_examples=20)
def test_every_character_that_is_seen_lies_in_one_word(name: str, text: str) -> None:
    for character, count in zip(text, in_words(encoder_of(name), text), strict=True):
        if character == "\u200d":  # which some drop, between two emoji
            continue
        # Added tokens may hold white space.
        assert count <= 1 if character.isspace() else count == 1, character


@pytest.mark.parametrize("name", ACCEPTED)
def test_the_paragraph_is_words_without_white_space(name: str) -> None:
    counts = in_words(encoder_of(name), PARAGRAPH)
    joiner = PARAGRAPH.index("\u200d")  # which some drop, between two emoji of one word
    wanted = [int(not character.isspace()) for character in PARAGRAPH]
    wanted[joiner] = counts[joiner]
    assert counts == wanted


@pytest.mark.parametrize("name", [name for name in ACCEPTED if name.startswith("bytes")])
def test_a_comma_behind_an_added_token_is_kept(name: str) -> None:
    found = words(encoder_of(name), "in COVID-19, A city")
    assert found == ["in", "COVID-19", ",", "A", "city"]


@pytest.mark.parametrize("name", REFUSED)
def test_a_tokenizer_that_leaves_something_out_is_refused(name: str) -> None:
    make, said = REFUSED[name]
    with pytest.raises(Uncovered, match=said):
        TextEncoder(make(), 128, 16)


def test_a_mended_tokenizer_is_kept_as_it_was() -> None:
    tokenizer = ACCEPTED["bytes, spaced"]()
    encoder = TextEncoder(tokenizer, 128, 16)
    assert '"trim_offsets": true' in encoder.to_json()
    text = "in COVID-19, A city"
    assert encoder.tokenize(text).ids.tolist() == tokenizer.encode(text).ids[1:-1]
