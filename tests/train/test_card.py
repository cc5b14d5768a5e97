import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from trunkline import __version__
from trunkline.tasks import AnswerOptions
from trunkline_train.card import write_card
from trunkline_train.checkpoint import Checkpoint
from trunkline_train.report import read_log


@pytest.fixture
def folder(trained: Path, tmp_path: Path) -> Path:
    """A run's folder with its log only."""
    out = tmp_path / "my-run"
    out.mkdir()
    (out / "log.jsonl").write_bytes((trained / "log.jsonl").read_bytes())
    return out


def card(folder: Path, checkpoint: Checkpoint) -> str:
    write_card(folder, checkpoint, {"ner": 61, "qa": 1080}, torch.device("cpu"), processes=2)
    return (folder / "README.md").read_text()


def test_the_card_is_filled_from_the_run(folder: Path, checkpoint: Checkpoint) -> None:
    text = card(folder, checkpoint)
    epochs = [line for line in read_log(folder) if "dev" in line]
    best = max(epochs, key=lambda line: line["mean"])
    low, high = best["intervals"]["ner"]["f1"]
    f1 = best["dev"]["ner"]["f1"]
    assert f"| ner | **f1** | {f1:.2f} | {low:.2f} to {high:.2f} | 20 | 0.00 |" in text
    assert "learned nothing" not in text
    assert "- Highest learning rates: 0.01 of the encoder, 0.02 of the heads" in text
    assert f"after epoch {best['epoch']} of {len(epochs)}" in text
    assert "| ner | token-classification | O, B-LOC, I-LOC, B-PER, I-PER |" in text
    assert "| qa | `qa.train.json` | 1,080 | `qa.dev.json` |" in text
    assert f"{epochs[-1]['step']} steps in " in text
    assert "; processes 2, threads " in text
    assert f"trunkline {__version__}, Python " in text
    assert f"torch {torch.__version__}" in text
    assert "epochs 4" in text
    assert "learning_rate 0.01" in text
    assert "Licences: to be added" in text
    assert "trunkline export my-run --out my-run.bundle" in text


def test_a_card_names_no_folder_of_the_machine(folder: Path, checkpoint: Checkpoint) -> None:
    assert "`encoder`" in (text := card(folder, checkpoint))
    assert str(folder.parent) not in text
    assert str(Path(checkpoint.config.encoder).parent) not in text


def test_a_card_shows_the_plots_there_are(folder: Path, checkpoint: Checkpoint) -> None:
    assert "![" not in card(folder, checkpoint)
    (folder / "curves.png").touch()
    (folder / "confusion").mkdir()
    (folder / "confusion" / "ner.png").touch()
    text = card(folder, checkpoint)
    assert "![curves of the run](curves.png)" in text
    assert "![what ner takes for what](confusion/ner.png)" in text


def test_a_held_out_dev_split_and_a_teacher_are_told(folder: Path, checkpoint: Checkpoint) -> None:
    tasks = dict(checkpoint.config.tasks)
    tasks["qa"] = replace(tasks["qa"], dev=None, teacher="runs/teacher")
    taught = replace(checkpoint, config=replace(checkpoint.config, tasks=tasks))
    text = card(folder, taught)
    assert "| qa | `qa.train.json` | 1,080 | held out of train |" in text
    assert "- distillation of qa: defaults" in text
    assert "distillation" not in card(folder, checkpoint)


def test_the_no_answer_threshold_is_told(folder: Path, checkpoint: Checkpoint) -> None:
    assert "holds no answer" not in card(folder, checkpoint)
    ner, qa = checkpoint.tasks
    tuned = replace(qa, options=AnswerOptions(no_answer_threshold=0.25))
    checkpoint.model.tasks = (ner, tuned)
    try:
        assert "`qa` is silent where the text holds no answer by over 0.25." in card(
            folder, checkpoint
        )
    finally:
        checkpoint.model.tasks = (ner, qa)


def test_labels_with_bars_do_not_break_the_table(folder: Path, checkpoint: Checkpoint) -> None:
    text = (folder / "log.jsonl").read_text().replace('"ner"', '"a|b"')
    (folder / "log.jsonl").write_text(text)
    json.loads(text.splitlines()[0])
    assert "| a\\|b | **f1** |" in card(folder, checkpoint)
