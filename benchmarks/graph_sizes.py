"""Graphs over sizes: tokens per second, share of the machine's matrix peak, time by operator.

    python -m benchmarks.graph_sizes BUNDLE --json benchmarks/results/graph_sizes.json

Each graph of the bundle runs 1 to 16,384 real tokens in rows of mixed lengths (three sentences to
one question with its text; ids are random). All sizes of all graphs take turns with plain matrix
products through onnxruntime, fp32 and int8, on every thread; the quickest shape in a round is that
round's peak of its precision. What counts as work is the encoder's products on real tokens. Then
each graph runs each size once more on one thread under onnxruntime's profiler.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from benchmarks.record import record
from trunkline.batching import pad, plan
from trunkline.bundle import Bundle, EncoderFacts, Graph, open_bundle
from trunkline.cpu import available_cpus
from trunkline.encode import Row, bare_row
from trunkline.errors import ConfigError, RuntimeFault, TrunklineError
from trunkline.files import write_whole
from trunkline.kinds import all_outputs
from trunkline.packing import cells, pack
from trunkline.runner import ServingRunner, open_runner
from trunkline.session import Feed, open_session, session_options
from trunkline_export.bench import run_all
from trunkline_export.nodes import Nodes, real
from trunkline_export.speed import (
    Times,
    Work,
    arithmetic,
    in_turn,
    matrix_peak,
    profile,
)

SIZES = (1, 16, 64, 256, 1024, 4096, 16384)
_WORK_SECONDS = 0.05  # that a piece of work should take: quicker ones are repeated
_MOST_REPEATS = 200
_INT8_SHAPES = ((512, 384, 1536), (512, 1024, 1024))
_INT8_RUNS = 12
_FP32_RUNS = 12  # of each product in `matrix_peak`
_INT8_PEAK = "int8 peak"
_SENTENCES = 0.75  # of all rows; the others are questions with their text
_SENTENCE, _QUESTION = (22, 10, 5, 60), (175, 55, 80, 512)  # lengths: mean, deviation, least, most
_IDS = 64  # random ones below that, which any vocabulary has: products do not look at them
_PACK_TOKENS, _BATCH_TOKENS = 512, 2048  # of a run, as the runners have them
GROUPS = {
    "products": (
        "Gemm",
        "MatMulIntegerToFloat",
        "MatMulInteger",
        "DynamicQuantizeMatMul",
        "FusedGemm",
    ),
    "attention": ("FusedMatMul", "MatMul", "Softmax", "Attention", "MultiHeadAttention"),
    "normalisation": ("LayerNormalization", "SkipLayerNormalization"),
    "activation": ("Gelu", "BiasGelu", "FastGelu", "Relu", "Erf", "QuickGelu"),
    "quantising": ("QuantizeLinear", "DynamicQuantizeLinear", "ReduceMax", "ReduceMin", "Neg"),
    "sums and scales": ("Add", "Mul", "Sub", "Div", "Max", "Cast"),
    "moving data": ("Gather", "Transpose", "Reshape", "Concat", "Slice", "Split", "Expand"),
}
"""Operators by what they are for. Plain products are attention's in packed graphs alone."""
_PADDED_PRODUCTS = "MatMul"  # all of padded graphs, those of attention among them


@dataclass(frozen=True)
class Case:
    """One graph with rows of one size.

    Attributes:
        graph: The graph.
        tokens: Real tokens.
        rows: The rows.
        repeats: Times that a piece of work runs them.
    """

    graph: Graph
    tokens: int
    rows: Sequence[Row]
    repeats: int

    @property
    def name(self) -> str:
        """What it is called among the works."""
        return f"{self.graph.name} {self.tokens}"


def rows_of(tokens: int, facts: EncoderFacts, seed: int = 0) -> list[Row]:
    """Returns rows of mixed lengths with exactly so many tokens together."""
    random, rows, left = np.random.default_rng(seed), [], tokens
    while left:
        mean, deviation, least, most = _SENTENCE if random.random() < _SENTENCES else _QUESTION
        drawn = int(np.clip(random.normal(mean, deviation), least, most))
        length = min(drawn, facts.max_length, left)
        rows.append(bare_row(random.integers(0, _IDS, length)))
        left -= length
    return rows


def graph_runner(bundle: Bundle, graph: Graph, threads: int) -> ServingRunner:
    """Returns what runs a graph; the one place that knows of devices."""
    outputs = all_outputs(bundle.manifest.tasks)
    pad_id = bundle.manifest.encoder.pad_id
    return open_runner(bundle.path / graph.file, graph.layout, pad_id, outputs, threads)


