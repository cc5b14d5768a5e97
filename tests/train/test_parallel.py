"""Two processes train what one does."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.small import Corpus
from trunkline_train.loop import train

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


def launch(corpus: Corpus, out: Path, *changes: str) -> None:
    """Runs `trunkline train` in two processes."""
    sets = [part for change in (*SETTINGS, *changes) for part in ("--set", change)]
    launcher = ["-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2"]
    command = ["-m", "trunkline", "train", str(corpus.config), "--out", str(out), *sets]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "MASTER_ADDR": "127.0.0.1"}
    finished = subprocess.run(
        [sys.executable, *launcher, "--num_machines", "1", "--mixed_precision", "no",
         "--dynamo_backend", "no", "--main_process_port", "0", *command],
        check=False, env=environment, capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert finished.returncode == 0, finished.stderr


@pytest.mark.parametrize("method", ["static", pytest.param("pcgrad", marks=pytest.mark.slow)])
def test_two_processes_give_the_weights_of_one(corpus: Corpus, tmp_path: Path, method: str) -> None:
    change = f"balancing.method={method}"
    train(corpus.load(*SETTINGS, change), tmp_path / "one")
    launch(corpus, tmp_path / "two", change)
    one, two = (load_file(tmp_path / run / "last/model.safetensors") for run in ("one", "two"))
    assert one.keys() == two.keys()
    for name, tensor in one.items():
        assert torch.allclose(tensor, two[name], atol=2e-4), name
    assert (tmp_path / "two" / "log.jsonl").exists()
