import random
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.runtime.rows import STARTS, TOKENS, WHOLE, row
from trunkline.encode import Row
from trunkline.packing import PACKED_INPUTS, Pack, cells, pack, unpack, width_of

lengths = st.lists(st.integers(1, 256), max_size=60)
budgets = st.integers(1, 2000)
sizes = st.lists(st.integers(1, 48), min_size=1, max_size=10)


def packed(given_: list[int]) -> tuple[list[Row], Pack, int]:
    """Returns rows of these lengths, packed, and the width of their attention."""
    rows = [row(length, seed) for seed, length in enumerate(given_)]
    width = width_of(max(given_))
    return rows, pack(rows, width), width


@given(lengths, budgets)
def test_every_row_is_in_one_cell(rows: list[int], budget: int) -> None:
    found = cells(rows, budget)
    assert sorted(index for cell in found for index in cell.rows) == list(range(len(rows)))
    assert all(cell.rows for cell in found)


@given(lengths, budgets)
def test_a_cell_holds_rows_of_its_width_alone(rows: list[int], budget: int) -> None:
    for cell in cells(rows, budget):
        assert {width_of(rows[index]) for index in cell.rows} == {cell.width}


@given(lengths, budgets)
def test_a_cell_keeps_to_the_budget_unless_it_is_one_row(rows: list[int], budget: int) -> None:
    for cell in cells(rows, budget):
        assert sum(rows[index] for index in cell.rows) <= budget or len(cell.rows) == 1


@given(lengths, budgets)
def test_no_two_neighbouring_cells_of_a_width_would_fit_together(
    rows: list[int], budget: int
) -> None:
    found = cells(rows, budget)
    for one, other in pairwise(found):
        if one.width == other.width:
            first = rows[other.rows[0]]
            assert sum(rows[index] for index in one.rows) + first > budget


@given(lengths, budgets, st.integers())
def test_a_rows_width_depends_on_its_own_length_alone(
    rows: list[int], budget: int, seed: int
) -> None:
    mixed = list(range(len(rows)))
    random.Random(seed).shuffle(mixed)
    alone = {index: cells([length], budget)[0].width for index, length in enumerate(rows)}
    for cell in cells([rows[index] for index in mixed], budget):
        assert {alone[mixed[at]] for at in cell.rows} <= {cell.width}


@given(st.integers(1, 600))
def test_a_width_holds_the_row_and_less_than_sixteen_more(length: int) -> None:
    width = width_of(length)
    assert width % 16 == 0
    assert length <= width < length + 16


@given(lengths, budgets)
def test_the_widest_cells_come_first(rows: list[int], budget: int) -> None:
    widths = [cell.width for cell in cells(rows, budget)]
    assert widths == sorted(widths, reverse=True)


def test_no_rows_make_no_cell() -> None:
    assert cells([], 100) == []


def test_rows_of_one_length_fill_the_budget() -> None:
    assert [len(cell.rows) for cell in cells([10] * 25, 100)] == [10, 10, 5]


@given(sizes)
def test_inputs_are_what_the_graph_takes(given_: list[int]) -> None:
    rows, one, width = packed(given_)
    total = sum(given_)
    assert set(one.feed) == PACKED_INPUTS
    assert {value.dtype for value in one.feed.values()} == {np.dtype(np.int64)}
    shapes = {name: value.shape for name, value in one.feed.items()}
    assert shapes.pop("padded_index") == (len(rows), width)
    assert set(shapes.values()) == {(total,)}
    assert one.lengths == tuple(given_)


@given(sizes)
def test_real_tokens_alone_stand_in_a_pack_in_the_order_of_the_rows(given_: list[int]) -> None:
    rows, one, _ = packed(given_)
    assert one.feed["input_ids"].tolist() == [i for r in rows for i in r.input_ids.tolist()]
    assert one.feed["token_type_ids"].tolist() == [
        kind for row in rows for kind in row.token_type_ids.tolist()
    ]
    assert one.feed["position_ids"].tolist() == [at for size in given_ for at in range(size)]


@given(sizes)
def test_attention_finds_each_rows_tokens_and_nothing_else(given_: list[int]) -> None:
    rows, one, _ = packed(given_)
    ids, index = one.feed["input_ids"], one.feed["padded_index"]
    for at, given_row in enumerate(rows):
        places = index[at]
        assert ids[places[: len(given_row)]].tolist() == given_row.input_ids.tolist()
        assert (places[len(given_row) :] == -1).all()
    assert sorted(index[index >= 0].tolist()) == list(range(sum(given_)))


@given(sizes)
def test_the_two_indices_are_inverse_to_each_other(given_: list[int]) -> None:
    _, one, _ = packed(given_)
    flat = one.feed["padded_index"].reshape(-1)
    assert flat[one.feed["token_index"]].tolist() == list(range(sum(given_)))
    assert np.flatnonzero(flat >= 0).tolist() == one.feed["token_index"].tolist()


@given(sizes)
def test_taking_apart_undoes_packing(given_: list[int]) -> None:
    rows, one, _ = packed(given_)
    ids = one.feed["input_ids"].astype(np.float32)
    first = np.stack([row.input_ids[[0, -1]] for row in rows]).astype(np.float32)
    values = [np.stack([ids, -ids], axis=-1), ids, first]
    results = unpack(one, [TOKENS, STARTS, WHOLE], values)
    for given_row, result in zip(rows, results, strict=True):
        assert result["qa.start_logits"].tolist() == given_row.input_ids.tolist()
        assert result["ner.logits"][:, 1].tolist() == (-given_row.input_ids).tolist()
        assert result["topic.logits"].tolist() == given_row.input_ids[[0, -1]].tolist()


def test_an_output_too_few_is_noticed() -> None:
    with pytest.raises(ValueError, match="shorter"):
        unpack(pack([row(3)], 16), [TOKENS, STARTS], [np.zeros((3, 2), np.float32)])
