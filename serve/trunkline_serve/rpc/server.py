"""The life of a gRPC server: starting, health, reflection, draining."""

from __future__ import annotations

import logging

import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from trunkline.errors import ConfigError
from trunkline.v1 import analysis_service_pb2, model_service_pb2
from trunkline_serve.engine import Engine
from trunkline_serve.rpc.methods import service_handler
from trunkline_serve.rpc.servicers import AnalysisServicer, ModelServicer
from trunkline_serve.settings import Settings

_log = logging.getLogger("trunkline_serve")

_ANALYSIS = analysis_service_pb2.DESCRIPTOR.services_by_name["AnalysisService"]
_MODELS = model_service_pb2.DESCRIPTOR.services_by_name["ModelService"]
SERVICES = (_ANALYSIS.full_name, _MODELS.full_name)
_LAST_REPLIES = 1.0  # seconds to send what is computed; open health watches end with it


class Server:
    """Serves an engine on one address. Make and use it on a running event loop.

    Args:
        engine: Stays the caller's to close.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._settings = engine.settings
        self._server = grpc.aio.server(options=_options(engine.settings))
        self._health = health.aio.HealthServicer()
        handlers = (
            service_handler(_ANALYSIS, AnalysisServicer(engine)),
            service_handler(_MODELS, ModelServicer(engine)),
        )
        self._server.add_generic_rpc_handlers(handlers)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = (*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self._server)

    async def start(self) -> str:
        """Starts serving and returns `host:port` with the real port.

        Raises:
            ConfigError: The address cannot be listened on.
        """
        host, port = self._settings.host, self._settings.port
        host = f"[{host}]" if ":" in host else host
        try:
            port = self._server.add_insecure_port(f"{host}:{port}")
        except RuntimeError:
            raise ConfigError(
                f"cannot listen on {host}:{port}; it is in use or not of this machine, "
                "choose another host or port"
            ) from None
        await self._server.start()
        for name in ("", *SERVICES):
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        _log.info("serving on %s:%d", host, port)
        return f"{host}:{port}"

    async def stop(self) -> None:
        """Drains and stops: health says NOT_SERVING, new calls are refused, those in flight end.

        Calls that take longer than `Settings.drain_seconds` are cut off.
        """
        _log.info("draining")
        await self._health.enter_graceful_shutdown()
        done = await self._engine.drain(self._settings.drain_seconds)
        await self._server.stop(_LAST_REPLIES if done else 0)
        _log.info("stopped" if done else "stopped; calls were cut off")


def _options(settings: Settings) -> list[tuple[str, int]]:
    return [
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        ("grpc.max_send_message_length", -1),
        # By default gRPC hangs up on clients that ping more often than every five minutes.
        ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
        # Two servers must not share a port unnoticed.
        ("grpc.so_reuseport", 0),
    ]
