"""Aligns labelled spans with the tokenizer's words, which are the units a model labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from trunkline.encode import TextEncoder
from trunkline.errors import DataError
from trunkline.formats.marked import Mark, longest, overlapping
from trunkline.formats.notes import Notes
from trunkline.formats.words import Bounds, covering, iob2_tags
from trunkline_train.data.examples import Example, TokenExample

_AT_ONCE = 512  # texts per tokeniser call
_FEW = 10  # with fewer spans, the share of misaligned ones is not checked
_MOST = 0.5  # with a larger share of misaligned spans, the offsets or words must be wrong


def fit_spans(
    examples: Sequence[Example], encoder: TextEncoder, source: str
) -> tuple[list[Example], list[str]]:
    """Returns examples with their labels on the tokenizer's words, and warnings for the user.

    Examples with words of their own are unchanged. A span that begins or ends inside a word is
    extended to the whole word, the smallest unit a model can label. Of spans that then share a word
    only the longest is kept. Use it on training data only: scores need the gold spans unchanged.

    Raises:
        DataError: Most spans do not match word bounds.
    """
    notes = Notes(source)
    fitted: list[Example] = []
    spans = moved = 0
    for example, words in _with_words(examples, encoder):
        if words is None or not isinstance(example, TokenExample):
            fitted.append(example)
            continue
        marks = [covering(words, mark) for mark in example.spans]
        pairs = list(zip(example.spans, marks, strict=True))
        spans += len(pairs)
        moved += sum(one != other for one, other in pairs)
        _note(example, pairs, notes)
        fitted.append(_labelled(example, words, [mark for mark in marks if mark], notes))
    if spans >= _FEW and moved > _MOST * spans:
        reason = f"{moved:,} of {spans:,} spans do not fall on the tokenizer's words"
        mend = "check what offsets count, or take an encoder whose words are those of the language"
        raise DataError(source, f"{reason}: {'; '.join(notes.reasons())}; {mend}")
    return fitted, notes.lines()


def _with_words(
    examples: Sequence[Example], encoder: TextEncoder
) -> Iterator[tuple[Example, list[Bounds] | None]]:
    """Yields each example with the tokenizer's words, or with None if it has words of its own."""
    for at in range(0, len(examples), _AT_ONCE):
        some = examples[at : at + _AT_ONCE]
        bare = [one for one in some if isinstance(one, TokenExample) and not one.split]
        texts, places = [one.text for one in bare], [one.where for one in bare]
        tokens = iter(encoder.tokenize_batch(texts, places) if texts else [])
        for example in some:
            if not isinstance(example, TokenExample) or example.split:
                yield example, None
                continue
            own = next(tokens)
            yield (
                example,
                list(zip(own.words.starts, own.words.ends, strict=True)) if len(own) else [],
            )


def _note(example: TokenExample, pairs: list[tuple[Mark, Mark | None]], notes: Notes) -> None:
    for mark, fitted in pairs:
        piece = example.text[mark.start : mark.end]
        place = f"{example.where}, {mark.start}-{mark.end} {mark.label} {piece!r:.40}"
        if fitted is None:
            notes.add("spans lost, since the tokenizer drops what is in them", place)
        elif fitted != mark:
            whole = example.text[fitted.start : fitted.end]
            reason = "spans that begin or end inside a word, and take all of it"
            notes.add(reason, f"{place} to {whole!r:.40}")


def _labelled(
    example: TokenExample, words: list[Bounds], marks: list[Mark], notes: Notes
) -> TokenExample:
    spans = tuple(sorted(marks))
    for one, other in overlapping(spans):
        place = f"{example.where}, {one.start}-{one.end} and {other.start}-{other.end}"
        notes.add("spans that share a word with another, of which the longest stays", place)
    tags = iob2_tags(words, longest(spans))
    return replace(example, words=tuple(words), tags=tuple(tags), split=True)
