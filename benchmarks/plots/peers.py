"""Figures of serving.json and graph_peers.json: Trunkline beside what one would use instead."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Result = Mapping[str, Any]  # of serving.json or graph_peers.json

_OURS = ("trunkline", "in process", "packed")
_BLUE, _GREY = "tab:blue", "tab:gray"


def throughput(result: Result) -> Figure:
    """Draws tokens per second of every side with the range over rounds; Trunkline's in blue."""
    from matplotlib.figure import Figure

    sides = sorted(result["figures"].items(), key=lambda side: side[1]["tokens_per_second"])
    values = [row["tokens_per_second"] for _, row in sides]
    figure = Figure(figsize=(7.0, 1.4 + 0.34 * len(sides)), layout="constrained")
    axes = figure.add_subplot()
    spread = [
        [max(0.0, value - row["range"][0]) for value, (_, row) in zip(values, sides, strict=True)],
        [max(0.0, row["range"][1] - value) for value, (_, row) in zip(values, sides, strict=True)],
    ]
    colours = [_BLUE if name.startswith(_OURS) else _GREY for name, _ in sides]
    axes.barh([name for name, _ in sides], values, color=colours, xerr=spread, capsize=2)
    axes.set(xlabel="real tokens/s; blue: Trunkline")
    axes.set_title("Throughput on mixed traffic, same machine and same run")
    axes.grid(visible=True, axis="x", alpha=0.3)
    return figure


FIGURES: dict[str, tuple[str, Callable[[Result], Figure]]] = {
    "peers_throughput": ("figures", throughput),
}
"""Of serving.json, by name: what each is drawn from, and what draws it."""

GRAPH_FIGURES: dict[str, tuple[str, Callable[[Result], Figure]]] = {
    "graph_peers_throughput": ("figures", throughput),
}
"""The same of graph_peers.json."""
