"""What a run shows while it trains: progress, a JSON-lines log, and curves as PNG."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from tqdm import tqdm

from trunkline_train.checkpoint import Progress
from trunkline_train.evaluate import Scores

_LOG_LINES = 400  # of losses, in the whole run
_PLAIN_SECONDS = 20.0  # between progress lines where there is no terminal


class Report:
    """Progress of one run, into `out` and onto the terminal.

    Args:
        out: Folder of the run.
        total: Optimiser steps of the whole run.
        progress: Where the run stands; log lines beyond it are of a lost attempt and are dropped.
    """

    def __init__(self, out: Path, total: int, progress: Progress) -> None:
        self._out = out
        self._total = total
        self._done = progress.step
        self._log = out / "log.jsonl"
        self._every = max(1, total // _LOG_LINES)
        self._losses: dict[str, list[float]] = {}
        self._tokens = 0
        self._since = self._spoken = time.monotonic()
        self._lines = self._kept_lines()
        self._bar = tqdm(
            total=total, initial=self._done, unit="step", disable=not sys.stderr.isatty()
        )

    def __enter__(self) -> Report:
        """Starts the log anew, with the lines that still hold."""
        self._out.mkdir(parents=True, exist_ok=True)
        self._log.write_text("".join(json.dumps(line) + "\n" for line in self._lines))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Closes the progress bar."""
        self._bar.close()

    def say(self, text: str) -> None:
        """Prints a line beside the progress bar."""
        tqdm.write(text, file=sys.stderr)

    def step(self, losses: Mapping[str, float], tokens: int, rate: float) -> None:
        """Notes one optimiser step: loss per task, real tokens, learning rate."""
        self._done += 1
        self._tokens += tokens
        for name, loss in losses.items():
            self._losses.setdefault(name, []).append(loss)
        self._bar.update()
        if self._done % self._every == 0:
            self._note_losses(rate)

    def epoch(self, number: int, scores: Mapping[str, Scores]) -> None:
        """Notes the dev scores of an epoch, and redraws the curves."""
        self._write(
            {
                "step": self._done,
                "epoch": number,
                "dev": {name: score.metrics for name, score in scores.items()},
            }
        )
        self.say(f"epoch {number} done, step {self._done} of {self._total}")
        for name, score in scores.items():
            metrics = "  ".join(f"{metric} {value:.2f}" for metric, value in score.metrics.items())
            self.say(f"  {name:<12} dev n={score.n}  {metrics}")
        draw_curves(self._lines, self._out / "curves.png")
        self._since = time.monotonic()  # evaluation is not training time

    def _note_losses(self, rate: float) -> None:
        now = time.monotonic()
        speed = self._tokens / (now - self._since)
        means = {name: sum(seen) / len(seen) for name, seen in self._losses.items()}
        line = {"step": self._done, "loss": means, "rate": rate, "tokens_per_second": round(speed)}
        self._write(line)
        shown = "  ".join(f"{name} {loss:.3f}" for name, loss in means.items())
        self._bar.set_postfix_str(f"{shown}  {speed:.0f} tok/s")
        if self._bar.disable and now - self._spoken > _PLAIN_SECONDS:
            self.say(f"step {self._done}/{self._total}  loss {shown}  {speed:.0f} tokens/s")
            self._spoken = now
        self._losses, self._tokens, self._since = {}, 0, now

    def _write(self, line: dict[str, Any]) -> None:
        self._lines.append(line)
        with self._log.open("a") as file:
            file.write(json.dumps(line) + "\n")

    def _kept_lines(self) -> list[dict[str, Any]]:
        if not self._done or not self._log.exists():
            return []
        lines = []
        for text in self._log.read_text().splitlines():
            try:
                line = json.loads(text)
            except ValueError:  # the last line of a killed process
                continue
            if line["step"] <= self._done:
                lines.append(line)
        return lines


def draw_curves(lines: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draws the loss and the dev scores of every task over the steps."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for axes, key, title in ((left, "loss", "training loss"), (right, "dev", "dev score")):
        axes.set(title=title, xlabel="step")
        axes.grid(visible=True, alpha=0.3)
        for name, points in _curves(lines, key).items():
            axes.plot(*zip(*points, strict=True), label=name, marker="o" if key == "dev" else None)
        if axes.lines:
            axes.legend()
    figure.savefig(path, dpi=120)


def _curves(lines: Sequence[Mapping[str, Any]], key: str) -> dict[str, list[tuple[int, float]]]:
    curves: dict[str, list[tuple[int, float]]] = {}
    for line in lines:
        for task, value in line.get(key, {}).items():
            parts = {task: value} if key == "loss" else {f"{task} {m}": v for m, v in value.items()}
            for name, number in parts.items():
                curves.setdefault(name, []).append((line["step"], number))
    return curves
