import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from trunkline_train import report as module
from trunkline_train.checkpoint import Progress
from trunkline_train.report import Report, guessing, read_log
from trunkline_train.scores import Scores
from trunkline_train.scoring.bootstrap import Difference, Interval
from trunkline_train.scoring.confusion import Confusion

CONFUSION = Confusion(("LOC", "PER"), {("LOC", "LOC"): 3, ("LOC", "PER"): 1, ("PER", "PER"): 2})


def scores(value: float) -> dict[str, Scores]:
    bounds = {"f1": Interval(value - 2, value + 2)}
    ner = Scores("f1", {"precision": 1.0, "f1": value}, 7, {}, bounds, CONFUSION, kind="tokens")
    qa = Scores("f1", {"f1": value - 10}, 5, {}, {"f1": Interval(0, 9)}, kind="questions")
    return {"ner": over(ner, 0.0), "qa": over(qa, 50.0)}


def over(scores: Scores, guess: float) -> Scores:
    """Returns scores with a baseline; five points more are no chance."""
    gain = scores.value - guess
    return replace(scores, baseline=guess, gain=Difference(gain, gain - 5, gain + 5))


def run_steps(report: Report, count: int, weight: float = 1.0) -> None:
    for at in range(count):
        report.step({"ner": 1.0 / (at + 1), "qa": 2.0}, {"ner": weight, "qa": 1.0}, 100, 1e-3)


def lines(out: Path, key: str) -> list[dict]:
    return [line for line in read_log(out) if key in line]


@pytest.fixture(autouse=True)
def curves(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Notes how many lines the curves were drawn of, rather than drawing them each time."""
    drawn: list[int] = []
    monkeypatch.setattr(module, "draw_curves", lambda lines, path: drawn.append(len(lines)))
    return drawn


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Stops the time; the function moves it on."""
    now = [1000.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])

    def move(seconds: float) -> None:
        now[0] += seconds

    return move


def test_the_log_tells_losses_gradients_and_scores(tmp_path: Path, curves: list[int]) -> None:
    with Report(tmp_path, 4, Progress()) as report:
        run_steps(report, 2)
        report.gradients({"ner": 0.5, "qa": 0.25}, {"ner~qa": -0.1})
        report.epoch(1, scores(80.0))
    steps = lines(tmp_path, "loss")
    assert [line["step"] for line in steps] == [1, 2]
    assert [line["loss"] for line in steps] == [{"ner": 1.0, "qa": 2.0}, {"ner": 0.5, "qa": 2.0}]
    assert steps[0]["weight"] == {"ner": 1.0, "qa": 1.0}
    assert steps[0]["rate"] == 1e-3
    (gradients,) = lines(tmp_path, "gradient_norm")
    assert gradients == {
        "step": 2,
        "gradient_norm": {"ner": 0.5, "qa": 0.25},
        "cosine": {"ner~qa": -0.1},
    }
    (epoch,) = lines(tmp_path, "dev")
    assert epoch.pop("seconds") >= 0.0
    assert epoch == {
        "step": 2,
        "epoch": 1,
        "dev": {"ner": {"precision": 1.0, "f1": 80.0}, "qa": {"f1": 70.0}},
        "main": {"ner": "f1", "qa": "f1"},
        "mean": 75.0,
        "n": {"ner": 7, "qa": 5},
        "intervals": {"ner": {"f1": [78.0, 82.0]}, "qa": {"f1": [0, 9]}},
        "baseline": {"ner": 0.0, "qa": 50.0},
        "beats_baseline": {"ner": True, "qa": True},
    }
    assert curves == [4]  # once, of all lines


def test_losses_are_means_over_the_steps_between_lines(tmp_path: Path) -> None:
    with Report(tmp_path, 1200, Progress()) as report:
        for loss in (1.0, 2.0, 6.0, 4.0):
            report.step({"ner": loss}, {"ner": loss / 2}, 100, 1e-3)
        report.step({"qa": 9.0}, {"qa": 1.0}, 100, 1e-3)
        report.epoch(1, scores(80.0))  # tells what is left
    steps = lines(tmp_path, "loss")
    assert [line["step"] for line in steps] == [3, 5]
    assert [line["loss"] for line in steps] == [{"ner": 3.0}, {"ner": 4.0, "qa": 9.0}]
    assert steps[0]["weight"] == {"ner": 1.5}


