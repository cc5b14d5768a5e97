"""Curves of a run and confusion matrices, as PNG."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trunkline_train.scoring.confusion import Confusion

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# matplotlib is imported where it draws: loading it takes a while.

Line = Mapping[str, Any]  # of log.jsonl
_Points = list[tuple[int, float]]

_DPI = 120
_COLUMNS = 2
_WIDE = 30.0  # times the smallest: curves that differ by more share a logarithmic axis
_MOST_NUMBERED = 25  # labels of a matrix whose cells carry their numbers
_MOST_LABELS = 60
_MOST_INSIDE = 6  # curves whose names stand inside a panel
_SMOOTH = 20  # running means over this part of a curve
_COLOURS = 10  # of matplotlib's default cycle
_MOST_LETTERS = 50  # of names side by side below a matrix
_LONG_NUMBER = 5  # digits and commas
_PALE = 0.6  # share of a row from which on its number is written in white


def draw_curves(lines: Sequence[Line], path: Path) -> None:
    """Draws what a run's log tells over the steps, one panel each, and only those with data.

    Panels: training loss, dev score with its interval, loss weights (if they ever change), gradient
    norms, and cosines between the tasks' gradients.
    """
    from matplotlib.figure import Figure

    panels = [(title, draw) for title, holds, draw in _PANELS if holds(lines)]
    rows = -(-len(panels) // _COLUMNS)
    figure = Figure(figsize=(6.5 * min(_COLUMNS, len(panels)), 4 * rows), layout="constrained")
    colours = _task_colours(lines)
    for at, (title, draw) in enumerate(panels):
        axes = figure.add_subplot(rows, min(_COLUMNS, len(panels)), at + 1)
        axes.set(title=title, xlabel="step")
        axes.grid(visible=True, alpha=0.3)
        draw(axes, lines, colours)
        _add_legend(axes)
    figure.savefig(path, dpi=_DPI)


def draw_confusion(confusion: Confusion, title: str, path: Path) -> None:
    """Draws a confusion matrix: rows are gold and sum to one in colour; cells say the numbers.

    Of more than 60 labels, those with most examples are shown.
    """
    from matplotlib.figure import Figure

    labels, counts = _most(confusion)
    size = len(labels)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = 2.6 + (0.62 if size <= _MOST_NUMBERED else 0.26) * size
    figure = Figure(figsize=(max(4.6, side + 0.8), max(3.8, side)), layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(shares, cmap="Blues", vmin=0.0, vmax=1.0)
    font = "large" if size <= _MOST_NUMBERED else "x-small"
    upright = max(map(len, labels)) * size > _MOST_LETTERS
    axes.set_xticks(range(size), labels, rotation=90 if upright else 0, fontsize=font)
    axes.set_yticks(range(size), labels, fontsize=font)
    axes.set(title=title, xlabel="predicted", ylabel="gold")
    if size <= _MOST_NUMBERED:
        _write_numbers(axes, counts, shares)
    figure.colorbar(image, label="share of the gold label", shrink=0.8)
    figure.savefig(path, dpi=_DPI)


def _add_legend(axes: Axes) -> None:
    """Names the curves, beside the panel if they are many."""
    beside = len(axes.get_legend_handles_labels()[1]) > _MOST_INSIDE
    if beside:
        axes.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1.0, 1.0))
    else:
        axes.legend(fontsize="small")


def _write_numbers(axes: Axes, counts: np.ndarray, shares: np.ndarray) -> None:
    for (row, column), count in np.ndenumerate(counts):
        if count:
            colour = "white" if shares[row, column] > _PALE else "black"
            text = f"{count:,}"
            size = "small" if len(text) > _LONG_NUMBER else "medium"
            axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=size)


def _most(confusion: Confusion) -> tuple[list[str], np.ndarray]:
    weight: Counter[str] = Counter()
    for (gold, got), count in confusion.pairs.items():
        weight[gold] += count
        weight[got] += count
    most = set(sorted(confusion.labels, key=lambda label: -weight[label])[:_MOST_LABELS])
    kept = [label for label in confusion.labels if label in most]
    return kept, np.array(confusion.matrix(kept), np.int64)


def _task_colours(lines: Sequence[Line]) -> dict[str, str]:
    """Returns one colour per task, the same in all panels."""
    keys = ("loss", "dev", "weight", "gradient_norm")
    tasks = dict.fromkeys(task for line in lines for key in keys for task in line.get(key, ()))
    return {task: f"C{at % _COLOURS}" for at, task in enumerate(tasks)}


def _curves(lines: Sequence[Line], key: str) -> dict[str, _Points]:
    curves: dict[str, _Points] = {}
    for line in lines:
        for name, value in line.get(key, {}).items():
            curves.setdefault(name, []).append((line["step"], value))
    return curves


def _plot(key: str) -> Callable[[Axes, Sequence[Line], Mapping[str, str]], None]:
    """Returns a function that plots one curve per task."""

    def draw(axes: Axes, lines: Sequence[Line], colours: Mapping[str, str]) -> None:
        curves = _curves(lines, key)
        for name, points in curves.items():
            _draw_smooth(axes, points, name, colours[name])
        seen = [value for points in curves.values() for _, value in points]
        if min(seen) > 0.0 and max(seen) > _WIDE * min(seen):
            axes.set_yscale("log")

    return draw


def _plot_cosines(axes: Axes, lines: Sequence[Line], colours: Mapping[str, str]) -> None:
    for at, (pair, points) in enumerate(_curves(lines, "cosine").items()):
        _draw_smooth(axes, points, pair.replace("~", " and "), f"C{at % _COLOURS}")
    axes.axhline(0.0, color="black", linewidth=0.8)


def _draw_smooth(axes: Axes, points: _Points, label: str, colour: str) -> None:
    """Draws a running mean, and pale behind it what it is the mean of."""
    steps, values = zip(*points, strict=True)
    half = len(points) // (2 * _SMOOTH)
    means = [float(np.mean(values[max(0, at - half) : at + half + 1])) for at in range(len(values))]
    if half:
        axes.plot(steps, values, color=colour, linewidth=0.7, alpha=0.25)
    axes.plot(steps, means, label=label, color=colour, linewidth=1.5)


def _plot_dev(axes: Axes, lines: Sequence[Line], colours: Mapping[str, str]) -> None:
    epochs = [line for line in lines if "dev" in line]
    steps = [line["step"] for line in epochs]
    for task, main in epochs[-1]["main"].items():
        values = [line["dev"][task][main] for line in epochs]
        low, high = zip(*(line["intervals"][task][main] for line in epochs), strict=True)
        colour = colours.get(task)
        axes.plot(steps, values, label=f"{task} {main}", color=colour, marker="o", markersize=4)
        axes.fill_between(steps, low, high, color=colour, alpha=0.15, linewidth=0)


def _has(key: str) -> Callable[[Sequence[Line]], bool]:
    return lambda lines: any(line.get(key) for line in lines)


def _weights_change(lines: Sequence[Line]) -> bool:
    return any(
        len({value for _, value in points}) > 1 for points in _curves(lines, "weight").values()
    )


_PANELS = (
    ("training loss", _has("loss"), _plot("loss")),
    ("dev score, with 95 % interval", _has("dev"), _plot_dev),
    ("loss weight", _weights_change, _plot("weight")),
    ("gradient norm", _has("gradient_norm"), _plot("gradient_norm")),
    ("cosine between gradients", _has("cosine"), _plot_cosines),
)
