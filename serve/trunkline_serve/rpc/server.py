"""The life of a gRPC server: starting, health, reflection, draining."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from trunkline.errors import ConfigError
from trunkline.v1 import analysis_service_pb2, model_service_pb2
from trunkline_serve.engine import Engine
from trunkline_serve.loading import Loader
from trunkline_serve.rpc.methods import service_handler
from trunkline_serve.rpc.servicers import AnalysisServicer, ModelServicer
from trunkline_serve.settings import Settings

_log = logging.getLogger("trunkline_serve")

_ANALYSIS = analysis_service_pb2.DESCRIPTOR.services_by_name["AnalysisService"]
_MODELS = model_service_pb2.DESCRIPTOR.services_by_name["ModelService"]
SERVICES = (_ANALYSIS.full_name, _MODELS.full_name)
_LAST_REPLIES = 1.0  # seconds to send what is computed; open health watches end with it
_SERVING = health_pb2.HealthCheckResponse.SERVING
_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


class Server:
    """Serves an engine on one address. Make and use it on a running event loop.

    Args:
        engine: Stays the caller's to close.
        loader: Changes what the engine serves; stays the caller's to close.
        reuse_port: Whether other processes listen on the same port.
    """

    def __init__(self, engine: Engine, loader: Loader, *, reuse_port: bool = False) -> None:
        self._engine = engine
        self._settings = engine.settings
        self._server = grpc.aio.server(options=_options(engine.settings, reuse_port))
        self._health = _Health(engine)
        self._server.add_generic_rpc_handlers(_handlers(engine, loader))
        health_pb2_grpc.add_HealthServicer_to_server(self._health.servicer, self._server)
        names = (*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self._server)

    async def start(self) -> str:
        """Starts serving and returns `host:port` with the real port.

        Raises:
            ConfigError: The address cannot be listened on.
        """
        host, port = self._settings.listen.host, self._settings.listen.port
        host = f"[{host}]" if ":" in host else host
        try:
            port = self._server.add_insecure_port(f"{host}:{port}")
        except RuntimeError:
            raise ConfigError(
                f"cannot listen on {host}:{port}; it is in use or not of this machine, "
                "choose another host or port"
            ) from None
        await self._server.start()
        await self._health.start()
        _log.info("serving on %s:%d", host, port)
        return f"{host}:{port}"

    async def stop(self) -> None:
        """Drains and stops: health says NOT_SERVING, new calls are refused, those in flight end.

        Calls that take longer than `Settings.drain_seconds` are cut off.
        """
        _log.info("draining")
        await self._health.stop()
        done = await self._engine.drain(self._settings.drain_seconds)
        await self._server.stop(_LAST_REPLIES if done else 0)
        _log.info("stopped" if done else "stopped; calls were cut off")


class _Health:
    """grpc.health.v1 of the server as a whole, its services, and each model.

    A model is asked for as `NAME` or `NAME/VERSION`.
    """

    def __init__(self, engine: Engine) -> None:
        self.servicer = health.aio.HealthServicer()
        self._engine = engine
        self._told: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._on = False

    async def start(self) -> None:
        """Says SERVING, and follows the models from now on."""
        self._on = True
        for name in ("", *SERVICES):
            await self.servicer.set(name, _SERVING)
        self._engine.models.on_change(self._follow)

    async def stop(self) -> None:
        """Says NOT_SERVING for everything, for good."""
        self._on = False
        await self.servicer.enter_graceful_shutdown()

    def _follow(self) -> None:
        if self._on:
            task = asyncio.get_running_loop().create_task(self._tell())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _tell(self) -> None:
        ids = self._engine.models.ids()
        served = {one.name for one in ids} | {f"{one.name}/{one.version}" for one in ids}
        for name in self._told - served:
            await self.servicer.set(name, _UNKNOWN)
        for name in served - self._told:
            await self.servicer.set(name, _SERVING)
        self._told = served


def _handlers(engine: Engine, loader: Loader) -> Sequence[grpc.GenericRpcHandler]:
    return (
        service_handler(_ANALYSIS, AnalysisServicer(engine)),
        service_handler(_MODELS, ModelServicer(engine, loader)),
    )


def _options(settings: Settings, reuse_port: bool) -> list[tuple[str, int]]:
    return [
        ("grpc.max_receive_message_length", settings.limits.max_message_bytes),
        ("grpc.max_send_message_length", -1),
        ("grpc.max_concurrent_streams", settings.limits.max_connection_calls),
        # By default gRPC hangs up on clients that ping more often than every five minutes.
        ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
        # Two servers must not share a port unnoticed.
        ("grpc.so_reuseport", int(reuse_port)),
    ]
