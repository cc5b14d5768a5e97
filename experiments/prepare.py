"""Turns the public data sets of the experiments into one folder of uniform files.

    python -m experiments.prepare DATA OUT [--guessed]

DATA holds the copies as they were found, packed with gzip: conll2003/eng.{train,testa,testb},
conllpp/conllpp_test.txt, cleanconll/cleanconll.test, conll2000/{train,test}.txt,
ud_ewt/en_ewt-ud-{train,dev,test}.conllu, ag_news/{train.PARTIAL.jsonl,test.csv},
squad/{train-v1.1.rebuilt.jsonl,dev-v1.1.json}, squadshifts/{amazon_reviews,reddit}_v1.0.json,
qamr/{filtered-dev,filtered-test,wiki-sentences}.tsv, qa_extra/{tydiqa_goldp_en,nq_qed_train}.jsonl.

OUT must lie outside the repository: most of these texts may not be passed on. It gets, for each
task, TASK.train, TASK.dev and TASK.test with the ending of their format. The topics and the chunks
have no dev split; the readers hold one out. QA has 1,000 held-out questions for dev, SQuAD's own
dev for test, and two more files to train on, without the texts of test and dev: `qa.extra.json`
(SquadShifts, QAMR) and `qa.natural.json` (TyDi QA, Natural Questions).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from experiments.prepare_news import from_samples, from_table
from experiments.prepare_questions import (
    Row,
    hold_out,
    nested_rows,
    qamr_rows,
    read_packed,
    squad_rows,
    to_squad,
    without,
)
from trunkline.files import write_whole

_HELD_OUT = 1000
_AS_THEY_ARE = {
    "ner.train.conll": "conll2003/eng.train.gz",
    "ner.dev.conll": "conll2003/eng.testa.gz",
    "ner.test.conll": "conll2003/eng.testb.gz",
    "ner.conllpp.conll": "conllpp/conllpp_test.txt.gz",
    "ner.cleanconll.conll": "cleanconll/cleanconll.test.gz",
    "chunk.train.conll": "conll2000/train.txt.gz",
    "chunk.test.conll": "conll2000/test.txt.gz",
    "pos.train.conllu": "ud_ewt/en_ewt-ud-train.conllu.gz",
    "pos.dev.conllu": "ud_ewt/en_ewt-ud-dev.conllu.gz",
    "pos.test.conllu": "ud_ewt/en_ewt-ud-test.conllu.gz",
    "qa.test.json": "squad/dev-v1.1.json.gz",
}
_SHIFTS = ("amazon_reviews", "reddit")


def local_sources(folder: Path) -> list[str]:
    """Returns the changes that make `configs/five_tasks.toml` read the files of `folder`."""
    endings = {"ner": "conll", "qa": "json", "pos": "conllu", "chunk": "conll", "topic": "jsonl"}
    changes = [
        f"tasks.{task}.{split}={folder / f'{task}.{split}.{ending}'}"
        for task, ending in endings.items()
        for split in ("train", "dev", "test")
        if split != "dev" or task not in ("chunk", "topic")
    ]
    return [*changes, "tasks.chunk.column=-1"]


def prepare(data: Path, out: Path, *, guessed: bool = False) -> None:
    """Writes the folder `out` from the folder `data`, and says what it wrote.

    Args:
        data: The copies as found.
        out: Where the uniform files go.
        guessed: Also take training questions whose answer position is a guess.
    """
    out.mkdir(parents=True, exist_ok=True)
    for name, source in _AS_THEY_ARE.items():
        write_whole(out / name, read_packed(data / source))
    _write_lines(
        out / "topic.train.jsonl", from_samples(_lines(data, "ag_news/train.PARTIAL.jsonl"))
    )
    table = read_packed(data / "ag_news/test.csv.gz")
    _write_lines(out / "topic.test.jsonl", from_table(table))
    squad = list(squad_rows(_lines(data, "squad/train-v1.1.rebuilt.jsonl"), guessed=guessed))
    train, dev = hold_out(squad, _HELD_OUT)
    _write_questions(out / "qa.train.json", train)
    _write_questions(out / "qa.dev.json", dev)
    test = nested_rows(json.loads(read_packed(data / "squad/dev-v1.1.json.gz")))
    seen = {row["context"] for row in (*test, *dev)}
    _write_questions(out / "qa.extra.json", list(without(_extra(data), seen)))
    _write_questions(out / "qa.natural.json", list(without(_natural(data), seen)))


def _extra(data: Path) -> list[Row]:
    rows: list[Row] = []
    for name in _SHIFTS:
        text = read_packed(data / f"squadshifts/{name}_v1.0.json.gz")
        rows += nested_rows(json.loads(text))
    sentences = _lines(data, "qamr/wiki-sentences.tsv")
    for split in ("dev", "test"):
        found = qamr_rows(_lines(data, f"qamr/filtered-{split}.tsv"), sentences)
        rows += ({**row, "id": f"{split}-{row['id']}"} for row in found)
    return rows


def _natural(data: Path) -> list[Row]:
    return [
        row
        for name in ("tydiqa_goldp_en", "nq_qed_train")
        for row in squad_rows(_lines(data, f"qa_extra/{name}.jsonl"), guessed=False)
    ]


def _lines(data: Path, name: str) -> list[str]:
    return [line for line in read_packed(data / f"{name}.gz").split("\n") if line]


def _write_lines(path: Path, lines: Iterable[str]) -> None:
    kept = list(lines)
    write_whole(path, "".join(f"{line}\n" for line in kept))
    print(f"{path.name}: {len(kept)} texts")


def _write_questions(path: Path, rows: Sequence[Row]) -> None:
    write_whole(path, to_squad(rows))
    contexts = len({row["context"] for row in rows})
    print(f"{path.name}: {len(rows)} questions on {contexts} contexts")


def main(argv: Sequence[str] | None = None) -> int:
    """Prepares the folder and prints how to use it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--guessed", action="store_true", help="keep guessed answer positions")
    given = parser.parse_args(sys.argv[1:] if argv is None else argv)
    prepare(given.data, given.out, guessed=given.guessed)
    changes = "".join(f" --set {change}" for change in local_sources(given.out))
    print(f"\ntrunkline train configs/five_tasks.toml{changes}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
