from collections import Counter

import numpy as np
import pytest

from trunkline_train.batches import Batches


def lengths(count: int) -> list[int]:
    return np.random.default_rng(3).integers(5, 60, count).tolist()


@pytest.mark.parametrize(("count", "size"), [(1, 8), (7, 8), (8, 8), (65, 8), (1000, 16), (9, 1)])
def test_every_row_comes_once_per_pass(count: int, size: int) -> None:
    batches = Batches(lengths(count), size, (1, 0), None)
    assert batches.per_pass == -(-count // size)
    for number in range(3):
        steps = range(number * batches.per_pass, (number + 1) * batches.per_pass)
        assert Counter(row for step in steps for row in batches.at(step)) == Counter(range(count))


def test_passes_differ() -> None:
    batches = Batches(lengths(64), 8, (1, 0), None)
    one, two = ([sorted(batches.at(at + n * 8)) for at in range(8)] for n in (0, 1))
    assert one != two


def test_a_step_has_the_same_rows_whatever_was_asked_before() -> None:
    given = lengths(100)
    forward, fresh = Batches(given, 8, (1, 0), None), Batches(given, 8, (1, 0), None)
    walked = [forward.at(step) for step in range(60)]
    assert [fresh.at(step) for step in reversed(range(60))] == walked[::-1]


def test_seed_and_task_change_the_order() -> None:
    orders = [
        [tuple(Batches(lengths(64), 8, seed, None).at(step)) for step in range(8)]
        for seed in ((1, 0), (1, 1), (2, 0))
    ]
    assert len(set(map(tuple, orders))) == 3


def test_rows_of_a_batch_are_of_similar_length() -> None:
    given = np.array(lengths(1600))
    batches = Batches(given.tolist(), 16, (1, 0), None)
    chosen = [given[batches.at(step)] for step in range(batches.per_pass)]
    padded = sum(int(batch.max()) * len(batch) for batch in chosen)
    assert padded <= 1.05 * given.sum()


def test_long_rows_come_at_any_time() -> None:
    given = np.array(lengths(1600))
    batches = Batches(given.tolist(), 16, (1, 0), None)
    means = [float(given[batches.at(step)].mean()) for step in range(batches.per_pass)]
    first, second = np.array_split(means, 2)
    assert abs(first.mean() - second.mean()) < 5


@pytest.mark.parametrize("budget", [16, 100, 400])
def test_a_budget_of_tokens_bounds_every_batch(budget: int) -> None:
    given = lengths(500)
    batches = Batches(given, 8, (1, 0), budget)
    first = [batches.at(number) for number in range(batches.per_pass)]
    assert Counter(row for batch in first for row in batch) == Counter(range(500))
    for batch in first:
        assert len(batch) == 1 or len(batch) * max(given[row] for row in batch) <= budget


def test_passes_by_tokens_follow_each_other() -> None:
    given = lengths(200)
    batches = Batches(given, 8, (1, 0), 150)
    later = Batches(given, 8, (1, 0), 150).at(3 * batches.per_pass + 5)
    walked = [batches.at(number) for number in range(3 * batches.per_pass + 6)]
    assert walked[-1] == later
    seen = Counter(row for batch in walked for row in batch)
    assert min(seen.values()) >= 2
