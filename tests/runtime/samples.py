"""Tokenizers of every make, texts of every script, and documents cut from them."""

from collections.abc import Callable

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from trunkline.encode import Encoded, TextEncoder

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
_WORDS = "ibm bern opened office where is the in an ##ed ##ing שלום سلام привет 東 京 fi 😀"

FAMILY = "👩\u200d👩\u200d👧"
ACCENT = "e\u0301"  # a letter and a combining mark
FRAGMENTS = (
    *("IBM", "Bern", "opened", "office", "a", "x", ".", ",", "-", "'"),
    *(" ", "  ", "\n", "\t", "\0", "\u00a0", "\u3000", "\u200f", "\ufeff"),
    *("[SEP]", "[CLS]", "[PAD]", "</s>", "<s>", "▁", "Ġ", "##a"),
    *("😀", FAMILY, "🇨🇭", ACCENT, "\u0301", "é", "ﬁ", "ß", "İ", "\u0131", "Σ", "ǆ"),
    *("שלום", "سلام", "لا", "привет", "東京", "한글", "ไทย", "\U0001d4b3", "\U0010ffff"),
)
# U+001C to U+001F are white space to Python, but to no tokenizer.
_signs = st.characters(exclude_categories=["Cs"], exclude_characters="\x1c\x1d\x1e\x1f")
_fragments = st.sampled_from(FRAGMENTS) | st.text(_signs, max_size=4)
texts = st.lists(_fragments, max_size=12).map("".join)
seeds = st.integers(0, 2**32 - 1)


def _wordpiece(single: str, pair: str) -> Tokenizer:
    pieces = (*SPECIAL, *_WORDS.split(), *".,?!-'[]", *_LETTERS, *(f"##{one}" for one in _LETTERS))
    vocabulary = {piece: at for at, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=single,
        pair=pair,
        special_tokens=[(name, vocabulary[name]) for name in SPECIAL],
    )
    tokenizer.add_special_tokens(list(SPECIAL))
    return tokenizer


def _byte_level() -> Tokenizer:
    merges = [
        ("Ġ", "o"),
        ("f", "f"),
        ("B", "e"),
        ("Be", "r"),
        ("Ġ", "Ber"),
        ("I", "B"),
        ("IB", "M"),
    ]
    pieces = ["<s>", "</s>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    pieces += [first + second for first, second in merges]
    vocabulary = {piece: at for at, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.add_special_tokens(["<s>", "</s>"])
    return tokenizer


def bert() -> Tokenizer:
    """Returns uncased word pieces with token types; special tokens as the hub's files have them."""
    return _wordpiece("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1")


def untyped() -> Tokenizer:
    """Returns word pieces whose template has one token type, as DistilBERT's."""
    return _wordpiece("[CLS] $A [SEP]", "[CLS] $A [SEP] $B [SEP]")


def odd() -> Tokenizer:
    """Returns word pieces whose template puts something everywhere, and nothing at the end."""
    return _wordpiece("[MASK]:1 [CLS] $A:1", "[CLS]:1 [MASK] $A [SEP]:1 [SEP] $B:1")


def roberta() -> Tokenizer:
    """Returns byte-level pairs with RoBERTa's template, which keeps blanks out of offsets."""
    tokenizer = _byte_level()
    ends, begins = (("</s>", 1), ("<s>", 0))
    tokenizer.post_processor = processors.RobertaProcessing(ends, begins, add_prefix_space=False)
    return tokenizer


def modern() -> Tokenizer:
    """Returns byte-level pairs whose offsets count blanks in, as ModernBERT's."""
    tokenizer = _byte_level()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> $B </s>",
        special_tokens=[("<s>", 0), ("</s>", 1)],
    )
    return tokenizer


def sentencepiece() -> Tokenizer:
    """Returns a unigram model whose offsets count blanks in, as DeBERTa's."""
    pieces = ["[CLS]", "[SEP]", "<unk>", "▁", *_LETTERS, "▁in", "▁Bern", "opened", "IBM"]
    tokenizer = Tokenizer(models.Unigram([(piece, -1.0) for piece in pieces], 2, False))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 0), ("[SEP]", 1)],
    )
    tokenizer.add_special_tokens(["[CLS]", "[SEP]", "<unk>"])
    return tokenizer


MAKES: dict[str, Callable[[], Tokenizer]] = {
    make.__name__: make for make in (bert, untyped, odd, roberta, modern, sentencepiece)
}
ENCODERS = {name: TextEncoder(make(), 512, 32) for name, make in MAKES.items()}


def cut(text: str, question: str = "", *, max_length: int = 24, overlap: int = 4) -> Encoded:
    """Returns a text as short rows of word pieces, behind a question if there is one."""
    encoder = TextEncoder(bert(), max_length, overlap)
    tokens = encoder.tokenize(text)
    return Encoded(tokens, encoder.rows(tokens, encoder.tokenize(question) if question else None))


def noise(
    encoded: Encoded, seed: int, *width: int, whole: bool = False
) -> list[NDArray[np.float32]]:
    """Returns random logits [S, *width] per row; whole numbers tie often."""
    random = np.random.default_rng(seed)
    shapes = [(len(row), *width) for row in encoded.rows]
    if whole:
        return [random.integers(-2, 3, shape).astype(np.float32) for shape in shapes]
    return [random.normal(0, 3, shape).astype(np.float32) for shape in shapes]
