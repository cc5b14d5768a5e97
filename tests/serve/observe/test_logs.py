import json
import logging
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pytest

from tests.serve.hosting import Loop, wait_for, watched
from tests.serve.observe.watching import ANALYZE, Caller, observed, request_id
from trunkline import Model
from trunkline_serve.observe.logs import JsonLines, LineWriter, TextLines, lost_lines, set_up_logs
from trunkline_serve.observe.scrape import fetch
from trunkline_serve.settings import Log

PATIENCE = 30.0  # seconds, for what should take two
Lines = list[dict[str, Any]]


@pytest.mark.parametrize("own", ["a", "job-7.retry_2", "x" * 64])
def test_the_caller_s_request_id_comes_back(host: Loop, model: Model, own: str) -> None:
    with observed(host, [model]) as hosted, Caller(hosted.address) as caller:
        metadata = [("x-request-id", own)]
        assert request_id(caller.ask("Ada", metadata=metadata)) == own
        failed = caller.fail("Ada", model="other", metadata=metadata)
    assert request_id(failed) == own
    assert "grpc-status-details-bin" in dict(failed.trailing_metadata())


@pytest.mark.parametrize("own", ["x" * 65, "two words", "a=b", '"', ""])
def test_anything_else_is_replaced(host: Loop, model: Model, own: str) -> None:
    with observed(host, [model]) as hosted, Caller(hosted.address) as caller:
        calls = [caller.ask("Ada", metadata=[("x-request-id", own)]), caller.ask("Ada")]
    names = {request_id(call) for call in calls}
    assert len(names) == 2
    assert all(re.fullmatch(r"[A-Za-z0-9._-]{1,64}", name) for name in names)


@contextmanager
def logged(formatter: logging.Formatter) -> Iterator[list[str]]:
    """Fills a list with the lines logged meanwhile, when it ends."""
    lines: list[str] = []
    with tempfile.TemporaryFile("w+") as file:
        writer = LineWriter(file.fileno())
        writer.setFormatter(formatter)
        logger = logging.getLogger()
        level = logger.level
        logger.addHandler(writer)
        logger.setLevel("INFO")
        try:
            yield lines
        finally:
            logger.setLevel(level)
            logger.removeHandler(writer)
            writer.close()
            file.seek(0)
            lines += file.read().splitlines()


def test_a_call_is_a_line_without_its_texts(host: Loop, model: Model) -> None:
    with (
        logged(JsonLines()) as lines,
        observed(host, [model], log=Log(calls=True)) as hosted,
        Caller(hosted.address) as caller,
    ):
        asked = caller.ask("zebra ada", "Rome")
        caller.fail("zebra", model="zebra", metadata=[("x-request-id", "mine")])
        caller.stream(["zebra", "Ada"])
    told = [json.loads(line) for line in lines]
    good, bad, streamed = [line for line in told if line["message"] == "call"]
    assert good["request_id"] == request_id(asked)
    assert good["method"] == ANALYZE
    assert good["peer"].startswith("ipv4:127.0.0.1:")
    assert (good["status"], good["model"], good["version"]) == ("OK", "tiny", 1)
    assert (good["documents"], good["tokens"]) == (2, asked.result().timing.tokens)
    assert 0 < good["ms"] < 10_000
    assert (bad["request_id"], bad["status"]) == ("mine", "NOT_FOUND")
    assert (bad["reason"], bad["stage"]) == ("NOT_FOUND", "admission")
    assert (streamed["method"], streamed["documents"]) == (f"{ANALYZE}Stream", 2)
    assert not [line for line in lines if "zebra" in line]


def test_calls_have_no_lines_unless_asked_for(host: Loop, model: Model) -> None:
    with (
        logged(JsonLines()) as lines,
        observed(host, [model]) as hosted,
        Caller(hosted.address) as caller,
    ):
        caller.ask("Ada")
    assert "call" not in {json.loads(line)["message"] for line in lines}


def test_what_is_logged_within_a_call_has_its_request_id(host: Loop, bundle: Path) -> None:
    model, recorder = watched(bundle)
    recorder.failure = ValueError("broken\nin two")
    with (
        logged(JsonLines()) as lines,
        observed(host, [model]) as hosted,
        Caller(hosted.address) as caller,
    ):
        caller.fail("Ada", metadata=[("x-request-id", "mine")])
    (line,) = [json.loads(line) for line in lines if "error" in line]
    assert line["request_id"] == "mine"
    assert line["level"] == "error"
    assert "ValueError: broken" in line["exception"]


def record(message: str, **extra: Any) -> logging.LogRecord:
    made = logging.LogRecord("trunkline_serve", logging.INFO, "", 0, message, (), None)
    vars(made).update(extra)
    return made


