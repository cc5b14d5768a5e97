"""Servers that are told to end, or are killed, while they have work."""

from __future__ import annotations

import signal
import time

import grpc
import psutil

from benchmarks.family import family
from benchmarks.faults.calls import Crowd, code_of, cut, is_ours, refused
from benchmarks.faults.counted import HEARD
from benchmarks.faults.tally import Tally
from benchmarks.faults.world import World
from trunkline_serve.launch import Launched

_BETWEEN = 120  # calls before each signal
_FRONTS = 2
_ENGINE, _FRONT = "engine", "front"
_DIED, _SERVES = "process died", "serving on"
_AT_ONCE = 5.0  # seconds within which the calls of a process that died must end


def sigterm(world: World) -> Tally:
    """Ends servers under load: what they accepted is answered, and they exit with 0.

    gRPC itself cancels calls that come in while it shuts down, before the server hears of them. So
    that none of those was accepted, the calls that the server has heard of are counted there too.
    """
    tally = Tally("SIGTERM under load")
    for _ in range(world.times(5)):
        with world.serving(module="benchmarks.faults.counted") as server:
            ended = _end(server, world, tally)
            _check_heard(server, ended)
        tally.add(ended)
    return tally


def sigterm_fronts(world: World) -> Tally:
    """Does the same to servers of several processes, which cannot be counted in."""
    tally = Tally("SIGTERM under load, with fronts")
    for _ in range(world.times(3)):
        with world.serving("--fronts", _FRONTS) as server:
            tally.add(_end(server, world, tally))
    return tally


def _end(server: Launched, world: World, tally: Tally) -> Tally:
    """Ends a server under load; returns what became of the calls."""
    crowd = Crowd(server.address, world.truth, Tally(tally.fault), allowed=_ending)
    with crowd.calling():
        crowd.recover(_BETWEEN)
        begin = time.monotonic()
        status = server.end(signal.SIGTERM)
        _slowest(tally, "s to exit", time.monotonic() - begin)
    tally.check(f"exit status {status}" if status else "")
    return crowd.tally


_UNHEARD = "cancelled by gRPC"


def _ending(error: grpc.RpcError) -> str:
    bare = code_of(error) is grpc.StatusCode.CANCELLED and not is_ours(error)
    return _UNHEARD if bare else refused(error)


def _check_heard(server: Launched, tally: Tally) -> None:
    """Checks that whatever the server has heard of got its answer or its refusal from there."""
    (line,) = [one for one in server.log.read_text().splitlines() if one.startswith(HEARD)]
    heard = int(line.removeprefix(HEARD))
    unheard = tally.notes.get(_UNHEARD, 0) + tally.notes.get("unreachable", 0)
    for _ in range(heard - (tally.tried - unheard)):
        tally.lose("a call was accepted and cancelled")


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
