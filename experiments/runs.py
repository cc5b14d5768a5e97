"""Many training runs: each in a process of its own; a finished one is not done again.

A run's folder holds `config.json`, `output.txt`, the run itself in `run/`, and at last
`result.json`: the final model's test scores, batches drawn, time and memory. A killed run goes on
where it stopped.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from trunkline.cpu import cpu_times
from trunkline.files import write_whole
from trunkline.structure import plain
from trunkline_train.config import Config, parse_config

_CONFIG, _RESULT, _OUTPUT, _RUN = "config.json", "result.json", "output.txt", "run"
_MEGABYTE = 1024.0  # of ru_maxrss, in kilobytes


@dataclass(frozen=True)
class Plan:
    """One run to do."""

    name: str
    config: Config


def runs_parser(doc: str | None) -> argparse.ArgumentParser:
    """Returns a parser of the arguments that all comparisons of runs share."""
    found = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    found.add_argument("data", type=Path, help="what experiments.prepare wrote")
    found.add_argument("--out", type=Path, required=True, help="folder of the runs")
    found.add_argument("--json", type=Path, required=True)
    found.add_argument("--note", default="", help="what a reader must know of data and runs")
    return found


def five_tasks_parser(doc: str | None) -> argparse.ArgumentParser:
    """Returns a parser for comparisons over several seeds of the five tasks."""
    found = runs_parser(doc)
    found.add_argument("--config", type=Path, default=Path("configs/five_tasks.toml"))
    found.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    found.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    found.add_argument("--jobs", type=int, default=1, help="runs at once")
    found.add_argument("--threads", type=int, default=2, help="of each run")
    return found


def run_all(plans: Sequence[Plan], folder: Path, *, jobs: int, threads: int) -> dict[str, Any]:
    """Does the runs that have no result yet; returns all results by name.

    Args:
        plans: In the order to start them.
        folder: Of all runs.
        jobs: Runs at once.
        threads: Of each run.

    Raises:
        RuntimeError: A run failed, or the folder holds one of another configuration.
    """
    begin = time.monotonic()

    def work(numbered: tuple[int, Plan]) -> tuple[str, Any]:
        number, plan = numbered
        result = _run(plan, folder / plan.name, threads)
        passed = (time.monotonic() - begin) / 60
        said = f"{plan.name}: {_scores(result)}"
        print(f"[{number}/{len(plans)}, {passed:.0f} min] {said}", flush=True)
        return plan.name, result

    with ThreadPoolExecutor(jobs) as pool:
        return dict(pool.map(work, enumerate(plans, start=1)))


def trained_folder(folder: Path, name: str) -> Path:
    """Returns where a run's model is."""
    return folder / name / _RUN


def seeded(config: Config, seed: int, **training: Any) -> Config:
    """Returns the configuration with another seed and other settings of `training`."""
    return replace(config, training=replace(config.training, seed=seed, **training))


def shown(config: Config) -> dict[str, Any]:
    """Returns a configuration for a result file: local folders say nothing on another machine."""
    data = plain(config)
    if Path(config.encoder).is_absolute():
        data["encoder"] = Path(config.encoder).name
    data["training"]["cache"] = None
    for name, task in config.tasks.items():
        for split in ("train", "dev", "test"):
            data["tasks"][name][split] = [Path(source).name for source in task.sources(split)]
    return data


def mean_and_sd(values: Iterable[float]) -> dict[str, float]:
    """Returns the mean and the standard deviation (of the sample; 0 for a single value)."""
    numbers = list(values)
    sd = statistics.stdev(numbers) if len(numbers) > 1 else 0.0
    return {"mean": statistics.fmean(numbers), "sd": sd}


def _run(plan: Plan, folder: Path, threads: int) -> Any:
    folder.mkdir(parents=True, exist_ok=True)
    config = json.dumps(plain(plan.config), indent=1)
    if (folder / _CONFIG).exists() and (folder / _CONFIG).read_text() != config:
        raise RuntimeError(f"{folder}: holds a run of another configuration; use another folder")
    if not (folder / _RESULT).exists():
        write_whole(folder / _CONFIG, config)
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        command = [sys.executable, "-m", "experiments.runs", str(folder)]
        with (folder / _OUTPUT).open("ab") as output:
            done = subprocess.run(
                command, env=environment, stdout=output, stderr=output, check=False
            )
        if done.returncode:
            raise RuntimeError(f"{plan.name} failed: see {folder / _OUTPUT}")
    return json.loads((folder / _RESULT).read_text())


def _scores(result: Mapping[str, Any]) -> str:
    parts = (f"{task} {found['value']:.2f}" for task, found in result["scores"].items())
    return "  ".join(parts)


class Clock:
    """What each optimiser step took: the time between two calls, in seconds."""

    def __init__(self) -> None:
        self._last: tuple[float, float] | None = None
        self.wall: list[float] = []
        self.cpu: list[float] = []

    def tick(self, tokens: int) -> None:
        """Notes the end of a step."""
        now = time.perf_counter(), time.process_time()
        if self._last is not None:
            self.wall.append(now[0] - self._last[0])
            self.cpu.append(now[1] - self._last[1])
        self._last = now


def _train(config: Config, out: Path) -> dict[str, Any]:
    """Trains; returns steps, batches drawn, seconds and memory."""
    from trunkline_train import loop

    clock = Clock()
    resumed = (out / loop.LAST).exists()
    before, begin = cpu_times(), time.perf_counter()
    loop.train(config, out, resume=resumed, on_step=clock.tick)
    seconds = time.perf_counter() - begin
    progress = json.loads((out / loop.LAST / "checkpoint.json").read_text())["progress"]
    return {
        "steps": progress["step"],
        "batches": progress["drawn"],
        "resumed": resumed,
        "seconds": seconds,
        # Medians: they leave out the steps with an evaluation or a checkpoint in between.
        "step_seconds": statistics.median(clock.wall) if clock.wall else None,
        "step_cpu_seconds": statistics.median(clock.cpu) if clock.cpu else None,
        "peak_megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / _MEGABYTE,
        "stolen": cpu_times().share_since(before),
    }


def _evaluate(config: Config, out: Path) -> dict[str, Any]:
    """Scores the final weights: the best of several epochs would favour runs that have more."""
    from trunkline_train.checkpoint import load_checkpoint
    from trunkline_train.data.source import load_test
    from trunkline_train.evaluate import evaluate
    from trunkline_train.loop import LAST

    pipeline = load_checkpoint(out / LAST).pipeline()
    found = {}
    for name, spec in pipeline.tasks.items():
        scores = evaluate(spec, pipeline, load_test(config.tasks[name], "test"))
        found[name] = {"value": scores.value, "metrics": dict(scores.metrics), "n": scores.n}
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Does the one run of a folder."""
    (folder,) = map(Path, sys.argv[1:] if argv is None else argv)
    config = parse_config(json.loads((folder / _CONFIG).read_text()), str(folder / _CONFIG))
    training = _train(config, folder / _RUN)
    result = {**training, "scores": _evaluate(config, folder / _RUN)}
    write_whole(folder / _RESULT, json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
