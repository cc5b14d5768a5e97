"""Whether a tokenizer tells of all that it reads where it stands, tried when it is loaded."""

from __future__ import annotations

import json
from typing import Any
from unicodedata import category

import numpy as np
from tokenizers import Tokenizer

from trunkline.bounds import token_bounds, visible_bounds

# Letters of many scripts, cases, digits, punctuation, emoji, marks and what normalisers expand;
# nothing that is not to be seen.
PARAGRAPH = (
    "In 1984, Zoë O'Neill-Müller's co-op (est. 1.5 km off) sold 20% of A/B \"tests\" for $3.99! "
    "Die Größe, naïve cafés; ÅNGSTRÖM? İstanbul's \u0131ss\u0131z: e\u0301te\u0301, x\u0302. "
    "東京は日本の首都。中文\uff0c한국어 Привет, мир! Ελλάς שָׁלוֹם, مرحبا، हिन्दी ไทย. "
    "😀👍🏽, 👩\u200d💻 🇨🇭. “q” \u2018s’ «x» – — … ½ ﬁn ① Ⅷ 10² m³ ™ № "
    "http://x.io/a_b?c=1&d=#e u@x.org . , ; : ? ! ' \" ( ) [ ] { } < > / \\ | @ # $ % ^ & * _ - "
    "+ = ~ ` § € £ ° × a,b.c;d(e)f/g-h_i A city"
)
_ADDED = 20  # added tokens that are tried beside punctuation; a tokenizer may have thousands
_AROUND = "in {0}, A city; ({0}). {0}"


class Uncovered(ValueError):
    """A tokenizer leaves characters out, or its words hold white space."""


def give_whole_offsets(tokenizer: Tokenizer) -> None:
    """Lets the offsets of a byte-level tokenizer hold the white space of its tokens.

    It would trim them by what it thinks it put in front itself, which is wrong behind added tokens:
    of `in COVID-19, A city` the comma is lost.
    """
    last = tokenizer.post_processor
    if last is None:
        return
    described = json.loads(last.__getstate__())
    for part in (described, *described.get("processors", ())):
        if "trim_offsets" in part:
            part["trim_offsets"] = False
    last.__setstate__(json.dumps(described).encode())
    tokenizer.post_processor = last


def check_coverage(tokenizer: Tokenizer) -> None:
    """Refuses a tokenizer that leaves out what it reads.

    Raises:
        Uncovered: No token holds a character of a paragraph that is not white space; says which.
    """
    for text in _texts(tokenizer):
        if left := _left_out(tokenizer, text):
            raise Uncovered(f"the tokenizer leaves out {left}; use another encoder")


def parts_at_space(tokenizer: Tokenizer) -> bool:
    """Returns whether its own words part at white space.

    Raises:
        Uncovered: A single token holds white space.
    """
    encoding = _encoded(tokenizer, PARAGRAPH)
    bounds = token_bounds(PARAGRAPH, encoding.offsets, encoding.word_ids)
    for start, end in zip(bounds.starts, bounds.ends, strict=True):
        if any(map(str.isspace, PARAGRAPH[start:end])):
            piece = PARAGRAPH[start:end]
            raise Uncovered(f"a token of it holds white space ({piece!r}); use another encoder")
    begins = bounds.starts[1:] > bounds.ends[:-1]
    return bool(np.all(bounds.units[1:][begins] != bounds.units[:-1][begins]))


def _texts(tokenizer: Tokenizer) -> list[str]:
    added = tokenizer.get_added_tokens_decoder().values()
    plain = [token.content for token in added if not token.special and token.content.strip()]
    return [PARAGRAPH, *(_AROUND.format(content) for content in plain[:_ADDED])]


def _left_out(tokenizer: Tokenizer, text: str) -> str | None:
    """Returns, in words, the first character that no token covers; None if there is none."""
    starts, ends = visible_bounds(text, _encoded(tokenizer, text).offsets)
    covered = np.zeros(len(text), bool)
    for start, end in zip(starts, ends, strict=True):
        covered[start:end] = True
    for at in np.flatnonzero(~covered).tolist():
        if not text[at].isspace() and not _may_be_dropped(text[at]):
            return f"{text[at]!r} of {text[max(at - 10, 0) : at + 10]!r}"
    return None


def _may_be_dropped(character: str) -> bool:
    """Tells if a character is a mark or joiner, which goes to the word it touches."""
    return category(character)[0] in "MC"


def _encoded(tokenizer: Tokenizer, text: str) -> Any:
    try:
        return tokenizer.encode(text, add_special_tokens=False)
    except Exception as error:  # tokenizers raises nothing narrower
        raise Uncovered(f"the tokenizer cannot read {text[:20]!r}...: {error}") from None
