"""Whether something became slower: a few ratios, held to those that were stored.

    make bench-smoke
    python -m benchmarks.smoke --encoder NAME [--store]

Trains on a handful of the demo's examples (weights do not matter here), exports, and takes turns:
some three and a half minutes on two cores. Only ratios within a round are looked at, never times. A
ratio is lost if its median fell by more than a tenth of the stored one and by more than its own
rounds lie apart. Ratios depend on the processor's instructions: they are stored by kind of machine,
and on a kind that has none nothing is judged, which is said. `--store` stores this machine's.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

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
from trunkline_serve.bench.machine import describe_machine
from trunkline_train.checkpoint import load_checkpoint

STORED = Path(__file__).with_name("smoke.json")
_CONFIG = Path(__file__).parents[1] / "train/trunkline_train/demo/demo.toml"
_EXAMPLES = 48  # of each task
_ROUNDS, _SECONDS = 5, 2.0
_LOSS = 0.10
_SERVED = "packed-int8"
# What int8 products are computed with, best first.
_INSTRUCTIONS = ("amx_int8", "avx512_vnni", "avx_vnni", "avx512f", "avx2", "i8mm", "asimd")
_QUICKER = {  # of two pieces of work of benchmarks.graphs
    "packed over padded": (graphs.FP32, graphs.PADDED),
    "packed fp32 over one at a time": (graphs.FP32, graphs.SINGLES),
    "int8 over fp32": (graphs.INT8, graphs.FP32),
    "all heads over one": (graphs.ALL_HEADS, graphs.ONE_HEAD),
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
    """Returns the kind of a machine: its best instruction set for int8, and its CPUs."""
    flags = machine["flags"]
    assert isinstance(flags, list)
    best = next((one for one in _INSTRUCTIONS if one in flags), "other")
    return f"{best}, {machine['cpus']} cpus"


def judge(
    found: Mapping[str, Sequence[float]], stored: Mapping[str, Sequence[float]]
) -> list[Verdict]:
    """Returns a verdict of each ratio that was measured now and then."""
    return [
        Verdict(name, rounds, statistics.median(stored[name]))
        for name, rounds in found.items()
        if rounds and stored.get(name)
    ]


def make(encoder: str, folder: Path) -> tuple[Path, Path]:
    """Trains and exports a model of the demo's shape; returns checkpoint and bundle.

    Raises:
        TrunklineError: That failed.
    """
    run, bundle = folder / "run", folder / "bundle"
    few = [
        f"tasks.{task}.limit.{split}={_EXAMPLES}"
        for task in ("ner", "qa")
        for split in ("train", "dev")
    ]
    changes = [f"encoder={encoder}", "training.epochs=1", *few]
    told = [word for change in changes for word in ("--set", change)]
    _trunkline("train", str(_CONFIG), "--out", str(run), *told)
    _trunkline("export", str(run), "--out", str(bundle), "--no-gate")
    return run, bundle


def _trunkline(*words: str) -> None:
    command = [sys.executable, "-m", "trunkline", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise TrunklineError(f"trunkline {words[0]} failed: {done.stderr.strip()[-300:]}")


def graph_ratios(run: Path, bundle: Path) -> dict[str, list[float]]:
    """Returns the ratios of the graphs, a value a round that counts."""
    checkpoint, opened, threads = load_checkpoint(run), open_bundle(bundle), available_cpus()
    with TemporaryDirectory() as aside:
        works = graphs.works(checkpoint, opened, threads, Path(aside))
        wanted = {name: works[name] for pair in _QUICKER.values() for name in pair}
        times = in_turn(wanted, _ROUNDS)
    return {name: times.ratios(*pair) for name, pair in _QUICKER.items()}


def served_ratios(bundle: Path) -> dict[str, list[float]]:
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


def _store(kind: str, found: Mapping[str, Sequence[float]]) -> None:
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
    with TemporaryDirectory() as folder:
        run, bundle = make(given.encoder, Path(folder))
        found = graph_ratios(run, bundle) | served_ratios(bundle)
    kind = kind_of(describe_machine())
    if given.store:
        _store(kind, found)
        return 0
    stored = json.loads(STORED.read_text()) if STORED.exists() else {}
    if kind not in stored:
        print(f"nothing is stored for machines of this kind ({kind}): not judged")
        return 0
    verdicts = judge(found, stored[kind]["ratios"])
    print("\n".join(map(str, verdicts)))
    for name in found.keys() - {one.name for one in verdicts}:
        print(f"{name}: not judged: too much CPU time was stolen, or nothing is stored")
    return 1 if any(one.lost for one in verdicts) else 0


if __name__ == "__main__":
    try:
        raise SystemExit(main())
    except TrunklineError as error:
        raise SystemExit(f"{error}") from None
