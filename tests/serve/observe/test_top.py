import http.server
import os
import pty
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from tests.serve.hosting import PATIENCE, Hosted, Loop
from tests.serve.observe.watching import Caller, observed, scraped
from trunkline import Model
from trunkline.errors import Unavailable
from trunkline_serve.observe.scrape import Change, Scrape
from trunkline_serve.observe.series import Counts, Spread
from trunkline_serve.observe.top import render, top


@pytest.fixture(scope="module")
def hosted(host: Loop, model: Model) -> Iterator[Hosted]:
    with observed(host, [model]) as hosted:
        yield hosted


@pytest.fixture(scope="module")
def metrics(hosted: Hosted) -> str:
    address = hosted.host.metrics_address
    assert address is not None
    return address


@contextmanager
def busy(hosted: Hosted) -> Iterator[None]:
    """Calls a server, well and badly, until it ends."""
    done = threading.Event()

    def call() -> None:
        with Caller(hosted.address) as caller:
            while not done.wait(0.03):
                caller.ask("Ada in Rome", "IBM opened an office")
                caller.fail("Ada", model="other")

    thread = threading.Thread(target=call)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join(PATIENCE)


def test_one_view_says_what_happens(
    hosted: Hosted, metrics: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with busy(hosted):
        assert top([metrics, "--once", "--every", "0.5"]) == 0
    view = capsys.readouterr().out
    assert "\x1b" not in view
    assert re.search(r"^models +tiny 1$", view, re.MULTILINE)
    for name, row in {
        "requests": r"requests +(?!0\.0)[\d.]+/s +documents (?!0\.0)[\d.]+/s",
        "stages": r"compute( +[\d.]+ ms){3}",
        "batches": r"tiny +[\d.]+ +\d+ +[\d.]+ % +[\d.]+ +\d+ % +\d+ % +[\d.]+ ms",
        "tasks": r"tiny +1  topic +[\d.]+",
        "failures": r"NOT_FOUND +at admission +[\d.]+",
    }.items():
        assert re.search(f"^{row}", view, re.MULTILINE), (name, view)


def test_views_follow_each_other_until_interrupted(hosted: Hosted, metrics: str) -> None:
    with _top(metrics, subprocess.PIPE) as process, busy(hosted):
        assert process.stdout is not None
        lines = iter(process.stdout.readline, b"")
        heads = (line for line in lines if line.startswith(b"trunkline "))
        assert [next(heads), next(heads)] != []
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    assert errors == b""
    assert b"\x1b" not in rest


def test_a_terminal_is_drawn_anew(hosted: Hosted, metrics: str) -> None:
    ours, its = pty.openpty()
    with _top(metrics, its) as process, busy(hosted):
        os.close(its)
        seen = b""
        while seen.count(b"\x1b[H\x1b[2J") < 2:
            seen += os.read(ours, 4096)
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 0
    os.close(ours)


@contextmanager
def _top(metrics: str, stdout: int) -> Iterator[subprocess.Popen[bytes]]:
    code = "import sys; from trunkline_serve.observe.top import top; sys.exit(top(sys.argv[1:]))"
    line = [sys.executable, "-c", code, metrics, "--every", "0.1"]
    with subprocess.Popen(line, stdout=stdout, stderr=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


def test_nothing_happening_is_a_view_too(hosted: Hosted) -> None:
    now = scraped(hosted)
    view = render("there", Change(now, now), now)
    assert "requests  0.0/s" in view
    assert "latency" not in view


def test_names_of_a_server_do_not_steer_the_terminal(hosted: Hosted) -> None:
    now = scraped(hosted)
    view = render("\x1b[2Jthere\x9b", Change(now, now), now)
    assert not set("\x1b\x9b") & set(view)
    assert "\\x1b[2Jthere\\x9b" in view


def test_the_port_of_grpc_is_told(hosted: Hosted) -> None:
    with pytest.raises(Unavailable, match="what answers is not HTTP; give the HOST:PORT of"):
        top([hosted.address, "--once"])


def test_the_address_may_be_what_the_log_names(hosted: Hosted) -> None:
    assert top([f"http://{hosted.host.metrics_address}/metrics", "--once", "--every", "0.1"]) == 0


def test_where_nobody_listens_is_told() -> None:
    with pytest.raises(Unavailable, match=r"no metrics at 127\.0\.0\.1:1: .*Connection refused"):
        top(["127.0.0.1:1", "--once"])


@pytest.mark.parametrize(
    ("reply", "said"),
    [(b"up 1\n", "not a Trunkline server"), (b"<html>", "no metrics at"), (b"\xff", "no metrics")],
)
def test_where_something_else_listens_is_told(reply: bytes, said: str) -> None:
    class Other(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(reply)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Other) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            with pytest.raises(Unavailable, match=said):
                top([f"127.0.0.1:{server.server_port}", "--once"])
        finally:
            server.shutdown()
            thread.join(PATIENCE)


@pytest.mark.parametrize("every", ["0", "-1", "nan", "inf", "soon"])
def test_the_pause_must_be_a_time(every: str) -> None:
    with pytest.raises(SystemExit, match="2"):
        top(["127.0.0.1:1", "--every", every])


def reading(values: Sequence[float], when: float) -> Scrape:
    """Reads a counter, and a histogram of values."""
    registry = CollectorRegistry()
    counts, spread = Counts("seen", "Seen.", ["kind"]), Spread("took", "Took.", ["kind"], [1, 2, 4])
    registry.register(counts)
    registry.register(spread)
    for value in values:
        counts.add(("a",))
        spread.add(("a",), value)
    return Scrape(generate_latest(registry).decode(), when)


def test_quantiles_are_of_what_came_between_two_readings() -> None:
    before = [0.5] * 100
    change = Change(reading(before, 0), reading([*before, *[3] * 90, *[9] * 10], 10))
    (found,) = change.quantiles("took", [0.25, 0.5, 0.9, 0.99], "kind").values()
    # Evenly spread within (2, 4]; above the last bound there is only that to say.
    assert found == pytest.approx([2 + 2 * 25 / 90, 2 + 2 * 50 / 90, 4, 4])
    assert change.count("seen_total") / change.seconds == 10


def test_a_server_that_was_started_anew_counts_from_nothing() -> None:
    change = Change(reading([3] * 100, 0), reading([3] * 7, 1))
    assert change.counts("seen_total", "kind") == {("a",): 7}
