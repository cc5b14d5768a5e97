from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline_serve.fronts.memory import Allocator, Memory, nameless_file

END = 64 * 32


@given(st.lists(st.tuples(st.booleans(), st.integers(0, END // 2)), max_size=60))
def test_blocks_never_overlap_and_come_back_whole(steps: list[tuple[bool, int]]) -> None:
    allocator = Allocator(64, END)
    taken: list[tuple[int, int]] = []
    for take, number in steps:
        if take:
            at = allocator.take(number)
            if at is None:
                assert not fits(taken, number)
                continue
            assert at % 64 == 0
            assert at >= 64
            assert at + number <= END
            taken.append((at, at + max(number, 1)))
            assert all(end <= begin for (_, end), (begin, _) in pairwise(sorted(taken)))
        elif taken:
            begin, _ = taken.pop(number % len(taken))
            allocator.give_back(begin)
    for begin, _ in taken:
        allocator.give_back(begin)
    assert allocator.take(END - 64) == 64


def fits(taken: list[tuple[int, int]], size: int) -> bool:
    """Tells by trying everywhere whether a block would have fitted between those taken."""
    edges = [(0, 64), *sorted(taken), (END, END)]
    gaps = [begin - -(-end // 64) * 64 for (_, end), (begin, _) in pairwise(edges)]
    return max(gaps) >= -(-max(size, 1) // 64) * 64


def test_a_block_is_given_back_once() -> None:
    allocator = Allocator(64, END)
    at = allocator.take(100)
    assert at is not None
    allocator.give_back(at)
    with pytest.raises(KeyError):
        allocator.give_back(at)


def test_two_mappings_of_one_file_are_one_memory() -> None:
    with nameless_file(4096) as file:
        mine, theirs = Memory(file.fileno()), Memory(file.fileno())
    theirs.bytes[100] = 7
    assert mine.bytes[100] == 7
    assert mine.room == 4096 - 64


def test_what_is_on_its_way_counts_as_waiting() -> None:
    with nameless_file(4096) as file:
        mine, theirs = Memory(file.fileno()), Memory(file.fileno())
    theirs.say_queue(queued=300, seen=1000)
    assert mine.queued(sent=1000) == 300
    assert mine.queued(sent=1050) == 350


def test_the_wait_of_a_call_grows_with_its_tokens() -> None:
    with nameless_file(4096) as file:
        mine, theirs = Memory(file.fileno()), Memory(file.fileno())
    theirs.say_waits(empty=0.5, some=1.5)
    assert mine.expected_wait(0) == 0.5
    assert mine.expected_wait(256) == 1.0
    assert mine.expected_wait(1024) == 2.5
