"""Real tokens per second of Trunkline's trainer and of a course notebook's loop, side by side.

    python -m experiments.prepare DATA FOLDER
    python -m experiments.training_speed FOLDER --json experiments/results/training_speed.json

Both train entities and questions on the same encoder, with the same data, in batches of 16 rows.
Rounds alternate, each in a process of its own; a round counts if less than a tenth of the machine's
time was stolen meanwhile. What counts is the ratio of the medians, in tokens that are no padding.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.bars import Bar
from benchmarks.bars import show as show_bar
from benchmarks.record import record
from experiments.prepare import local_sources
from trunkline.cpu import MOST_STOLEN, available_cpus, cpu_times
from trunkline.files import write_whole
from trunkline_train.config import Config, load_config

OURS, NOTEBOOK = "trunkline", "notebook"
_BAR = 2.5
_WARM_UP = 6  # steps
_EXAMPLES = 2000  # of each task, as many as the notebook takes
_BATCH = 16
_TASKS = ("ner", "qa")


@dataclass(frozen=True)
class Speed:
    """What a side did in one round; warm-up left out.

    Attributes:
        tokens: Real ones.
        computed: All that went through the encoder, padding included.
        seconds: Taken for them.
        steps: Of the optimiser.
        stolen: Share of the machine's time that its host took away meanwhile.
        busy: Share of its threads' time that the process computed; less if others did.
    """

    tokens: int
    computed: int
    seconds: float
    steps: int
    stolen: float
    busy: float


class Enough(Exception):
    """Ends a round."""


class Watch:
    """Adds up tokens over a time, from the end of the warm-up on."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._begin = self._cpu = 0.0
        self._before = cpu_times()
        self.steps = -_WARM_UP
        self.tokens = self.computed = 0

    def step(self, tokens: int, computed: int = 0) -> None:
        """Notes a step; raises Enough when the time is up."""
        self.steps += 1
        if self.steps <= 0:
            self._begin, self._cpu = time.perf_counter(), time.process_time()
            self._before = cpu_times()
            return
        self.tokens += tokens
        self.computed += computed
        if time.perf_counter() - self._begin > self._seconds:
            raise Enough

    def speed(self) -> Speed:
        """Returns what was done until now."""
        seconds = time.perf_counter() - self._begin
        stolen = cpu_times().share_since(self._before)
        threads = int(os.environ.get("OMP_NUM_THREADS", "1"))
        busy = (time.process_time() - self._cpu) / (seconds * threads)
        return Speed(self.tokens, self.computed, seconds, self.steps, stolen, busy)


def ours(config: Config, seconds: float) -> Speed:
    """Trains as `trunkline train` does, for a time."""
    from trunkline_train import loop

    watch = Watch(seconds)
    with tempfile.TemporaryDirectory() as folder, suppress(Enough):
        loop.train(config, Path(folder) / "run", on_step=watch.step)
    speed = watch.speed()
    return replace(speed, computed=_computed(config, speed.steps))


def notebook(config: Config, seconds: float) -> Speed:
    """Trains as the notebook does, for a time."""
    from experiments.notebook_loop import NotebookLoop
    from trunkline_train.data.source import read_splits
    from trunkline_train.hardware import pick_device

    tokens, answers = (read_splits(config.tasks[task]).train for task in _TASKS)
    loop = NotebookLoop(
        config.encoder,
        tokens=tokens,
        answers=answers,
        batch=_BATCH,
        device=pick_device(config.training.device),
    )
    watch = Watch(seconds)
    with suppress(Enough):
        while True:
            cost = loop.step()
            watch.step(cost.real, cost.computed)
    return watch.speed()


_SIDES = {OURS: ours, NOTEBOOK: notebook}


def base(given: argparse.Namespace) -> Config:
    """Returns the configuration of both sides."""
    fixed = [f"training.device={given.device}", "training.epochs=100"]
    for task in _TASKS:
        table = f"tasks.{task}"
        fixed += [f"{table}.limit.train={_EXAMPLES}", f"{table}.batch_size={_BATCH}"]
    sources = [] if given.data is None else local_sources(given.data)
    changes = [*sources, *fixed, "training.save_steps=1000000", *given.set]
    config = load_config(given.config, changes)
    return replace(config, tasks={task: config.tasks[task] for task in _TASKS})


