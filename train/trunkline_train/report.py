"""Reports on a run while it trains: progress, scores, a JSON-lines log, TensorBoard and plots.

Files in the run's folder:

    log.jsonl          {"step", "loss", "weight", "rate", "tokens_per_second", "seconds"}: means by
                       task since the last line; {"step", "gradient_norm", "cosine"};
                       {"step", "epoch", "dev", "main", "mean", "n", "intervals", "baseline",
                       "beats_baseline", "seconds"}
    curves.png         the log as curves
    confusion/*.png    confusion matrix of the best epoch's model, for each task that has one
    tensorboard/       the same figures as event files, if TensorBoard is installed

Log and events are written immediately, pictures at most every half minute and at the end.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

from tqdm import tqdm

from trunkline.extras import install_command
from trunkline.files import write_whole
from trunkline_train.checkpoint import Progress
from trunkline_train.events import Events, has_tensorboard
from trunkline_train.pictures import Pictures
from trunkline_train.plots import draw_confusion, draw_curves
from trunkline_train.scores import Scores

LOG, CURVES, CONFUSION, EVENTS = "log.jsonl", "curves.png", "confusion", "tensorboard"
_LOG_LINES = 400  # number of loss lines in a run's log
_BAR_SECONDS = 0.5  # between updates of the figures beside the progress bar
_PLAIN_SECONDS = 20.0  # between progress lines without a terminal
_RULE = "-" * 100
_TRY = (
    "See that labels and texts belong together, then try more examples (dev too), a higher"
    " training.min_steps, or another training.learning_rate."
)


class Report:
    """Reports the progress of one run to files in `out` and to the terminal.

    Args:
        out: Folder of the run.
        total: Optimiser steps of the whole run.
        progress: Progress of the run; later log lines, from a lost attempt, are dropped.
        active: If False, shows and writes nothing; only one of several processes reports.
    """

    def __init__(self, out: Path, total: int, progress: Progress, active: bool = True) -> None:
        self._out = out
        self._total = total
        self._done = progress.step
        self._active = active
        self._every = max(1, total // _LOG_LINES)
        self._window, self._epoch = _Window(), _Window()
        self._latest: dict[str, float] = {}  # a window may contain no step of a task
        self._clock = self._spoken = time.monotonic()
        self._lines = read_log(out, self._done)
        self._began = self._clock - _unfinished_seconds(self._lines)
        self._events: Events | None = None
        self._pictures = Pictures()
        self._bar = tqdm(
            total=total,
            initial=self._done,
            unit="step",
            disable=not (active and sys.stderr.isatty()),
        )

    def __enter__(self) -> Report:
        """Rewrites the log with the lines that are still valid, and opens the event files."""
        if self._active:
            self._out.mkdir(parents=True, exist_ok=True)
            text = "".join(json.dumps(line) + "\n" for line in self._lines)
            write_whole(self._out / LOG, text)
            if has_tensorboard():
                self._events = Events(self._out / EVENTS, self._done)
            else:
                self.say(f"no TensorBoard files; they take {install_command('tensorboard')}")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Closes the progress bar and the event files, and draws the last pictures."""
        self._bar.close()
        if self._events:
            self._events.close()
        self._pictures.draw()

    def say(self, text: str) -> None:
        """Prints a line without breaking the progress bar."""
        if self._active:
            tqdm.write(text, file=sys.stderr)

    def step(
        self, losses: Mapping[str, float], weights: Mapping[str, float], tokens: int, rate: float
    ) -> None:
        """Records an optimiser step: loss and weight per task, real tokens, learning rate."""
        self._done += 1
        if not self._active:
            return
        now = time.monotonic()
        for window in (self._window, self._epoch):
            window.add(losses, weights, tokens, now - self._clock)
            window.rate = rate
        self._clock = now
        self._bar.update()
        self._show(now)
        if self._done % self._every == 0:
            self._note_losses()

    def gradients(self, norms: Mapping[str, float], cosines: Mapping[str, float]) -> None:
        """Logs the norm of each task's gradient, and the cosine of each pair as `a~b`."""
        self._write({"step": self._done, "gradient_norm": dict(norms), "cosine": dict(cosines)})

    def epoch(self, number: int, scores: Mapping[str, Scores]) -> None:
        """Logs and prints the dev scores of an epoch, and redraws the pictures if due."""
        if not self._active:
            return
        if self._window.steps:
            self._note_losses()
        earlier = [line["mean"] for line in self._lines if "dev" in line]
        now = time.monotonic()
        line = _epoch_line(self._done, number, scores, round(now - self._began, 3))
        best = line["mean"] > max(earlier, default=-math.inf)
        self._write(line)
        self._print(line, scores, best)
        self._pictures.note(self._out / CURVES, partial(draw_curves, self._lines))
        if best:
            self._note_confusion(number, scores)
        self._pictures.draw_if_due()
        self._epoch = _Window()
        self._began = self._clock = time.monotonic()  # evaluation is not training time

    def warn(self) -> None:
        """Prints a warning for each task whose best epoch is no better than guessing."""
        for warning in guessing(self._lines) if self._active else ():
            self.say(f"WARNING: {warning}")

    def _show(self, now: float) -> None:
        """Shows recent losses beside the bar, or as a line if there is no terminal."""
        wait = _PLAIN_SECONDS if self._bar.disable else _BAR_SECONDS
        if now - self._spoken < wait:
            return
        self._latest |= self._window.losses()
        shown = "  ".join(f"{name} {loss:.3f}" for name, loss in self._latest.items())
        speed = f"{self._window.speed():,} tokens/s"
        if self._bar.disable:
            left = tqdm.format_interval((self._total - self._done) * self._epoch.pace())
            self.say(f"step {self._done} of {self._total}  loss {shown}  {speed}  {left} left")
        else:
            self._bar.set_postfix_str(f"{shown}  {speed}")
        self._spoken = now

    def _note_losses(self) -> None:
        window, self._window = self._window, _Window()
        self._latest |= window.losses()
        self._write(
            {
                "step": self._done,
                "loss": window.losses(),
                "weight": window.weights(),
                "rate": window.rate,
                "tokens_per_second": window.speed(),
                "seconds": round(window.seconds, 3),
            }
        )

    def _print(self, line: Mapping[str, Any], scores: Mapping[str, Scores], best: bool) -> None:
        """Prints an epoch as a table with a line per task and the mean."""
        losses = self._epoch.losses()
        mean = f"{sum(losses.values()) / len(losses):.4f}" if losses else "-"
        self.say(_RULE)
        self.say(
            f"epoch {line['epoch']}  step {self._done} of {self._total}  train loss {mean}"
            f"  rate {self._epoch.rate:.1e}  {self._epoch.speed():,} tokens/s"
            f"  {line['seconds']:.0f} s"
        )
        name_width = max(len("task"), *map(len, scores))
        kind_width = max(len("kind"), *(len(score.kind) for score in scores.values()))
        self.say(f"  {'task':<{name_width}}  {'kind':<{kind_width}}  train loss  dev")
        for name, score in scores.items():
            loss = f"{losses[name]:.4f}" if name in losses else "-"
            head = f"  {name:<{name_width}}  {score.kind:<{kind_width}}  {loss:>10}"
            self.say(f"{head}  {_metrics(score)}")
        blank = " " * (kind_width + 12)
        note = "  best so far" if best else ""
        self.say(f"  {'mean':<{name_width}}  {blank}  {line['mean']:.2f}{note}")

    def _note_confusion(self, number: int, scores: Mapping[str, Scores]) -> None:
        for name, score in scores.items():
            if score.confusion is not None:
                title = f"{name}: dev examples, epoch {number}"
                path = self._out / CONFUSION / f"{name}.png"
                self._pictures.note(path, partial(draw_confusion, score.confusion, title))

    def _write(self, line: dict[str, Any]) -> None:
        if not self._active:
            return
        self._lines.append(line)
        with (self._out / LOG).open("a") as file:
            file.write(json.dumps(line) + "\n")
        if self._events:
            self._events.add(line)


