"""One model for five tasks against five models for one task each, at the same budget.

    python -m experiments.prepare DATA FOLDER
    python -m experiments.five_tasks FOLDER --out RUNS --json experiments/results/five_tasks.json

Every task sees the same examples, in as many batches of the same size, in its own model as in the
multitask one: there a step takes one batch of each task, so a task with fewer batches passes more
often over its examples, and its own model is trained for as many passes. All other settings are
equal, no model is tuned for itself. Test scores come through the pipeline that serves. With
`--teach`, a third model learns all tasks from the five single ones as well (distillation).

`--jobs 2 --threads 1` runs two trainings at once, a thread each. Runs already done are kept.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.bars import Bar
from benchmarks.bars import show as show_bar
from benchmarks.record import record
from experiments.prepare import local_sources
from experiments.runs import (
    Plan,
    five_tasks_parser,
    mean_and_sd,
    run_all,
    seeded,
    shown,
    trained_folder,
)
from trunkline.errors import ConfigError
from trunkline.files import write_whole
from trunkline_train.config import Config, load_config

MULTI, TAUGHT = "multi", "taught"
_MEAN_BAR, _WORST_BAR = -0.5, -1.0  # points
_DEV = 100
_TESTS = {"qa": 2000, "topic": 2000}


@dataclass(frozen=True)
class Budget:
    """A configuration with matched amounts of data.

    Attributes:
        config: Of the multitask model.
        batches: Per pass, by task.
        passes: Of each task per epoch of the multitask model.
    """

    config: Config
    batches: Mapping[str, int]
    passes: Mapping[str, int]


def match(config: Config, examples: int | None) -> Budget:
    """Returns amounts of data such that every task ends a pass when the longest one does.

    Args:
        config: The five tasks.
        examples: About as many training examples of each task; None takes all. The longest task
            loses a few, for its batches to divide; the others get a few more.
    """
    if config.training.epochs is None:
        raise ConfigError("training.epochs: set it; runs are compared over as many passes")
    most = {name: examples for name in config.tasks}
    rows = count_rows(_limited(config, most))
    batches = _batches(config, rows)
    longest = max(batches, key=lambda name: batches[name])
    # With all of the data there is no more to give a task: it must pass once more, and lose some.
    near = math.ceil if examples is None else round
    passes = {name: near(batches[longest] / count) for name, count in batches.items()}
    whole = math.lcm(*passes.values())
    wanted = max(1, batches[longest] // whole) * whole
    most = {name: wanted // passes[name] * task.batch_size for name, task in config.tasks.items()}
    most[longest] = _fit(config, longest, examples or rows[longest], most[longest])
    matched = _limited(config, most)
    return Budget(matched, _batches(matched, count_rows(matched)), passes)


def count_rows(config: Config) -> dict[str, int]:
    """Returns the rows of each task's training data."""
    from trunkline_train.features.load import load_task
    from trunkline_train.paths import cache_folder
    from trunkline_train.pretrained import load_pretrained, text_encoder

    encoder = text_encoder(load_pretrained(config.encoder, config.model), config.rows)
    cache = cache_folder(config.training.cache)
    return {
        name: len(load_task(name, task, encoder, cache).features)
        for name, task in config.tasks.items()
    }


def _batches(config: Config, rows: Mapping[str, int]) -> dict[str, int]:
    return {name: math.ceil(rows[name] / task.batch_size) for name, task in config.tasks.items()}