def _computed(config: Config, steps: int) -> int:
    """Returns the tokens, padding included, of the steps after the warm-up."""
    from trunkline_train.features.load import load_task
    from trunkline_train.loop import make_mixer
    from trunkline_train.paths import cache_folder
    from trunkline_train.pretrained import load_pretrained, text_encoder
    from trunkline_train.streams import build_streams

    pretrained = load_pretrained(config.encoder, config.model)
    encoder = text_encoder(pretrained, config.rows)
    cache = cache_folder(config.training.cache)
    tasks = [load_task(name, task, encoder, cache) for name, task in config.tasks.items()]
    features = {task.spec.name: task.features for task in tasks}
    streams = build_streams([task.spec for task in tasks], features, config)
    mixer = make_mixer(config, streams)
    drawn = [index for step in range(_WARM_UP + steps) for index in mixer.at(step)]
    total = 0
    for at in range(_WARM_UP * mixer.draws, len(drawn)):
        number = drawn[:at].count(drawn[at])
        batch = streams[drawn[at]].batch(number, pretrained.pad_id, config.rows.max_length)
        total += batch.inputs["input_ids"].numel()
    return total


def measure(arguments: Sequence[str], side: str, threads: int) -> Speed:
    """Does one round in a process of its own."""
    command = [sys.executable, "-m", "experiments.training_speed", *arguments, "--side", side]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
    return Speed(**json.loads(done.stdout.splitlines()[-1]))


def summarise(rounds: Mapping[str, Sequence[Speed]], command: str) -> dict[str, Any]:
    """Returns per side the median speed of the rounds that count, and the ratio of the two."""
    sides = {name: _side(speeds) for name, speeds in rounds.items()}
    medians = [sides[name]["median"] for name in (OURS, NOTEBOOK)]
    ratio = medians[0] / medians[1] if all(medians) else None
    bar = Bar("training, real tokens/s over a course's loop", _BAR, [ratio] if ratio else [])
    return {"sides": sides, "ratio": ratio, "bars": [bar.to_dict(command)]}


def _side(speeds: Sequence[Speed]) -> dict[str, Any]:
    counted = [speed for speed in speeds if speed.stolen <= MOST_STOLEN]
    rates = [speed.tokens / speed.seconds for speed in counted]
    computed = sum(speed.computed for speed in speeds)
    return {
        "median": statistics.median(rates) if rates else None,
        "best": max(rates, default=None),
        "counted": f"{len(counted)} of {len(speeds)}",
        "padding": 1.0 - sum(speed.tokens for speed in speeds) / computed,
        "rounds": [asdict(speed) for speed in speeds],
    }


def show(summary: Mapping[str, Any]) -> str:
    """Returns the summary as text."""
    lines = []
    for name, side in summary["sides"].items():
        median = side["median"] or float("nan")
        lines.append(
            f"{name:10} {median:8.0f} real tokens/s, {side['padding']:.0%} padding,"
            f" {side['counted']} rounds count"
        )
    return "\n".join([*lines, *map(show_bar, summary["bars"])])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    about = "what experiments.prepare wrote; default: what the configuration names"
    parser.add_argument("data", type=Path, nargs="?", help=about)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--config", type=Path, default=Path("configs/five_tasks.toml"))
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=20.0, help="of a round, after warm-up")
    parser.add_argument("--threads", type=int, default=available_cpus())
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--side", choices=_SIDES, help=argparse.SUPPRESS)  # one round's process
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Does all rounds, and writes the figures; fails if the bar is missed."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    given = _parser().parse_args(arguments)
    if given.side:
        print(json.dumps(asdict(_SIDES[given.side](base(given), given.seconds))))
        return 0
    rounds: dict[str, list[Speed]] = {OURS: [], NOTEBOOK: []}
    for number in range(1, given.rounds + 1):
        for side, speeds in rounds.items():
            speed = measure(arguments, side, given.threads)
            speeds.append(speed)
            rate = speed.tokens / speed.seconds
            state = f"{speed.stolen:.0%} stolen, {speed.busy:.0%} busy"
            print(f"{number} {side:10} {rate:8.0f} tokens/s, {state}", flush=True)
    head = record("experiments.training_speed", arguments)
    summary = summarise(rounds, head["command"])
    print(show(summary))
    body = {"threads": given.threads, "device": given.device, **summary}
    write_whole(given.json, json.dumps(head | body, indent=1) + "\n")
    return 0 if all(bar["pass"] for bar in summary["bars"]) else 1


if __name__ == "__main__":
    raise SystemExit(main())
