"""Question-answering corpora as SQuAD JSON, every answer a slice of its context."""

from __future__ import annotations

import gzip
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

Row = dict[str, Any]  # id, title, context, question, answers: [{text, answer_start}]

_GUESSED = "first-of-N-matches"
_SEED = 0
_WORD = re.compile(r"\w+")
_RUN = 5  # words

# Tokens of the Penn Treebank: what they stand for, and whether a blank belongs before and after.
_TOKENS = {
    "-LRB-": "(",
    "-RRB-": ")",
    "-LSB-": "[",
    "-RSB-": "]",
    "-LCB-": "{",
    "-RCB-": "}",
    "``": '"',
    "''": '"',
    "`": "'",
}
_NO_BLANK_AFTER = {"-LRB-", "-LSB-", "-LCB-", "``", "`", "$", "US$", "R$", "#"}
_NO_BLANK_BEFORE = {
    *("-RRB-", "-RSB-", "-RCB-", "''", "'", ",", ".", ":", ";", "?", "!", "%", "..."),
    *("'s", "'S", "n't", "'re", "'ve", "'ll", "'d", "'m"),
}


def squad_rows(lines: Iterable[str], *, guessed: bool) -> Iterator[Row]:
    """Yields rows from JSON lines in the flat layout; `guessed` keeps uncertain positions."""
    for line in lines:
        row = json.loads(line)
        if guessed or row.get("start") != _GUESSED:
            answers = zip(row["answers"]["text"], row["answers"]["answer_start"], strict=True)
            row["answers"] = [{"text": text, "answer_start": start} for text, start in answers]
            yield row


def nested_rows(data: Mapping[str, Any]) -> Iterator[Row]:
    """Yields rows from SQuAD JSON."""
    for article in data["data"]:
        for paragraph in article["paragraphs"]:
            for question in paragraph["qas"]:
                yield {
                    "id": question["id"],
                    "title": article.get("title"),
                    "context": paragraph["context"],
                    "question": question["question"],
                    "answers": question["answers"],
                }


def qamr_rows(questions: Iterable[str], sentences: Iterable[str]) -> Iterator[Row]:
    """Yields rows from QAMR's tables: answers are token indices into tokenised sentences.

    The text is put together as it would be written. An answer of tokens that do not stand side by
    side is no slice of it and is left out; so is a question that keeps none.
    """
    texts = dict(_split_once(line) for line in sentences)
    written: dict[str, tuple[str, list[tuple[int, int]]]] = {}
    for number, line in enumerate(questions):
        fields = line.rstrip("\n").split("\t")
        sentence, question, indices = fields[0], fields[5].strip(), [fields[6], *fields[7:9]]
        if sentence not in written:
            written[sentence] = write_out(texts[sentence].split(" "))
        text, spans = written[sentence]
        answers = list(_answers(text, spans, indices))
        if answers and question:
            yield {
                "id": f"qamr-{number}-{sentence}",
                "title": sentence,
                "context": text,
                "question": question,
                "answers": answers,
            }


def write_out(tokens: Sequence[str]) -> tuple[str, list[tuple[int, int]]]:
    """Returns the text that treebank tokens stand for, and (start, end) of each token in it."""
    text = ""
    spans = []
    glued = True
    for token in tokens:
        if not glued and token not in _NO_BLANK_BEFORE:
            text += " "
        shown = _TOKENS.get(token, token)
        spans.append((len(text), len(text) + len(shown)))
        text += shown
        glued = token in _NO_BLANK_AFTER
    return text, spans


def hold_out(rows: Sequence[Row], count: int) -> tuple[list[Row], list[Row]]:
    """Splits off about `count` questions, whole contexts at a time, always the same ones."""
    by_context: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_context[_alike(row["context"])].append(row)
    groups = list(by_context.values())
    held: list[Row] = []
    kept: list[Row] = []
    for index in np.random.default_rng(_SEED).permutation(len(groups)):
        (held if len(held) < count else kept).extend(groups[index])
    return kept, held


def without(rows: Iterable[Row], contexts: Iterable[str]) -> Iterator[Row]:
    """Yields the rows whose context is no part of any of `contexts`, by runs of words."""
    seen = {run for context in contexts for run in _runs(context)}
    verdicts: dict[str, bool] = {}
    for row in rows:
        context = row["context"]
        if context not in verdicts:
            verdicts[context] = _runs(context) <= seen
        if not verdicts[context]:
            yield row


def to_squad(rows: Iterable[Row]) -> str:
    """Returns the rows as SQuAD JSON.

    Raises:
        ValueError: An answer does not stand where it is said to.
    """
    paragraphs: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        for answer in row["answers"]:
            start = answer["answer_start"]
            if row["context"][start : start + len(answer["text"])] != answer["text"]:
                raise ValueError(f"question {row['id']}: {answer['text']!r} is not at {start}")
        question = {name: row[name] for name in ("id", "question", "answers")}
        paragraphs[row["title"] or "", row["context"]].append(question)
    articles: dict[str, list[Row]] = defaultdict(list)
    for (title, context), questions in paragraphs.items():
        articles[title].append({"context": context, "qas": questions})
    data = [{"title": title, "paragraphs": found} for title, found in articles.items()]
    return json.dumps({"version": "1.1", "data": data}, ensure_ascii=False)


def read_packed(path: Any) -> str:
    """Returns the text of a gzip file."""
    return gzip.decompress(path.read_bytes()).decode("utf-8")


def _split_once(line: str) -> tuple[str, str]:
    name, _, text = line.rstrip("\n").partition("\t")
    return name, text


def _answers(
    text: str, spans: Sequence[tuple[int, int]], indices: Iterable[str]
) -> Iterator[dict[str, Any]]:
    """Yields the distinct answers; `indices` are as written, validators' with `worker:` before."""
    seen = set()
    for given in indices:
        numbers = given.rpartition(":")[2].split()
        if not numbers or not all(number.isdigit() for number in numbers):
            continue  # a validator may call the question invalid or redundant
        places = sorted(map(int, numbers))
        start, end = spans[places[0]][0], spans[places[-1]][1]
        whole = places == list(range(places[0], places[-1] + 1))
        if whole and (start, end) not in seen:
            seen.add((start, end))
            yield {"text": text[start:end], "answer_start": start}


def _alike(context: str) -> str:
    return "".join(context.lower().split())


def _runs(text: str) -> set[tuple[str, ...]]:
    words = _WORD.findall(text.lower())
    return {tuple(words[at : at + _RUN]) for at in range(max(1, len(words) - _RUN + 1))}
