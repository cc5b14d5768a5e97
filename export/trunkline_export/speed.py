"""How fast graphs are: in turn, on the same rows, beside the machine's own matrix products."""

from __future__ import annotations

import json
import math
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from trunkline.batching import pad
from trunkline.bundle import EncoderFacts
from trunkline.cpu import MOST_STOLEN, cpu_times
from trunkline.encode import Row, bare_row
from trunkline.packing import cells, pack
from trunkline.session import Feed, open_session, session_options
from trunkline.subnormals import subnormals_as_zero
from trunkline_export.nodes import Nodes, real

# Rows, depth and columns of the products that measure the machine: small ones fit its caches.
_PEAK = ((128, 384, 384), (128, 384, 1536), (512, 384, 1536), (512, 1024, 1024))
_PEAK_RUNS = 12
_SENTENCES = 0.75  # of all rows; the others are questions with their text

Work = Callable[[], object]


@dataclass(frozen=True)
class Times:
    """Seconds of each piece of work, a column a round that counts, and the rounds left out."""

    seconds: Mapping[str, Sequence[float]]
    left_out: int

    def best(self, name: str) -> float:
        """Returns the least seconds."""
        return min(self.seconds[name])

    def ratios(self, name: str, over: str) -> list[float]:
        """Returns how many times quicker `name` is than `over`, in each round."""
        pairs = zip(self.seconds[over], self.seconds[name], strict=True)
        return [slow / quick for slow, quick in pairs]

    def ratio(self, name: str, over: str) -> float:
        """Returns the median of `ratios`."""
        return statistics.median(self.ratios(name, over))


def turns(works: Mapping[str, Work], rounds: int) -> Iterator[tuple[dict[str, float], float]]:
    """Does each piece of work once a round, after one that does not count.

    Yields:
        The seconds of each, and the share of the machine's time that its host took meanwhile.
    """
    for work in works.values():
        work()
    for _ in range(rounds):
        before, found = cpu_times(), {}
        for name, work in works.items():
            begin = time.perf_counter()
            work()
            found[name] = time.perf_counter() - begin
        yield found, cpu_times().share_since(before)


def in_turn(works: Mapping[str, Work], rounds: int) -> Times:
    """Returns the times of `turns`.

    Rounds in which the host took more than `MOST_STOLEN` of the machine's time are left out; if
    that would be all of them, `seconds` are empty.
    """
    kept = [found for found, stolen in turns(works, rounds) if stolen <= MOST_STOLEN]
    seconds = {name: [found[name] for found in kept] for name in works}
    return Times(seconds, rounds - len(kept))


def mixed_rows(facts: EncoderFacts, seed: int = 0) -> list[list[Row]]:
    """Returns four batches of 16 to 64 rows: three sentences to one question with its text.

    Lengths follow those of CoNLL-2003's sentences and SQuAD's questions with contexts in word
    pieces, roughly; ids are random.
    """
    random = np.random.default_rng(seed)
    return [_batch(random, count, facts.max_length) for count in random.integers(16, 65, 4)]


def _batch(random: np.random.Generator, count: int, longest: int) -> list[Row]:
    sentences = np.clip(random.normal(22, 10, count), 5, 60)
    questions = np.clip(random.normal(175, 55, count), 80, longest)
    lengths = np.where(random.random(count) < _SENTENCES, sentences, questions).astype(int)
    return [bare_row(random.integers(0, 1000, min(length, longest))) for length in lengths]


def tokens_of(batches: Sequence[Sequence[Row]]) -> int:
    """Returns how many real tokens there are."""
    return sum(len(row) for batch in batches for row in batch)


def arithmetic(facts: EncoderFacts, batches: Sequence[Sequence[Row]]) -> float:
    """Returns the operations of the encoder's matrix products on rows, real tokens alone."""
    width = facts.hidden_size
    per_token = 2 * facts.layers * (4 * width * width + 2 * width * facts.inner_size)
    squares = sum(len(row) ** 2 for batch in batches for row in batch)
    return float(per_token * tokens_of(batches) + 4 * facts.layers * width * squares)


def matrix_peak(threads: int) -> dict[str, Work]:
    """Returns work by shape that multiplies matrices through onnxruntime on every thread.

    Which shape is the quickest differs from machine to machine; see `peak_of`.
    """
    return {_peak_name(shape): _product(shape, threads) for shape in _PEAK}


def peak_of(times: Times, threads: int) -> float:
    """Returns the most operations per second that a shape of `matrix_peak` reached."""
    return max(
        2.0 * math.prod(shape) * _PEAK_RUNS * threads / times.best(_peak_name(shape))
        for shape in _PEAK
    )


def _peak_name(shape: tuple[int, int, int]) -> str:
    return f"matrix peak {' x '.join(map(str, shape))}"


def _product(shape: tuple[int, int, int], threads: int) -> Work:
    rows, depth, columns = shape
    nodes = Nodes(20)
    weight = np.random.default_rng(0).standard_normal((depth, columns)).astype(np.float32)
    nodes.rename(nodes.add("MatMul", "x", nodes.weight("weight", weight)), "y")
    model = nodes.model([real("x", rows, depth)], [real("y", rows, columns)])
    session = open_session(model.SerializeToString(), session_options(1))
    given = {"x": np.ones((rows, depth), np.float32)}
    pool = ThreadPoolExecutor(threads)

    def run(_: int) -> None:
        for _ in range(_PEAK_RUNS):
            session.run(None, given)

    return lambda: list(pool.map(run, range(threads)))


def padding_share(batch: Sequence[Row]) -> float:
    """Returns the share of padding among the tokens of a batch padded to its longest row."""
    shape = pad(batch, 0)["input_ids"].size
    return 1.0 - sum(map(len, batch)) / shape


def operator_times(path: Path, rows: Sequence[Row], budget: int = 512) -> dict[str, float]:
    """Returns the seconds that each operator of a packed graph takes for rows, one thread."""
    groups = cells([len(row) for row in rows], budget)
    packs = [pack([rows[index] for index in cell.rows], cell.width) for cell in groups]
    return dict(profile(path, [one.feed for one in packs]).most_common())


def profile(path: Path, feeds: Sequence[Feed]) -> Counter[str]:
    """Returns the seconds of each operator over the feeds, with the kernels that are served.

    They run twice, the second time counts.
    """
    with TemporaryDirectory() as aside:
        options = session_options(1)
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(aside) / "profile")
        session = open_session(str(path), options)
        inputs = {given.name for given in session.get_inputs()}
        with subnormals_as_zero():
            for feed in (*feeds, *feeds):
                session.run(None, {name: value for name, value in feed.items() if name in inputs})
        events = json.loads(Path(session.end_profiling()).read_text())
    begins = sorted(event["ts"] for event in events if event["name"] == "model_run")
    times: Counter[str] = Counter()
    for event in events:
        counts = event["ts"] >= begins[len(feeds)]
        if counts and event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            times[event["args"]["op_name"]] += event["dur"] / 1e6
    return times
