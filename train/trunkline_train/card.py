"""The model card of a run: README.md in its folder, filled from checkpoint and log."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
import torch
import transformers

from trunkline import __version__
from trunkline.files import write_whole
from trunkline.tasks import AnswerOptions, TaskSpec
from trunkline_train.checkpoint import Checkpoint
from trunkline_train.config import Config
from trunkline_train.optimizer import peak_rates
from trunkline_train.paths import without_folder
from trunkline_train.report import CONFUSION, CURVES, best_epoch, guessing, read_log

CARD = "README.md"
_MOST_LABELS = 20  # named in the card


def write_card(
    folder: Path,
    checkpoint: Checkpoint,
    rows: Mapping[str, int],
    device: torch.device,
    processes: int = 1,
) -> None:
    """Writes the model card of a run.

    Args:
        folder: Of the run; its log is read.
        checkpoint: The best one.
        rows: Training rows of each task.
        device: What it was trained on.
        processes: How many trained together.
    """
    log = read_log(folder)
    sections = (
        _head(checkpoint),
        _tasks(checkpoint),
        _data(checkpoint.config, rows),
        _scores(log, checkpoint),
        _training(checkpoint, log, device, processes),
        _plots(folder),
        _use(folder),
        _limits(checkpoint),
    )
    write_whole(folder / CARD, "\n".join(line for section in sections for line in section))


def _head(checkpoint: Checkpoint) -> Iterator[str]:
    count = sum(parameter.numel() for parameter in checkpoint.model.parameters())
    yield f"# {checkpoint.config.name}"
    yield ""
    yield "A multitask model: one pass of the encoder gives the answers of all tasks."
    yield ""
    encoder = without_folder(checkpoint.config.encoder)
    commit = f" (commit `{checkpoint.origin.commit}`)" if checkpoint.origin.commit else ""
    yield f"- Encoder: `{encoder}`{commit}, {count / 1e6:.1f} M parameters with the tasks' heads"
    yield (
        f"- Rows: at most {checkpoint.encoder.max_length} tokens; longer texts are read in windows"
        f" that overlap by {checkpoint.config.rows.overlap}"
    )
    yield ""


def _tasks(checkpoint: Checkpoint) -> Iterator[str]:
    yield from _table(
        ("task", "kind", "labels"),
        ((spec.name, spec.kind, _labels(spec)) for spec in checkpoint.tasks),
    )


def _data(config: Config, rows: Mapping[str, int]) -> Iterator[str]:
    yield "## Data"
    yield ""
    body = []
    for name, task in config.tasks.items():
        held_out = "held out of train"
        train = _sources(task.sources("train"))
        dev = _sources(task.sources("dev")) or held_out
        body.append((name, train, f"{rows[name]:,}", dev))
    yield from _table(("task", "trained on", "training rows", "dev examples from"), body)
    yield "A row is one sequence of the encoder: a long text makes several."
    yield ""
    yield (
        "**Licences: to be added by whoever publishes this model.** Those of the data sets and of"
        " the encoder apply to what is made from them."
    )
    yield ""


def _scores(log: list[dict[str, Any]], checkpoint: Checkpoint) -> Iterator[str]:
    yield "## Scores"
    yield ""
    epochs = [line for line in log if "dev" in line]
    best = best_epoch(log)
    guesses = best.get("baseline", {})
    body = []
    for task, metrics in best["dev"].items():
        for metric, value in metrics.items():
            shown = f"**{metric}**" if metric == best["main"][task] else metric
            low, high = best["intervals"][task][metric]
            cells = (task, shown, f"{value:.2f}", f"{low:.2f} to {high:.2f}")
            counts = metric == best["main"][task] and task in guesses
            guess = f"{guesses[task]:.2f}" if counts else ""
            body.append((*cells, f"{best['n'][task]:,}", guess))
    yield (
        f"On the dev examples, in points, after epoch {best['epoch']} of {len(epochs)}: the best"
        f" one by the mean of the metrics in bold, {best['mean']:.2f}. The intervals are of a"
        " bootstrap over the examples; what another training seed would give they do not cover."
        " Guessing is the best answer that does not look at the text: the most frequent label, no"
        " span, no answer."
    )
    yield ""
    yield from _table(("task", "metric", "score", "95 % interval", "examples", "guessing"), body)
    for warning in guessing(log):
        yield f"**{warning}**"
        yield ""
    yield (
        "The epoch was chosen by these scores, which flatters them a little."
        " `trunkline evaluate --split test` scores examples that nothing was chosen on."
    )
    for spec in checkpoint.tasks:
        threshold = getattr(spec.options, "no_answer_threshold", None)
        if threshold is not None:
            yield f"`{spec.name}` is silent where the text holds no answer by over {threshold:.4g}."
    yield ""


def _training(
    checkpoint: Checkpoint, log: list[dict[str, Any]], device: torch.device, processes: int
) -> Iterator[str]:
    config = checkpoint.config
    seconds = sum(line["seconds"] for line in log if "dev" in line)
    speeds = [line["tokens_per_second"] for line in log if "loss" in line]
    steps = max(line["step"] for line in log)
    yield "## Training"
    yield ""
    speed = round(float(np.median(speeds)))
    yield f"- {steps:,} steps in {_duration(seconds)}, evaluation included"
    yield f"- Speed: {speed:,} tokens per second (median), padding not counted"
    hardware = f"{_hardware(device)}; processes {processes}, threads {torch.get_num_threads()}"
    yield f"- Hardware: {hardware}"
    yield (
        f"- Versions: trunkline {__version__}, Python {platform.python_version()}, torch"
        f" {torch.__version__}, transformers {transformers.__version__}, tokenizers"
        f" {tokenizers.__version__}"
    )
    rate, head_rate = peak_rates(checkpoint.model, config.training)
    yield f"- Highest learning rates: {rate:.2g} of the encoder, {head_rate:.2g} of the heads"
    for title, settings in (
        ("training", config.training),
        ("model", config.model),
        ("mixing", config.mixing),
        ("balancing", config.balancing),
    ):
        yield f"- {title}: {_settings(settings)}"
    taught = [name for name, task in config.tasks.items() if task.teacher is not None]
    if taught:
        yield f"- distillation of {', '.join(taught)}: {_settings(config.distillation)}"
    yield ""


def _plots(folder: Path) -> Iterator[str]:
    if (folder / CURVES).exists():
        yield f"![curves of the run]({CURVES})"
    for image in sorted((folder / CONFUSION).glob("*.png")):
        yield f"![what {image.stem} takes for what]({CONFUSION}/{image.name})"
    yield ""


def _use(folder: Path) -> Iterator[str]:
    name = folder.resolve().name
    yield "## Use"
    yield ""
    yield "```sh"
    yield f"trunkline export {name if folder.is_absolute() else folder} --out {name}.bundle"
    yield f'trunkline predict {name}.bundle "Some text."'
    yield "```"
    yield ""
    yield "```python"
    yield "import trunkline"
    yield f'model = trunkline.load("{name}.bundle")'
    yield 'print(model.analyze("Some text.").to_dict())'
    yield "```"
    yield ""


def _limits(checkpoint: Checkpoint) -> Iterator[str]:
    yield "## Limits"
    yield ""
    yield (
        "- It knows the language, the domain and the labels of the data above, and no others: of"
        " other texts the scores above say little."
    )
    yield "- The score of an annotation is the model's own probability; it is not calibrated."
    if any(isinstance(spec.options, AnswerOptions) for spec in checkpoint.tasks):
        yield "- Answers are pieces of the text asked about. Long questions leave it little room."
    yield "- It repeats what its data and its pretrained encoder hold, prejudice included."
    yield ""


def _table(head: tuple[str, ...], body: Any) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield "|---" * len(head) + "|"
    for cells in body:
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
    yield ""


def _labels(spec: TaskSpec) -> str:
    shown = ", ".join(spec.labels[:_MOST_LABELS])
    rest = len(spec.labels) - _MOST_LABELS
    return (f"{shown} and {rest} more" if rest > 0 else shown) or "-"


def _sources(sources: tuple[str, ...]) -> str:
    return ", ".join(f"`{without_folder(source)}`" for source in sources)


def _settings(settings: Any) -> str:
    """Returns what differs from the defaults."""
    default = type(settings)()
    changed = {
        name: value
        for name, value in vars(settings).items()
        if value != getattr(default, name) and name not in ("cache", "device")
    }
    return ", ".join(f"{name} {value}" for name, value in changed.items()) or "defaults"


def _hardware(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.processor() or platform.machine())


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
