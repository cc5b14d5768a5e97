import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.tiny import TASKS
from trunkline.encode import Row
from trunkline.runner import RowOutputs
from trunkline_serve.fronts.layout import Column, Layout, columns

COLUMNS = columns(TASKS)
NAMES = sorted(COLUMNS)


def row(length: int, random: np.random.Generator) -> Row:
    ids, types = random.integers(0, 2**31, (2, length))
    return Row(ids, types, 0, 0, length, 0, length)


def outputs(length: int, wanted: list[Column], random: np.random.Generator) -> RowOutputs:
    return {
        one.output.name: random.normal(
            size=((length,) if one.per_token else ()) + one.shape
        ).astype(np.float32)
        for one in wanted
    }


@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=8),
    st.lists(st.sampled_from(NAMES), unique=True),
    st.integers(0, 2**32 - 1),
)
def test_what_is_written_is_read(lengths: list[int], names: list[str], seed: int) -> None:
    random = np.random.default_rng(seed)
    wanted = [COLUMNS[name] for name in names]
    layout = Layout(lengths, wanted)
    # Not a byte of the neighbours may change.
    memory = np.full(layout.size + 128, 0xAB, np.uint8)
    block = memory[64:-64]
    rows = [row(length, random) for length in lengths]
    values = [outputs(length, wanted, random) for length in lengths]
    layout.write_rows(block, rows)
    layout.write_outputs(block, values)
    for want, got in zip(rows, layout.read_rows(block), strict=True):
        assert np.array_equal(want.input_ids, got.input_ids)
        assert np.array_equal(want.token_type_ids, got.token_type_ids)
        assert got.input_ids.dtype == np.int64
    found = layout.read_outputs(block)
    memory[:] = 0xAB
    for want_values, got_values in zip(values, found, strict=True):
        assert want_values.keys() == got_values.keys()
        for name in names:
            assert np.array_equal(want_values[name], got_values[name])


def test_neighbours_are_not_written_to() -> None:
    random = np.random.default_rng(1)
    wanted = list(COLUMNS.values())
    layout = Layout([3, 5], wanted)
    memory = np.full(layout.size + 128, 0xAB, np.uint8)
    layout.write_rows(memory[64:-64], [row(3, random), row(5, random)])
    layout.write_outputs(memory[64:-64], [outputs(length, wanted, random) for length in (3, 5)])
    assert (memory[:64] == 0xAB).all()
    assert (memory[-64:] == 0xAB).all()


@pytest.mark.parametrize(
    ("name", "per_token", "width"),
    [("ner.logits", True, 5), ("qa.start_logits", True, 1), ("topic.logits", False, 3)],
)
def test_columns_know_their_width(name: str, per_token: bool, width: int) -> None:
    column = COLUMNS[name]
    assert (column.per_token, column.width) == (per_token, width)
