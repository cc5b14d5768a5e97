"""Servers that are told to end, or are killed, while they have work."""

from __future__ import annotations

import signal
import time

import psutil

from benchmarks.family import family
from benchmarks.faults.calls import Crowd, cut
from benchmarks.faults.tally import Tally
from benchmarks.faults.world import World
from trunkline_serve.launch import Launched

_BETWEEN = 120  # calls before each signal
_MANY = 64  # callers: gRPC has calls in hand all the time that the server has not yet heard of
_FRONTS = 2
_ENGINE, _FRONT = "engine", "front"
_DIED, _SERVES = "process died", "serving on"
_AT_ONCE = 5.0  # seconds within which the calls of a process that died must end


def sigterm(world: World) -> Tally:
    """Ends servers under load: answers arrive, all else is UNAVAILABLE, the exit status is 0.

    The server's own log tells what it has answered.
    """
    return _sigterm(world, "SIGTERM under load", 5)


def sigterm_fronts(world: World) -> Tally:
    """Does the same to servers of several processes."""
    return _sigterm(world, "SIGTERM under load, with fronts", 3, "--fronts", _FRONTS)


def _sigterm(world: World, fault: str, times: int, *flags: object) -> Tally:
    tally = Tally(fault)
    for _ in range(world.times(times)):
        with world.serving("--log-calls", *flags) as server:
            crowd = Crowd(server.address, world.truth, tally, callers=_MANY, allowed=cut)
            with crowd.calling():
                crowd.recover(_BETWEEN)
                begin = time.monotonic()
                status = server.end(signal.SIGTERM)
                _slowest(tally, "s to exit", time.monotonic() - begin)
            tally.check(f"exit status {status}" if status else "")
            for _ in range(_answered(server) - crowd.answered):
                tally.lose("a call was answered and its caller did not get it")
    return tally


def _answered(server: Launched) -> int:
    """Returns the calls that a server has answered, by its log."""
    lines = server.log.read_text(encoding="utf-8").splitlines()
    return sum(" status=OK " in line and "/Analyze " in line for line in lines)


def kill_server(world: World) -> Tally:
    """Kills servers under load: their calls end at once, as ones that may be tried again."""
    tally = Tally("kill -9 of a lone server")
    for _ in range(world.times(3)):
        with world.serving() as server:
            crowd = Crowd(server.address, world.truth, tally, allowed=cut)
            with crowd.calling():
                crowd.wait(_BETWEEN)
                server.end(signal.SIGKILL)
                crowd.wait(crowd.callers)
            _check_quick(crowd)
    return tally


def kill_engine(world: World) -> Tally:
    """Kills engines under load: calls end at once, and a new engine answers the next."""
    return _kill_part(world, "kill -9 of the engine", _ENGINE)


def kill_front(world: World) -> Tally:
    """Kills front processes under load: their connections break, others go on."""
    return _kill_part(world, "kill -9 of a front", _FRONT)


def _kill_part(world: World, fault: str, part: str) -> Tally:
    tally = Tally(fault)
    with world.serving("--fronts", _FRONTS) as server:
        crowd = Crowd(server.address, world.truth, tally, allowed=cut)
        with crowd.calling():
            for killed in range(world.times(5)):
                crowd.recover(_BETWEEN)
                _victim(server, part).kill()
                server.await_log(_DIED, killed + 1)
                server.await_log(_SERVES, _FRONTS + (killed + 1) * (part == _FRONT))
            crowd.recover(_BETWEEN)
        _check_quick(crowd)
    return tally


def _victim(server: Launched, part: str) -> psutil.Process:
    """Returns the child process that is a part; of several, the one started first."""
    both, found = {"trunkline_serve.fronts", part}, family(server.process)
    parts = [one for one in found if both <= {*one.cmdline()}]
    return min(parts, key=psutil.Process.create_time)


def _check_quick(crowd: Crowd) -> None:
    _slowest(crowd.tally, "s at most", crowd.slowest)
    late = crowd.slowest > _AT_ONCE
    crowd.tally.check(f"a call took {crowd.slowest:.1f} s to end" if late else "")


def _slowest(tally: Tally, note: str, seconds: float) -> None:
    tally.notes[note] = max(tally.notes.get(note, 0.0), round(seconds, 2))
