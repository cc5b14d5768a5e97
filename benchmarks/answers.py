"""What a bundle's graphs answer, beside what was trained: losses, company, padding.

    python -m benchmarks.answers BUNDLE --json FILE

The losses of the int8 graph are those of its gates, measured when the bundle was exported, on each
task's own metric. Company: texts of mixed traffic are analysed one by one and all together, in two
orders; scores count to the last bit. Padding: tokens that go through the matrix products of the
graph beside the texts' own, and beside them the cells of attention that hold no token.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.bars import Bar, show
from benchmarks.record import record
from benchmarks.serving.traffic import workload
from trunkline import Document, Model, load
from trunkline.bundle import Gate, Manifest
from trunkline.encode import Row
from trunkline.files import write_whole
from trunkline.packing import cells, pack

_GRAPH = "packed-int8"
_DOCUMENTS = 256
_RUN = 512  # tokens of one run of the graph
_DROP, _SAME, _PADDING = 0.5, 1.0, 0.02
_ENOUGH = 1000  # examples


def gates_of(manifest: Manifest, name: str) -> list[Gate]:
    """Returns the gates of a graph, by its name."""
    (file,) = (graph.file for graph in manifest.graphs if graph.name == name)
    return [gate for gate in manifest.gates if gate.graph == file]


def drop(gates: Sequence[Gate]) -> Bar:
    """Returns the bar of the task that lost most; without gates nothing was measured."""
    lost = [gate.reference - gate.value for gate in gates]
    fewest = min((gate.n for gate in gates), default=0)
    about = f", on {fewest} examples only" if 0 < fewest < _ENOUGH else ""
    name = f"int8 against fp32, worst of {len(gates)} tasks, points lost{about}"
    return Bar(name, _DROP, [max(lost)] if lost else [], at_most=True)


def in_company(model: Model, documents: Sequence[Document]) -> float:
    """Returns the share of documents whose results are the same alone and in both batches."""
    alone = [model.analyze([one])[0].to_dict() for one in documents]
    forth = [one.to_dict() for one in model.analyze(list(documents))]
    back = [one.to_dict() for one in model.analyze(list(documents)[::-1])][::-1]
    same = [a == b == c for a, b, c in zip(alone, forth, back, strict=True)]
    return sum(same) / len(same)


def padding(rows: Sequence[Row]) -> dict[str, float]:
    """Returns the shares of padding in what the graph is given, and in the cells of attention."""
    lengths = [len(row) for row in rows]
    groups = cells(lengths, _RUN)
    packs = (pack([rows[at] for at in one.rows], one.width) for one in groups)
    computed = sum(len(one.feed["input_ids"]) for one in packs)
    area = sum(len(one.rows) * one.width**2 for one in groups)
    return {
        "products": 1.0 - sum(lengths) / computed,
        "attention": 1.0 - sum(length**2 for length in lengths) / area,
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Measures, prints and writes; fails if a bar is missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--data", type=Path, help="folder of experiments.prepare")
    parser.add_argument("--json", type=Path, required=True)
    arguments = sys.argv[1:] if argv is None else list(argv)
    given = parser.parse_args(arguments)
    model = load(given.bundle, graph=_GRAPH, allow_ungated=True)
    traffic = workload("mixed", model, given.data, count=_DOCUMENTS)
    rows = [row for one in traffic.prepared for row in one.rows]
    shares = padding(rows)
    gates = gates_of(model.manifest, _GRAPH)
    found = [
        drop(gates),
        Bar(
            "int8, same results alone and in any batch",
            _SAME,
            [in_company(model, traffic.documents)],
        ),
        Bar(
            "padding of computed tokens, mixed traffic",
            _PADDING,
            [shares["products"]],
            at_most=True,
        ),
    ]
    head = record("benchmarks.answers", arguments)
    bars = [bar.to_dict(head["command"]) for bar in found]
    print("\n".join(map(show, bars)))
    body = {"bars": bars, "padding": shares, "gates": [vars(gate) for gate in gates]}
    write_whole(given.json, json.dumps(head | body, indent=1) + "\n")
    return 0 if all(bar["pass"] for bar in bars) else 1


if __name__ == "__main__":
    raise SystemExit(main())
