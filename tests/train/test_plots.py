from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from trunkline_train.plots import draw_confusion, draw_curves
from trunkline_train.scoring.confusion import Confusion

PNG = b"\x89PNG"


def loss(step: int, weight: float = 1.0) -> dict:
    return {
        "step": step,
        "loss": {"ner": 1 / step, "qa": 9.0},
        "weight": {"ner": weight, "qa": 1.0},
    }


def dev(step: int) -> dict:
    return {
        "step": step,
        "dev": {"ner": {"f1": 80.0, "recall": 9.0}},
        "main": {"ner": "f1"},
        "intervals": {"ner": {"f1": [78.0, 82.0]}},
    }


GRADIENTS = {"step": 2, "gradient_norm": {"ner": 0.5}, "cosine": {"ner~qa": -0.1}}


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that are saved."""
    figures: list[Figure] = []
    save = Figure.savefig

    def keep(figure: Figure, *given: object, **named: object) -> None:
        figures.append(figure)
        save(figure, *given, **named)

    monkeypatch.setattr(Figure, "savefig", keep)
    return figures


def titles(figure: Figure) -> list[str]:
    return [axes.get_title() for axes in figure.axes]


def test_only_panels_with_data_are_drawn(tmp_path: Path, drawn: list[Figure]) -> None:
    path = tmp_path / "curves.png"
    draw_curves([loss(1), loss(2)], path)
    draw_curves([loss(1), loss(2), dev(2)], path)
    draw_curves([loss(1), loss(2, weight=2.0), dev(2), GRADIENTS], path)
    assert path.read_bytes().startswith(PNG)
    first, second, third = map(titles, drawn)
    assert first == ["training loss"]  # weights that never change say nothing
    assert second == ["training loss", "dev score, with 95 % interval"]
    assert third[2:] == ["loss weight", "gradient norm", "cosine between gradients"]


def test_a_task_has_one_colour_and_its_score_an_interval(
    tmp_path: Path, drawn: list[Figure]
) -> None:
    draw_curves([loss(1), loss(2), dev(1), dev(2)], tmp_path / "curves.png")
    losses, scores = drawn[0].axes
    names = {line.get_label(): line.get_color() for line in losses.lines}
    (score,) = scores.lines
    assert score.get_label() == "ner f1"
    assert score.get_color() == names["ner"] != names["qa"]
    assert list(score.get_ydata()) == [80.0, 80.0]
    assert len(scores.collections) == 1


def test_losses_far_apart_share_a_logarithmic_axis(tmp_path: Path, drawn: list[Figure]) -> None:
    draw_curves([loss(1), loss(2)], tmp_path / "near.png")
    draw_curves([loss(1), loss(90)], tmp_path / "far.png")
    draw_curves([loss(1), {"step": 2, "loss": {"ner": 0.0, "qa": 99.0}}], tmp_path / "zero.png")
    assert [figure.axes[0].get_yscale() for figure in drawn] == ["linear", "log", "linear"]


def test_a_confusion_says_its_numbers(tmp_path: Path, drawn: list[Figure]) -> None:
    pairs = {("LOC", "LOC"): 12345, ("LOC", "(none)"): 1, ("PER", "LOC"): 2, ("PER", "PER"): 3}
    confusion = Confusion(("LOC", "PER", "(none)"), {**pairs, ("(none)", "LOC"): 4})
    draw_confusion(confusion, "ner", tmp_path / "ner.png")
    axes = drawn[0].axes[0]
    assert {text.get_text() for text in axes.texts} == {"12,345", "1", "2", "3", "4"}
    assert [label.get_text() for label in axes.get_yticklabels()] == ["LOC", "PER", "(none)"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted", "gold")
    (image,) = axes.images
    assert np.asarray(image.get_array())[1] == pytest.approx([0.4, 0.6, 0.0])


def test_of_very_many_labels_the_frequent_ones_are_drawn(
    tmp_path: Path, drawn: list[Figure]
) -> None:
    labels = tuple(f"label {at}" for at in range(70))
    pairs = {(label, label): at for at, label in enumerate(labels)}
    draw_confusion(Confusion(labels, pairs), "t", tmp_path / "t.png")
    shown = [label.get_text() for label in drawn[0].axes[0].get_yticklabels()]
    assert shown == list(labels[10:])
