import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.runtime.samples import cut, seeds
from trunkline.annotations import Label
from trunkline.decode.labels import decode_labels
from trunkline.decode.numeric import log_sigmoid
from trunkline.encode import Encoded
from trunkline.errors import RuntimeFault
from trunkline.tasks import TaskSpec, TextOptions

LABELS = ("arts", "trade", "sport", "war")
TOPIC = TaskSpec("topic", "text-classification", LABELS, TextOptions())
SHORT = cut("IBM is in Bern .")
LONG = "IBM opened an office in Bern . " * 8

Logits = Sequence[NDArray[np.float32]]


def deciding(**options: bool | float | None) -> TaskSpec:
    return replace(TOPIC, options=TextOptions(**options))  # type: ignore[arg-type]


def one(*values: float) -> Logits:
    return [np.array(values, np.float32)]


def scores(labels: Sequence[Label]) -> dict[str, float]:
    return {label.label: label.score for label in labels}


@st.composite
def read(draw: st.DrawFn) -> tuple[Encoded, Logits]:
    """Draws a text of one window or several, and logits that often tie."""
    encoded = cut("abc " * draw(st.integers(1, 60)), overlap=draw(st.integers(0, 8)))
    random = np.random.default_rng(draw(seeds))
    shape = (len(encoded.rows), len(LABELS))
    values = random.integers(-3, 4, shape) if draw(st.booleans()) else random.normal(0, 4, shape)
    return encoded, list(values.astype(np.float32))


@given(read())
def test_the_one_label_of_a_text_is_softmax_averaged_over_windows(
    given_: tuple[Encoded, Logits],
) -> None:
    encoded, logits = given_
    shares = [np.exp(row) / np.exp(row).sum() for row in logits]
    wanted = dict(zip(LABELS, np.mean(shares, axis=0), strict=True))
    found = decode_labels(TOPIC, encoded, logits)
    # A logarithm of 10 in fp32 is known to 1e-6, and so is the share behind it.
    assert scores(found) == pytest.approx(wanted, rel=1e-5)
    assert sum(label.score for label in found) == pytest.approx(1.0)


@given(read(), st.sampled_from([0.0, 0.3, 0.5, 0.9]))
def test_any_number_of_labels_are_those_above_the_threshold(
    given_: tuple[Encoded, Logits], threshold: float
) -> None:
    encoded, logits = given_
    means = np.mean([1 / (1 + np.exp(-row)) for row in logits], axis=0)
    spec = deciding(multi_label=True, threshold=threshold)
    found = scores(decode_labels(spec, encoded, logits))
    for label, mean in zip(LABELS, means, strict=True):
        if abs(mean - threshold) > 1e-6:
            assert (label in found) == (mean > threshold)
        assert found.get(label, mean) == pytest.approx(mean)


@given(read(), st.booleans(), st.integers(1, 5))
def test_labels_come_best_first_and_at_most_as_many_as_asked(
    given_: tuple[Encoded, Logits], multi_label: bool, n_best: int
) -> None:
    every = decode_labels(deciding(multi_label=multi_label), *given_)
    order = [(-label.score, LABELS.index(label.label)) for label in every]
    assert order == sorted(order)
    some = decode_labels(deciding(multi_label=multi_label, n_best=n_best), *given_)
    assert some == every[:n_best]


def test_at_the_threshold_a_label_is_not_given() -> None:
    found = decode_labels(deciding(multi_label=True), SHORT, one(0.0, 1e-3, -1e-3, -5.0))
    assert [label.label for label in found] == ["trade"]


def test_no_label_may_fit() -> None:
    assert decode_labels(deciding(multi_label=True), SHORT, one(-1, -2, -3, -4)) == ()


def test_every_window_counts_alike() -> None:
    encoded = cut(LONG)
    count = len(encoded.rows)
    assert count > 2
    sure = np.array([50, 0, 0, 0], np.float32)
    other = np.array([0, 50, 0, 0], np.float32)
    found = decode_labels(TOPIC, encoded, [sure] + [other] * (count - 1))
    assert scores(found)["arts"] == pytest.approx(1 / count)
    assert found[0] == Label("trade", pytest.approx(1 - 1 / count))


@pytest.mark.parametrize("multi_label", [True, False])
@pytest.mark.parametrize("text", ["", "  \n", "\0"])
def test_a_text_without_tokens_has_no_labels(text: str, multi_label: bool) -> None:
    assert decode_labels(deciding(multi_label=multi_label, threshold=0.0), cut(text), []) == ()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_logits_that_are_not_finite_are_a_fault(bad: float) -> None:
    with pytest.raises(RuntimeFault, match="topic: the model gave NaN or infinite logits"):
        decode_labels(TOPIC, SHORT, one(0, bad, 0, 0))


@pytest.mark.parametrize("size", [1.0, 100.0, 1e30])
@pytest.mark.parametrize("multi_label", [True, False])
def test_logits_far_apart_give_probabilities_all_the_same(size: float, multi_label: bool) -> None:
    spec = deciding(multi_label=multi_label, threshold=0.0)
    found = decode_labels(spec, SHORT, one(size, -size, 0, size))
    assert all(0 <= label.score <= 1 for label in found)
    assert [label.label for label in found][:2] == ["arts", "war"]


def test_scores_that_some_threads_would_round_to_zero_are_zero() -> None:
    assert 0.0 < math.exp(-89) < np.finfo(np.float32).smallest_normal
    assert scores(decode_labels(deciding(), SHORT, [np.float32([0, -89, -80, -200])])) == {
        "arts": 1.0,
        "sport": pytest.approx(np.exp(-80.0)),
        "trade": 0.0,
        "war": 0.0,
    }


def test_the_log_of_a_sigmoid_is_exact_where_the_sigmoid_itself_is_zero() -> None:
    assert log_sigmoid(np.array([-1000.0, 0.0, 1000.0])).tolist() == pytest.approx(
        [-1000.0, -np.log(2), 0.0]
    )
