import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from trunkline_train.scoring.bootstrap import Difference, differences, intervals
from trunkline_train.scoring.classes import tally_labels
from trunkline_train.scoring.squad import tally_answers
from trunkline_train.scoring.tally import CountTable, Share, Tally


def accuracy(right: np.ndarray) -> Tally:
    return Tally(CountTable.of_rows([(float(one), 1.0) for one in right], 2), {"a": Share(0, 1)})


def drawn(share: float, n: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).random(n) < share


def test_the_interval_of_an_accuracy_is_that_of_the_binomial() -> None:
    right = np.arange(1000) < 900
    bounds = intervals(accuracy(right), resamples=4000)["a"]
    deviation = 100 * np.sqrt(0.9 * 0.1 / 1000)
    assert bounds.low == pytest.approx(90 - 1.96 * deviation, abs=0.25)
    assert bounds.high == pytest.approx(90 + 1.96 * deviation, abs=0.25)


def test_the_true_value_lies_in_most_intervals() -> None:
    inside = 0
    for seed in range(100):
        bounds = intervals(accuracy(drawn(0.8, 200, seed)), resamples=300)["a"]
        inside += bounds.low <= 80.0 <= bounds.high
    assert 88 <= inside <= 99


def test_intervals_are_those_of_plain_resampling() -> None:
    generator = np.random.default_rng(1)
    gold = generator.integers(0, 3, 60)
    guess = np.where(generator.random(60) < 0.7, gold, generator.integers(0, 3, 60))
    tally = tally_labels([{str(g)} for g in gold], [{str(g)} for g in guess], multi_label=False)
    draws = np.random.default_rng(0).integers(0, 60, (100, 60))
    plain = [
        100 * f1_score(gold[draw], guess[draw], average="macro", zero_division=0) for draw in draws
    ]
    bounds = intervals(tally, resamples=100, seed=0)["macro_f1"]
    assert [bounds.low, bounds.high] == pytest.approx(np.quantile(plain, [0.025, 0.975]))


@settings(max_examples=20)
@given(st.lists(st.sampled_from(("Bern", "in Bern", "", "Lima")), min_size=1, max_size=20))
def test_bounds_hold_the_figure_and_stay_within_points(guesses: list[str]) -> None:
    tally = tally_answers([["Bern"], []] * len(guesses), guesses * 2)
    values = tally.values()
    for name, bounds in intervals(tally, resamples=200).items():
        assert 0.0 <= bounds.low <= bounds.high <= 100.0
        assert bounds.low <= values[name] + 1e-9
        assert values[name] <= bounds.high + 1e-9


def test_the_same_examples_give_the_same_interval() -> None:
    tally = accuracy(drawn(0.6, 50, 3))
    assert intervals(tally) == intervals(tally)
    assert intervals(tally, seed=1) != intervals(tally)
    wide, narrow = (intervals(tally, level=level)["a"] for level in (0.99, 0.5))
    assert wide.low < narrow.low < narrow.high < wide.high


def test_nothing_has_no_interval() -> None:
    assert intervals(accuracy(np.zeros(0))) == {}
    assert differences(accuracy(np.zeros(0)), accuracy(np.zeros(0))) == {}


def test_pairing_makes_a_small_difference_visible() -> None:
    one = drawn(0.8, 2000, 5)
    two = one.copy()
    two[np.flatnonzero(~one)[:20]] = True  # a point better, on the same examples
    found = differences(accuracy(one), accuracy(two))["a"]
    assert found.value == pytest.approx(1.0)
    assert 0.5 < found.low < 1.0 < found.high < 1.6
    # Unpaired, the two intervals overlap.
    before, after = (intervals(accuracy(right))["a"] for right in (one, two))
    assert before.high > after.low


def test_a_system_does_not_differ_from_itself() -> None:
    tally = accuracy(drawn(0.5, 40, 1))
    assert differences(tally, tally) == {"a": Difference(0.0, 0.0, 0.0)}
    turned = differences(tally, accuracy(drawn(0.5, 40, 2)))["a"]
    back = differences(accuracy(drawn(0.5, 40, 2)), tally)["a"]
    assert (back.value, back.low, back.high) == pytest.approx(
        (-turned.value, -turned.high, -turned.low)
    )


def test_systems_that_gave_other_labels_can_be_compared() -> None:
    gold = [{"a"}, {"b"}, {"a"}]
    one = tally_labels(gold, [{"a"}, {"b"}, {"c"}], multi_label=False)
    two = tally_labels(gold, gold, multi_label=False)
    assert differences(one, two)["accuracy"].value == pytest.approx(100 / 3)


def test_other_examples_are_refused() -> None:
    with pytest.raises(ValueError, match="3 examples cannot be paired with 4"):
        differences(accuracy(np.ones(3)), accuracy(np.ones(4)))


def test_ten_thousand_examples_take_a_moment() -> None:
    tally = accuracy(drawn(0.9, 10_000, 0))
    begin = time.process_time()
    intervals(tally)
    assert time.process_time() - begin < 5.0  # a tenth of it here; a loop in Python takes minutes
