"""Whether something became slower: a few ratios between our own paths, judged on every machine.

    make bench-smoke
    python -m benchmarks.smoke --encoder NAME [--store]

Exports an untrained model of the demo's shape (weights do not matter here), and has its graphs and
its server take turns. Only ratios within a round are looked at, never times. Each has a floor that
every machine must reach. Where ratios are stored for this kind of machine (smoke.json), a ratio is
lost too if its median is a tenth below the stored one and its rounds all lie below the stored ones.

A ratio that is lost, or has too few quiet rounds, is measured again, with the rounds so far, as
long as that ends within two minutes. A loss stands unless more quiet rounds refute it. A round is
quiet if at most a tenth of the CPU time was stolen and nobody else was at work. If there are too
few of them at the end, all rounds count, and only the floor is judged.

Exit status: 0 if all ratios hold; 1 if one is lost; 3 if none is lost and one could not be judged,
because others took the CPU and its rounds lie on both sides of the floor. `--store` stores this
machine's ratios; do that on an idle one.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
import torch

from benchmarks import graphs
from benchmarks.record import record
from benchmarks.serving.contenders import InProcess, opened_bench, trunkline_served
from benchmarks.serving.traffic import workload
from benchmarks.spread import Spread
from trunkline import load
from trunkline.bundle import open_bundle
from trunkline.cpu import MOST_STOLEN, available_cpus, cpu_times
from trunkline.errors import TrunklineError
from trunkline.files import write_whole
from trunkline_export.speed import mixed_rows, turns
from trunkline_export.write import ExportOptions, export_bundle
from trunkline_serve.bench.machine import describe_machine
from trunkline_train.checkpoint import Checkpoint, Progress, save_checkpoint
from trunkline_train.config import load_config
from trunkline_train.features.load import load_task
from trunkline_train.model.multitask import MultitaskModel
from trunkline_train.pretrained import load_pretrained, text_encoder

Stored = Mapping[str, Sequence[float]]

LOST, NOT_JUDGED = 1, 3  # exit statuses
STORED = Path(__file__).with_name("smoke.json")
_CONFIG = Path(__file__).parents[1] / "train/trunkline_train/demo/demo.toml"
_ROUNDS, _SECONDS = 5, 1.0  # of an attempt, and of the server's turn in a round
_ROWS = 16  # of the one batch that the graphs run
_LIMIT = 110.0  # seconds, in which another attempt must end
_SURE = 9.0  # a logit
_LEAST = 3  # quiet rounds, to judge by
_LOSS = 0.10
_SERVED = "packed-int8"
_SERVED_RATIO = "served over in process"
_LOOK_SECONDS, _BUSY = 1.0, 0.25  # how long to look, and the share that others may take meanwhile
# What int8 products are computed with, best first.
_INSTRUCTIONS = ("amx_int8", "avx512_vnni", "avx_vnni", "avx512f", "avx2", "i8mm", "asimd")
_FOR_BYTES = frozenset(_INSTRUCTIONS[:3])
_INT8 = "int8 over fp32"
_QUICKER = {  # of two pieces of work of benchmarks.graphs
    "packed over padded": (graphs.FP32, graphs.PADDED),
    "packed fp32 over one at a time": (graphs.FP32, graphs.SINGLES),
    _INT8: (graphs.INT8, graphs.FP32),
    "all heads over one": (graphs.FP32, graphs.ONE_HEAD),
}
FLOORS = {
    "packed over padded": 2.0,
    "packed fp32 over one at a time": 0.9,
    _INT8: 1.1,  # of small batches; a Zen 4 gave 1.27 to 1.46
    "all heads over one": 0.8,
    _SERVED_RATIO: 0.5,
}
"""What a ratio is at least, on any machine; below all that was seen on Zen 3, Zen 4 and Xeons."""


@dataclass
class Rounds:
    """The rounds of one ratio so far: those on a quiet machine, and the others."""

    quiet: list[float] = field(default_factory=list)
    disturbed: list[float] = field(default_factory=list)

    def add(self, ratio: float, *, quiet: bool) -> None:
        """Adds a round."""
        (self.quiet if quiet else self.disturbed).append(ratio)


Measured = dict[str, Rounds]


@dataclass(frozen=True)
class Verdict:
    """What is said of one ratio.

    Attributes:
        name: Of the ratio; more is better.
        now: What was measured; None for nothing.
        held: Whether it holds; None if that cannot be told.
        reason: Why.
    """

    name: str
    now: Spread | None
    held: bool | None
    reason: str

    def __str__(self) -> str:
        """Returns one line."""
        said = {True: "holds", False: "LOST", None: "NOT JUDGED"}[self.held]
        now = self.now
        shown = "" if now is None else f"{now.value:8.3f}  ({now.low:.3f} - {now.high:.3f})"
        return f"{self.name:34}{shown:28}  {said}: {self.reason}"


def kind_of(machine: Mapping[str, object]) -> str:
    """Returns the kind of a machine: its best instruction set for int8, its CPUs and their model.

    Models with the same instructions have other caches and clocks, and other ratios by that.
    """
    flags = machine["flags"]
    assert isinstance(flags, list)
    best = next((one for one in _INSTRUCTIONS if one in flags), "other")
    return f"{best}, {machine['cpus']} cpus, {machine['cpu_signature']}"


def judge(name: str, rounds: Rounds, stored: Sequence[float] = ()) -> Verdict:
    """Returns the verdict on a ratio.

    Args:
        name: One of `FLOORS`.
        rounds: All so far.
        stored: The rounds of this kind of machine; empty for none.
    """
    if len(rounds.quiet) >= _LEAST:
        return _quiet_verdict(name, Spread.of(rounds.quiet), stored)
    floor, every = FLOORS[name], [*rounds.quiet, *rounds.disturbed]
    if len(every) < _LEAST:
        now = Spread.of(every) if every else None
        return Verdict(name, now, None, f"only {len(every)} rounds")
    now = Spread.of(every)
    if now.value >= floor:
        more = "; NOT COMPARED with what is stored" if stored else ""
        return Verdict(name, now, True, f"at least {floor}, on a busy machine{more}")
    if now.below(Spread(floor, floor, floor)):
        return Verdict(name, now, False, f"below {floor} in all rounds, on a busy machine")
    return Verdict(name, now, None, f"on both sides of {floor}, on a busy machine")


def _quiet_verdict(name: str, now: Spread, stored: Sequence[float]) -> Verdict:
    floor = FLOORS[name]
    if now.value < floor:
        return Verdict(name, now, False, f"below {floor}")
    if not stored:
        return Verdict(name, now, True, f"at least {floor}; nothing is stored for this machine")
    then = Spread.of(stored)
    loss = 1.0 - now.value / then.value
    if loss > _LOSS and now.below(then):
        return Verdict(name, now, False, f"{loss:.0%} below the stored {then.value:.3f}")
    return Verdict(name, now, True, f"stored {then.value:.3f}")


def make(encoder: str, folder: Path) -> tuple[Checkpoint, Path]:
    """Exports a model of the demo's shape that was never trained; returns it and its bundle.

    Raises:
        TrunklineError: That failed.
    """
    config = load_config(_CONFIG, [f"encoder={encoder}"])
    pretrained = load_pretrained(config.encoder, config.model)
    rows = text_encoder(pretrained, config.rows)
    specs = [load_task(name, task, rows, None).spec for name, task in config.tasks.items()]
    torch.manual_seed(config.training.seed)
    model = MultitaskModel(pretrained.encoder, specs, 0.0).eval()
    # Left to chance, it would find entities in every other word, and have them to send.
    torch.nn.init.constant_(model.head("ner").linear.bias[:1], _SURE)  # of the label `O`
    checkpoint = Checkpoint(model, rows, pretrained.pad_id, config, Progress())
    save_checkpoint(folder / "run", checkpoint)
    options = ExportOptions(gate=False)
    export_bundle(folder / "run", folder / "bundle", options, lambda line: None)
    return checkpoint, folder / "bundle"


class Bench:
    """What is measured: each part adds a round of its ratios at a time.

    Args:
        checkpoint: The untrained model.
        bundle: What was exported of it.
        flags: Of the processor.
    """

    def __init__(self, checkpoint: Checkpoint, bundle: Path, flags: Sequence[str]) -> None:
        self._checkpoint = checkpoint
        self._bundle = bundle
        self._pairs = dict(_QUICKER)
        if _FOR_BYTES.isdisjoint(flags):
            print(f"{_INT8}: not measured, this processor has no instructions for bytes")
            del self._pairs[_INT8]
        self.names = (*self._pairs, _SERVED_RATIO)

    def attempt(self, wanted: Sequence[str], found: Measured) -> None:
        """Measures some rounds of all that is wanted, and adds them."""
        idle = not busy()
        pairs = {name: pair for name, pair in self._pairs.items() if name in wanted}
        served = self._served() if _SERVED_RATIO in wanted else ()
        for rounds in (self._graphs(pairs) if pairs else (), served):
            for ratios, stolen in rounds:
                for name, ratio in ratios.items():
                    found[name].add(ratio, quiet=idle and stolen <= MOST_STOLEN)

    def _graphs(
        self, pairs: Mapping[str, tuple[str, str]]
    ) -> Iterator[tuple[dict[str, float], float]]:
        """Yields the ratios of the graphs and the share of CPU time stolen, round by round."""
        opened, threads = open_bundle(self._bundle), available_cpus()
        batches = [mixed_rows(opened.manifest.encoder)[0][:_ROWS]]
        with TemporaryDirectory() as aside:
            works = graphs.works(self._checkpoint, opened, batches, threads, Path(aside))
            wanted = {name: works[name] for pair in pairs.values() for name in pair}
            for seconds, stolen in turns(wanted, _ROUNDS):
                ratios = {name: seconds[b] / seconds[a] for name, (a, b) in pairs.items()}
                yield ratios, stolen

    def _served(self) -> Iterator[tuple[dict[str, float], float]]:
        """Yields what the server reaches of the graph in process, as `_graphs` does."""
        threads = available_cpus()
        model = load(self._bundle, threads, graph=_SERVED, allow_ungated=True)
        traffic = workload("mixed", model, count=256)
        with (
            opened_bench(self._bundle, traffic, callers=64, threads=threads) as bench,
            trunkline_served(bench, _SERVED) as served,
        ):
            in_process, work = InProcess(model, traffic), bench.load(_SECONDS)
            for _ in range(_ROUNDS):
                before = cpu_times()
                alone = in_process.turn(work).report.tokens_per_second
                ratio = served.turn(work).report.tokens_per_second / alone
                yield {_SERVED_RATIO: ratio}, cpu_times().share_since(before)


def busy() -> bool:
    """Tells whether other processes are at work, while this one sleeps."""
    return bool(psutil.cpu_percent(_LOOK_SECONDS) > 100 * _BUSY)


def hold(
    attempt: Callable[[Sequence[str], Measured], None],
    names: Sequence[str],
    stored: Stored,
    limit: float,
) -> list[Verdict]:
    """Measures until every ratio holds, or another attempt would not end in time.

    Args:
        attempt: Adds rounds of the ratios that are named.
        names: The ratios.
        stored: Rounds by ratio; may lack some.
        limit: Seconds from now on.
    """
    begin, found = time.monotonic(), {name: Rounds() for name in names}
    wanted = list(names)
    while True:
        started = time.monotonic()
        attempt(wanted, found)
        verdicts = [judge(name, found[name], stored.get(name, ())) for name in names]
        print("\n".join(map(str, verdicts)), flush=True)
        wanted = [one.name for one in verdicts if not one.held or _open(one, found, stored)]
        now = time.monotonic()
        if not wanted or now - begin + (now - started) > limit:
            return verdicts
        print(f"once more: {', '.join(wanted)}", flush=True)


def _open(verdict: Verdict, found: Measured, stored: Stored) -> bool:
    """Tells whether more quiet rounds could be compared with what is stored."""
    return verdict.name in stored and len(found[verdict.name].quiet) < _LEAST


def status_of(verdicts: Sequence[Verdict]) -> int:
    """Returns the exit status, and says what is behind it if it is not 0."""
    lost = [one.name for one in verdicts if one.held is False]
    unjudged = [one.name for one in verdicts if one.held is None]
    if unjudged:
        print(f"NOT JUDGED: {', '.join(unjudged)}: others took the CPU; run it again when idle")
    if lost:
        print(f"LOST: {', '.join(lost)}")
        return LOST
    return NOT_JUDGED if unjudged else 0


def _store(kind: str, found: Measured) -> int:
    if any(len(rounds.quiet) < _LEAST for rounds in found.values()):
        print("NOT STORED: others took too much CPU time; run it again when idle")
        return NOT_JUDGED
    everything = json.loads(STORED.read_text()) if STORED.exists() else {}
    shown = {name: [round(one, 4) for one in rounds.quiet] for name, rounds in found.items()}
    everything[kind] = record("benchmarks.smoke", ["--store"]) | {"ratios": shown}
    write_whole(STORED, json.dumps(everything, indent=1, sort_keys=True) + "\n")
    print(f"stored as those of {kind}")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Measures and judges, or stores; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--encoder", default="sentence-transformers/all-MiniLM-L6-v2")
    parser.add_argument("--store", action="store_true", help="store what is measured")
    given = parser.parse_args(argv)
    begin, machine = time.monotonic(), describe_machine()
    kind = kind_of(machine)
    stored = json.loads(STORED.read_text()) if STORED.exists() else {}
    with TemporaryDirectory() as folder:
        bench = Bench(*make(given.encoder, Path(folder)), machine["flags"])
        if given.store:
            found = {name: Rounds() for name in bench.names}
            bench.attempt(bench.names, found)
            return _store(kind, found)
        ratios = stored.get(kind, {}).get("ratios", {})
        limit = _LIMIT - (time.monotonic() - begin)
        return status_of(hold(bench.attempt, bench.names, ratios, limit))


if __name__ == "__main__":
    try:
        sys.exit(main())
    except TrunklineError as error:
        sys.exit(f"{error}")