def test_evaluation_is_not_training_time(tmp_path: Path, clock: Callable[[float], None]) -> None:
    with Report(tmp_path, 4, Progress()) as report:
        for number in (1, 2):
            clock(2.0)
            run_steps(report, 1)
            clock(60.0)  # evaluation
            report.epoch(number, scores(80.0))
    assert [line["tokens_per_second"] for line in lines(tmp_path, "loss")] == [50, 50]
    assert [line["seconds"] for line in lines(tmp_path, "loss")] == [2.0, 2.0]
    assert [line["seconds"] for line in lines(tmp_path, "dev")] == [62.0, 62.0]


def test_a_resumed_run_drops_what_was_lost_and_counts_its_time(
    tmp_path: Path, clock: Callable[[float], None]
) -> None:
    with Report(tmp_path, 8, Progress()) as report:
        run_steps(report, 2)
        report.epoch(1, scores(80.0))
        for _ in range(2):
            clock(5.0)
            run_steps(report, 1)
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"step": 5, "lo')  # killed while it wrote
    clock(1000.0)
    with Report(tmp_path, 8, Progress(step=3)) as report:
        assert [line["step"] for line in lines(tmp_path, "loss")] == [1, 2, 3]
        clock(4.0)
        run_steps(report, 1)
        report.epoch(2, scores(70.0))
    assert [line["step"] for line in lines(tmp_path, "loss")] == [1, 2, 3, 4]
    assert [line["seconds"] for line in lines(tmp_path, "dev")] == [0.0, 9.0]


def test_a_new_run_starts_a_new_log(tmp_path: Path) -> None:
    for _ in range(2):
        with Report(tmp_path, 2, Progress()) as report:
            run_steps(report, 1)
    assert len(read_log(tmp_path)) == 1


def test_an_epoch_is_printed_as_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Report(tmp_path, 4, Progress()) as report:
        run_steps(report, 2)
        report.epoch(1, scores(80.0))
        run_steps(report, 2)
        report.epoch(2, scores(70.0))
    out, text = capsys.readouterr()
    assert out == ""
    first, second = text.split("-" * 100 + "\n")[1:]
    head, names, ner, qa, mean = first.splitlines()
    assert head.startswith("epoch 1  step 2 of 4  train loss 1.3750  rate 1.0e-03  ")
    assert names.split() == ["task", "kind", "train", "loss", "dev"]
    assert ner.split("  ", 2)[2].strip().startswith("tokens")
    assert "0.7500  f1 80.00 [78.0, 82.0]  precision 1.00" in ner
    assert "qa" in qa
    assert "f1 70.00 [0.0, 9.0]" in qa
    assert mean.split() == ["mean", "75.00", "best", "so", "far"]
    assert "best" not in second
    assert ner.index("f1 80") == qa.index("f1 70") == mean.index("75.00")


def test_a_task_that_only_guesses_is_warned_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Report(tmp_path, 6, Progress()) as report:
        for number, value in enumerate((63.0, 60.0), start=1):  # of qa 53 and 50
            run_steps(report, 2)
            report.epoch(number, scores(value))
        report.warn()
    warnings = [text for text in capsys.readouterr().err.splitlines() if "WARNING" in text]
    assert len(warnings) == 1
    told = "task qa has learned nothing that shows: f1 53.00 on 5 dev examples cannot be told from"
    assert warnings[0].startswith(f"WARNING: {told} guessing, which gives 50.00. See that ")
    assert "training.min_steps" in warnings[0]
    # A resumed run knows the best epoch of before, and a log may be older than baselines.
    (late,) = guessing(read_log(tmp_path))
    assert late.startswith(told)
    old = [{key: line[key] for key in ("dev", "mean")} for line in lines(tmp_path, "dev")]
    assert list(guessing(old)) == []


def test_what_guesses_worse_than_a_guess_is_no_better(tmp_path: Path) -> None:
    with Report(tmp_path, 2, Progress()) as report:
        run_steps(report, 2)
        report.epoch(1, scores(60.0))
    (warning,) = guessing(read_log(tmp_path))
    assert "f1 50.00 on 5 dev examples is no better than guessing, which gives 50.00" in warning


def test_a_run_that_learned_is_not_warned_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Report(tmp_path, 2, Progress()) as report:
        run_steps(report, 2)
        report.epoch(1, scores(80.0))
        report.warn()
    assert "WARNING" not in capsys.readouterr().err


