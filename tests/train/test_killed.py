"""A run that is killed, runs out of disk or of sense loses nothing."""

import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.small import Corpus
from trunkline.cli import main
from trunkline.errors import TrainingFault
from trunkline_train.checkpoint import load_checkpoint
from trunkline_train.loop import train

pytestmark = pytest.mark.usefixtures("undrawn")

# Six steps an epoch, a checkpoint every fifth: kills land between them.
SETTINGS = (
    "training.epochs=6",
    "training.save_steps=5",
    "training.diagnose_steps=4",
    "balancing.method=gradnorm",
    "mixing.sampler=temperature",
    "mixing.batches_per_step=2",
    "tasks.ner.limit={train=40, dev=4}",
    "tasks.qa.limit={train=60, dev=4}",
)


def arguments(corpus: Corpus, out: Path, *more: str) -> list[str]:
    sets = [part for change in SETTINGS for part in ("--set", change)]
    return ["train", str(corpus.config), "--out", str(out), *sets, *more]


def kill_when(log: Path, lines: int, process: subprocess.Popen[bytes], number: int) -> None:
    """Sends a signal as soon as the log has that many lines."""
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        if log.exists() and log.read_bytes().count(b"\n") >= lines:
            process.send_signal(number)
            return
        assert process.poll() is None
        time.sleep(0.01)
    raise AssertionError("the run wrote no log")


@dataclass(frozen=True)
class Stopped:
    """What a signal left behind; the folder is not to be changed."""

    run: Path
    number: signal.Signals
    status: int
    told: bytes

    def copied(self, folder: Path) -> Path:
        return Path(shutil.copytree(self.run, folder / "run"))


@pytest.fixture(scope="module")
def whole(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing interrupted."""
    out = tmp_path_factory.mktemp("killed") / "whole"
    train(corpus.load(*SETTINGS), out)
    return out


@pytest.fixture(scope="module", params=[signal.SIGKILL, signal.SIGTERM], ids=lambda n: n.name)
def stopped(
    request: pytest.FixtureRequest, corpus: Corpus, tmp_path_factory: pytest.TempPathFactory
) -> Stopped:
    """A run that a signal ended."""
    out = tmp_path_factory.mktemp("killed") / "run"
    command = [sys.executable, "-m", "trunkline", *arguments(corpus, out)]
    pipe, null = subprocess.PIPE, subprocess.DEVNULL
    with subprocess.Popen(command, stdout=null, stderr=pipe) as process:
        kill_when(out / "log.jsonl", 18, process, request.param)
        _, told = process.communicate(timeout=240)
        return Stopped(out, request.param, process.returncode, told)


def assert_same_weights(one: Path, two: Path) -> None:
    for name in ("last/model", "last/state", "best/model"):
        before, after = (load_file(run / f"{name}.safetensors") for run in (one, two))
        assert before.keys() == after.keys()
        assert [key for key in before if not torch.equal(before[key], after[key])] == []


def test_a_killed_run_resumes_to_the_same_weights(
    corpus: Corpus, whole: Path, stopped: Stopped, tmp_path: Path
) -> None:
    killed = stopped.number == signal.SIGKILL
    assert stopped.status == (-signal.SIGKILL if killed else 130)
    out = stopped.copied(tmp_path)
    step = load_checkpoint(out / "last").progress.step
    assert 5 <= step < load_checkpoint(whole / "last").progress.step
    if not killed:
        # Told to stop, it saves where it is.
        assert f"stopped after step {step}; --resume goes on" in stopped.told.decode()
    train(corpus.load(*SETTINGS), out, resume=True)
    assert_same_weights(whole, out)


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Lets this process write no file of more bytes, as on a disk that is nearly full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("stopped", [signal.SIGTERM], ids=["SIGTERM"], indirect=True)
def test_a_full_disk_leaves_the_last_good_checkpoint(
    corpus: Corpus,
    whole: Path,
    stopped: Stopped,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    out = stopped.copied(tmp_path)
    before = {file: file.read_bytes() for file in (out / "last").iterdir()}
    most = (out / "last" / "model.safetensors").stat().st_size // 2
    with files_of_at_most(most):
        assert main(arguments(corpus, out, "--resume")) == 2
    told = capfd.readouterr().err
    assert "Traceback" not in told
    assert "File too large" in told
    assert {file: file.read_bytes() for file in (out / "last").iterdir()} == before
    train(corpus.load(*SETTINGS), out, resume=True)
    assert_same_weights(whole, out)


def test_a_loss_that_is_no_number_stops_and_names_the_task(corpus: Corpus, tmp_path: Path) -> None:
    config = corpus.load(*SETTINGS, "training.learning_rate=1e30", "training.warmup=0")
    with pytest.raises(TrainingFault, match=r"step \d+: the (loss|gradient) of .*(ner|qa)"):
        train(config, tmp_path / "run")
    saved = load_checkpoint(tmp_path / "run" / "last")
    assert saved.progress.step >= 1
