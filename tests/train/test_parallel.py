"""Two processes train what one does."""

import os
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.small import Corpus
from trunkline_train.checkpoint import load_checkpoint
from trunkline_train.interrupt import watch_signals
from trunkline_train.loop import train
from trunkline_train.report import read_log

# Without dropout, whose draws differ by process. The last batch of the sentences has one row: the
# second process has nothing for the head `ner` then.
SETTINGS = (
    "training.epochs=2",
    "training.save_steps=3",
    "model.dropout=0",
    "model.hidden_dropout=0",
    "model.attention_dropout=0",
    "tasks.ner.limit={train=9, dev=4}",
    "tasks.qa.limit={train=20, dev=4}",
)


def command(corpus: Corpus, out: Path, *changes: str) -> list[str]:
    """Returns what runs `trunkline train` in two processes."""
    sets = [part for change in (*SETTINGS, *changes) for part in ("--set", change)]
    return [
        sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2",
        "--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0", "--local-addr", "127.0.0.1",
        "-m", "trunkline", "train", str(corpus.config), "--out", str(out), *sets,
    ]  # fmt: skip


def launch(corpus: Corpus, out: Path, *changes: str) -> None:
    finished = subprocess.run(
        command(corpus, out, *changes),
        check=False, capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert finished.returncode == 0, finished.stderr


@pytest.mark.parametrize("method", ["static", pytest.param("gradnorm", marks=pytest.mark.slow)])
def test_two_processes_give_the_weights_of_one(corpus: Corpus, tmp_path: Path, method: str) -> None:
    change = f"balancing.method={method}"
    train(corpus.load(*SETTINGS, change), tmp_path / "one")
    launch(corpus, tmp_path / "two", change)
    one, two = (load_file(tmp_path / run / "last/model.safetensors") for run in ("one", "two"))
    assert one.keys() == two.keys()
    # The same number added to all logits of a start changes nothing: the gradient of that bias is
    # rounding, of which Adam makes whole steps.
    del one["heads.task_qa.linear.bias"]
    for name, tensor in one.items():
        assert torch.allclose(tensor, two[name], atol=1e-4), name
    assert "; processes 2, " in (tmp_path / "two" / "README.md").read_text()


def process_of(rank: int, mark: str) -> int:
    """Returns the process that has a rank and a mark in its environment."""
    for entry in Path("/proc").iterdir():
        try:
            held = (entry / "environ").read_bytes().split(b"\0")
        except (OSError, ValueError):  # another's, or gone
            continue
        if f"RANK={rank}".encode() in held and f"MARK={mark}".encode() in held:
            return int(entry.name)
    raise AssertionError(f"no process of rank {rank}")


def test_a_signal_that_one_process_sees_stops_both_with_everything_saved(
    corpus: Corpus, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    endless = ("training.epochs=100", "training.save_steps=1000", "tasks.ner.limit.dev=1")
    with subprocess.Popen(
        command(corpus, out, *endless), env={**os.environ, "MARK": str(out)}, stderr=subprocess.PIPE
    ) as launcher:
        deadline = time.monotonic() + 120
        while len(read_log(out)) < 2:
            assert launcher.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        os.kill(process_of(1, str(out)), signal.SIGTERM)
        _, told = launcher.communicate(timeout=120)
    assert launcher.returncode != 0
    saved = load_checkpoint(out / "last").progress.step
    assert f"stopped after step {saved}; --resume goes on".encode() in told
    assert saved == max(line["step"] for line in read_log(out))


@pytest.mark.parametrize(("processes", "interrupted"), [(1, True), (2, False)])
def test_a_second_signal_interrupts_only_what_runs_alone(processes: int, interrupted: bool) -> None:
    expected = pytest.raises(KeyboardInterrupt) if interrupted else nullcontext()
    with watch_signals(processes) as stopping:
        assert not stopping()
        signal.raise_signal(signal.SIGTERM)
        assert stopping()
        with expected:
            signal.raise_signal(signal.SIGINT)
        assert stopping()
