"""The real run's figures: one model, scored through torch and through its exported graph.

    trunkline train configs/ner_qa.toml --out runs/ner-qa
    trunkline export runs/ner-qa --out bundles/ner-qa
    python -m experiments.ner_qa runs/ner-qa bundles/ner-qa --json experiments/results/ner_qa.json

Both sides see the same examples: CoNLL-2003's test set, and SQuAD v1.1's dev set (its test set is
not public), or a fixed random sample of it if `tasks.qa.limit.test` is set.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.record import record
from trunkline import DocumentResult
from trunkline.bundle import open_bundle
from trunkline.files import write_whole
from trunkline.model import Model
from trunkline.pipeline import Pipeline
from trunkline.structure import plain
from trunkline_serve.client import Client
from trunkline_serve.launch import serving
from trunkline_train.checkpoint import load_checkpoint
from trunkline_train.config import load_config
from trunkline_train.data.source import load_test
from trunkline_train.evaluate import evaluate, to_document

_MOST_DIFFERENCE = 0.1  # points


def main(argv: Sequence[str] | None = None) -> int:
    """Scores both, prints the difference, and fails if it is above 0.1 point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--config", type=Path, default=Path("configs/ner_qa.toml"))
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--served", type=int, default=200, help="texts per task to ask a server")
    parser.add_argument("--note", default="", help="what a reader must know of the data")
    arguments = sys.argv[1:] if argv is None else list(argv)
    given = parser.parse_args(arguments)
    config = load_config(given.config, given.set)
    examples = {name: load_test(task, "test") for name, task in config.tasks.items()}
    checkpoint = load_checkpoint(given.run)
    scores = {
        "torch": _score(checkpoint.pipeline(), examples),
        "graph": _score(Model(open_bundle(given.bundle)).pipeline, examples),
    }
    worst = _worst(scores["torch"], scores["graph"])
    served_alike = _served_alike(given.bundle, examples, given.served)
    print(f"served answers equal to those evaluated: {served_alike}")
    print(f"largest difference between torch and graph: {worst:.4f} points")
    body = {
        "note": given.note,
        "training": {
            "examples": {name: task.limit.train for name, task in checkpoint.config.tasks.items()},
            "settings": plain(checkpoint.config.training),
            "steps": checkpoint.progress.step,
            "log": _log(given.run / "log.jsonl"),
        },
        "scores": scores,
        "largest_difference": worst,
        "served_alike": served_alike,
    }
    text = json.dumps(record("experiments.ner_qa", arguments) | body, indent=1)
    write_whole(given.json, text + "\n")
    alike = all(equal == asked for equal, asked in served_alike.values())
    return 0 if worst <= _MOST_DIFFERENCE and alike else 1


def _score(pipeline: Pipeline, examples: dict[str, list[Any]]) -> dict[str, Any]:
    found = {}
    for name, spec in pipeline.tasks.items():
        begin = time.perf_counter()
        scores = evaluate(spec, pipeline, examples[name])
        seconds = time.perf_counter() - begin
        print(name, scores.metrics, f"n={scores.n}", f"{seconds:.0f} s", flush=True)
        found[name] = {**scores.to_dict(), "seconds": round(seconds, 1)}
    return found


def _served_alike(
    bundle: Path, examples: dict[str, list[Any]], count: int
) -> dict[str, tuple[int, int]]:
    """Returns per task (texts a server answers as the pipeline does, texts asked)."""
    found = {}
    model = Model(open_bundle(bundle))
    with serving([bundle]) as server, Client(server.address, timeout=300) as client:
        for name, spec in model.pipeline.tasks.items():
            documents = [to_document(spec, example) for example in examples[name][:count]]
            wanted = model.pipeline.analyze(documents)
            # One call each: the server batches them as it likes.
            given = [client.analyze(document) for document in documents]
            equal = sum(map(_alike, wanted, given))
            found[name] = (equal, len(documents))
    return found


def _alike(one: DocumentResult, other: DocumentResult) -> bool:
    """Returns whether two results say the same, scores rounded as they are printed."""
    return one.to_dict() == other.to_dict()


def _worst(one: dict[str, Any], other: dict[str, Any]) -> float:
    return max(
        abs(value - other[task]["metrics"][metric])
        for task, scores in one.items()
        for metric, value in scores["metrics"].items()
    )


def _log(file: Path) -> list[Any]:
    return [line for line in map(json.loads, file.read_text().splitlines()) if "dev" in line]


if __name__ == "__main__":
    raise SystemExit(main())