def test_fields_are_words_in_text() -> None:
    fields = {"tasks": ["ner", "pos"], "ms": 1.5, "note": 'a "b"\n', "where": "x=y"}
    line = TextLines().format(record("call", fields=fields))
    assert line.endswith(r'INFO call tasks=ner,pos ms=1.5 note="a \"b\"\n" where="x=y"')


def test_json_lines_hold_anything() -> None:
    line = JsonLines().format(record("\ud800 東京\n", fields={"path": Path("x")}))
    assert json.loads(line)["message"] == "\ud800 東京\n"
    assert json.loads(line)["path"] == "x"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", json.loads(line)["time"])
    assert line.isascii()


@pytest.fixture
def restored() -> Iterator[None]:
    root, raising = logging.getLogger(), logging.raiseExceptions
    handlers, level = list(root.handlers), root.level
    yield
    for handler in root.handlers:
        if handler not in handlers:
            handler.close()
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.raiseExceptions = raising


@pytest.mark.usefixtures("restored")
def test_setting_up_twice_leaves_the_last(capfd: pytest.CaptureFixture[str]) -> None:
    set_up_logs(Log())
    writer = set_up_logs(Log(level="warning", format="json"))
    logging.getLogger("trunkline_serve").info("too little")
    logging.getLogger("trunkline_serve").warning("enough")
    logging.getLogger("trunkline_serve").warning("does not %d fit", "its format")
    writer.close()
    (line,) = capfd.readouterr().err.splitlines()
    assert json.loads(line)["message"] == "enough"
    assert writer.lost == 0


def test_lines_that_cannot_be_written_are_counted() -> None:
    descriptor = os.open("/dev/full", os.O_WRONLY)
    writers = [LineWriter(descriptor), LineWriter(None)]
    for writer in writers:
        writer.setFormatter(TextLines())
        for _ in range(10):
            writer.handle(record("lost"))
        writer.close()
    os.close(descriptor)
    assert [writer.lost for writer in writers] == [10, 10]


@contextmanager
def command(bundle: Path, stderr: IO[Any] | int, prefix: str = "") -> Iterator["Command"]:
    """Runs a server that logs every call, in a shell that may alter its descriptors first."""
    words = [sys.executable, "-m", "trunkline", "serve", str(bundle), "--port", "0"]
    words += ["--threads", "1", "--metrics-port", "0", "--log-calls", "--log-format", "json"]
    shell = ["sh", "-c", f'exec "$@" {prefix}', "sh", *words]
    with subprocess.Popen(shell, stdout=subprocess.PIPE, stderr=stderr, text=True) as process:
        try:
            yield Command(process)
        finally:
            process.kill()


class Command:
    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        assert process.stdout is not None
        self.address = process.stdout.readline().split()[-1]

    def ask(self, times: int) -> None:
        with Caller(self.address) as caller:
            for _ in range(times):
                caller.ask("Ada in Rome", "Bern")

    def end(self) -> str:
        """Ends it; returns what it logged that was not read."""
        self.process.send_signal(signal.SIGTERM)
        _, log = self.process.communicate(timeout=PATIENCE)
        assert self.process.returncode == 0
        return log or ""


def test_the_command_logs_json(bundle: Path) -> None:
    with command(bundle, subprocess.PIPE) as served:
        served.ask(3)
        log = served.end()
    messages = [json.loads(line)["message"] for line in log.splitlines()]
    assert messages.count("call") == 3
    assert messages[-1] == "stopped"


@pytest.mark.parametrize("redirection", ["2>/dev/full", "2>&-"])
def test_a_log_that_cannot_be_written_does_not_end_serving(bundle: Path, redirection: str) -> None:
    with command(bundle, subprocess.DEVNULL, redirection) as served:
        served.ask(20)
        served.end()


def test_lost_lines_are_a_metric(host: Loop, model: Model) -> None:
    writer = LineWriter(None)
    before = lost_lines()
    logging.getLogger().addHandler(writer)
    try:
        with observed(host, [model]) as hosted:
            logging.getLogger("trunkline_serve").error("three\nlines\nlost")
            wait_for(lambda: lost_lines() >= before + 3)
            address = hosted.host.metrics_address
            assert address is not None
            counted = fetch(address).total("trunkline_log_lines_lost_total")
            assert before + 3 <= counted <= lost_lines()
    finally:
        logging.getLogger().removeHandler(writer)
        writer.close()


def test_a_reader_that_stopped_reading_does_not_hold_up_calls(bundle: Path) -> None:
    # A pipe holds 64 KiB; 600 lines of calls are more than twice that.
    with command(bundle, subprocess.PIPE) as served:
        served.ask(600)
        served.process.send_signal(signal.SIGTERM)
        wait_for(lambda: served.process.poll() is not None)
        assert served.process.returncode == 0


def test_the_log_and_the_metrics_need_no_grpc() -> None:
    code = (
        "import sys, trunkline_serve.observe.http, trunkline_serve.observe.logs,"
        " trunkline_serve.observe.metrics; sys.exit('grpc' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
