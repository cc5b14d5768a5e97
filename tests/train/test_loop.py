import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file

from tests.small import Corpus, sentences, write_conll
from trunkline.errors import CheckpointError, ConfigError, DataError
from trunkline_export.provenance import provenance
from trunkline_train import load, loop
from trunkline_train.checkpoint import Checkpoint, load_checkpoint
from trunkline_train.config import Config, load_config
from trunkline_train.loop import train
from trunkline_train.report import Report

pytestmark = pytest.mark.usefixtures("undrawn")

# 3 steps an epoch (questions), 2 of sentences; few are enough to compare two runs.
SHORT = (
    "training.epochs=2",
    "training.save_steps=2",
    "tasks.ner.limit={train=12, dev=4}",
    "tasks.qa.limit={train=20, dev=4}",
)


def log(run: Path) -> list[dict[str, object]]:
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    for line in lines:
        line.pop("tokens_per_second", None)
        line.pop("seconds", None)
    return lines


def losses(run: Path, task: str) -> list[float]:
    return [line["loss"][task] for line in log(run) if "loss" in line]


def interrupt(monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    """Makes the run fail after its `at`-th step."""
    step, done = Report.step, [0]

    def failing(report: Report, *given: object) -> None:
        step(report, *given)
        done[0] += 1
        if done[0] == at:
            raise KeyboardInterrupt

    monkeypatch.setattr(Report, "step", failing)


@pytest.fixture(scope="module")
def config(corpus: Corpus) -> Config:
    return corpus.load(*SHORT)


@pytest.fixture(scope="module")
def whole(config: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short run that nothing interrupted."""
    out = tmp_path_factory.mktemp("loop") / "whole"
    train(config, out)
    return out


def assert_same_run(one: Path, two: Path) -> None:
    for name in ("last/model", "last/state", "best/model"):
        before, after = (load_file(run / f"{name}.safetensors") for run in (one, two))
        assert before.keys() == after.keys()
        assert [key for key in before if not torch.equal(before[key], after[key])] == []
    assert json.loads((one / "last/state.json").read_text()) == json.loads(
        (two / "last/state.json").read_text()
    )
    assert log(one) == log(two)


def test_the_loss_of_every_task_falls(trained: Path) -> None:
    for task in ("ner", "qa"):
        seen = losses(trained, task)
        assert sum(seen[-5:]) < 0.8 * sum(seen[:5])


def test_the_log_has_every_step_and_epoch(trained: Path) -> None:
    lines = log(trained)
    assert [line["step"] for line in lines if "loss" in line] == list(range(1, 41))
    epochs = [line for line in lines if "dev" in line]
    assert [(line["epoch"], line["step"]) for line in epochs] == [
        (1, 10),
        (2, 20),
        (3, 30),
        (4, 40),
    ]
    assert set(epochs[0]["dev"]) == {"ner", "qa"}


def test_curves_are_drawn(trained: Path) -> None:
    assert (trained / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_best_is_the_epoch_with_the_highest_mean(trained: Path) -> None:
    means = {
        line["step"]: (line["dev"]["ner"]["f1"] + line["dev"]["qa"]["f1"]) / 2
        for line in log(trained)
        if "dev" in line
    }
    best = load_checkpoint(trained / "best").progress
    assert best.step == max(means, key=lambda step: means[step])
    assert best.best == pytest.approx(max(means.values()))
    assert load_checkpoint(trained / "last").progress.step == 40


def test_a_runs_folder_is_not_written_over(trained: Path, corpus: Corpus) -> None:
    before = (trained / "log.jsonl").read_bytes()
    with pytest.raises(ConfigError, match="holds a run; use --resume to go on, --overwrite"):
        train(corpus.load(), trained)
    assert (trained / "log.jsonl").read_bytes() == before


def test_the_same_configuration_gives_the_same_run(
    config: Config, whole: Path, tmp_path: Path
) -> None:
    train(config, tmp_path / "again")
    assert_same_run(whole, tmp_path / "again")


@pytest.mark.parametrize("at", [3, 4, 5])
def test_an_interrupted_run_goes_on_as_if_it_never_stopped(
    config: Config, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    out = tmp_path / "run"
    interrupt(monkeypatch, at)
    with pytest.raises(KeyboardInterrupt):
        train(config, out)
    monkeypatch.undo()
    assert load_checkpoint(out / "last").progress.step < 6
    torch.rand(at)  # another process, another random state
    train(config, out, resume=True)
    assert_same_run(whole, out)


def test_a_finished_run_resumes_to_itself(config: Config, whole: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(whole, tmp_path / "run"))
    best = train(config, out, resume=True)
    assert best.progress == load_checkpoint(whole).progress
    assert_same_run(whole, out)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("training.epochs=3", "training.epochs was 2, is 3"),
        ("training.seed=6", "training.seed was 5, is 6"),
        ("tasks.qa.weight=2", "tasks.qa.weight was 1.0, is 2.0"),
    ],
)
def test_another_configuration_cannot_resume(
    corpus: Corpus, whole: Path, change: str, told: str
) -> None:
    with pytest.raises(CheckpointError, match=f"by another configuration: {told}; resume with"):
        train(corpus.load(*SHORT, change), whole, resume=True)


def test_a_project_that_has_moved_resumes_from_another_folder(
    corpus: Corpus, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = Path(shutil.copytree(corpus.folder, tmp_path / "project"))
    text = corpus.config.read_text().replace(str(corpus.encoder), "encoder")
    (project / "config.toml").write_text(text)
    shutil.copytree(whole, tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    train(load_config(Path("project/config.toml"), SHORT), tmp_path / "run", resume=True)
    assert_same_run(whole, tmp_path / "run")


def test_other_labels_or_data_cannot_resume(corpus: Corpus, tmp_path: Path) -> None:
    path = tmp_path / "ner.train"
    write_conll(path, sentences(30, 1))
    settings = (*SHORT, "training.epochs=1", "tasks.ner.limit={dev=4}", f"tasks.ner.train={path}")
    train(corpus.load(*settings), tmp_path / "run")
    for data, told in (
        ([*sentences(30, 1), (("Bern", "B-MISC"),)], "'ner' has other labels"),
        (sentences(31, 1), "the data of 'ner' has changed"),
    ):
        write_conll(path, data)
        with pytest.raises(CheckpointError, match=told):
            train(corpus.load(*settings), tmp_path / "run", resume=True)


def test_a_signal_at_any_moment_of_a_step_leaves_that_step(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may come behind the question whether to save, and before the one whether to stop."""
    asked = iter([False, True, True])

    @contextmanager
    def watch(processes: int) -> Iterator[Callable[[], bool]]:
        yield lambda: next(asked)

    monkeypatch.setattr(loop, "watch_signals", watch)
    with pytest.raises(KeyboardInterrupt):
        train(replace(config, training=replace(config.training, save_steps=1000)), tmp_path / "run")
    steps = [line["step"] for line in log(tmp_path / "run")]
    assert load_checkpoint(tmp_path / "run" / "last").progress.step == max(steps) == 2


def test_a_resumed_run_takes_the_encoder_at_the_commit_it_began_with(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    repository = tmp_path / "hub" / "models--acme--small"
    first, second = "1" * 40, "2" * 40
    shutil.copytree(corpus.encoder, repository / "snapshots" / first)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(first)
    config = corpus.load(*SHORT, "encoder=acme/small")
    interrupt(monkeypatch, 3)
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "run")
    monkeypatch.undo()
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    (repository / "refs" / "main").write_text(second)  # the branch has moved, to what is not here
    found = train(config, tmp_path / "run", resume=True)
    assert found.origin.commit == first
    assert f"`acme/small` (commit `{first}`)" in (tmp_path / "run" / "README.md").read_text()
    assert provenance(found)["encoder_commit"] == first


@pytest.mark.parametrize("end", ['{"step": 12, "lo', "\x00\x00", ""])
def test_a_log_that_is_being_written_does_not_hold_up_a_model(
    trained: Path, tmp_path: Path, end: str
) -> None:
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    before = load(run).scores
    with (run / "log.jsonl").open("a") as file:
        file.write(end)
    assert load(run).scores == before
    assert set(before) == {"ner", "qa"}


def test_a_run_is_only_replaced_if_told(config: Config, tmp_path: Path) -> None:
    out = tmp_path / "run"
    for stale in ("last", "best", "best-ner"):
        (out / stale).mkdir(parents=True)
    with pytest.raises(ConfigError, match="holds a run; use --resume to go on, --overwrite to"):
        train(config, out)
    with pytest.raises(ConfigError, match="choose resume or overwrite"):
        train(config, out, resume=True, overwrite=True)
    broken = replace(config, encoder=str(tmp_path / "nowhere"))
    with pytest.raises(ConfigError, match="nowhere"):
        train(broken, out, overwrite=True)
    assert (out / "best-ner").exists()  # nothing goes before the data is read
    train(config, out, overwrite=True)
    assert not (out / "best-ner").exists()
    assert load_checkpoint(out).progress.step > 0


def test_a_folder_of_something_else_is_left_alone(config: Config, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(
            ConfigError, match=r"has a README\.md that is of no run; choose another"
        ):
            train(config, tmp_path, overwrite=overwrite)
        with pytest.raises(ConfigError, match=r"README\.md: is a file; choose another --out"):
            train(config, tmp_path / "README.md", overwrite=overwrite)
    assert (tmp_path / "README.md").read_text() == "mine"


def test_nothing_to_resume_is_one_line(config: Config, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="nowhere: holds no run to go on with"):
        train(config, tmp_path / "nowhere", resume=True)


def test_nothing_is_written_before_the_data_is_read(corpus: Corpus, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere.conll: cannot be read"):
        train(corpus.load("tasks.ner.train=nowhere.conll"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_unknown_device_is_refused(corpus: Corpus, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"training.device: 'quantum' cannot be used"):
        train(corpus.load("training.device=quantum"), tmp_path / "run")


def test_bf16_products_keep_full_weights(corpus: Corpus, tmp_path: Path) -> None:
    short = (*SHORT, "training.epochs=1", "training.precision=bf16")
    found = train(corpus.load(*short), tmp_path / "run")
    assert {value.dtype for value in found.model.state_dict().values()} == {torch.float32}
    assert all(bool(value.isfinite().all()) for value in found.model.state_dict().values())


def test_training_stops_when_nothing_gets_better(
    corpus: Corpus, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    still = ("training.learning_rate=1e-30", "training.head_learning_rate=1e-30")
    config = corpus.load(*SHORT, *still, "training.epochs=9", "training.patience=2")
    train(config, tmp_path / "run")
    epochs = [line["epoch"] for line in log(tmp_path / "run") if "dev" in line]
    assert epochs == [1, 2, 3]  # the first is the best; two more bring nothing
    told = "task ner has learned nothing that shows: f1 0.00 on 4 dev examples is no better than"
    assert f"WARNING: {told} guessing" in capsys.readouterr().err
    assert f"**{told} guessing" in (tmp_path / "run" / "README.md").read_text()


def test_each_task_may_keep_its_own_best(corpus: Corpus, tmp_path: Path) -> None:
    train(corpus.load(*SHORT, "training.best_per_task=true"), tmp_path / "run")
    scores = [line for line in log(tmp_path / "run") if "dev" in line]
    for task in ("ner", "qa"):
        best = max(scores, key=lambda line: line["dev"][task]["f1"])
        kept = load_checkpoint(tmp_path / "run" / f"best-{task}")
        assert kept.progress.step == best["step"]
        assert kept.progress.by_task[task] == pytest.approx(best["dev"][task]["f1"])


def test_low_rank_updates_resume_exactly_and_are_merged_into_what_is_kept(
    corpus: Corpus, checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = corpus.load(*SHORT, "model.lora_rank=2", "model.lora_dropout=0.1")
    train(config, tmp_path / "whole")
    interrupt(monkeypatch, 3)
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "run")
    monkeypatch.undo()
    train(config, tmp_path / "run", resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "run")
    kept = load_checkpoint(tmp_path / "run").model.state_dict()
    assert kept.keys() == checkpoint.model.state_dict().keys()


def test_a_student_of_fewer_layers_learns_from_a_run(
    corpus: Corpus, trained: Path, tmp_path: Path
) -> None:
    teachers = [f"tasks.{task}.teacher={trained.as_posix()}" for task in ("ner", "qa")]
    smaller = (f"encoder={trained.as_posix()}", "model.layers=1", "training.epochs=2")
    taught = train(corpus.load(*teachers, *smaller), tmp_path / "run")
    assert taught.model.config.num_hidden_layers == 1
    assert taught.progress.by_task["ner"] > 80.0
    seen = losses(tmp_path / "run", "ner")
    assert seen[-1] < 0.5 * seen[0]
