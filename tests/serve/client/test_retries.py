"""What is tried again, how often and when."""

from collections.abc import Callable
from time import monotonic
from typing import Any

import pytest

from tests.serve.client.scripted import Script, serving
from tests.serve.hosting import Loop
from trunkline.errors import (
    DeadlinePassed,
    InvalidInput,
    NotFound,
    Overloaded,
    RemoteError,
    TrunklineError,
    Unavailable,
)
from trunkline_serve.client.retry import Attempts

Connect = Callable[..., Any]


@pytest.mark.parametrize("error", [Unavailable("later"), Overloaded("full", 0.01)])
def test_a_passing_error_is_tried_again(host: Loop, connect: Connect, error: Exception) -> None:
    script = Script(error, error)
    with serving(host, script) as address, connect(address) as client:
        client.analyze("Ada")
    assert [name for name, _ in script.calls] == ["Analyze"] * 3


def test_tries_are_bounded(host: Loop, connect: Connect) -> None:
    script = Script(*[Unavailable("later")] * 9)
    with serving(host, script) as address, connect(address, retries=2) as client:
        with pytest.raises(Unavailable, match="later"):
            client.analyze("Ada")
        assert len(script.calls) == 3
    with serving(host, script) as address, connect(address, retries=0) as client:
        with pytest.raises(Unavailable):
            client.analyze("Ada")
        assert len(script.calls) == 4


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (InvalidInput("documents[0].text", "bad"), InvalidInput),
        (NotFound("task", "x"), NotFound),
        (DeadlinePassed("late"), DeadlinePassed),
        (ZeroDivisionError(), RemoteError),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_other_errors_are_not_tried_again(
    host: Loop, connect: Connect, error: Exception, raised: type[TrunklineError]
) -> None:
    script = Script(error)
    with serving(host, script) as address, connect(address) as client, pytest.raises(raised):
        client.analyze("Ada")
    assert len(script.calls) == 1


@pytest.mark.parametrize("arguments", [("load", "bundle"), ("unload", "model")])
def test_administration_is_never_tried_again(
    host: Loop, connect: Connect, arguments: tuple[str, str]
) -> None:
    script = Script(Unavailable("later"))
    method, name = arguments
    with (
        serving(host, script) as address,
        connect(address) as client,
        pytest.raises(Unavailable),
    ):
        getattr(client, method)(name)
    assert len(script.calls) == 1


def test_the_servers_delay_is_waited_for(host: Loop, connect: Connect) -> None:
    script = Script(Overloaded("full", 0.3))
    with serving(host, script) as address, connect(address) as client:
        client.analyze("Ada")
    (_, first), (_, second) = script.calls
    assert second - first >= 0.3


def test_no_wait_that_the_deadline_would_cut_off(host: Loop, connect: Connect) -> None:
    script = Script(Overloaded("full", 60))
    with serving(host, script) as address, connect(address, timeout=10.0) as client:
        begin = monotonic()
        with pytest.raises(Overloaded) as caught:
            client.analyze("Ada")
    assert monotonic() - begin < 5
    assert caught.value.retry_after == 60
    assert len(script.calls) == 1


def test_the_timeout_is_over_all_tries(host: Loop, connect: Connect) -> None:
    script = Script(*[Unavailable("later")] * 10_000)
    with serving(host, script) as address, connect(address, timeout=1.0, retries=9_999) as client:
        begin = monotonic()
        with pytest.raises((Unavailable, DeadlinePassed)):
            client.analyze("Ada")
        assert monotonic() - begin < 2
    assert len(script.calls) > 2


def test_waits_are_jittered_and_bounded() -> None:
    first = [Attempts(100, 1).pause(Unavailable("")) for _ in range(200)]
    assert all(0 <= wait <= 0.1 for wait in first)
    assert max(first) - min(first) > 0.05
    attempts = Attempts(1e9, 1_000)
    waits = [attempts.pause(Overloaded("", 2.0)) for _ in range(1_000)]
    assert all(2 <= wait <= 7 for wait in waits)
    assert max(waits) > 6


def test_the_error_of_the_last_try_has_no_trace_of_grpc(host: Loop, connect: Connect) -> None:
    script = Script(Unavailable("later"))
    with (
        serving(host, script) as address,
        connect(address, retries=0) as client,
        pytest.raises(Unavailable) as caught,
    ):
        client.analyze("Ada")
    assert caught.value.__suppress_context__
