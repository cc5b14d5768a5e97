from collections import Counter

import numpy as np
import pytest

from trunkline_train.batches import TaskBatches


def lengths(count: int) -> list[int]:
    return np.random.default_rng(3).integers(5, 60, count).tolist()


@pytest.mark.parametrize(("count", "size"), [(1, 8), (7, 8), (8, 8), (65, 8), (1000, 16), (9, 1)])
def test_every_row_comes_once_per_pass(count: int, size: int) -> None:
    batches = TaskBatches(lengths(count), size, (1, 0))
    assert batches.per_pass == -(-count // size)
    for number in range(3):
        steps = range(number * batches.per_pass, (number + 1) * batches.per_pass)
        assert Counter(row for step in steps for row in batches.at(step)) == Counter(range(count))


def test_passes_differ() -> None:
    batches = TaskBatches(lengths(64), 8, (1, 0))
    one, two = ([sorted(batches.at(at + n * 8)) for at in range(8)] for n in (0, 1))
    assert one != two


def test_a_step_has_the_same_rows_whatever_was_asked_before() -> None:
    given = lengths(100)
    forward, fresh = TaskBatches(given, 8, (1, 0)), TaskBatches(given, 8, (1, 0))
    walked = [forward.at(step) for step in range(60)]
    assert [fresh.at(step) for step in reversed(range(60))] == walked[::-1]


def test_seed_and_task_change_the_order() -> None:
    orders = [
        [tuple(TaskBatches(lengths(64), 8, seed).at(step)) for step in range(8)]
        for seed in ((1, 0), (1, 1), (2, 0))
    ]
    assert len(set(map(tuple, orders))) == 3


def test_rows_of_a_batch_are_of_similar_length() -> None:
    given = np.array(lengths(1600))
    batches = TaskBatches(given.tolist(), 16, (1, 0))
    chosen = [given[batches.at(step)] for step in range(batches.per_pass)]
    padded = sum(int(batch.max()) * len(batch) for batch in chosen)
    assert padded <= 1.05 * given.sum()


def test_long_rows_come_at_any_time() -> None:
    given = np.array(lengths(1600))
    batches = TaskBatches(given.tolist(), 16, (1, 0))
    means = [float(given[batches.at(step)].mean()) for step in range(batches.per_pass)]
    first, second = np.array_split(means, 2)
    assert abs(first.mean() - second.mean()) < 5
