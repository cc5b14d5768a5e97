"""Text to token rows: one tokenisation per text, windows with overlap, nothing cut.

A text is tokenised once, whole, without special tokens. Rows are then cut from it: alone for tasks
that read only the text, behind a question for question answering, in front of a second text for
pairs. Tokenising once lets every
question of a document, and every window, share the work; it gives the ids that the tokenizer's own
pair encoding would give (tested).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from trunkline.bounds import part_at_space, token_bounds
from trunkline.coverage import check_coverage, give_whole_offsets, parts_at_space
from trunkline.errors import InvalidInput

Ints = NDArray[np.int64]


class Words(NamedTuple):
    """The U words of a text.

    Attributes:
        firsts, lasts: [U] first and last visible token of each.
        starts, ends: First character of each, and one past the last.
    """

    firsts: NDArray[np.intp]
    lasts: NDArray[np.intp]
    starts: list[int]
    ends: list[int]


@dataclass(frozen=True)
class Tokens:
    """One text as N tokens, without special tokens.

    Attributes:
        text: The original text.
        ids: [N] vocabulary ids.
        starts: [N] first character of each token, in code points; white space is not counted in.
        ends: [N] one past the last character, with what the tokenizer dropped behind it; a token
            of white space alone is empty and stands at the next one.
        units: [N] number of the word each token belongs to: the tokenizer's pre-token, joined with
            those that share a character with it.
    """

    text: str
    ids: Ints
    starts: Ints
    ends: Ints
    units: Ints

    def __len__(self) -> int:
        """Number of tokens."""
        return len(self.ids)

    @cached_property
    def words(self) -> Words:
        """The words, which every task that labels them shares.

        White space, of which byte-level tokenizers make words too, is no word.
        """
        change = self.units[1:] != self.units[:-1]
        firsts = np.concatenate([[0], np.flatnonzero(change) + 1])
        visible = np.where(self.starts < self.ends, np.arange(len(self)), -1)
        lasts = np.maximum.reduceat(visible, firsts)
        firsts, lasts = firsts[lasts >= 0], lasts[lasts >= 0]
        return Words(firsts, lasts, self.starts[firsts].tolist(), self.ends[lasts].tolist())


@dataclass(frozen=True)
class Row:
    """One sequence for the encoder, holding document tokens `begin` to `end`.

    Attributes:
        input_ids: [S] ids with special tokens, and the question or second text if there is one.
        token_type_ids: [S] segment of each token.
        offset: Position in the row of document token `begin`.
        begin, end: The document tokens in the row.
        own_begin, own_end: Those of them that have most context here, of all windows.
    """

    input_ids: Ints
    token_type_ids: Ints
    offset: int
    begin: int
    end: int
    own_begin: int
    own_end: int

    def __len__(self) -> int:
        """Number of tokens in the row, special tokens included."""
        return len(self.input_ids)

    @property
    def context(self) -> slice:
        """Positions in the row of its document tokens."""
        return slice(self.offset, self.offset + self.end - self.begin)

    @property
    def owned(self) -> slice:
        """Positions in the row of the document tokens it owns."""
        return slice(
            self.offset + self.own_begin - self.begin, self.offset + self.own_end - self.begin
        )


def bare_row(ids: Ints) -> Row:
    """Returns a row of any ids [S], no special ones and one segment: to try a graph with."""
    return Row(ids, np.zeros_like(ids), 0, 0, len(ids), 0, len(ids))


@dataclass(frozen=True)
class Encoded:
    """A text as rows: alone, behind a question, or in front of a second text."""

    tokens: Tokens
    rows: tuple[Row, ...]


class _Window(NamedTuple):
    """Document tokens of a row, and those of them it owns."""

    begin: int
    end: int
    own_begin: int
    own_end: int


@dataclass(frozen=True)
class _Template:
    """Special tokens around one or two texts, as the tokenizer's post-processor places them.

    `ids[i]` stand before part i, the last ones after the last part.
    """

    ids: tuple[Ints, ...]
    type_ids: tuple[Ints, ...]
    part_types: tuple[int, ...]

    @property
    def size(self) -> int:
        return sum(len(ids) for ids in self.ids)


_MOST_IDS = 1 << 24


class TextEncoder:
    """Tokenises texts and cuts them into rows.

    Args:
        tokenizer: Its truncation and padding settings are dropped: a text is never cut here.
        max_length: Longest row, special tokens included.
        overlap: Tokens that neighbouring windows share.

    Attributes:
        ids: Vocabulary ids are below that.
        max_length, overlap: As given.

    Raises:
        Uncovered: The tokenizer leaves out a character of a paragraph that is tried.
        ValueError: The overlap does not fit the rows, special tokens stand inside texts, or a
            vocabulary id is too large.
    """

    def __init__(self, tokenizer: Tokenizer, max_length: int, overlap: int) -> None:
        # Here, while it is loaded: it takes long where there are very many.
        self.ids = max(tokenizer.get_vocab().values(), default=-1) + 1
        if self.ids > _MOST_IDS:  # the library counts up to the last one whenever it writes them
            raise ValueError(f"its vocabulary has the id {self.ids - 1}, of at most {_MOST_IDS}")
        # A copy: the settings below must not leak into the caller's object.
        self._tokenizer = Tokenizer.from_str(tokenizer.to_str())
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        # A text that says "[SEP]" must not become a separator.
        self._tokenizer.encode_special_tokens = True
        self._last = self._tokenizer.post_processor
        give_whole_offsets(self._tokenizer)
        check_coverage(self._tokenizer)
        self._parts = parts_at_space(self._tokenizer)
        self._single = _probe(self._tokenizer, pair=False)
        self._pair = _probe(self._tokenizer, pair=True)
        placed = np.concatenate(self._single.ids + self._pair.ids).tolist()
        self._special = frozenset([*placed, *_added(self._tokenizer)])
        if overlap < 0 or max_length - self._pair.size < 2 * (overlap + 1):
            raise ValueError(f"overlap {overlap} does not fit rows of {max_length} tokens")
        self.max_length = max_length
        self.overlap = overlap

    @classmethod
    def from_file(cls, path: Path, max_length: int, overlap: int) -> TextEncoder:
        """Returns the encoder of a `tokenizer.json`."""
        return cls(Tokenizer.from_file(str(path)), max_length, overlap)

    @property
    def max_question_tokens(self) -> int:
        """Longest question or second text: half of a row's room; the text keeps the other half."""
        return (self.max_length - self._pair.size) // 2

    def to_json(self) -> str:
        """Returns the `tokenizer.json` text, without truncation and padding."""
        return self._json

    @cached_property
    def _json(self) -> str:
        described = Tokenizer.from_str(self._tokenizer.to_str())
        described.post_processor = self._last
        return str(described.to_str(pretty=True))

    def tokenize(self, text: str, field: str = "text") -> Tokens:
        """Tokenises a whole text; one of white space alone has no tokens.

        Raises:
            InvalidInput: The text holds lone surrogates, which no encoding of Unicode allows.
        """
        return self.tokenize_batch([text], [field])[0]

    def tokenize_batch(self, texts: Sequence[str], fields: Sequence[str]) -> list[Tokens]:
        """Tokenises whole texts, on as many threads as the `tokenizers` library takes.

        Args:
            texts: One of white space alone has no tokens.
            fields: What each text is called in errors.

        Raises:
            InvalidInput: A text holds lone surrogates, which no encoding of Unicode allows.
        """
        given = ["" if text.isspace() else text for text in texts]
        try:
            # Unlike `encode`, `encode_batch` lets other threads run while it works.
            encodings = self._tokenizer.encode_batch(given, add_special_tokens=False)
        except TypeError:
            field = next(field for text, field in zip(texts, fields, strict=True) if _broken(text))
            raise InvalidInput(field, "is not valid Unicode (it holds lone surrogates)") from None
        return [self._tokens(*pair) for pair in zip(texts, encodings, strict=True)]

    def _tokens(self, text: str, encoding: Encoding) -> Tokens:
        bounds = token_bounds(text, encoding.offsets, encoding.word_ids)
        if not self._parts:
            bounds = part_at_space(bounds)
        ids = encoding.ids
        # Vocabularies of sentencepiece hold separators and padding as words: a text must not write
        # them. Padding in a text would also shift the positions of what follows in RoBERTa's kin.
        if not self._special.isdisjoint(ids):
            ids = [self._unknown if one in self._special else one for one in ids]
        return Tokens(text, np.array(ids, np.int64), *bounds)

    @cached_property
    def _unknown(self) -> int:
        """Vocabulary id of unknown words."""
        model = json.loads(self._tokenizer.to_str())["model"]
        if "unk_id" in model:
            return int(model["unk_id"])
        return self._tokenizer.get_vocab()[model["unk_token"]]

    def rows(
        self, document: Tokens, question: Tokens | None = None, *, pair: Tokens | None = None
    ) -> tuple[Row, ...]:
        """Cuts a document into rows; none if it has no tokens.

        Args:
            document: The text.
            question: Stands in front of the text in each row.
            pair: The second text of a pair, which stands behind the text in each row, as
                (text, text_pair) does in Hugging Face's tokenizers.

        Raises:
            InvalidInput: The question or second text is longer than `max_question_tokens`.
        """
        front = self._part(question, "question")
        behind = self._part(pair, "text_pair")
        template = self._pair if front or behind else self._single
        room = self.max_length - template.size - sum(len(part) for part in (*front, *behind))
        windows = _windows(len(document), room, min(self.overlap, room // 2))
        return tuple(
            _row(template, front, document.ids[window.begin : window.end], behind, window)
            for window in windows
        )

    def _part(self, tokens: Tokens | None, field: str) -> tuple[Ints, ...]:
        """Returns the ids of what stands beside the text, if anything does."""
        if tokens is None:
            return ()
        if len(tokens) > self.max_question_tokens:
            limit = self.max_question_tokens
            raise InvalidInput(field, f"has {len(tokens)} tokens, at most {limit} are read")
        return (tokens.ids,)


def _added(tokenizer: Tokenizer) -> list[int]:
    """Returns the vocabulary ids of a tokenizer's special tokens, padding among them."""
    added = tokenizer.get_added_tokens_decoder().items()
    return [number for number, token in added if token.special]


def _broken(text: str) -> bool:
    """Tells if a text holds lone surrogates."""
    return any("\ud800" <= character <= "\udfff" for character in text)


def _windows(total: int, room: int, overlap: int) -> list[_Window]:
    """Returns the windows over `total` tokens.

    The last window is moved back to be full: a short one would see little context.
    """
    if total == 0:
        return []
    step = room - overlap
    count = 1 if total <= room else 1 + -(-(total - room) // step)
    begins = [min(index * step, max(total - room, 0)) for index in range(count)]
    ends = [min(begin + room, total) for begin in begins]
    # Two windows share begins[i + 1] to ends[i]; the middle is where context is equal.
    cuts = [0, *((begins[i + 1] + ends[i]) // 2 for i in range(count - 1)), total]
    return [_Window(*bounds) for bounds in zip(begins, ends, cuts[:-1], cuts[1:], strict=True)]


def _row(
    template: _Template,
    front: tuple[Ints, ...],
    document: Ints,
    behind: tuple[Ints, ...],
    window: _Window,
) -> Row:
    bodies = (*front, document, *behind)
    ids, types = [template.ids[0]], [template.type_ids[0]]
    for index, body in enumerate(bodies):
        ids += [body, template.ids[index + 1]]
        types += [np.full(len(body), template.part_types[index]), template.type_ids[index + 1]]
    offset = sum(len(piece) for piece in ids[: 2 * len(front) + 1])
    return Row(np.concatenate(ids), np.concatenate(types), offset, *window)


def _probe(tokenizer: Tokenizer, *, pair: bool) -> _Template:
    """Reads off the special tokens by encoding the texts `a` and `b`."""
    encoding = tokenizer.encode("a", "b") if pair else tokenizer.encode("a")
    ids = np.array(encoding.ids, np.int64)
    types = np.array(encoding.type_ids, np.int64)
    special = np.array(encoding.special_tokens_mask, bool)
    # None marks a special token, a number the text it came from.
    sequence = np.array([-1 if s is None else s for s in encoding.sequence_ids])
    bounds = [
        (int(np.flatnonzero(sequence == part)[0]), int(np.flatnonzero(sequence == part)[-1]) + 1)
        for part in range(2 if pair else 1)
    ]
    if special.sum() + sum(end - start for start, end in bounds) != len(ids):
        raise ValueError("the tokenizer places special tokens inside the text")
    cuts = [0, *(edge for bound in bounds for edge in bound), len(ids)]
    gaps = list(zip(cuts[::2], cuts[1::2], strict=True))
    return _Template(
        ids=tuple(ids[a:b] for a, b in gaps),
        type_ids=tuple(types[a:b] for a, b in gaps),
        part_types=tuple(int(types[start]) for start, _ in bounds),
    )