def test_lines_tell_progress_where_there_is_no_terminal(
    tmp_path: Path, clock: Callable[[float], None], capsys: pytest.CaptureFixture[str]
) -> None:
    with Report(tmp_path, 3640, Progress()) as report:
        for _ in range(50):
            clock(1.0)
            report.step({"ner": 0.5}, {"ner": 1.0}, 1234, 1e-3)
    shown = [line for line in capsys.readouterr().err.splitlines() if line.startswith("step")]
    loss = "loss ner 0.500  1,234 tokens/s"
    assert shown == [
        f"step 20 of 3640  {loss}  1:00:20 left",
        f"step 40 of 3640  {loss}  1:00:00 left",
    ]


def test_a_terminal_gets_a_bar_with_losses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module.sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(module, "_BAR_SECONDS", 0.0)
    with Report(tmp_path, 10, Progress(step=2)) as report:
        run_steps(report, 8)
    text = capsys.readouterr().err
    assert "10/10" in text
    assert "qa 2.000" in text
    assert "tokens/s" in text


def test_a_process_that_does_not_report_leaves_no_trace(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Report(tmp_path / "run", 4, Progress(), active=False) as report:
        report.say("hello")
        run_steps(report, 2)
        report.gradients({"ner": 1.0}, {})
        report.epoch(1, scores(80.0))
        report.warn()
    assert capsys.readouterr() == ("", "")
    assert not (tmp_path / "run").exists()


def test_pictures_are_drawn_now_and_then_and_at_the_end(
    tmp_path: Path, clock: Callable[[float], None], curves: list[int]
) -> None:
    with Report(tmp_path, 12, Progress()) as report:
        for number in range(1, 6):
            clock(12.0)
            run_steps(report, 1)
            report.epoch(number, scores(80.0))
        assert curves == [6]  # of three epochs, after 36 s
    assert curves == [6, 10]


def test_pictures_of_a_run_that_fails_are_drawn(tmp_path: Path, curves: list[int]) -> None:
    with pytest.raises(KeyboardInterrupt), Report(tmp_path, 12, Progress()) as report:
        run_steps(report, 1)
        report.epoch(1, scores(80.0))
        raise KeyboardInterrupt
    assert curves == [2]


def test_confusion_is_that_of_the_best_epoch(
    tmp_path: Path, clock: Callable[[float], None]
) -> None:
    picture = tmp_path / "confusion" / "ner.png"
    with Report(tmp_path, 6, Progress()) as report:
        for number, value in enumerate((70.0, 80.0, 75.0), start=1):
            clock(60.0)
            run_steps(report, 2)
            report.epoch(number, scores(value))
            if number == 2:
                best = picture.read_bytes()
    assert picture.read_bytes() == best
    assert [file.name for file in picture.parent.iterdir()] == ["ner.png"]  # answers have none
    # A resumed run knows the best epoch of before.
    with Report(tmp_path, 8, Progress(step=6)) as report:
        run_steps(report, 2)
        report.epoch(4, scores(79.0))
    assert picture.read_bytes() == best


def test_tensorboard_shows_the_log(tmp_path: Path) -> None:
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    with Report(tmp_path, 8, Progress()) as report:
        run_steps(report, 3)
        report.gradients({"ner": 0.5}, {"ner~qa": -0.25})
        report.epoch(1, scores(80.0))
    with Report(tmp_path, 8, Progress(step=2)) as report:  # the third step was lost
        report.step({"ner": 7.0}, {"ner": 1.0}, 100, 1e-3)
    events = reader.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    tags = set(events.Tags()["scalars"])
    assert {"loss/ner", "loss/qa", "weight/ner", "rate", "tokens_per_second"} <= tags
    assert {"gradient_norm/ner", "cosine/ner~qa", "dev/ner/f1", "dev/qa/f1", "mean"} <= tags
    shown = {event.step: event.value for event in events.Scalars("loss/ner")}
    assert shown == pytest.approx({1: 1.0, 2: 0.5, 3: 7.0})


def test_without_tensorboard_one_line_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "has_tensorboard", lambda: False)
    with Report(tmp_path, 2, Progress()) as report:
        run_steps(report, 2)
    assert capsys.readouterr().err.count("tensorboard") == 1
    assert not (tmp_path / "tensorboard").exists()


def test_every_line_is_json(tmp_path: Path) -> None:
    with Report(tmp_path, 2, Progress()) as report:
        run_steps(report, 2, weight=math.pi)
    for text in (tmp_path / "log.jsonl").read_text().splitlines():
        assert json.loads(text)["weight"]["ner"] == math.pi