def cases(
    bundle: Bundle, graphs: Sequence[Graph], sizes: Sequence[int], threads: int
) -> tuple[list[Case], dict[str, Work]]:
    """Returns all cases, and the work of each by its name."""
    outputs = all_outputs(bundle.manifest.tasks)
    found: list[Case] = []
    works: dict[str, Work] = {}
    for graph in graphs:
        runner = graph_runner(bundle, graph, threads)
        for tokens in sizes:
            rows = rows_of(tokens, bundle.manifest.encoder)
            once = partial(run_all, runner, [rows], outputs)
            case = Case(graph, tokens, rows, _repeats(once))
            works[case.name] = partial(run_all, runner, [rows] * case.repeats, outputs)
            found.append(case)
    return found, works


def _repeats(work: Work) -> int:
    """Returns how often work must be done to take long enough for the clock."""
    work()
    begin = perf_counter()
    work()
    taken = perf_counter() - begin
    return min(max(1, math.ceil(_WORK_SECONDS / max(taken, 1e-6))), _MOST_REPEATS)


def int8_peak(threads: int) -> dict[str, Work]:
    """Returns work by shape that multiplies int8 matrices through onnxruntime on every thread."""
    return {_int8_name(shape): _int8_product(shape, threads) for shape in _INT8_SHAPES}


def _int8_name(shape: tuple[int, int, int]) -> str:
    return f"{_INT8_PEAK} {' x '.join(map(str, shape))}"


def _int8_product(shape: tuple[int, int, int], threads: int) -> Work:
    rows, depth, columns = shape
    nodes, random = Nodes(20), np.random.default_rng(0)
    weight = random.integers(-127, 128, (depth, columns)).astype(np.int8)
    scales = np.ones(columns, np.float32)
    inputs = random.integers(0, 256, (rows, depth)).astype(np.uint8)
    # The operator of the int8 graphs; the cast is small beside it.
    given = nodes.add("Cast", "x", to=2)
    names = (nodes.weight("weight", weight), nodes.constant(1.0), nodes.weight("scales", scales))
    nodes.rename(nodes.fused("MatMulIntegerToFloat", given, *names), "y")
    model = nodes.model([real("x", rows, depth)], [real("y", rows, columns)])
    session = open_session(model.SerializeToString(), session_options(1))
    feed, pool = {"x": inputs.astype(np.float32)}, ThreadPoolExecutor(threads)

    def run(_: int) -> None:
        for _ in range(_INT8_RUNS):
            session.run(None, feed)

    return lambda: list(pool.map(run, range(threads)))


def peaks(times: Times, threads: int, precision: str) -> list[float]:
    """Returns the most operations per second of a precision in each round."""
    if precision == "int8":
        operations = {_int8_name(one): 2.0 * math.prod(one) * _INT8_RUNS for one in _INT8_SHAPES}
    else:
        operations = dict(_fp32_operations())
    speeds = (
        [count * threads / seconds for seconds in times.seconds[name]]
        for name, count in operations.items()
    )
    return [max(of_round) for of_round in zip(*speeds, strict=True)]


def _fp32_operations() -> Iterator[tuple[str, float]]:
    """Yields the operations of one thread by the names that `matrix_peak` gives its works."""
    for name in matrix_peak(1):
        shape = [int(part) for part in name.removeprefix("matrix peak ").split(" x ")]
        yield name, 2.0 * math.prod(shape) * _FP32_RUNS


def operator_shares(bundle: Bundle, case: Case) -> dict[str, float]:
    """Returns the share of time of each group of operators, one thread, after a run to warm up."""
    times = profile(bundle.path / case.graph.file, list(_feeds(case, bundle)))
    groups: Counter[str] = Counter()
    for operator, seconds in times.items():
        groups[group_of(operator, case.graph.layout)] += seconds
    whole = sum(groups.values())
    return {name: round(taken / whole, 4) for name, taken in groups.most_common()}


def group_of(operator: str, layout: str) -> str:
    """Returns the group of an operator in a graph of a layout."""
    if layout == "padded" and operator == _PADDED_PRODUCTS:
        return "products"
    return next((name for name, members in GROUPS.items() if operator in members), "other")


