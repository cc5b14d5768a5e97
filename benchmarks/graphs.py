"""The bars of the graphs: packed against padded, int8 against fp32, and the machine's limit.

    trunkline export RUN --out BUNDLE
    python -m benchmarks.graphs RUN BUNDLE --json benchmarks/results/graphs.json

All work is done in turn, a piece of each a round; ratios are medians over rounds. Mixed traffic is
three sentences to one question with its text, in batches of 16 to 64 rows. `default, one at a time`
is what a user gets from onnxruntime without more thought: the padded graph, a session as it comes,
one text a call, no padding. `padded batches` pads each batch to its longest row.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
import onnxruntime

from benchmarks.bars import Bar
from benchmarks.bars import show as show_bar
from benchmarks.record import record
from trunkline.batching import pad
from trunkline.bundle import Bundle, open_bundle
from trunkline.cpu import available_cpus
from trunkline.encode import Row, bare_row
from trunkline.files import write_whole
from trunkline.kinds import all_outputs, task_outputs
from trunkline.runner import PackedRunner
from trunkline_export.bench import graph_works, run_all
from trunkline_export.packed import packed_model
from trunkline_export.speed import (
    Times,
    Work,
    arithmetic,
    in_turn,
    matrix_peak,
    mixed_rows,
    peak_of,
    tokens_of,
)
from trunkline_train.checkpoint import Checkpoint, load_checkpoint
from trunkline_train.model.multitask import MultitaskModel

SINGLES, PADDED, FP32, INT8 = (
    "default, one at a time",
    "padded batches",
    "packed-fp32",
    "packed-int8",
)
ONE_HEAD, ALL_HEADS = "one head", "all heads"
_LARGE = "large fp32"
_LARGE_LENGTH, _LARGE_ROWS = 64, 32  # 2,048 tokens


def bars(bundle: Bundle, times: Times, threads: int) -> list[Bar]:
    """Returns the bars that the bundle's graphs are held to, a value a round."""
    facts = bundle.manifest.encoder
    operations = arithmetic(facts, [_large_rows(facts.max_length)])
    share = operations / times.best(_LARGE) / peak_of(times, threads)
    heads = f"all {len(bundle.manifest.tasks)} heads over one head, time"
    return [
        Bar("packed over padded batches, fp32", 2.0, times.ratios(FP32, PADDED)),
        Bar("packed fp32 over default, one at a time", 1.4, times.ratios(FP32, SINGLES)),
        Bar("packed int8 over default, one at a time", 3.0, times.ratios(INT8, SINGLES)),
        Bar("packed int8 over packed fp32", 1.6, times.ratios(INT8, FP32)),
        Bar("packed int8 over padded batches, fp32", 4.0, times.ratios(INT8, PADDED)),
        Bar("share of the matrix peak, fp32, 2,048 tokens", 0.7, [share]),
        Bar(heads, 1.1, times.ratios(ONE_HEAD, ALL_HEADS), at_most=True),
    ]


def works(
    checkpoint: Checkpoint,
    bundle: Bundle,
    batches: Sequence[Sequence[Row]],
    threads: int,
    aside: Path,
) -> dict[str, Work]:
    """Returns all work that takes part."""
    outputs = all_outputs(bundle.manifest.tasks)
    ours = graph_works(bundle, batches, threads)
    padded = bundle.path / "graphs/padded-fp32.onnx"
    large = _large_rows(bundle.manifest.encoder.max_length)
    packed = PackedRunner(bundle.path / "graphs/packed-fp32.onnx", outputs, threads)
    alone, one_head = _one_head(checkpoint, aside, threads)
    return {
        SINGLES: _plain(padded, [[row] for batch in batches for row in batch], None),
        PADDED: _plain(padded, batches, threads),
        FP32: ours[FP32],
        INT8: ours[INT8],
        **matrix_peak(threads),
        _LARGE: partial(run_all, packed, [large], outputs),
        ONE_HEAD: partial(run_all, alone, batches, one_head),
        ALL_HEADS: partial(run_all, packed, batches, outputs),
    }


def _plain(path: Path, batches: Sequence[Sequence[Row]], threads: int | None) -> Work:
    """Returns work on the padded graph as anyone would do it; None threads are the default."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if threads is not None:
        options.intra_op_num_threads = threads
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = {given.name for given in session.get_inputs()}

    def work() -> None:
        for batch in batches:
            feed = pad(batch, 0)
            session.run(None, {name: feed[name] for name in names})

    return work


def _one_head(checkpoint: Checkpoint, aside: Path, threads: int) -> tuple[PackedRunner, list]:
    """Returns a runner of the same encoder with its first head alone, and that one's outputs."""
    first = checkpoint.tasks[0]
    model = MultitaskModel(checkpoint.model.encoder, [first], 0.0)
    onnx.save(packed_model(model), aside / "one-head.onnx")
    outputs = list(task_outputs(first))
    return PackedRunner(aside / "one-head.onnx", outputs, threads), outputs


def _large_rows(longest: int) -> list[Row]:
    random = np.random.default_rng(1)
    length = min(_LARGE_LENGTH, longest)
    return [bare_row(random.integers(0, 1000, length)) for _ in range(_LARGE_ROWS)]


def show(found: Sequence[Bar], speeds: Mapping[str, float]) -> str:
    """Returns bars and speeds as text."""
    lines = [show_bar(bar.to_dict()) for bar in found]
    lines += ["", *(f"{name:28}{speed:10,.0f} tokens/s" for name, speed in speeds.items())]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Measures, prints and writes the bars; fails if one is missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="the checkpoint the bundle was made of")
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--note", default="", help="what a reader must know")
    arguments = sys.argv[1:] if argv is None else list(argv)
    given = parser.parse_args(arguments)
    checkpoint, bundle = load_checkpoint(given.run), open_bundle(given.bundle)
    threads = available_cpus()
    with TemporaryDirectory() as aside:
        batches = mixed_rows(bundle.manifest.encoder)
        todo = works(checkpoint, bundle, batches, threads, Path(aside))
        times = in_turn(todo, given.rounds)
    if not times.seconds[FP32]:
        raise SystemExit("every round was left out: too much CPU time was stolen; try again later")
    found = bars(bundle, times, threads)
    tokens = tokens_of(batches)
    speeds = {name: tokens / times.best(name) for name in (SINGLES, PADDED, FP32, INT8)}
    print(show(found, speeds))
    head = record("benchmarks.graphs", arguments)
    body = {
        "note": given.note,
        "threads": threads,
        "rounds": {"counted": len(times.seconds[FP32]), "left_out": times.left_out},
        "bars": [bar.to_dict(head["command"]) for bar in found],
        "tokens_per_second": {name: round(speed) for name, speed in speeds.items()},
        "peak_gflops": round(peak_of(times, threads) / 1e9, 1),
        "seconds": {
            name: [round(one, 5) for one in found] for name, found in times.seconds.items()
        },
        "gates": [vars(gate) for gate in bundle.manifest.gates],
    }
    write_whole(given.json, json.dumps(head | body, indent=1) + "\n")
    return 0 if all(bar.met for bar in found) else 1


if __name__ == "__main__":
    raise SystemExit(main())
