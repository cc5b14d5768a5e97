"""Figures of curves.json, each a matplotlib figure to save or to embed.

    python -m benchmarks.plots.curves FILE FOLDER

writes one PNG for each figure that the file has points for. Points that do not count, because CPU
time was stolen in all their turns, are left out, and the figure says how many; hollow markers are
points at which the load generator may have been the limit. A percentile of too few calls is null in
the file, and a gap in the line.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trunkline.errors import DataError, TrunklineError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# matplotlib is imported where it draws: loading it takes a while.

Result = Mapping[str, Any]  # of curves.json
Point = Mapping[str, Any]

_DPI = 120
_SIZE = (7.0, 4.2)
_WIDE = (9.5, 4.6)
_COLOURS = 10  # of matplotlib's default cycle
_STAGES = {
    "queue_ms": "queue",
    "tokenise_ms": "tokenise",
    "compute_ms": "compute",
    "decode_ms": "decode",
    "rest_ms": "rest of the server",
    "outside_ms": "gRPC and caller",
}
_PERCENTILES = {"p50_ms": ("p50", "-"), "p99_ms": ("p99", "--"), "p999_ms": ("p99.9", ":")}


def latency_over_load(result: Result) -> Figure:
    """Draws latency against offered load, as share of each side's own maximum: the knee."""
    figure, axes = _axes("Latency against offered load, mixed traffic")
    for field, (label, style) in _PERCENTILES.items():
        _lines(axes, result, "load", field, label=label, style=style)
    axes.axvline(1.0, color="grey", linewidth=0.8)
    axes.set(xlabel="offered load / maximum of the closed loop", ylabel="ms", yscale="log")
    return _finished(figure, axes, result, "load")


def throughput_over_concurrency(result: Result) -> Figure:
    """Draws documents per second against the number of callers."""
    figure, axes = _axes("Throughput against concurrency, mixed traffic")
    _lines(axes, result, "concurrency", "documents_per_second")
    axes.set(xlabel="callers", ylabel="documents/s", ylim=(0, None))
    _powers(axes, result, "concurrency")
    return _finished(figure, axes, result, "concurrency")


def tail_over_concurrency(result: Result) -> Figure:
    """Draws the 99th percentile of the latency against the number of callers."""
    figure, axes = _axes("p99 against concurrency, mixed traffic")
    _lines(axes, result, "concurrency", "p99_ms")
    axes.set(xlabel="callers", ylabel="p99, ms", yscale="log")
    _powers(axes, result, "concurrency")
    return _finished(figure, axes, result, "concurrency")


def latency_by_length(result: Result) -> Figure:
    """Draws the median latency of one caller against the length of the text."""
    figure, axes = _axes("Latency by length of the text, one caller")
    _lines(axes, result, "length", "p50_ms")
    axes.set(xlabel="tokens", ylabel="p50, ms", yscale="log")
    _powers(axes, result, "length")
    return _finished(figure, axes, result, "length")


def stage_breakdown(result: Result) -> Figure:
    """Draws where the time of a mean call goes, by offered load, a panel for each server."""
    sides = _told(result, "stages")
    figure, panels = _panels("Where the time of a call goes", sides)
    for axes, side in zip(panels, sides, strict=True):
        points = [one for one in _points(result, "load", side) if one["stages"]]
        places, bottom = range(len(points)), [0.0] * len(points)
        for at, (field, label) in enumerate(_STAGES.items()):
            heights = [one["stages"][field] for one in points]
            axes.bar(places, heights, bottom=bottom, label=label, color=f"C{at}")
            bottom = [low + height for low, height in zip(bottom, heights, strict=True)]
        axes.set_xticks(places, [f"{one['x']:g}" for one in points])
        axes.set(title=side, xlabel="offered load / maximum", ylabel="ms")
    return _with_panels(figure, panels, result, "load")


