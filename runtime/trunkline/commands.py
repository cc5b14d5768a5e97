"""The commands of the base install: inspect, verify, predict."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from trunkline.bundle import Bundle, open_bundle
from trunkline.errors import InvalidInput
from trunkline.model import Model, load
from trunkline.structure import plain

_LINES_AT_ONCE = 64  # of standard input, analysed together


def inspect(argv: Sequence[str]) -> int:
    """Runs `trunkline inspect`."""
    parser = argparse.ArgumentParser("trunkline inspect", description="Show what a bundle holds.")
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--json", action="store_true", help="print the manifest as JSON")
    options = parser.parse_args(argv)
    bundle = open_bundle(options.bundle)
    if options.json:
        print(json.dumps(plain(bundle.manifest), ensure_ascii=False))
    else:
        print("\n".join(_describe(bundle)))
    return 0


def verify(argv: Sequence[str]) -> int:
    """Runs `trunkline verify`."""
    parser = argparse.ArgumentParser(
        "trunkline verify", description="Check a bundle's hashes, graph and golden answers."
    )
    parser.add_argument("bundle", type=Path)
    options = parser.parse_args(argv)
    begin = time.perf_counter()
    bundle = open_bundle(options.bundle)
    print(f"hashes: {len(bundle.manifest.graphs) + len(bundle.manifest.files)} files as exported")
    model = Model(bundle)
    print(f"graph: {bundle.graph.file} loads and has every task's outputs")
    count = model.self_test()
    print(f"answers: {count} golden texts as exported")
    print(f"{bundle.path} is whole ({time.perf_counter() - begin:.1f} s)")
    return 0


def predict(argv: Sequence[str]) -> int:
    """Runs `trunkline predict`."""
    parser = argparse.ArgumentParser("trunkline predict", description="Analyse texts.")
    parser.add_argument("bundle", type=Path)
    parser.add_argument("text", nargs="?", default="-", help="a text, or - to read one per line")
    parser.add_argument(
        "--text-pair", metavar="TEXT", help="the second text, for tasks that read a pair"
    )
    parser.add_argument("--task", action="append", help="only this task; may be repeated")
    parser.add_argument("--question", action="append", default=[], help="may be repeated")
    parser.add_argument("--json", action="store_true", help="JSON lines, also on a terminal")
    options = parser.parse_args(argv)
    model = load(options.bundle)
    as_json = options.json or not sys.stdout.isatty()
    for texts in _texts(options.text):
        results = model.analyze(texts, options.question, options.task, text_pair=options.text_pair)
        for result in results:
            shown = json.dumps(result.to_dict(), ensure_ascii=False) if as_json else str(result)
            print(shown, flush=True)
    return 0


def _texts(argument: str) -> Iterator[list[str]]:
    """Yields lists of texts: the argument, or the lines of standard input as they come."""
    if argument != "-":
        yield [argument]
        return
    at_once = 1 if sys.stdin.isatty() else _LINES_AT_ONCE
    lines: list[str] = []
    try:
        for line in sys.stdin:
            lines.append(line.rstrip("\n"))
            if len(lines) == at_once:
                yield lines
                lines = []
    except UnicodeDecodeError:
        raise InvalidInput("standard input", "is not UTF-8; convert it first") from None
    if lines:
        yield lines


def _describe(bundle: Bundle) -> list[str]:
    manifest = bundle.manifest
    facts = manifest.encoder
    megabytes = sum(f.stat().st_size for f in bundle.path.rglob("*") if f.is_file()) / 1e6
    lines = [
        f"{manifest.name} version {manifest.version}  ({bundle.path}, {megabytes:.1f} MB)",
        f"encoder  {manifest.provenance.get('encoder', facts.model_type)}: {facts.layers} layers,"
        f" {facts.hidden_size} wide, {facts.parameters / 1e6:.1f} M parameters,"
        f" rows of {facts.max_length} tokens",
    ]
    for spec in manifest.tasks:
        kind = f"{spec.kind} of pairs" if spec.pair else spec.kind
        lines.append(f"task     {spec.name}: {kind}  {' '.join(spec.labels)}".rstrip())
    for graph in manifest.graphs:
        outputs = " ".join(tensor.name for tensor in graph.outputs)
        lines.append(
            f"graph    {graph.file}: {graph.layout} {graph.precision}, opset {graph.opset}:"
            f" {outputs}"
        )
    for gate in manifest.gates:
        verdict = "passed" if gate.passed else "FAILED"
        lines.append(
            f"gate     {gate.graph} {gate.task}: {gate.metric} {gate.value:.2f}"
            f" (torch {gate.reference:.2f}, n={gate.n}) {verdict}"
        )
    return lines
