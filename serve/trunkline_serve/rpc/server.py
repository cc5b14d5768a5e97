"""The life of a gRPC server: starting, health, reflection, draining."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2

from trunkline.errors import ConfigError
from trunkline.v1 import analysis_service_pb2, model_service_pb2
from trunkline_serve.engine import Engine
from trunkline_serve.loading import Loading
from trunkline_serve.observe.calls import Calls
from trunkline_serve.oip import servicer as oip
from trunkline_serve.oip.reflection import described
from trunkline_serve.rpc.health import Health
from trunkline_serve.rpc.holdings import Holdings
from trunkline_serve.rpc.methods import service_handler
from trunkline_serve.rpc.reflection import reflection_handler
from trunkline_serve.rpc.servicers import AnalysisServicer, ModelServicer
from trunkline_serve.security.compression import compression_options
from trunkline_serve.security.guard import Guard, open_access
from trunkline_serve.security.tls import server_credentials
from trunkline_serve.settings import Settings

_log = logging.getLogger("trunkline_serve")

_ANALYSIS = analysis_service_pb2.DESCRIPTOR.services_by_name["AnalysisService"]
_MODELS = model_service_pb2.DESCRIPTOR.services_by_name["ModelService"]
_FILES: tuple[Any, ...] = (
    analysis_service_pb2.DESCRIPTOR,
    model_service_pb2.DESCRIPTOR,
    health_pb2.DESCRIPTOR,
    reflection_pb2.DESCRIPTOR,
)
SERVICES = (_ANALYSIS.full_name, _MODELS.full_name)
_LAST_REPLIES = 1.0  # seconds to send what is computed
_ARRIVAL = 0.1  # seconds for what was sent, before its connection breaks
_CONNECTION_MS = 600_000
_SHARE_OF_CHECKS = 16  # of all calls one in so many may be a check of health that does not end


class Server:
    """Serves an engine on one address. Make and use it on a running event loop.

    Args:
        engine: Stays the caller's to close.
        loader: Changes what the engine serves; stays the caller's to close.
        calls: Follows every call.
        reuse_port: Whether other processes listen on the same port.
    """

    def __init__(
        self, engine: Engine, loader: Loading, calls: Calls, *, reuse_port: bool = False
    ) -> None:
        self._engine = engine
        self._settings = engine.settings
        self._server = grpc.aio.server(
            interceptors=_interceptors(engine),
            options=_options(engine.settings, reuse_port),
            maximum_concurrent_rpcs=engine.settings.limits.max_calls,
        )
        self._calls = calls
        most_checks = -(-engine.settings.limits.max_calls // _SHARE_OF_CHECKS)
        self._health = Health(
            [_ANALYSIS.full_name], [_MODELS.full_name], engine.models, most_checks
        )
        handlers = (*_handlers(engine, loader, calls), self._health.handler())
        self._server.add_generic_rpc_handlers(handlers)

    async def start(self) -> str:
        """Starts serving and returns `host:port` with the real port.

        Raises:
            ConfigError: The address cannot be listened on.
        """
        host, port = self._settings.listen.host, self._settings.listen.port
        host = f"[{host}]" if ":" in host else host
        tls = self._settings.tls
        try:
            if tls.certificate is None:
                port = self._server.add_insecure_port(f"{host}:{port}")
            else:
                port = self._server.add_secure_port(f"{host}:{port}", server_credentials(tls))
        except RuntimeError:
            raise ConfigError(
                f"cannot listen on {host}:{port}; it is in use or not of this machine, "
                "choose another host or port"
            ) from None
        await self._server.start()
        _log.info("serving on %s:%d", host, port)
        return f"{host}:{port}"

    def available(self, on: bool) -> None:
        """Says in health whether calls can be answered; that they can until told otherwise."""
        self._health.available(on)

    async def drain(self) -> None:
        """Says NOT_SERVING in health, refuses new calls, and answers those that were accepted.

        Returns when all answers are sent, or after `Settings.drain_seconds` and about a second.
        gRPC itself goes on: end the process, and what still comes in breaks off as UNAVAILABLE.
        """
        _log.info("draining")
        self._health.stop()
        self._calls.close()
        done = await self._engine.drain(self._settings.drain_seconds)
        done = done and await self._calls.ended(_LAST_REPLIES)
        await asyncio.sleep(_ARRIVAL)
        _log.info("stopped" if done else "stopped; calls were cut off")

    async def stop(self) -> None:
        """Drains and shuts gRPC down, in a process that goes on.

        Between gRPC's word that it goes and a client's hearing it, calls come in which gRPC cancels
        by itself: their callers see CANCELLED.
        """
        await self.drain()
        await self._server.stop(0)


def _handlers(engine: Engine, loader: Loading, calls: Calls) -> Sequence[grpc.GenericRpcHandler]:
    limits = engine.settings.limits
    holdings = Holdings(limits.max_held_bytes, limits.max_connection_bytes)
    names = (*SERVICES, oip.NAME, health.SERVICE_NAME, reflection.SERVICE_NAME)
    return (
        service_handler(_ANALYSIS, AnalysisServicer(engine), calls, holdings=holdings),
        service_handler(_MODELS, ModelServicer(engine, loader), calls, holdings=holdings),
        oip.handler(engine, calls, holdings),
        reflection_handler(names, described(_FILES), calls, holdings),
    )


def _interceptors(engine: Engine) -> Sequence[grpc.aio.ServerInterceptor]:
    """Returns what stands before every call: nothing where everybody may do everything."""
    access = open_access(engine.settings)
    return [] if access.open else [Guard(access, engine.events)]


def _options(settings: Settings, reuse_port: bool) -> list[tuple[str, int]]:
    return [
        ("grpc.max_receive_message_length", settings.limits.max_message_bytes),
        ("grpc.max_send_message_length", -1),
        ("grpc.max_concurrent_streams", settings.limits.max_connection_calls),
        # By default gRPC hangs up on clients that ping more often than every five minutes.
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
        # Clients that choose among servers learn of new ones when a connection ends.
        ("grpc.max_connection_age_ms", _CONNECTION_MS),
        ("grpc.max_connection_age_grace_ms", _CONNECTION_MS),
        *compression_options(),
        # Two servers must not share a port unnoticed.
        ("grpc.so_reuseport", int(reuse_port)),
    ]