def batch_fill(result: Result) -> Figure:
    """Draws how full batches are, and their share of padding, by offered load."""
    figure, axes = _axes("Batches against offered load, mixed traffic")
    for at, side in enumerate(_told(result, "batches")):
        points = [one for one in _points(result, "load", side) if one["batches"]]
        xs = [one["x"] for one in points]
        for field, label, style in (("fill", "fill", "-"), ("padding_share", "padding", ":")):
            values = [one["batches"][field] for one in points]
            axes.plot(xs, values, style, marker="o", color=f"C{at}", label=f"{side}, {label}")
    axes.set(xlabel="offered load / maximum of the closed loop", ylabel="share", ylim=(0, None))
    return _finished(figure, axes, result, "load")


def cost(result: Result) -> Figure:
    """Draws CPU seconds of the server, or money if a price was given, per million documents."""
    figure = _cost(result, "requests", "documents")
    figure.axes[0].set_yscale("log")  # long texts cost a hundred times what short ones do
    return figure


def cost_of_tokens(result: Result) -> Figure:
    """Draws CPU seconds of the server, or money if a price was given, per million real tokens."""
    return _cost(result, "tokens", "tokens")


def workload_throughput(result: Result) -> Figure:
    """Draws real tokens per second by workload."""
    title = "Throughput by workload"
    return _bars(result, "workloads", title, "tokens/s", _field("tokens_per_second"))


def protocol_throughput(result: Result) -> Figure:
    """Draws documents per second of mixed traffic by the protocol that it comes by."""
    title = "Throughput by protocol, mixed traffic"
    return _bars(result, "protocols", title, "documents/s", _field("documents_per_second"))


FIGURES: dict[str, tuple[str, Callable[[Result], Figure]]] = {
    "latency_over_load": ("load", latency_over_load),
    "throughput_over_concurrency": ("concurrency", throughput_over_concurrency),
    "tail_over_concurrency": ("concurrency", tail_over_concurrency),
    "latency_by_length": ("length", latency_by_length),
    "stage_breakdown": ("load", stage_breakdown),
    "batch_fill": ("load", batch_fill),
    "cost": ("workloads", cost),
    "cost_of_tokens": ("workloads", cost_of_tokens),
    "workload_throughput": ("workloads", workload_throughput),
    "protocol_throughput": ("protocols", protocol_throughput),
}
"""By name: the list of points that each is drawn from, and what draws it."""


def draw_all(result: Result, folder: Path) -> list[Path]:
    """Writes a PNG of each figure that there are points for; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, (curve, draw) in FIGURES.items():
        if any(one["counts"] for one in result[curve]):
            written.append(folder / f"{name}.png")
            draw(result).savefig(written[-1], dpi=_DPI)
    return written


def _points(result: Result, curve: str, side: str) -> list[Point]:
    """Returns a side's points that count."""
    return [one for one in result[curve] if one["side"] == side and one["counts"]]


def _sides(result: Result, curve: str) -> list[str]:
    return list(dict.fromkeys(one["side"] for one in result[curve]))


def _told(result: Result, field: str) -> list[str]:
    """Returns the sides whose servers told something under load."""
    return list(dict.fromkeys(one["side"] for one in result["load"] if one[field]))


def _colour(result: Result, side: str) -> str:
    """Returns the colour of a side, the same in all figures."""
    return f"C{list(result['sides']).index(side) % _COLOURS}"


def _axes(title: str) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=_SIZE, layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title)
    axes.grid(visible=True, alpha=0.3)
    return figure, axes


def _panels(title: str, sides: Sequence[str]) -> tuple[Figure, list[Axes]]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=_WIDE, layout="constrained")
    figure.suptitle(title)
    return figure, [figure.add_subplot(1, len(sides), at + 1) for at in range(len(sides))]


def _lines(
    axes: Axes, result: Result, curve: str, field: str, *, label: str = "", style: str = "-"
) -> None:
    """Draws a line for each side that has values."""
    for side in _sides(result, curve):
        points = _points(result, curve, side)
        values = list(map(_field(field), points))
        if all(map(math.isnan, values)):
            continue
        xs, colour = [one["x"] for one in points], _colour(result, side)
        name = f"{side}, {label}" if label else side
        axes.plot(xs, values, style, color=colour, label=name)
        for x, value, one in zip(xs, values, points, strict=True):
            fill = "white" if _saturated(one) else colour
            axes.plot([x], [value], "o", color=colour, markerfacecolor=fill, markersize=5)


