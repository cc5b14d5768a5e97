import signal
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.serve.hosting import PATIENCE, wait_for
from trunkline.errors import Unavailable
from trunkline_serve.launch import launched, serving

FULL = Path("/dev/full")


def test_a_server_that_dies_says_why_in_one_line(tmp_path: Path) -> None:
    with (
        pytest.raises(Unavailable, match=r"^the server did not start: .*is not a bundle.*$"),
        serving([tmp_path]),
    ):
        pass


def test_a_server_that_is_not_ready_in_time_is_told(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trunkline_serve.launch.PATIENCE", 0.0)
    with pytest.raises(Unavailable, match="not ready in 0 s"), serving([bundle]):
        pass


def test_a_server_has_its_options_and_ends_with_the_block(bundle: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    variables = {"TRUNKLINE_LIMITS_MAX_DOCUMENTS": "3"}
    with serving([bundle], "--log-calls", log=log, environment=variables) as server:
        server.await_log("serving on")
        process = psutil.Process(server.process.pid)
        assert process.environ()["TRUNKLINE_LIMITS_MAX_DOCUMENTS"] == "3"
        assert process.cmdline()[-1] == "--log-calls"
        assert process.is_running()
    assert not process.is_running()
    assert server.process.returncode == 0
    assert log.read_text().splitlines()[-1].endswith("stopped")


STUBBORN = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(child.pid, flush=True)
time.sleep(600)
"""


def test_a_server_that_does_not_end_is_killed_with_what_it_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trunkline_serve.launch._STOP_SECONDS", 0.1)
    log = tmp_path / "log"
    with launched([sys.executable, "-c", STUBBORN], log, session=True) as process:
        end = time.monotonic() + PATIENCE
        while not log.read_text().endswith("\n"):
            assert time.monotonic() < end
            time.sleep(0.01)
        child = psutil.Process(int(log.read_text()))
    assert process.returncode == -signal.SIGKILL
    assert psutil.wait_procs([child], PATIENCE)[1] == []


@pytest.mark.skipif(not FULL.exists(), reason="a device of Linux")
@pytest.mark.parametrize("fronts", [0, 1])
def test_a_server_whose_output_cannot_be_written_serves(
    bundle: Path, tmp_path: Path, fronts: int
) -> None:
    log = tmp_path / "log"
    command = [sys.executable, "-m", "trunkline", "serve", str(bundle), "--port", "0"]
    command += ["--threads", "1", "--fronts", str(fronts)]
    with launched(command, log, out=FULL) as process:
        wait_for(lambda: "output cannot be written: No space left" in log.read_text())
        process.terminate()
        assert process.wait(PATIENCE) == 0