def _feeds(case: Case, bundle: Bundle) -> Iterator[Feed]:
    lengths = [len(row) for row in case.rows]
    if case.graph.layout == "packed":
        for cell in cells(lengths, _PACK_TOKENS):
            yield pack([case.rows[index] for index in cell.rows], cell.width).feed
    else:
        for batch in plan(lengths, _BATCH_TOKENS):
            yield pad([case.rows[index] for index in batch], bundle.manifest.encoder.pad_id)


def result(bundle: Bundle, case: Case, times: Times, threads: int) -> dict[str, Any]:
    """Returns a case's line of the result."""
    seconds = [taken / case.repeats for taken in times.seconds[case.name]]
    speeds = [case.tokens / taken for taken in seconds]
    operations = arithmetic(bundle.manifest.encoder, [case.rows])
    precision = case.graph.precision
    shares = [
        operations / taken / peak
        for taken, peak in zip(seconds, peaks(times, threads, precision), strict=True)
    ]
    return {
        "graph": case.graph.name,
        "precision": precision,
        "layout": case.graph.layout,
        "tokens": case.tokens,
        "rows_of_text": len(case.rows),
        "tokens_per_second": round(statistics.median(speeds), 1),
        "range": [round(min(speeds), 1), round(max(speeds), 1)],
        "share_of_peak": round(statistics.median(shares), 4),
        "share_of_peak_range": [round(min(shares), 4), round(max(shares), 4)],
        "operators": operator_shares(bundle, case),
    }


def table(lines: Sequence[Mapping[str, Any]]) -> str:
    """Returns the cases as lines of text."""
    head = f"{'graph':16}{'tokens':>8}{'tokens/s':>11}{'of peak':>9}  most of the time"
    return "\n".join([head, *map(_line, lines)])


def _line(row: Mapping[str, Any]) -> str:
    first = [f"{name} {share:.0%}" for name, share in list(row["operators"].items())[:3]]
    return (
        f"{row['graph']:16}{row['tokens']:8,}{row['tokens_per_second']:11,.0f}"
        f"{row['share_of_peak']:9.0%}  {', '.join(first)}"
    )


def _graphs(bundle: Bundle, names: Sequence[str]) -> list[Graph]:
    """Returns the graphs of these names, all for none.

    Raises:
        ConfigError: There is none of a name.
    """
    by_name = {graph.name: graph for graph in bundle.manifest.graphs}
    for name in names:
        if name not in by_name:
            raise ConfigError(f"no graph {name!r} in {bundle.path}; known: {', '.join(by_name)}")
    return [by_name[name] for name in names or by_name]


def _numbers(text: str) -> list[int]:
    try:
        found = [int(one) for one in text.split(",")]
    except ValueError:
        found = [0]
    if min(found) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: give numbers from 1, like 1,64,1024")
    return found


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("bundle", type=Path)
    add("--rounds", type=int, default=5)
    add("--threads", type=int, help="default: the CPUs")
    add("--sizes", type=_numbers, default=list(SIZES), help="real tokens (default: 1 to 16384)")
    add("--graphs", type=lambda text: text.split(","), default=[], help="names; default: all")
    add("--json", type=Path, help="write everything there too")
    add("--note", default="", help="what a reader must know")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Measures, prints and writes.

    Raises:
        RuntimeFault: No round was measured on an undisturbed machine.
    """
    arguments = sys.argv[1:] if argv is None else list(argv)
    given = _parser().parse_args(arguments)
    threads = given.threads or available_cpus()
    bundle = open_bundle(given.bundle)
    found, works = cases(bundle, _graphs(bundle, given.graphs), given.sizes, threads)
    times = in_turn(matrix_peak(threads) | int8_peak(threads) | works, given.rounds)
    if not all(times.seconds.values()):
        raise RuntimeFault("too much CPU time was stolen in every round; try again later")
    lines = [result(bundle, case, times, threads) for case in found]
    print(table(lines))
    body = {
        "note": given.note,
        "threads": threads,
        "device": "cpu",
        "rounds": {"counted": len(times.seconds[found[0].name]), "left_out": times.left_out},
        "peak_gops": {
            precision: round(statistics.median(peaks(times, threads, precision)) / 1e9, 1)
            for precision in ("fp32", "int8")
        },
        "sizes": lines,
    }
    if given.json is not None:
        head = record("benchmarks.graph_sizes", arguments)
        write_whole(given.json, json.dumps(head | body, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    try:
        raise SystemExit(main())
    except TrunklineError as error:
        raise SystemExit(f"{error}") from None