def _fit(config: Config, task: str, examples: int, rows: int) -> int:
    """Returns how many examples, at most `examples`, give about `rows` rows and no more."""
    only = replace(config, tasks={task: config.tasks[task]})
    while (found := count_rows(_limited(only, {task: examples}))[task]) > rows:
        examples = min(examples - 1, examples * rows // found)
    return examples


def _limited(config: Config, most: Mapping[str, int | None]) -> Config:
    tasks = {
        name: replace(task, limit=replace(task.limit, train=most[name]))
        for name, task in config.tasks.items()
    }
    return replace(config, tasks=tasks)


def single(budget: Budget, task: str, seed: int) -> Plan:
    """Returns the run of one task alone, over as many batches as in the multitask run."""
    epochs = budget.config.training.epochs * budget.passes[task]
    config = seeded(budget.config, seed, epochs=epochs)
    alone = replace(config, name=task, tasks={task: config.tasks[task]})
    return Plan(f"{task}-{seed}", alone)


def multi(budget: Budget, seed: int) -> Plan:
    """Returns the run of all tasks together."""
    return Plan(f"{MULTI}-{seed}", seeded(budget.config, seed))


def taught(budget: Budget, seed: int, folder: Path) -> Plan:
    """Returns the run of all tasks together that learns from the single ones as well."""
    tasks = {
        name: replace(task, teacher=str(trained_folder(folder, f"{name}-{seed}")))
        for name, task in budget.config.tasks.items()
    }
    return Plan(f"{TAUGHT}-{seed}", seeded(replace(budget.config, tasks=tasks), seed))


def compare(results: Mapping[str, Any], arm: str, seeds: Sequence[int]) -> dict[str, Any]:
    """Returns per task the scores of both sides and the difference of the means, in points."""
    table = {}
    for task in results[f"{arm}-{seeds[0]}"]["scores"]:
        together = [results[f"{arm}-{seed}"]["scores"][task]["value"] for seed in seeds]
        alone = [results[f"{task}-{seed}"]["scores"][task]["value"] for seed in seeds]
        sides = {arm: mean_and_sd(together), "single": mean_and_sd(alone)}
        table[task] = {**sides, "delta": sides[arm]["mean"] - sides["single"]["mean"]}
    deltas = [row["delta"] for row in table.values()]
    mean, worst = sum(deltas) / len(deltas), min(deltas)
    return {"tasks": table, "mean_delta": mean, "worst_delta": worst}


def bars(comparison: Mapping[str, Any], arm: str, command: str) -> list[dict[str, Any]]:
    """Returns the bars of an arm: what the tasks lose by sharing, in points."""
    name = "multitask" if arm == MULTI else "multitask, taught,"
    found = [
        Bar(
            f"{name} minus single models, mean of the tasks", _MEAN_BAR, [comparison["mean_delta"]]
        ),
        Bar(f"{name} minus single models, worst task", _WORST_BAR, [comparison["worst_delta"]]),
    ]
    return [bar.to_dict(command) for bar in found]


def uneven(results: Mapping[str, Any], seeds: Sequence[int]) -> dict[str, int]:
    """Returns by task how many batches more the multitask model saw than its own; 0 is right."""
    (seed, *_) = seeds
    seen = results[f"{MULTI}-{seed}"]["batches"]
    return {
        task: count - results[f"{task}-{seed}"]["batches"][task] for task, count in seen.items()
    }


def show(comparison: Mapping[str, Any], arm: str) -> str:
    """Returns a comparison as a table."""
    lines = [f"{'':8}{arm:>16}{'single':>16}{'delta':>8}"]
    for task, row in comparison["tasks"].items():
        cells = "".join(
            f"{row[side]['mean']:9.2f} ± {row[side]['sd']:4.2f}" for side in (arm, "single")
        )
        lines.append(f"{task:8}{cells}{row['delta']:8.2f}")
    lines += map(show_bar, bars(comparison, arm, ""))
    return "\n".join(lines)


def _base(given: argparse.Namespace) -> Config:
    tests = _TESTS | {task: int(n) for task, _, n in (one.partition("=") for one in given.test)}
    changes = local_sources(given.data)
    # Final weights are compared, so scores on dev only fill the log.
    for task in ("ner", "qa", "pos", "chunk", "topic"):
        changes.append(f"tasks.{task}.limit.dev={_DEV}")
    changes += [f"tasks.{task}.limit.test={count}" for task, count in tests.items() if count]
    return load_config(given.config, [*changes, *given.set])


def _parser() -> argparse.ArgumentParser:
    parser = five_tasks_parser(__doc__)
    parser.add_argument("--examples", type=int, default=4016, help="of each task; 0 for all")
    parser.add_argument("--test", action="append", default=[], metavar="TASK=N", help="0 for all")
    parser.add_argument("--teach", action="store_true", help="also distil the single models")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Trains what is missing, compares, and writes the figures; fails if a bar is missed."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    given = _parser().parse_args(arguments)
    budget = match(_base(given), given.examples or None)
    print(f"batches a pass: {dict(budget.batches)}; passes: {dict(budget.passes)}", flush=True)
    # By seed: an interrupted comparison has whole rounds.
    plans = [
        plan
        for seed in given.seeds
        for plan in (
            multi(budget, seed),
            *(single(budget, task, seed) for task in budget.config.tasks),
        )
    ]
    results = run_all(plans, given.out, jobs=given.jobs, threads=given.threads)
    if given.teach:
        plans = [taught(budget, seed, given.out) for seed in given.seeds]
        results |= run_all(plans, given.out, jobs=given.jobs, threads=given.threads)
    arms = (MULTI, TAUGHT) if given.teach else (MULTI,)
    comparisons = {arm: compare(results, arm, given.seeds) for arm in arms}
    print("\n\n".join(show(comparison, arm) for arm, comparison in comparisons.items()))
    head = record("experiments.five_tasks", arguments)
    judged = [bar for arm in arms for bar in bars(comparisons[arm], arm, head["command"])]
    body = {
        "note": given.note,
        "threads": given.threads,
        "jobs": given.jobs,
        "batches_per_pass": budget.batches,
        "passes": budget.passes,
        "batches_more_than_single": uneven(results, given.seeds),
        "config": shown(budget.config),
        "bars": judged,
        "comparisons": comparisons,
        "runs": results,
    }
    write_whole(given.json, json.dumps(head | body, indent=1) + "\n")
    return 0 if all(bar["pass"] for bar in judged[-2:]) else 1


if __name__ == "__main__":
    raise SystemExit(main())
