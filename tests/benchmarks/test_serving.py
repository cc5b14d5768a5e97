"""The load generator counts right, the bars are what the rounds say, and the command runs whole."""

import asyncio
import json
import pickle
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock, Thread

import grpc
import psutil
import pytest

import trunkline
from benchmarks.serving import bars as command
from benchmarks.serving.generators import Generators
from benchmarks.serving.judge import OVER_BATCHING, OVER_PLAIN, Bar, bars, best_batching, figures
from benchmarks.serving.latencies import Latencies
from benchmarks.serving.load import Closed, Loop, Open, Order, Report, generate
from benchmarks.serving.overload import Overload, growth
from benchmarks.serving.peers.choose import choose
from benchmarks.serving.peers.options import Setting
from benchmarks.serving.peers.registry import PEERS, Peer
from benchmarks.serving.processes import ServerError, free_port, started
from benchmarks.serving.rounds import Round, kept, ratios
from benchmarks.serving.sides import (
    Bench,
    InProcess,
    Turn,
    expected_of,
    in_process_name,
    peer_served,
    read_peer,
    served_name,
)
from benchmarks.serving.targets import GrpcTarget, HttpTarget
from benchmarks.serving.traffic import Traffic, mixed
from tests.tiny import build_tiny_bundle
from trunkline import Model

ONE = Setting(batch=1, wait_ms=0.0, workers=1, threads=1)


class Watched:
    """A gRPC server in this process whose methods behave as their names say."""

    def __init__(self, workers: int, seconds: float) -> None:
        self.seconds = seconds
        self.running = self.most = self.calls = 0
        self._lock = Lock()
        methods = {
            name: grpc.unary_unary_rpc_method_handler(getattr(self, name.lower()))
            for name in ("Answer", "Refuse", "Break", "Stall")
        }
        self._server = grpc.server(ThreadPoolExecutor(workers))
        handler = grpc.method_handlers_generic_handler("test.Watched", methods)
        self._server.add_generic_rpc_handlers((handler,))
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()

    def answer(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        with self._lock:
            self.calls += 1
            self.running += 1
            self.most = max(self.most, self.running)
        time.sleep(self.seconds)
        with self._lock:
            self.running -= 1
        return request

    def refuse(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "full")
        raise AssertionError

    def break_(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        context.abort(grpc.StatusCode.INTERNAL, "broken")
        raise AssertionError

    def stall(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        time.sleep(0.3)
        return request

    def target(self, method: str = "Answer") -> GrpcTarget:
        return GrpcTarget(f"127.0.0.1:{self.port}", f"/test.Watched/{method}")

    def stop(self) -> None:
        self._server.stop(None).wait()


Watched.__dict__  # noqa: B018
