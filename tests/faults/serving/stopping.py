"""Servers that are told to end, or are killed, while they have work."""

from __future__ import annotations

import signal
import time

import psutil

from benchmarks.family import family
from tests.faults.serving.calls import ClientPool, cut
from tests.faults.serving.fault_fixture import FaultFixture
from tests.faults.serving.fault_report import FaultReport
from trunkline_serve.launch import Launched

_BETWEEN = 120  # calls before each signal
_MANY = 64  # callers: gRPC has calls in hand all the time that the server has not yet heard of
_FRONTS = 2
_ENGINE, _FRONT = "engine", "front"
_DIED, _SERVES = "process died", "serving on"
_AT_ONCE = 5.0  # seconds within which the calls of a process that died must end


def sigterm(fixture: FaultFixture) -> FaultReport:
    """Ends servers under load: answers arrive, all else is UNAVAILABLE, the exit status is 0.

    The server's own log tells what it has answered.
    """
    return _sigterm(fixture, "SIGTERM under load", 5)


def sigterm_fronts(fixture: FaultFixture) -> FaultReport:
    """Does the same to servers of several processes."""
    return _sigterm(fixture, "SIGTERM under load, with fronts", 3, "--fronts", _FRONTS)


def _sigterm(fixture: FaultFixture, fault: str, times: int, *flags: object) -> FaultReport:
    report = FaultReport(fault)
    for _ in range(fixture.times(times)):
        with fixture.serving("--log-calls", *flags) as server:
            pool = ClientPool(server.address, fixture.oracle, report, callers=_MANY, allowed=cut)
            with pool.calling():
                pool.recover(_BETWEEN)
                begin = time.monotonic()
                status = server.end(signal.SIGTERM)
                _slowest(report, "s to exit", time.monotonic() - begin)
            report.check(f"exit status {status}" if status else "")
            for _ in range(_answered(server) - pool.answered):
                report.lose("a call was answered and its caller did not get it")
    return report


def _answered(server: Launched) -> int:
    """Returns the calls that a server has answered, by its log."""
    lines = server.log.read_text(encoding="utf-8").splitlines()
    return sum(" status=OK " in line and "/Analyze " in line for line in lines)


def kill_server(fixture: FaultFixture) -> FaultReport:
    """Kills servers under load: their calls end at once, as ones that may be tried again."""
    report = FaultReport("kill -9 of a lone server")
    for _ in range(fixture.times(3)):
        with fixture.serving() as server:
            pool = ClientPool(server.address, fixture.oracle, report, allowed=cut)
            with pool.calling():
                pool.wait(_BETWEEN)
                server.end(signal.SIGKILL)
                pool.wait(pool.callers)
            _check_quick(pool)
    return report


def kill_engine(fixture: FaultFixture) -> FaultReport:
    """Kills engines under load: calls end at once, and a new engine answers the next."""
    return _kill_part(fixture, "kill -9 of the engine", _ENGINE)


def kill_front(fixture: FaultFixture) -> FaultReport:
    """Kills front processes under load: their connections break, others go on."""
    return _kill_part(fixture, "kill -9 of a front", _FRONT)


def _kill_part(fixture: FaultFixture, fault: str, part: str) -> FaultReport:
    report = FaultReport(fault)
    with fixture.serving("--fronts", _FRONTS) as server:
        pool = ClientPool(server.address, fixture.oracle, report, allowed=cut)
        with pool.calling():
            for killed in range(fixture.times(5)):
                pool.recover(_BETWEEN)
                _victim(server, part).kill()
                server.await_log(_DIED, killed + 1)
                server.await_log(_SERVES, _FRONTS + (killed + 1) * (part == _FRONT))
            pool.recover(_BETWEEN)
        _check_quick(pool)
    return report


def _victim(server: Launched, part: str) -> psutil.Process:
    """Returns the child process that is a part; of several, the one started first."""
    both, found = {"trunkline_serve.fronts", part}, family(server.process)
    parts = [one for one in found if both <= {*one.cmdline()}]
    return min(parts, key=psutil.Process.create_time)


def _check_quick(pool: ClientPool) -> None:
    _slowest(pool.report, "s at most", pool.slowest)
    late = pool.slowest > _AT_ONCE
    pool.report.check(f"a call took {pool.slowest:.1f} s to end" if late else "")


def _slowest(report: FaultReport, note: str, seconds: float) -> None:
    report.notes[note] = max(report.notes.get(note, 0.0), round(seconds, 2))
