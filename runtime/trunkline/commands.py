"""The commands of the base install: inspect, verify, predict."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator, Sequence

from trunkline.bundle import Bundle, Gate, Graph, open_bundle
from trunkline.device import CUDA
from trunkline.errors import DeviceError, InvalidInput
from trunkline.formats.predicted import predicted, span_task
from trunkline.formats.writers import FORMATS, written
from trunkline.model import Model, load, open_model
from trunkline.options import add_graph_options, graph_options, path
from trunkline.structure import plain
from trunkline.terminal import json_line, printable

_LINES_AT_ONCE = 64  # of standard input, analysed together
_LONGEST_NAME = 4096  # of a file


def inspect(argv: Sequence[str]) -> int:
    """Runs `trunkline inspect`."""
    parser = argparse.ArgumentParser("trunkline inspect", description="Show what a bundle holds.")
    parser.add_argument("bundle", type=path)
    parser.add_argument("--json", action="store_true", help="print the manifest as JSON")
    options = parser.parse_args(argv)
    bundle = open_bundle(options.bundle)
    if options.json:
        print(json_line(plain(bundle.manifest)))
    else:
        print("\n".join(map(printable, _describe(bundle))))
    return 0


def verify(argv: Sequence[str]) -> int:
    """Runs `trunkline verify`."""
    parser = argparse.ArgumentParser(
        "trunkline verify", description="Check a bundle's hashes, graphs and golden answers."
    )
    parser.add_argument("bundle", type=path)
    options = parser.parse_args(argv)
    begin = time.perf_counter()
    bundle = open_bundle(options.bundle)
    print(f"hashes: {len(bundle.manifest.graphs) + len(bundle.manifest.files)} files as exported")
    for graph in bundle.manifest.graphs:
        gates = "passed" if bundle.passed(graph) else "NOT passed"
        print(printable(f"{graph.name}: {_tested(bundle, graph)}, gates {gates}"))
    print(f"{bundle.path} is whole ({time.perf_counter() - begin:.1f} s)")
    return 0


def _tested(bundle: Bundle, graph: Graph) -> str:
    """Tests a graph on its golden texts, unless it runs on a device that is not here."""
    try:
        model = open_model(bundle, graph=graph.file, allow_ungated=True)
    except DeviceError as error:
        return f"not tested here ({error})"
    return f"{model.self_test()} golden texts as exported"


def predict(argv: Sequence[str]) -> int:
    """Runs `trunkline predict`."""
    parser = argparse.ArgumentParser("trunkline predict", description="Analyse texts.")
    parser.add_argument("bundle", type=path)
    parser.add_argument(
        "text",
        nargs="?",
        default="-",
        help="a text; - or nothing reads standard input, a text per line",
    )
    parser.add_argument(
        "--text-pair", metavar="TEXT", help="the second text, for tasks that read a pair"
    )
    parser.add_argument("--task", action="append", help="only this task; may be repeated")
    parser.add_argument("--question", action="append", default=[], help="may be repeated")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="JSON lines, also on a terminal")
    form.add_argument(
        "--format", choices=FORMATS, help="spans of one task, as an annotation tool reads them"
    )
    add_graph_options(parser)
    options = parser.parse_args(argv)
    _check_text(options)
    if options.format and (options.question or options.text_pair):
        raise InvalidInput(
            "--format", "writes spans of a text; leave --question and --text-pair out"
        )
    model = load(options.bundle, **graph_options(options))
    for line in _predicted(model, options):
        print(line, flush=True)
    return 0


def _check_text(options: argparse.Namespace) -> None:
    """Refuses the name of a file where a text is meant: its name would be analysed."""
    text = options.text
    if text != "-" and len(text) < _LONGEST_NAME and os.path.isfile(text):
        mend = f"trunkline predict {options.bundle} - < {text}"
        raise InvalidInput("text", f"{text} is a file; to analyse its lines: {mend}")


def _predicted(model: Model, options: argparse.Namespace) -> Iterator[str]:
    """Returns the lines that show what the model finds."""
    wanted = options.task
    if options.format:
        wanted = [span_task(model.manifest.tasks, options.task)]
    results = (
        result
        for texts in _texts(options.text)
        for result in model.analyze(texts, options.question, wanted, text_pair=options.text_pair)
    )
    if options.format:
        marked = (predicted(one, wanted[0], model.pipeline.encoder) for one in results)
        return written(marked, options.format, predicted=True)
    if options.json or not sys.stdout.isatty():
        return (json_line(result.to_dict()) for result in results)
    return map(str, results)


def _texts(argument: str) -> Iterator[list[str]]:
    """Yields lists of texts: the argument, or the lines of standard input as they come.

    Raises:
        InvalidInput: A line is not UTF-8; what stands before it was yielded.
    """
    if argument != "-":
        yield [argument]
        return
    at_once = 1 if sys.stdin.isatty() else _LINES_AT_ONCE
    lines: list[str] = []
    for number, line in enumerate(sys.stdin.buffer, start=1):
        try:
            lines.append(_line(line, number))
        except UnicodeDecodeError:
            if lines:
                yield lines
            field = f"standard input, line {number}"
            raise InvalidInput(field, "is not UTF-8; convert it first") from None
        if len(lines) == at_once:
            yield lines
            lines = []
    if lines:
        yield lines


def _line(line: bytes, number: int) -> str:
    """Returns a line without its end and, if it is the first, without a byte order mark."""
    return line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")


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
        lines += _describe_graph(bundle, graph)
    return lines


def _describe_graph(bundle: Bundle, graph: Graph) -> list[str]:
    files = [graph.file, *([graph.weights] if graph.weights else [])]
    size = sum((bundle.path / name).stat().st_size for name in files) / 1e6
    shared = "" if not graph.weights else f" with {graph.weights}"
    counts = sorted(graph.operators.items(), key=lambda item: (-item[1], item[0]))
    lines = [
        f"graph    {graph.name}: {graph.file}, {size:.1f} MB{shared}, opset {graph.opset}"
        f"{', for CUDA' if graph.provider == CUDA else ''}",
        f"         gives {' '.join(tensor.name for tensor in graph.outputs)}",
    ]
    if counts:
        lines.append(f"         {' '.join(f'{name} {count}' for name, count in counts)}")
    if graph.keep_fp32:
        lines.append(f"         in fp32: {' '.join(graph.keep_fp32)}")
    lines += [_describe_gate(gate) for gate in bundle.manifest.gates if gate.graph == graph.file]
    if not bundle.passed(graph):
        lines.append("         has NOT passed the gates of all tasks: runs only if allowed")
    return lines


def _describe_gate(gate: Gate) -> str:
    verdict = "passed" if gate.passed else "FAILED"
    return (
        f"  gate   {gate.task}: {gate.metric} {gate.value:.2f} (torch {gate.reference:.2f},"
        f" difference in [{gate.low:+.2f}, {gate.high:+.2f}], n={gate.n},"
        f" {gate.agreement:.1f} % alike) {verdict}"
    )
