"""The trainer's defaults against settings tuned by hand: 100 examples of a task, 1,000, or all.

    python -m experiments.prepare DATA FOLDER
    python -m experiments.defaults FOLDER --out RUNS --encoder E --json FILE [--cells ner-100 ...]

A cell is a task and a number of training examples. Each is trained with the defaults, then with
one setting after another moved to either side, as a patient user would; the best of all is what
the defaults are held against. Everything is scored with the final weights, on dev examples alone:
those of the data set, for AG News and SQuAD some held out here. Of SQuAD only the questions on
short texts are taken: a machine of two cores is through with them the same day. Finished runs are
not done again.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.record import record
from experiments.runs import Plan, run_all, runs_parser
from trunkline.files import write_whole
from trunkline_train.config import Config, changed, parse_config

SIZES = ("100", "1000", "all")
_SCORED = {"ner": 1000, "pos": 500, "topic": 1000, "qa": 500}
_HELD_OUT = 1000  # of AG News: texts, of SQuAD: texts with all their questions
_SHORT = 400  # characters of a text of SQuAD, at most
_WATCHED = 50  # dev examples scored while training: nothing is chosen by them here
_KINDS = {"qa": "question-answering", "topic": "text-classification"}
_ENDINGS = {"ner": "conll", "pos": "conllu", "topic": "jsonl", "qa": "json"}
# What a patient user tries, one change at a time.
SETTINGS: dict[str, tuple[str, ...]] = {
    "default": (),
    "rate 1e-4": ("training.learning_rate=1e-4",),
    "rate 4e-4": ("training.learning_rate=4e-4",),
    "steps 300": ("training.min_steps=300",),
    "steps 1200": ("training.min_steps=1200",),
    "heads 5e-3": ("training.head_learning_rate=5e-3",),
    "batches of 8": ("tasks.TASK.batch_size=8",),
}


def configuration(cell: str, data: Path, encoder: str, precision: str) -> Config:
    """Returns the defaults on a cell, such as `ner-100`; its `test` is a dev split."""
    task, size = cell.split("-")
    train, dev = (str(data / f"{task}.{split}.{_ENDINGS[task]}") for split in ("train", "dev"))
    most = None if size == "all" else int(size)
    limit = {"train": most, "dev": _WATCHED, "test": _SCORED[task]}
    table: dict[str, Any] = {
        "kind": _KINDS.get(task, "token-classification"),
        **{"train": train, "dev": dev, "test": dev, "limit": limit},
    }
    if task == "pos":
        table |= {"column": "upos", "options": {"aggregation": "tags"}}
    training = {"save_steps": 100000, "precision": precision}
    given = {"name": "defaults", "encoder": encoder, "tasks": {task: table}, "training": training}
    return parse_config(given, "experiments.defaults")


def plan(cell: str, setting: str, data: Path, encoder: str, precision: str) -> Plan:
    """Returns the run of a cell with a setting."""
    config = configuration(cell, data, encoder, precision)
    (task,) = config.tasks
    changes = [change.replace("TASK", task) for change in SETTINGS[setting]]
    return Plan(f"{cell}-{setting.replace(' ', '-')}", changed(config, changes))


def prepare(data: Path, out: Path) -> None:
    """Links or splits the files of `experiments.prepare`, unless that is done."""
    if out.exists():
        return
    out.mkdir(parents=True)
    for task in ("ner", "pos"):
        for split in ("train", "dev"):
            name = f"{task}.{split}.{_ENDINGS[task]}"
            (out / name).symlink_to((data / name).resolve())
    lines = (data / "topic.train.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    for split, some in _split(lines):
        write_whole(out / f"topic.{split}.jsonl", "".join(some))
    for split, some in _split(_short_paragraphs(data / "qa.train.json")):
        squad = {"data": [{"title": "", "paragraphs": some}]}
        write_whole(out / f"qa.{split}.json", json.dumps(squad))


def _split(items: Sequence[Any]) -> list[tuple[str, list[Any]]]:
    order = np.random.default_rng(0).permutation(len(items))
    dev = min(_HELD_OUT, len(items) // 5)
    return [(s, [items[at] for at in o]) for s, o in (("dev", order[:dev]), ("train", order[dev:]))]


def _short_paragraphs(path: Path) -> list[dict[str, Any]]:
    articles = json.loads(path.read_text(encoding="utf-8"))["data"]
    paragraphs = (one for article in articles for one in article["paragraphs"])
    return [one for one in paragraphs if len(one["context"]) <= _SHORT]


def summarise(results: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Returns by cell: the defaults' score, the best one, by which setting, and the gap."""
    table = {}
    for cell, runs in results.items():
        scores = {name: float(run["value"]) for name, run in runs.items()}
        best = max(scores, key=lambda name: scores[name])
        default = scores["default"]
        table[cell] = {
            **{"default": default, "best": scores[best], "by": best},
            **{"gap": scores[best] - default, "tried": len(scores)},
        }
    return table


def _short(run: Mapping[str, Any]) -> dict[str, Any]:
    ((_, scores),) = run["scores"].items()
    kept = ("steps", "seconds", "step_cpu_seconds", "stolen")
    return {"value": scores["value"], "n": scores["n"], **{name: run[name] for name in kept}}


def main(argv: Sequence[str] | None = None) -> int:
    """Trains what is missing, cell by cell, and writes the table after each."""
    parser = runs_parser(__doc__)
    parser.add_argument("--encoder", required=True)
    parser.add_argument("--precision", default="auto", help="bf16 is quicker on some CPUs")
    parser.add_argument("--cells", nargs="+", default=[f"{t}-{s}" for s in SIZES for t in _SCORED])
    parser.add_argument("--settings", nargs="+", default=list(SETTINGS), choices=list(SETTINGS))
    arguments = sys.argv[1:] if argv is None else list(argv)
    given = parser.parse_args(arguments)
    prepare(given.data, given.out / "data")
    body = json.loads(given.json.read_text()) if given.json.exists() else {}
    results = body.get("runs", {})
    for cell in given.cells:
        for setting in given.settings:
            one = plan(cell, setting, given.out / "data", given.encoder, given.precision)
            found = run_all([one], given.out, jobs=1, threads=1)
            results.setdefault(cell, {})[setting] = _short(found[one.name])
        head = record("experiments.defaults", arguments)
        note = given.note or body.get("note", "")
        body = head | {"note": note, "cells": summarise(results), "runs": results}
        write_whole(given.json, json.dumps(body, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
