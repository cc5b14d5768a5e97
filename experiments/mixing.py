"""Samplers and balancers compared: same budget, several seeds, time and memory beside the score.

    python -m experiments.prepare DATA FOLDER
    python -m experiments.mixing FOLDER --out RUNS --json experiments/results/mixing.json

Four tasks of unequal size (entities, topics, tags, chunks: 6 to 3 to 2 to 1), an encoder cut to
three layers, few examples: a budget at which mixing could matter. Every run draws the same number
of batches of the same size; nothing is tuned for any method, which is the honest comparison that
this size allows. The samplers run with one batch a step and static weights, the balancers with one
batch of each task a step (`all`), where there is something to balance.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.record import record
from experiments.prepare import local_sources
from experiments.runs import Plan, five_tasks_parser, mean_and_sd, run_all, seeded, shown
from trunkline.files import write_whole
from trunkline_train.config import Config, load_config
from trunkline_train.settings import BalancingConfig, MixingConfig

# Batches per pass, times --scale. Four times the most is twice the sum: one epoch of round robin,
# which ends with the longest task, draws as many batches as two epochs of the other samplers.
_SIZES = {"ner": 12, "topic": 6, "pos": 4, "chunk": 2}
_BATCH = 8
_EVALUATED = 1000
_SAMPLERS = {
    "round-robin": MixingConfig("round-robin"),
    "proportional": MixingConfig("proportional"),
    "temperature": MixingConfig("temperature", temperature=2.0),
    "ratios": MixingConfig("ratios", ratios={"ner": 3.0, "topic": 2.0, "pos": 2.0, "chunk": 2.0}),
}
_BALANCERS = ("static", "normalized", "gradnorm")
_BASE = "round-robin"
_ALL = MixingConfig("round-robin", batches_per_step=len(_SIZES))


def plans(config: Config, seeds: Sequence[int]) -> dict[str, list[Plan]]:
    """Returns the runs of each method, one per seed."""
    methods = {name: (mixing, "static") for name, mixing in _SAMPLERS.items()}
    methods |= {f"all {name}": (_ALL, name) for name in _BALANCERS}
    return {
        name: [_plan(config, mixing, balancer, seed) for seed in seeds]
        for name, (mixing, balancer) in methods.items()
    }


def _plan(config: Config, mixing: MixingConfig, balancer: Any, seed: int) -> Plan:
    draws = mixing.batches_per_step or 1
    epochs = config.training.epochs * (1 if mixing.sampler == "round-robin" else 2)
    method = replace(config, mixing=mixing, balancing=BalancingConfig(balancer))
    return Plan(f"{mixing.sampler}-{draws}-{balancer}-{seed}", seeded(method, seed, epochs=epochs))


def base(data: Path, path: Path, scale: int, changes: Sequence[str]) -> Config:
    """Returns the configuration that all runs share."""
    sizes = [
        change
        for task, batches in _SIZES.items()
        for change in (
            f"tasks.{task}.limit.train={batches * scale * _BATCH}",
            f"tasks.{task}.limit.dev={_EVALUATED // 4}",
            f"tasks.{task}.limit.test={_EVALUATED}",
            f"tasks.{task}.batch_size={_BATCH}",
        )
    ]
    fixed = ["model.layers=3", "training.epochs=1", *sizes]
    config = load_config(path, [*local_sources(data), *fixed, *changes])
    return replace(config, tasks={task: config.tasks[task] for task in _SIZES})


def summarise(by_method: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
    """Returns per method: scores per task and their mean, time per step, memory.

    Times are those of a step over the plain way's with the same seed, since seeds may be of
    different machines.
    """
    plain = [result["step_cpu_seconds"] for result in by_method[_BASE]]
    return {name: _summary(results, plain) for name, results in by_method.items()}


def _summary(results: Sequence[Any], plain: Sequence[float]) -> dict[str, Any]:
    pairs = zip(results, plain, strict=True)
    scores = [
        {task: found["value"] for task, found in result["scores"].items()} for result in results
    ]
    return {
        "mean": mean_and_sd(sum(one.values()) / len(one) for one in scores),
        "tasks": {task: mean_and_sd(one[task] for one in scores) for task in scores[0]},
        "batches": [sum(result["batches"].values()) for result in results],
        "step_cpu_ratio": mean_and_sd(result["step_cpu_seconds"] / base for result, base in pairs),
        "peak_megabytes": mean_and_sd(result["peak_megabytes"] for result in results),
    }


def _joined(
    earlier: Mapping[str, Sequence[Any]], now: Mapping[str, Sequence[Any]]
) -> dict[str, list[Any]]:
    """Returns the runs of both, by method; the earlier ones first."""
    if earlier.keys() != now.keys():
        raise SystemExit("the earlier result has other methods than this one")
    return {name: [*earlier[name], *results] for name, results in now.items()}


def show(table: Mapping[str, Any]) -> str:
    """Returns the summary as a table, best mean first; times as multiples of the plain way's."""
    tasks = list(table[_BASE]["tasks"])
    lines = [f"{'':28}{'mean':>14}" + "".join(f"{task:>8}" for task in tasks) + "   time     MB"]
    for name, row in sorted(table.items(), key=lambda item: -item[1]["mean"]["mean"]):
        cells = "".join(f"{row['tasks'][task]['mean']:8.2f}" for task in tasks)
        mean = f"{row['mean']['mean']:7.2f} ± {row['mean']['sd']:4.2f}"
        time = row["step_cpu_ratio"]["mean"]
        lines.append(f"{name:28}{mean}{cells}{time:6.2f}x{row['peak_megabytes']['mean']:7.0f}")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Trains what is missing, and writes the table."""
    parser = five_tasks_parser(__doc__)
    parser.add_argument("--scale", type=int, default=10, help="12 batches of entities times this")
    parser.add_argument("--earlier", type=Path, help="a result with other seeds, to join")
    arguments = sys.argv[1:] if argv is None else list(argv)
    given = parser.parse_args(arguments)
    config = base(given.data, given.config, given.scale, given.set)
    methods = plans(config, given.seeds)
    # By seed: an interrupted comparison has whole rounds.
    todo = [plan for together in zip(*methods.values(), strict=True) for plan in together]
    results = run_all(todo, given.out, jobs=given.jobs, threads=given.threads)
    by_method = {name: [results[plan.name] for plan in made] for name, made in methods.items()}
    if given.earlier is not None:
        by_method = _joined(json.loads(given.earlier.read_text())["runs"], by_method)
    table = summarise(by_method)
    print(show(table))
    body = {
        "note": given.note,
        "threads": given.threads,
        "jobs": given.jobs,
        "examples": {task: batches * given.scale * _BATCH for task, batches in _SIZES.items()},
        "config": shown(config),
        "methods": table,
        "runs": by_method,
    }
    head = record("experiments.mixing", arguments)
    write_whole(given.json, json.dumps(head | body, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
