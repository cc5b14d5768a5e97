import pickle
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score
from sklearn.preprocessing import MultiLabelBinarizer

from trunkline_train.scoring.bootstrap import Difference, differences, intervals
from trunkline_train.scoring.classes import count_labels, tally_labels, tally_tags
from trunkline_train.scoring.confusion import confuse
from trunkline_train.scoring.entities import Counts

LABEL = st.sampled_from(("World", "Sports", "Business", "x"))
classes = st.lists(st.tuples(LABEL, LABEL), min_size=1, max_size=30)
label_sets = st.lists(st.tuples(st.sets(LABEL), st.sets(LABEL)), min_size=1, max_size=30)


@settings(max_examples=30)
@given(classes)
def test_class_scores_are_those_of_scikit_learn(pairs: list[tuple[str, str]]) -> None:
    gold, guess = map(list, zip(*pairs, strict=True))
    tally = tally_labels([{one} for one in gold], [{one} for one in guess], multi_label=False)
    assert tally.values() == pytest.approx(
        {
            "accuracy": 100 * accuracy_score(gold, guess),
            "macro_f1": 100 * f1_score(gold, guess, average="macro", zero_division=0),
        }
    )
    assert tally_tags([gold], [guess]).values() == pytest.approx(
        {"accuracy": 100 * accuracy_score(gold, guess)}
    )


@settings(max_examples=30)
@given(label_sets)
def test_label_set_scores_are_those_of_scikit_learn(
    pairs: list[tuple[set[str], set[str]]],
) -> None:
    gold, guess = map(list, zip(*pairs, strict=True))
    values = tally_labels(gold, guess, multi_label=True).values()
    assert values["exact_match"] == pytest.approx(
        100 * sum(truth == found for truth, found in pairs) / len(pairs)
    )
    table = MultiLabelBinarizer().fit([*gold, *guess])
    if len(table.classes_) > 1:  # scikit-learn takes one column for two classes
        both = [table.transform(side) for side in (gold, guess)]
        for name, average in (("f1", "micro"), ("macro_f1", "macro")):
            wanted = f1_score(*both, average=average, zero_division=0)
            assert values[name] == pytest.approx(100 * wanted)
        assert values["exact_match"] == pytest.approx(100 * accuracy_score(*both))


def test_label_sets_of_nothing_score_nothing() -> None:
    values = tally_labels([set(), set()], [set(), set()], multi_label=True).values()
    assert values == {"f1": 0.0, "macro_f1": 0.0, "exact_match": 100.0}


def test_labels_are_counted_each() -> None:
    gold, guess = [{"a", "b"}, {"a"}, set()], [{"a"}, {"b"}, {"c"}]
    assert count_labels(gold, guess) == {
        "a": Counts(1, 1, 2),
        "b": Counts(0, 1, 1),
        "c": Counts(0, 1, 0),
    }


def test_a_text_without_a_prediction_is_wrong_and_makes_no_class() -> None:
    values = tally_labels([{"a"}, {"a"}], [{"a"}, set()], multi_label=False).values()
    assert values == pytest.approx({"accuracy": 50.0, "macro_f1": 200 / 3})


def test_tags_of_unequal_number_are_refused() -> None:
    with pytest.raises(ValueError, match="shorter"):
        tally_tags([["a", "b"]], [["a"]])


@pytest.mark.parametrize("many", [True, False])
def test_tallies_go_from_process_to_process(many: bool) -> None:
    tally = tally_labels([{"a"}, {"b"}], [{"a"}, {"a"}], multi_label=many)
    copy = pickle.loads(pickle.dumps(tally))
    assert copy.values() == tally.values()
    assert np.array_equal(copy.counts.values, tally.counts.values)


def test_thousands_of_labels_take_no_gigabytes() -> None:
    random = np.random.default_rng(0)
    gold, guess = random.integers(0, 5000, (2, 20_000)).astype(str).tolist()
    guess[::2] = gold[::2]
    tracemalloc.start()
    tally = tally_labels([{one} for one in gold], [{one} for one in guess], multi_label=True)
    bounds = intervals(tally, resamples=20)["f1"]
    paired = differences(tally, tally, resamples=20)["macro_f1"]
    shown = confuse(zip(gold, guess, strict=True))
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert bounds.low <= tally.values()["f1"] <= bounds.high
    assert paired == Difference(0.0, 0.0, 0.0)
    assert len(shown.labels) > 4900
    assert most < 300e6  # a dense table would have 2.4 GB