def _saturated(point: Point) -> bool:
    return bool(point.get("generator", {}).get("saturated"))


def _powers(axes: Axes, result: Result, curve: str) -> None:
    """Gives x a logarithmic scale with a tick at each value that was measured."""
    xs = sorted({one["x"] for one in result[curve]})
    axes.set_xscale("log", base=2)
    axes.set_xticks(xs, [str(x) for x in xs])
    axes.minorticks_off()


def _cost(result: Result, field: str, unit: str) -> Figure:
    price = result["settings"]["price_per_cpu_hour"]
    key = f"{'cpu_seconds' if price is None else 'money'}_per_million_{field}"
    paid = "CPU seconds of the server" if price is None else f"cost at {price:g} per CPU hour"

    def value(point: Point) -> float:
        return float(point["cost"][key]) if point["cost"] else math.nan

    return _bars(result, "workloads", f"A million {unit} by workload", paid, value)


def _field(name: str) -> Callable[[Point], float]:
    """Returns what reads a field of a point, NaN where it is null."""
    return lambda one: math.nan if one[name] is None else float(one[name])


def _bars(
    result: Result, curve: str, title: str, unit: str, value: Callable[[Point], float]
) -> Figure:
    """Draws groups of bars, one group for each x, one bar for each side."""
    figure, axes = _axes(title)
    groups = list(dict.fromkeys(one["x"] for one in result[curve]))
    sides = _sides(result, curve)
    width = 0.8 / max(len(sides), 1)
    for at, side in enumerate(sides):
        points = _points(result, curve, side)
        places = [groups.index(one["x"]) - 0.4 + (at + 0.5) * width for one in points]
        heights = [value(one) for one in points]
        axes.bar(places, heights, width, label=side, color=_colour(result, side))
    axes.set_xticks(range(len(groups)), groups, rotation=20, ha="right")
    axes.set(ylabel=unit)
    return _finished(figure, axes, result, curve)


def _finished(figure: Figure, axes: Axes, result: Result, curve: str) -> Figure:
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize="small")
    _note(figure, result, curve)
    return figure


def _with_panels(figure: Figure, panels: Sequence[Axes], result: Result, curve: str) -> Figure:
    if panels:
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside right upper", fontsize="small")
    _note(figure, result, curve)
    return figure


def _note(figure: Figure, result: Result, curve: str) -> None:
    """Says how many points are not drawn, and what hollow ones are."""
    lines = []
    left = sum(not one["counts"] for one in result[curve])
    if left:
        lines.append(f"{left} of {len(result[curve])} points not drawn: CPU time was stolen")
    if any(one["counts"] and _saturated(one) for one in result[curve]):
        lines.append("hollow or bars: the load generator may have been the limit")
    if lines:
        figure.supxlabel("; ".join(lines), fontsize="x-small", color="grey")


def main(argv: Sequence[str] | None = None) -> int:
    """Writes the figures.

    Raises:
        DataError: The file cannot be read, or is no such file.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path, help="of benchmarks.serving.curves")
    parser.add_argument("folder", type=Path, help="for the PNG files")
    given = parser.parse_args(argv)
    for path in draw_all(read_result(given.file), given.folder):
        print(path)
    return 0


def read_result(path: Path) -> Result:
    """Returns the curves of a file.

    Raises:
        DataError: The file cannot be read, or is no such file.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(path, f"cannot be read: {error}") from None
    curves = {curve for curve, _ in FIGURES.values()}
    if not isinstance(found, dict) or not curves | {"sides", "settings"} <= found.keys():
        raise DataError(path, "has no curves; give a file of `python -m benchmarks.serving.curves`")
    return found


if __name__ == "__main__":
    try:
        raise SystemExit(main())
    except TrunklineError as error:
        raise SystemExit(f"{error}") from None
