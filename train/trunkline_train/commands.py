"""The commands `trunkline train` and `trunkline evaluate`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from trunkline.bundle import MANIFEST, open_bundle
from trunkline.errors import ConfigError, NotFound
from trunkline.extras import missing
from trunkline.files import write_whole
from trunkline.model import open_model
from trunkline.options import add_graph_options, graph_options, new_file, new_folder, path
from trunkline.pipeline import Pipeline
from trunkline.tasks import TaskSpec
from trunkline.terminal import printable
from trunkline_train.config import Config, beyond_data, load_config
from trunkline_train.data.source import load_test
from trunkline_train.evaluate import predict, records, score
from trunkline_train.scores import Scores


def train(argv: Sequence[str]) -> int:
    """Runs `trunkline train`."""
    parser = argparse.ArgumentParser("trunkline train", description="Train a multitask model.")
    parser.add_argument("config", type=path, help="a TOML configuration, see configs/")
    _add_set(parser)
    parser.add_argument("--out", type=path, help="folder of the run; default runs/NAME")
    either = parser.add_mutually_exclusive_group()
    either.add_argument("--resume", action="store_true", help="go on with an interrupted run")
    either.add_argument("--overwrite", action="store_true", help="replace the run in --out")
    options = parser.parse_args(argv)
    if find_spec("torch") is None:  # said before any complaint about the configuration
        raise missing("torch", "train")
    config = load_config(options.config, options.set)
    # torch takes seconds to load: a wrong configuration is told before.
    from trunkline_train.loop import train as run

    out = options.out or Path("runs") / config.name
    run(config, out, resume=options.resume, overwrite=options.overwrite)
    print(f"trained {config.name}: best checkpoint in {out / 'best'}, model card {out}/README.md")
    return 0


def evaluate_model(argv: Sequence[str]) -> int:
    """Runs `trunkline evaluate`."""
    options = _evaluate_options().parse_args(argv)
    config = load_config(options.config, options.set)
    without_effect = beyond_data(load_config(options.config), config) if options.set else None
    if without_effect is not None:
        raise ConfigError(f"--set {without_effect}: does not change how a model is scored")
    pipeline = _pipeline(options)
    specs = _chosen(pipeline, options.task)
    _check_tasks(specs, config, options.config)
    scores: dict[str, Scores] = {}
    lines: list[dict[str, Any]] = []
    for spec in specs:
        examples = load_test(config.tasks[spec.name], options.split)
        results = predict(spec, pipeline, examples)
        scores[spec.name] = score(spec, examples, results)
        print(printable("\n".join(_table(spec.name, scores[spec.name])), "\n"), flush=True)
        if options.predictions:
            lines += records(spec, examples, results)
    if options.predictions:
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        write_whole(options.predictions, text)
    if options.confusion:
        _draw(scores, options.confusion)
    if options.json:
        found = {name: one.to_dict() for name, one in scores.items()}
        report = {"model": options.model.name, "split": options.split, "scores": found}
        write_whole(options.json, json.dumps(report, ensure_ascii=False, indent=2) + "\n")
    return 0


def _evaluate_options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "trunkline evaluate", description="Score a checkpoint or a bundle by the official rules."
    )
    parser.add_argument("model", type=path, help="a bundle, a checkpoint or a run's folder")
    parser.add_argument("--config", type=path, required=True, help="names the data")
    parser.add_argument("--split", choices=("dev", "test"), default="test")
    parser.add_argument("--task", action="append", help="only this task; may be repeated")
    parser.add_argument("--json", type=new_file, help="also write all scores to this file")
    parser.add_argument(
        "--predictions",
        type=new_file,
        help="also write gold and predictions, a JSON line per example",
    )
    parser.add_argument(
        "--confusion", type=new_folder, help="also draw confusion matrices into this folder"
    )
    _add_set(parser)
    add_graph_options(parser)
    return parser


def _add_set(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="replace a value of the configuration, e.g. training.epochs=2",
    )


def _pipeline(options: argparse.Namespace) -> Pipeline:
    model = options.model
    if (model / MANIFEST).exists():
        return open_model(open_bundle(model), **graph_options(options)).pipeline
    from trunkline_train.checkpoint import load_checkpoint
    from trunkline_train.hardware import pick_device

    checkpoint = load_checkpoint(model)
    checkpoint.model.to(pick_device(options.device))
    return checkpoint.pipeline()


def _chosen(pipeline: Pipeline, names: Sequence[str] | None) -> list[TaskSpec]:
    for name in names or ():
        if name not in pipeline.tasks:
            raise NotFound("task", name, pipeline.tasks)
    return [spec for name, spec in pipeline.tasks.items() if names is None or name in names]


def _check_tasks(specs: Sequence[TaskSpec], config: Config, path: Path) -> None:
    for spec in specs:
        if spec.name not in config.tasks or config.tasks[spec.name].kind != spec.kind:
            reason = f"has no {spec.kind} task {spec.name!r}, which the model has"
            raise ConfigError(f"{path}: {reason}; add it, or choose others with --task")


def _draw(scores: Mapping[str, Scores], folder: Path) -> None:
    from trunkline_train.plots import draw_confusion

    folder.mkdir(parents=True, exist_ok=True)
    for name, one in scores.items():
        if one.confusion is not None:
            draw_confusion(one.confusion, f"{name}, {one.n:,} examples", folder / f"{name}.png")


def _guess(scores: Scores, metric: str) -> str:
    """Returns what guessing would give, after the metric that counts."""
    if metric != scores.main or scores.baseline is None:
        return ""
    doubt = "" if scores.beats_baseline else ": NO BETTER THAN GUESSING"
    return f"  guessing {scores.baseline:.2f}{doubt}"


def _table(name: str, scores: Scores) -> Iterator[str]:
    """Yields a task's scores as lines: metrics with intervals, then labels with counts."""
    yield f"{name}: {scores.kind}, n={scores.n}"
    width = max(map(len, (*scores.metrics, *scores.by_label)))
    for metric, value in scores.metrics.items():
        bounds = scores.intervals[metric]
        mark = "*" if metric == scores.main else " "
        interval = f"95 % in [{bounds.low:.2f}, {bounds.high:.2f}]"
        yield f"{mark} {metric:<{width}}  {value:6.2f}  {interval}{_guess(scores, metric)}"
    if scores.by_label:
        yield f"  {'':<{width}}  precision  recall      f1     gold  predicted"
    for label, counts in scores.by_label.items():
        yield (
            f"  {label:<{width}}  {counts.precision:9.2f}  {counts.recall:6.2f}  {counts.f1:6.2f}"
            f"  {counts.gold:7,}  {counts.predicted:9,}"
        )
    yield ""