def read_log(out: Path, most: float = math.inf) -> list[dict[str, Any]]:
    """Reads a run's log up to step `most`; returns no lines if there is no log."""
    lines: list[dict[str, Any]] = []
    if not (out / LOG).exists():
        return lines
    for text in (out / LOG).read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            line = json.loads(text)
        except ValueError:  # a last line that is incomplete
            continue
        if line["step"] <= most:
            lines.append(line)
    return lines


def best_epoch(lines: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Returns the log line of the epoch whose model was kept: the first with the highest mean."""
    return max((line for line in lines if "dev" in line), key=lambda line: float(line["mean"]))


def guessing(lines: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yields a warning for each task whose best epoch is no better than guessing.

    Args:
        lines: Lines of a run's log, with at least one epoch.
    """
    best = best_epoch(lines)
    for task, guess in best.get("baseline", {}).items():
        if not best["beats_baseline"][task]:
            metric = best["main"][task]
            value, count = best["dev"][task][metric], best["n"][task]
            relation = "is no better than" if value <= guess else "cannot be told from"
            yield (
                f"task {task} has learned nothing that shows: {metric} {value:.2f} on {count} dev"
                f" examples {relation} guessing, which gives {guess:.2f}. {_TRY}"
            )


class _Window:
    """Accumulates means over some steps."""

    def __init__(self) -> None:
        self.steps = self.tokens = 0
        self.seconds = self.rate = 0.0
        self._losses: dict[str, list[float]] = {}
        self._weights: dict[str, list[float]] = {}

    def add(
        self,
        losses: Mapping[str, float],
        weights: Mapping[str, float],
        tokens: int,
        seconds: float,
    ) -> None:
        self.steps += 1
        self.tokens += tokens
        self.seconds += seconds
        for kept, seen in ((self._losses, losses), (self._weights, weights)):
            for name, value in seen.items():
                kept.setdefault(name, []).append(value)

    def losses(self) -> dict[str, float]:
        return _means(self._losses)

    def weights(self) -> dict[str, float]:
        return _means(self._weights)

    def speed(self) -> int:
        """Returns real tokens per second."""
        return round(self.tokens / self.seconds) if self.seconds else 0

    def pace(self) -> float:
        """Returns seconds per step."""
        return self.seconds / self.steps if self.steps else 0.0


def _means(seen: Mapping[str, list[float]]) -> dict[str, float]:
    return {name: sum(values) / len(values) for name, values in seen.items()}


def _epoch_line(
    step: int, number: int, scores: Mapping[str, Scores], seconds: float
) -> dict[str, Any]:
    intervals = {name: score.to_dict()["intervals"] for name, score in scores.items()}
    return {
        "step": step,
        "epoch": number,
        "dev": {name: score.metrics for name, score in scores.items()},
        "main": {name: score.main for name, score in scores.items()},
        "mean": sum(score.value for score in scores.values()) / len(scores),
        "n": {name: score.n for name, score in scores.items()},
        "intervals": intervals,
        "baseline": _baselines(scores),
        "beats_baseline": {name: score.beats_baseline for name, score in scores.items()},
        "seconds": seconds,
    }


def _baselines(scores: Mapping[str, Scores]) -> dict[str, float]:
    return {name: one.baseline for name, one in scores.items() if one.baseline is not None}


def _metrics(score: Scores) -> str:
    """Formats the main metric with its interval, then the other metrics."""
    bounds = score.intervals.get(score.main)
    shown = f" [{bounds.low:.1f}, {bounds.high:.1f}]" if bounds else ""
    rest = (f"  {name} {value:.2f}" for name, value in score.metrics.items() if name != score.main)
    return f"{score.main} {score.value:.2f}{shown}" + "".join(rest)


def _unfinished_seconds(lines: list[dict[str, Any]]) -> float:
    """Returns the time of the steps since an interrupted run's last complete epoch."""
    last = max((at for at, line in enumerate(lines) if "dev" in line), default=-1)
    return float(sum(line.get("seconds", 0.0) for line in lines[last + 1 :]))
