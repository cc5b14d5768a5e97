"""The commands `trunkline train` and `trunkline evaluate`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from trunkline.bundle import MANIFEST, open_bundle
from trunkline.errors import ConfigError
from trunkline.files import write_whole
from trunkline.model import Model
from trunkline.pipeline import Pipeline
from trunkline.structure import plain
from trunkline_train.config import load_config
from trunkline_train.data.source import load_test
from trunkline_train.evaluate import Scores, evaluate


def train(argv: Sequence[str]) -> int:
    """Runs `trunkline train`."""
    parser = argparse.ArgumentParser("trunkline train", description="Train a multitask model.")
    parser.add_argument("config", type=Path, help="a TOML configuration, see configs/")
    _add_set(parser)
    parser.add_argument("--out", type=Path, help="folder of the run; default runs/NAME")
    parser.add_argument("--resume", action="store_true", help="go on with an interrupted run")
    options = parser.parse_args(argv)
    if find_spec("torch") is None:  # said before any complaint about the configuration
        raise ModuleNotFoundError("torch", name="torch")
    config = load_config(options.config, options.set)
    # torch takes seconds to load: a wrong configuration is told before.
    from trunkline_train.loop import train as run

    out = options.out or Path("runs") / config.name
    run(config, out, resume=options.resume)
    print(f"trained {config.name}: best checkpoint in {out / 'best'}, curves in {out}/curves.png")
    return 0


def evaluate_model(argv: Sequence[str]) -> int:
    """Runs `trunkline evaluate`."""
    parser = argparse.ArgumentParser(
        "trunkline evaluate", description="Score a checkpoint or a bundle by the official rules."
    )
    parser.add_argument("model", type=Path, help="a bundle, a checkpoint or a run's folder")
    parser.add_argument("--config", type=Path, required=True, help="names the data")
    parser.add_argument("--split", choices=("dev", "test"), default="test")
    parser.add_argument("--json", type=Path, help="also write the scores to this file")
    _add_set(parser)
    options = parser.parse_args(argv)
    config = load_config(options.config, options.set)
    pipeline = _pipeline(options.model)
    for name, spec in pipeline.tasks.items():
        if name not in config.tasks or config.tasks[name].kind != spec.kind:
            reason = f"has no {spec.kind} task {name!r}, which the model has"
            raise ConfigError(f"{options.config}: {reason}")
    scores = {}
    for name, spec in pipeline.tasks.items():
        examples = load_test(config.tasks[name], options.split)
        scores[name] = evaluate(spec, pipeline, examples)
        print(_line(name, scores[name]), flush=True)
    if options.json:
        report = {"model": options.model.name, "split": options.split, "scores": plain(scores)}
        write_whole(options.json, json.dumps(report, indent=2) + "\n")
    return 0


def _add_set(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="replace a value of the configuration, e.g. training.epochs=2",
    )


def _pipeline(model: Path) -> Pipeline:
    if (model / MANIFEST).exists():
        return Model(open_bundle(model)).pipeline
    from trunkline_train.checkpoint import load_checkpoint

    return load_checkpoint(model).pipeline()


def _line(name: str, scores: Scores) -> str:
    metrics = "  ".join(f"{metric} {value:.2f}" for metric, value in scores.metrics.items())
    labels = "  ".join(f"{label} {value:.1f}" for label, value in scores.by_label.items())
    return f"{name}: {metrics}  n={scores.n}" + (f"  ({labels})" if labels else "")
