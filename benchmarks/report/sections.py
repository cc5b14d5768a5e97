"""Results to sections of the page: tables of what each says, and how it was made."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from benchmarks.report.html import facts, paragraph, table, verdict

Result = Mapping[str, Any]


def how(result: Result) -> str:
    """Returns HTML of when, where and by which command a result was made."""
    machine = result.get("machine") or {}
    versions = result.get("versions") or {}
    rounds = result.get("rounds")
    told = {
        "command": str(result.get("command") or ""),
        "date": str(result.get("date") or ""),
        "commit": str(result.get("commit") or ""),
        "machine": ", ".join(_machine(machine)),
        "versions": ", ".join(f"{name} {one}" for name, one in versions.items()),
        "note": str(result.get("note") or ""),
    }
    if isinstance(rounds, Mapping):
        told["rounds"] = f"{rounds.get('counted')} count, {rounds.get('left_out')} left out"
    return facts(told)


def _machine(machine: Mapping[str, Any]) -> Iterator[str]:
    units = {"cpus": "{} CPUs used", "cores": "of {} cores", "memory_gib": "{} GiB"}
    for name, value in machine.items():
        if name == "gpus":
            yield from (" ".join(map(str, one.values())) for one in value)
        elif name == "quota":
            yield "no quota" if value is None else f"quota of {value} CPUs"
        elif isinstance(value, list):
            yield f"{name}: {' '.join(map(str, value))}"
        elif value is not None:
            yield units.get(name, "{}").format(value)


def bars(found: Sequence[Mapping[str, Any]]) -> str:
    """Returns HTML of bars: what must be reached, what was, and by how much it falls short."""
    head = ("", "bar", "measured", "range", "verdict", "from", "command")
    told = ("from" in one or "command" in one for one in found)
    width = len(head) if any(told) else len(head) - 2
    return table(head[:width], [_bar(one)[:width] for one in found])


def _bar(bar: Mapping[str, Any]) -> list[str]:
    wanted, value = bar.get("bar"), bar.get("value")
    sign = "≤" if bar.get("at_most") else "≥"
    met = None if bar.get("pass") is None else bool(bar["pass"])
    if met is False and value is not None and wanted is not None:
        said = f"short by {number(abs(value - wanted))}"
    else:
        said = {True: "pass", False: "short: not measured", None: ""}[met]
    limits = bar.get("range")
    spread = f"{number(limits[0])} – {number(limits[1])}" if limits else ""
    return [
        str(bar.get("name", "")),
        f"{sign} {number(wanted)}",
        number(value) if value is not None else "not measured",
        spread,
        verdict(met, said),
        str(bar.get("from", "")),
        str(bar.get("command", "")),
    ]


def number(value: object) -> str:
    """Returns a number as people write it; an empty text for None."""
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"  # noqa: PLR2004


def _ratio(value: Mapping[str, Any] | None) -> str:
    if not value or "value" not in value:
        return ""
    low, high = value["range"]
    return f"{value['value']:.2f}× ({low:.2f} – {high:.2f})"


def body(stem: str, result: Result) -> str:
    """Returns HTML of what a result says: by its own section if there is one, and its bars."""
    own = _SECTIONS.get(stem)
    parts = [bars(result["bars"]) if result.get("bars") else "", own(result) if own else ""]
    parts.append(_failed(result.get("failed")))
    return "\n".join(filter(None, parts))


def _failed(failed: object) -> str:
    if not isinstance(failed, Mapping) or not failed:
        return ""
    return table(("took no part", "why"), [[name, str(why)] for name, why in failed.items()])


def _serving(result: Result) -> str:
    columns = ("tokens_per_second", "documents_per_second", "p50_ms", "p99_ms")
    rows = [
        [name, *(number(row.get(one)) for one in columns)]
        for name, row in result["figures"].items()
    ]
    broken = [
        [name, str(one["error"])] for name, one in result["peers"].items() if one.get("error")
    ]
    return "\n".join(
        (
            table(("side", "tokens/s", "documents/s", "p50 ms", "p99 ms"), rows),
            paragraph("Trunkline over each peer, a ratio a round; below 1 Trunkline loses."),
            table(("", "peer", "throughput"), list(_over_peers(result))),
            table(("peer that did not run", "why"), broken),
        )
    )


def _over_peers(result: Result) -> Iterator[list[str]]:
    names = list(result["figures"])
    ours = [name for name in names if name.startswith("trunkline ")]
    others = [name for name in names if name not in ours and not name.startswith("in process ")]
    for own in ours:
        for peer in others:
            ratios = _round_ratios(result, own, peer)
            if ratios:
                yield [own, peer, _lost(ratios)]


def _round_ratios(result: Result, own: str, peer: str) -> list[float]:
    turns = [
        one["turns"] for one in result["detail"] if own in one["turns"] and peer in one["turns"]
    ]
    pairs = [[turn[name]["tokens_per_second"] for name in (own, peer)] for turn in turns]
    return [ours / theirs for ours, theirs in pairs if theirs]


def _lost(ratios: Sequence[float]) -> str:
    """Returns a median ratio with its range, marked where it says that Trunkline loses."""
    middle = statistics.median(ratios)
    text = _ratio({"value": middle, "range": [min(ratios), max(ratios)]})
    return verdict(None if middle >= 1 else False, text)


def _graph_sizes(result: Result) -> str:
    rows = [
        [
            row["graph"],
            number(row["tokens"]),
            number(row["tokens_per_second"]),
            f"{row['share_of_peak']:.0%}",
            ", ".join(f"{name} {share:.0%}" for name, share in row["operators"].items()),
        ]
        for row in result["sizes"]
    ]
    peaks = ", ".join(f"{name} {value:,.0f}" for name, value in result["peak_gops"].items())
    return "\n".join(
        (
            paragraph(f"Matrix peak on {result['threads']} threads, 10⁹ operations/s: {peaks}."),
            table(("graph", "real tokens", "tokens/s", "of the peak", "time, one thread"), rows),
        )
    )


def _graph_peers(result: Result) -> str:
    ours = list(dict.fromkeys(own for row in result["figures"].values() for own in row["quicker"]))
    rows = [
        [
            name,
            number(row["tokens_per_second"]),
            *(_lost(row["quicker"][own]) if row["quicker"].get(own) else "" for own in ours),
        ]
        for name, row in result["figures"].items()
    ]
    told = "Columns of ours say how many times as quick they are as the line; below 1 they lose."
    return paragraph(told) + table(("engine", "tokens/s", *ours), rows)


def _training_speed(result: Result) -> str:
    rows = [
        [name, number(side["median"]), f"{side['padding']:.0%}", side["counted"]]
        for name, side in result["sides"].items()
    ]
    return bars(result["bars"]) + table(("", "real tokens/s", "padding", "rounds"), rows)


def _five_tasks(result: Result) -> str:
    rows = [
        [name, task, *(f"{one[side]['mean']:.2f}" for side in sides), f"{one['delta']:+.2f}"]
        for name, found in result["comparisons"].items()
        for task, one in found["tasks"].items()
        for sides in [[key for key, value in one.items() if isinstance(value, Mapping)]]
    ]
    return table(("run", "task", "shared", "alone", "difference"), rows)


def _curves(result: Result) -> str:
    lost = [
        [name, str(side["error"])] for name, side in result["sides"].items() if side.get("error")
    ]
    return table(("side that took no part to the end", "why"), lost)


_SECTIONS: Mapping[str, Callable[[Result], str]] = {
    "serving": _serving,
    "curves": _curves,
    "graph_sizes": _graph_sizes,
    "graph_peers": _graph_peers,
    "training_speed": _training_speed,
    "five_tasks": _five_tasks,
}
"""By the stem of the result file; results without one show their bars."""
