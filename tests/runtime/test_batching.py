import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.runtime.rows import STARTS, TOKENS, WHOLE, row
from trunkline.batching import pad, plan, unpad

lengths = st.lists(st.integers(1, 128), max_size=80)
budgets = st.integers(1, 1000)


@given(lengths, budgets)
def test_every_row_is_in_one_batch(rows: list[int], budget: int) -> None:
    batches = plan(rows, budget)
    assert sorted(index for batch in batches for index in batch) == list(range(len(rows)))
    assert all(batches)


@given(lengths, budgets)
def test_a_batch_keeps_to_the_budget_unless_one_row_is_longer(rows: list[int], budget: int) -> None:
    for batch in plan(rows, budget):
        padded = len(batch) * max(rows[index] for index in batch)
        assert padded <= budget or len(batch) == 1


@given(lengths, budgets)
def test_padding_is_a_tenth_of_the_real_tokens_or_a_handful(rows: list[int], budget: int) -> None:
    for batch in plan(rows, budget):
        taken = [rows[index] for index in batch]
        waste = len(taken) * max(taken) - sum(taken)
        assert waste <= max(0.1 * sum(taken), 32)


@given(lengths, budgets, st.integers())
def test_batches_do_not_depend_on_the_order_of_the_rows(
    rows: list[int], budget: int, seed: int
) -> None:
    def shapes(given_: list[int]) -> list[list[int]]:
        return [[given_[index] for index in batch] for batch in plan(given_, budget)]

    mixed = rows.copy()
    random.Random(seed).shuffle(mixed)
    assert shapes(mixed) == shapes(rows)


def test_rows_of_one_length_fill_the_budget() -> None:
    assert [len(batch) for batch in plan([10] * 25, 100)] == [10, 10, 5]


def test_no_rows_make_no_batch() -> None:
    assert plan([], 100) == []


@given(st.lists(st.integers(2, 20), min_size=1, max_size=8), st.integers(0, 3))
def test_padding_is_on_the_right_and_masked(sizes: list[int], pad_id: int) -> None:
    rows = [row(size, seed) for seed, size in enumerate(sizes)]
    inputs = pad(rows, pad_id)
    assert {value.shape for value in inputs.values()} == {(len(rows), max(sizes))}
    assert {value.dtype for value in inputs.values()} == {np.dtype(np.int64)}
    assert inputs["attention_mask"].sum(axis=1).tolist() == sizes
    for index, one in enumerate(rows):
        real = inputs["attention_mask"][index].astype(bool)
        assert real[: len(one)].all()
        assert inputs["input_ids"][index, real].tolist() == one.input_ids.tolist()
        assert inputs["token_type_ids"][index, real].tolist() == one.token_type_ids.tolist()
        assert (inputs["input_ids"][index, ~real] == pad_id).all()
        assert (inputs["token_type_ids"][index, ~real] == 0).all()


@given(st.lists(st.integers(2, 20), min_size=1, max_size=8))
def test_taking_apart_undoes_padding(sizes: list[int]) -> None:
    rows = [row(size, seed) for seed, size in enumerate(sizes)]
    ids = pad(rows, 0)["input_ids"].astype(np.float32)
    values = [np.stack([ids, -ids], axis=-1), ids, ids[:, :2]]
    for one, result in zip(rows, unpad(rows, [TOKENS, STARTS, WHOLE], values), strict=True):
        assert result["qa.start_logits"].tolist() == one.input_ids.tolist()
        assert result["ner.logits"][:, 1].tolist() == (-one.input_ids).tolist()
        assert result["topic.logits"].tolist() == one.input_ids[:2].tolist()


def test_an_output_too_few_is_noticed() -> None:
    with pytest.raises(ValueError, match="shorter"):
        unpad([row(3)], [TOKENS, STARTS], [np.zeros((1, 3, 2), np.float32)])
