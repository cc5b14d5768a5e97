"""Threads that talk give way to those that compute, where Linux has a policy for it."""

import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from trunkline_serve.events import Everyone
from trunkline_serve.launch import serving
from trunkline_serve.precedence import give_way, go_first
from trunkline_serve.scheduler import Scheduler

pytestmark = pytest.mark.skipif(not hasattr(os, "SCHED_BATCH"), reason="not Linux")


def in_thread(work: Callable[[], None]) -> None:
    """Does work in a thread of its own: a policy is a thread's, and outlives a test."""
    failed: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]


def policy() -> int:
    return os.sched_getscheduler(0)


def test_what_a_thread_starts_gives_way_with_it_until_it_goes_first() -> None:
    def work() -> None:
        give_way()
        assert policy() == os.SCHED_BATCH
        in_thread(started)
        assert policy() == os.SCHED_BATCH

    def started() -> None:
        assert policy() == os.SCHED_BATCH
        go_first()
        assert policy() == os.SCHED_OTHER

    in_thread(work)


def test_a_policy_that_somebody_chose_stays() -> None:
    def work() -> None:
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
        give_way()
        go_first()
        assert policy() == os.SCHED_IDLE

    in_thread(work)


def test_a_sandbox_that_forbids_it_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbid(*given: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    def work() -> None:
        give_way()
        go_first()
        assert policy() == os.SCHED_OTHER

    monkeypatch.setattr(os, "sched_setscheduler", forbid)
    in_thread(work)


def test_lanes_do_not_give_way() -> None:
    def work() -> None:
        give_way()
        before = set(threads())
        scheduler = Scheduler(2, Everyone())
        try:
            lanes = set(threads()) - before
            assert len(lanes) == 2
            assert all(await_policy(lane, os.SCHED_OTHER) for lane in lanes)
        finally:
            scheduler.close()

    in_thread(work)


def test_a_server_gives_way_but_for_what_computes(bundle: Path) -> None:
    with serving([bundle], "--threads", "2") as server:
        found = Counter(threads(server.process.pid).values())
        main = os.sched_getscheduler(server.process.pid)
    assert main == os.SCHED_BATCH
    assert set(found) == {os.SCHED_BATCH, os.SCHED_OTHER}
    assert found[os.SCHED_OTHER] >= 2


def threads(pid: int | str = "self") -> dict[int, int]:
    """Returns the policy of each thread of a process."""
    return dict(_policies([int(path.name) for path in Path(f"/proc/{pid}/task").iterdir()]))


def _policies(ids: list[int]) -> Iterator[tuple[int, int]]:
    for one in ids:
        try:
            yield one, os.sched_getscheduler(one)
        except ProcessLookupError:  # ended meanwhile
            continue


def await_policy(thread: int, wanted: int) -> bool:
    """Returns whether a thread has a policy soon."""
    return any(os.sched_getscheduler(thread) == wanted or pause() for _ in range(200))


def pause() -> bool:
    return threading.Event().wait(0.01)
