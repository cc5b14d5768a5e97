"""Whether something became slower: a few ratios, held to those that were stored.

    make bench-smoke
    python -m benchmarks.smoke --encoder NAME [--store]

Exports an untrained model of the demo's shape (weights do not matter here), and has its graphs and
its server take turns. Only ratios within a round are looked at, never times. A ratio is lost if its
median fell by more than a tenth of the stored one and by more than its own rounds lie apart, and if
it did so again when measured once more. Rounds in which CPU time was stolen do not count; without
enough others, or where other processes are at work, nothing is judged, which is said. Ratios depend
on the processor: they are stored by kind of machine, and on a kind that has none
nothing is measured, which is said too. `--store` stores this machine's.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
import torch

from benchmarks import graphs
from benchmarks.record import record
from benchmarks.serving.rounds import Sides, kept, ratios
from benchmarks.serving.sides import (
    InProcess,
    in_process_name,
    opened_bench,
    served_name,
    trunkline_served,
)
from benchmarks.serving.traffic import mixed
from trunkline import load
from trunkline.bundle import open_bundle
from trunkline.cpu import available_cpus
from trunkline.errors import TrunklineError
from trunkline.files import write_whole
from trunkline_export.speed import in_turn
from trunkline_export.write import ExportOptions, export_bundle
from trunkline_serve.bench.machine import describe_machine
from trunkline_train.checkpoint import Checkpoint, Progress, save_checkpoint
from trunkline_train.config import load_config
from trunkline_train.data.load import load_task
from trunkline_train.model.multitask import MultitaskModel
from trunkline_train.model.pretrained import load_pretrained, text_encoder

Ratios = dict[str, list[float]]

STORED = Path(__file__).with_name("smoke.json")
_CONFIG = Path(__file__).parents[1] / "train/trunkline_train/demo/demo.toml"
_GRAPH_ROUNDS = 3  # each takes as long as all rounds of the server together
_ROUNDS, _SECONDS = 5, 1.5
_SURE = 9.0  # a logit
_LEAST = 3  # rounds that count, to judge by
_LOSS = 0.10
_SERVED = "packed-int8"
_NOTHING = "nothing can be judged: others took too much CPU time"
_LOOK_SECONDS, _BUSY = 3.0, 0.25  # how long to look, and the share that others may take meanwhile
# What int8 products are computed with, best first.
_INSTRUCTIONS = ("amx_int8", "avx512_vnni", "avx_vnni", "avx512f", "avx2", "i8mm", "asimd")
_QUICKER = {  # of two pieces of work of benchmarks.graphs
    "packed over padded": (graphs.FP32, graphs.PADDED),
    "packed fp32 over one at a time": (graphs.FP32, graphs.SINGLES),
    "int8 over fp32": (graphs.INT8, graphs.FP32),
    "all heads over one": (graphs.FP32, graphs.ONE_HEAD),
}


@dataclass(frozen=True)
class Verdict:
    """One ratio, now and as stored.

    Attributes:
        name: Of the ratio; more is better.
        rounds: Now.
        stored: The median then.
    """

    name: str
    rounds: Sequence[float]
    stored: float

    @property
    def loss(self) -> float:
        """The share of the stored ratio that is gone; below 0 if it grew."""
        return 1.0 - statistics.median(self.rounds) / self.stored

    @property
    def noise(self) -> float:
        """How far the rounds lie apart, over their median."""
        return (max(self.rounds) - min(self.rounds)) / statistics.median(self.rounds)

    @property
    def lost(self) -> bool:
        """Whether the loss is beyond the noise."""
        return self.loss > max(self.noise, _LOSS)

    def __str__(self) -> str:
        """Returns one line."""
        now = statistics.median(self.rounds)
        said = f"LOST {self.loss:.0%}" if self.lost else "holds"
        return f"{self.name:34}{now:8.3f}  stored {self.stored:6.3f}  ±{self.noise:4.0%}  {said}"


def kind_of(machine: Mapping[str, object]) -> str:
    """Returns the kind of a machine: its best instruction set for int8, its CPUs and their model.

    Models with the same instructions have other caches and clocks, and other ratios by that.
    """
    flags = machine["flags"]
    assert isinstance(flags, list)
    best = next((one for one in _INSTRUCTIONS if one in flags), "other")
    return f"{best}, {machine['cpus']} cpus, {machine['cpu_signature']}"


def judge(
    found: Mapping[str, Sequence[float]], stored: Mapping[str, Sequence[float]]
) -> list[Verdict]:
    """Returns a verdict of each ratio that was measured then, and now in enough rounds."""
    return [
        Verdict(name, rounds, statistics.median(stored[name]))
        for name, rounds in found.items()
        if len(rounds) >= _LEAST and stored.get(name)
    ]


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


def graph_ratios(checkpoint: Checkpoint, bundle: Path) -> Ratios:
    """Returns the ratios of the graphs, a value a round that counts."""
    opened, threads = open_bundle(bundle), available_cpus()
    with TemporaryDirectory() as aside:
        works = graphs.works(checkpoint, opened, threads, Path(aside))
        wanted = {name: works[name] for pair in _QUICKER.values() for name in pair}
        times = in_turn(wanted, _GRAPH_ROUNDS)
    return {name: times.ratios(*pair) for name, pair in _QUICKER.items()}


def served_ratios(bundle: Path) -> Ratios:
    """Returns what the server reaches of the graph in process, a value a round that counts."""
    model = load(bundle, available_cpus(), graph=_SERVED, allow_ungated=True)
    traffic = mixed(model.manifest, model.pipeline, None, 256)
    with (
        opened_bench(bundle, traffic, concurrency=64, threads=available_cpus()) as bench,
        trunkline_served(bench, _SERVED) as served,
    ):
        sides = Sides([InProcess(model, traffic), served], [])
        rounds = kept([sides.round(_SECONDS) for _ in range(_ROUNDS)])
    return {
        "served over in process": ratios(rounds, served_name(_SERVED), in_process_name(_SERVED))
    }


def busy() -> bool:
    """Tells whether other processes are at work, while this one sleeps."""
    return bool(psutil.cpu_percent(_LOOK_SECONDS) > 100 * _BUSY)


def measure(checkpoint: Checkpoint, bundle: Path) -> Ratios:
    """Returns all ratios, from twice as many rounds if too many of the first did not count.

    They are none on a busy machine: its ratios are others.
    """
    found: Ratios = {}
    if busy():
        return found
    for part in (lambda: graph_ratios(checkpoint, bundle), lambda: served_ratios(bundle)):
        ratios = part()
        if min(map(len, ratios.values())) < _LEAST:
            ratios = {name: [*ratios[name], *more] for name, more in part().items()}
        found |= ratios
    return found


def hold(measured: Callable[[], Ratios], stored: Mapping[str, Sequence[float]]) -> bool:
    """Tells whether ratios hold, and prints verdicts; what seems lost must be lost twice."""
    lost = _lost(measured(), stored)
    if not lost:
        return True
    print("once more:", flush=True)
    return not _lost(measured(), {name: stored[name] for name in lost})


def _lost(found: Ratios, stored: Mapping[str, Sequence[float]]) -> list[str]:
    """Prints verdicts and returns the names of ratios that are lost."""
    verdicts = judge(found, stored)
    print("\n".join(map(str, verdicts)) or _NOTHING, flush=True)
    for name in stored.keys() - {one.name for one in verdicts} if verdicts else ():
        print(f"{name}: not judged: too much CPU time was stolen, or it is measured no more")
    return [one.name for one in verdicts if one.lost]


def _store(kind: str, found: Ratios) -> None:
    if not found:
        print(_NOTHING)
        return
    stored = json.loads(STORED.read_text()) if STORED.exists() else {}
    shown = {name: [round(one, 4) for one in values] for name, values in found.items()}
    stored[kind] = record("benchmarks.smoke", ["--store"]) | {"ratios": shown}
    write_whole(STORED, json.dumps(stored, indent=1, sort_keys=True) + "\n")
    print(f"stored as those of {kind}")


def main(argv: Sequence[str] | None = None) -> int:
    """Measures and judges, or stores; fails if a ratio is lost."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--encoder", default="sentence-transformers/all-MiniLM-L6-v2")
    parser.add_argument("--store", action="store_true", help="store what is measured")
    given = parser.parse_args(argv)
    kind = kind_of(describe_machine())
    stored = json.loads(STORED.read_text()) if STORED.exists() else {}
    if kind not in stored and not given.store:
        print(f"nothing is stored for machines of this kind ({kind}): not judged")
        return 0
    if busy():
        print(_NOTHING)
        return 0
    with TemporaryDirectory() as folder:
        measured = partial(measure, *make(given.encoder, Path(folder)))
        if given.store:
            _store(kind, measured())
            return 0
        return 0 if hold(measured, stored[kind]["ratios"]) else 1


if __name__ == "__main__":
    try:
        raise SystemExit(main())
    except TrunklineError as error:
        raise SystemExit(f"{error}") from None
