"""`trunkline top`: a server's metrics as a live view in a terminal."""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence

from trunkline.options import seconds
from trunkline.terminal import printable
from trunkline_serve.observe.scrape import Change, Scrape, fetch

_CLEAR = "\x1b[H\x1b[2J\x1b[3J"
_WINDOW = 10.0  # seconds that rates and percentiles are taken over
_STAGES = ("encode", "queue", "compute", "decode", "total")
_SHARES = (0.5, 0.95, 0.99)


def top(argv: Sequence[str]) -> int:
    """Shows a server's metrics until it is interrupted; returns the exit status.

    On a terminal the view is drawn anew each time; elsewhere views follow each other.

    Raises:
        Unavailable: There are no metrics at the address.
    """
    given = _parser().parse_args(argv)
    try:
        for view in _views(given.address, given.every, given.once):
            print(f"{_CLEAR if sys.stdout.isatty() and not given.once else ''}{view}", flush=True)
    except KeyboardInterrupt:
        print()
    return 0


def render(address: str, change: Change, now: Scrape) -> str:
    """Returns a view: what `change` counted, and the state at `now`."""
    parts = (_head(address, change, now), _latency(change), _batches(change), _tasks(change))
    view = "\n\n".join(part for part in (*parts, _failures(change)) if part)
    return printable(view, "\n")  # names are the server's


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "trunkline top", description="Show what a server does, from its metrics."
    )
    parser.add_argument("address", metavar="HOST:PORT", help="where it serves metrics")
    parser.add_argument(
        "--every", type=seconds, default=1.0, metavar="SECONDS", help="time between views"
    )
    parser.add_argument("--once", action="store_true", help="end after one view")
    return parser


def _views(address: str, every: float, once: bool) -> Iterator[str]:
    readings = deque([fetch(address)])
    while True:
        time.sleep(every)
        readings.append(fetch(address))
        while readings[-1].when - readings[1].when >= _WINDOW:
            readings.popleft()
        yield render(address, Change(readings[0], readings[-1]), readings[-1])
        if once:
            return


def _head(address: str, change: Change, now: Scrape) -> str:
    version = next(iter(now.sums("trunkline_build_info", "version")))[0]
    served = now.sums("trunkline_model_served", "model", "version")
    models = ", ".join(f"{name} {number}" for name, number in sorted(served)) or "none"
    draining = "  DRAINING" if now.total("trunkline_draining") else ""

    def rate(name: str) -> str:
        return f"{change.count(name) / change.seconds:.1f}/s"

    return "\n".join(
        [
            f"trunkline {version} at {address}, last {change.seconds:.0f} s{draining}",
            f"models    {models}",
            f"requests  {rate('trunkline_calls_total')}"
            f"   documents {rate('trunkline_documents_total')}"
            f"   tokens {rate('trunkline_tokens_total')}"
            f"   failed {rate('trunkline_failures_total')}",
            f"waiting   {now.total('trunkline_documents_in_flight'):.0f} documents in flight"
            f"   {now.total('trunkline_queued_tokens'):.0f} tokens queued"
            f"   {_time(now.total('trunkline_expected_wait_seconds'))} expected wait",
            f"process   {now.total('process_resident_memory_bytes') / 2**20:.0f} MiB"
            f"   {100 * change.count('process_cpu_seconds_total') / change.seconds:.0f} % CPU"
            f"   {now.total('process_open_fds'):.0f} descriptors",
        ]
    )


def _latency(change: Change) -> str:
    found = change.quantiles("trunkline_stage_seconds", _SHARES, "stage")
    rows = [[stage, *map(_time, found[stage,])] for stage in _STAGES if (stage,) in found]
    return _table(["latency", "p50", "p95", "p99"], rows)


def _batches(change: Change) -> str:
    ages = change.quantiles("trunkline_batch_queue_age_seconds", [0.95], "model")
    rows = [
        [model, *_batch(change, model), _time(*ages.get((model,), [math.nan]))]
        for (model,), _ in change.counts("trunkline_batch_fill_count", "model").items()
    ]
    heading = ["batches", "/s", "tokens", "fill", "requests", "full", "padding", "age p95"]
    return _table(heading, rows)


def _batch(change: Change, model: str) -> list[str]:
    """Returns rate, means of tokens, fill and requests, shares released full and of padding."""

    def count(name: str) -> float:
        return change.counts(f"trunkline_{name}", "model").get((model,), 0)

    batches = count("batch_fill_count")
    full = change.counts("trunkline_batches_total", "model", "released").get((model, "full"), 0)
    computed = max(count("computed_tokens_total"), 1)
    padding = max(0, computed - count("tokens_total")) / computed
    return [
        f"{batches / change.seconds:.1f}",
        f"{count('tokens_total') / batches:.0f}",
        f"{100 * count('batch_fill_sum') / batches:.1f} %",
        f"{count('batch_calls_sum') / batches:.1f}",
        f"{100 * full / batches:.0f} %",
        f"{100 * padding:.0f} %",
    ]


def _tasks(change: Change) -> str:
    rows = [
        [model, version, task, f"{count / change.seconds:.1f}"]
        for (model, version, task), count in change.counts(
            "trunkline_task_documents_total", "model", "version", "task"
        ).items()
    ]
    return _table(["model", "version", "task", "documents/s"], rows)


def _failures(change: Change) -> str:
    failed = change.counts("trunkline_failures_total", "reason", "stage")
    dropped = change.counts("trunkline_dropped_rows_total", "reason")
    rows = [
        [reason, f"at {stage}", f"{count / change.seconds:.1f}"]
        for (reason, stage), count in failed.items()
    ]
    rows += [
        [reason, "rows not computed", f"{count / change.seconds:.1f}"]
        for (reason,), count in dropped.items()
    ]
    return _table(["failed", "", "/s"], rows)


def _table(heading: list[str], rows: list[list[str]]) -> str:
    """Returns rows in columns, words to the left and figures to the right; empty if none."""
    if not rows:
        return ""
    lines = [heading, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(heading))]
    left = [not rows[0][column][:1].isdigit() for column in range(len(heading))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if at_left else cell.rjust(width)
            for cell, width, at_left in zip(line, widths, left, strict=True)
        ).rstrip()
        for line in lines
    )


def _time(seconds: float) -> str:
    return f"{1000 * seconds:.1f} ms" if seconds < 1 else f"{seconds:.1f} s"
