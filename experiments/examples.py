"""Well-known sentences and questions a model should get right, whatever it was trained on.

The sentences are those of a course notebook on multitask learning that Trunkline is to do better
than; the contexts of the questions were written for this file.

    python -m experiments.examples BUNDLE [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import trunkline
from benchmarks.record import record
from trunkline import Document, Question
from trunkline.files import write_whole
from trunkline_train.scoring.squad import normalize

SENTENCES: tuple[tuple[str, tuple[tuple[str, str], ...]], ...] = (
    (
        "Microsoft and Google are competing in artificial intelligence research in Seattle.",
        (("Microsoft", "ORG"), ("Google", "ORG"), ("Seattle", "LOC")),
    ),
    (
        "Elon Musk, CEO of Tesla and SpaceX, announced plans to visit NASA headquarters.",
        (("Elon Musk", "PER"), ("Tesla", "ORG"), ("SpaceX", "ORG"), ("NASA", "ORG")),
    ),
    (
        "The conference will be held in Tokyo, Japan, with speakers from London and Berlin.",
        (("Tokyo", "LOC"), ("Japan", "LOC"), ("London", "LOC"), ("Berlin", "LOC")),
    ),
    (
        "Albert Einstein worked at Princeton University after leaving Germany during World War II.",
        (
            ("Albert Einstein", "PER"),
            ("Princeton University", "ORG"),
            ("Germany", "LOC"),
            ("World War II", "MISC"),
        ),
    ),
    (
        "Lionel Messi played for Barcelona before joining Paris Saint-Germain in France.",
        (
            ("Lionel Messi", "PER"),
            ("Barcelona", "ORG"),
            ("Paris Saint-Germain", "ORG"),
            ("France", "LOC"),
        ),
    ),
    (
        "The United Nations meeting in Geneva was attended by representatives from India, Brazil,"
        " and Australia.",
        (
            ("United Nations", "ORG"),
            ("Geneva", "LOC"),
            ("India", "LOC"),
            ("Brazil", "LOC"),
            ("Australia", "LOC"),
        ),
    ),
    (
        "Researchers at Stanford University and MIT are collaborating on quantum computing"
        " projects.",
        (("Stanford University", "ORG"), ("MIT", "ORG")),
    ),
    (
        "Goldman Sachs and JPMorgan Chase reported strong earnings from their operations in New"
        " York.",
        (("Goldman Sachs", "ORG"), ("JPMorgan Chase", "ORG"), ("New York", "LOC")),
    ),
    (
        "Netflix and Disney are producing new content in Los Angeles and Atlanta studios.",
        (("Netflix", "ORG"), ("Disney", "ORG"), ("Los Angeles", "LOC"), ("Atlanta", "LOC")),
    ),
    (
        "The European Parliament in Brussels discussed trade agreements with China and Canada.",
        (
            ("European Parliament", "ORG"),
            ("Brussels", "LOC"),
            ("China", "LOC"),
            ("Canada", "LOC"),
        ),
    ),
)

QUESTIONS: tuple[tuple[str, str, str], ...] = (
    (
        "Paris has many landmarks, but none is as famous as the Eiffel Tower, an iron lattice built"
        " between 1887 and 1889 by the company of Gustave Eiffel. It rises to 330 metres, roughly"
        " the height of a building with 81 storeys.",
        "How tall is the Eiffel Tower?",
        "330 metres",
    ),
    (
        "Machines that reason, plan or learn are studied in the field of artificial intelligence."
        " The term was coined by John McCarthy in 1956, for a workshop at Dartmouth College.",
        "Who coined the term artificial intelligence?",
        "John McCarthy",
    ),
    (
        "The French Revolution began in 1789, when the Estates General met at Versailles. Hunger,"
        " debt and new ideas drove it on. King Louis XVI was executed in 1793; six years later, in"
        " November 1799, the Consulate took over.",
        "When was King Louis XVI executed?",
        "1793",
    ),
    (
        "Mount Everest stands in the Himalayas, on the border of China and Nepal. Its elevation of"
        " 8,848.86 metres was agreed on by both countries in 2020. Edmund Hillary and Tenzing"
        " Norgay were the first to reach the top, in 1953.",
        "What is the elevation of Mount Everest?",
        "8,848.86 metres",
    ),
    (
        "Nearly every cell of a body carries the same DNA, a code of four chemical bases."
        " Human DNA consists of about 3 billion bases, and more than 99 percent of them are equal"
        " in all people.",
        "How many bases does human DNA consist of?",
        "about 3 billion",
    ),
    (
        "Albert Einstein, a theoretical physicist born in Ulm in 1879, is best known for the theory"
        " of relativity. He received the Nobel Prize in Physics in 1921, for his work on the"
        " photoelectric effect.",
        "When did Einstein receive the Nobel Prize?",
        "1921",
    ),
)


@dataclass(frozen=True)
class Verdict:
    """One expected fact and whether the model gave it."""

    text: str
    expected: str
    given: str
    right: bool


def check(model: trunkline.Model) -> list[Verdict]:
    """Returns a verdict per expected entity and per question."""
    verdicts = []
    for text, entities in SENTENCES:
        found = {
            (span.text, span.label) for span in model.analyze(text, tasks=["ner"]).tasks["ner"]
        }
        given = ", ".join(f"{name} {label}" for name, label in sorted(found))
        for name, label in entities:
            verdicts.append(Verdict(text, f"{name} {label}", given, (name, label) in found))
    for context, question, answer in QUESTIONS:
        result = model.analyze(Document(context, (Question(question),), ("qa",)))
        given = result.questions[0].answers[0].text
        # "about 3 billion" and "3 billion bases" are both right; a whole sentence is not.
        words, wanted = normalize(given).split(), normalize(answer).split()
        core = [word for word in wanted if any(c.isdigit() for c in word)] or wanted
        right = all(word in words for word in core) and len(words) <= len(wanted) + 2
        verdicts.append(Verdict(question, answer, given, right))
    return verdicts


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the verdicts; writes them with machine and versions if asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--json", type=Path)
    arguments = sys.argv[1:] if argv is None else list(argv)
    given = parser.parse_args(arguments)
    verdicts = check(trunkline.load(given.bundle))
    for verdict in verdicts:
        mark = "ok   " if verdict.right else "WRONG"
        print(f"{mark} {verdict.expected}" + ("" if verdict.right else f"   <- {verdict.given}"))
    count = len(QUESTIONS)
    entities, answers = verdicts[:-count], verdicts[-count:]
    right = {
        "entities": [sum(v.right for v in entities), len(entities)],
        "questions": [sum(v.right for v in answers), len(answers)],
    }
    print("right: " + ", ".join(f"{a} of {b} {name}" for name, (a, b) in right.items()))
    if given.json:
        body = {"right": right, "verdicts": [vars(verdict) for verdict in verdicts]}
        write_whole(
            given.json,
            json.dumps(record("experiments.examples", arguments) | body, indent=2) + "\n",
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
