"""What a server can be told: one typed tree, with its defaults.

Flags, environment variables and a file fill the same tree (see `sources`). Each field's metadata
hold its help text.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Literal, TypeVar

from trunkline.errors import ConfigError

T = TypeVar("T")


_LAST_PORT = 65_535
_MOST_BYTES = 2**31 - 1  # of a message, to gRPC


def _option(default: T, description: str, *, least: int = 1, most: float = math.inf) -> T:
    """Returns a field with a help text; a number must be from `least` to `most`, and finite."""
    bounds = {"least": least, "most": most}
    chosen: T = field(default=default, metadata={"help": description, **bounds})
    return chosen


_CONNECTIONS = 4  # that can take all that may be held


@dataclass(frozen=True)
class Listen:
    """Where the server listens, and in how many processes."""

    host: str = _option("127.0.0.1", "address to listen on")
    port: int = _option(50051, "port to listen on; 0 takes a free one", least=0, most=_LAST_PORT)
    fronts: int = _option(
        0, "processes for gRPC, tokenising and decoding; 0 does all in one process", least=0
    )


@dataclass(frozen=True)
class Compute:
    """How graphs are run."""

    threads: int | None = _option(None, "threads to compute with; default: the CPUs")
    batch_tokens: int | None = _option(
        None, "most real tokens of one batch; default: what suits the graph"
    )
    graph: str = _option("auto", "graph to run, by name or file")
    allow_ungated: bool = _option(False, "also run a graph that has not passed its gates")
    self_test: bool = _option(True, "analyse a bundle's golden texts before serving it")
    device: str = _option("auto", "cpu, cuda, cuda:1 or cuda:0,cuda:1; auto takes the quickest")
    cuda_graphs: bool = _option(True, "capture small batches as CUDA graphs")
    gpu_memory_mb: int | None = _option(
        None, "most megabytes that a model's arena takes of a GPU; default: no limit"
    )


@dataclass(frozen=True)
class Limits:
    """What is accepted; the rest is refused before any work."""

    max_text_bytes: int = _option(262_144, "longest text or question, in bytes of UTF-8")
    max_documents: int = _option(256, "most documents of one call")
    max_questions: int = _option(64, "most questions of one document")
    max_message_bytes: int = _option(4 * 1024 * 1024, "largest request, in bytes", most=_MOST_BYTES)
    max_in_flight: int = _option(512, "most documents in the server")
    max_queue_tokens: int = _option(262_144, "most tokens waiting to be computed")
    max_calls: int = _option(
        1024, "most calls at a time, those included whose request is still coming"
    )
    max_connection_calls: int = _option(
        128, "most calls of one connection at a time", most=_MOST_BYTES
    )
    max_held_bytes: int = _option(
        256 * 1024 * 1024,
        "most bytes of requests at work and of replies that nobody has read; a connection may have "
        "a quarter",
    )
    max_stream_requests: int = _option(64, "most unanswered requests of one stream")

    @property
    def max_connection_bytes(self) -> int:
        """Most bytes that the calls of one connection may hold."""
        return self.max_held_bytes // _CONNECTIONS


@dataclass(frozen=True)
class Models:
    """Where models come from beside the bundles that are named."""

    folder: str | None = _option(None, "folder whose bundles may be loaded while serving")
    watch_seconds: float = _option(
        0.0, "how often to look for new bundles there; 0 does not", least=0
    )


@dataclass(frozen=True)
class Tls:
    """Encryption; none without a certificate."""

    certificate: str | None = _option(None, "PEM file of the server's certificate chain")
    key: str | None = _option(None, "PEM file of its private key")
    client_ca: str | None = _option(
        None, "PEM file of the authorities whose clients are let in; others are not"
    )


@dataclass(frozen=True)
class Auth:
    """Who may call; everybody without a file of tokens."""

    tokens: str | None = _option(None, "TOML file of hashed bearer tokens")


@dataclass(frozen=True)
class Metrics:
    """Prometheus metrics over HTTP; none without a port."""

    host: str = _option("127.0.0.1", "address to serve metrics on")
    port: int | None = _option(
        None, "port to serve metrics on; 0 takes a free one", least=0, most=_LAST_PORT
    )


@dataclass(frozen=True)
class Tracing:
    """OpenTelemetry traces; none without an endpoint."""

    endpoint: str | None = _option(None, "OTLP collector to send traces to, as host:port")
    share: float = _option(1.0, "share of calls traced that come without a trace", least=0, most=1)


@dataclass(frozen=True)
class Log:
    """The server's own log, on stderr."""

    level: Literal["debug", "info", "warning", "error"] = _option(
        "info", "least severe lines shown"
    )
    format: Literal["text", "json"] = _option("text", "lines for people, or a JSON object each")
    calls: bool = _option(False, "a line per call; never has texts")


@dataclass(frozen=True)
class Settings:
    """Settings of one server.

    Raises:
        ConfigError: A value is out of range, or a permitted call could never be admitted.
    """

    listen: Listen = field(default_factory=Listen)
    compute: Compute = field(default_factory=Compute)
    limits: Limits = field(default_factory=Limits)
    models: Models = field(default_factory=Models)
    tls: Tls = field(default_factory=Tls)
    auth: Auth = field(default_factory=Auth)
    metrics: Metrics = field(default_factory=Metrics)
    tracing: Tracing = field(default_factory=Tracing)
    log: Log = field(default_factory=Log)
    drain_seconds: float = _option(30.0, "seconds that calls get to finish at shutdown", least=0)

    def __post_init__(self) -> None:
        """Refuses what could not work."""
        _check_bounds(self, "")
        limits = self.limits
        if limits.max_documents > limits.max_in_flight:
            raise ConfigError(
                f"limits.max_in_flight: {limits.max_in_flight} is less than max_documents, "
                f"{limits.max_documents}; raise the one or lower the other"
            )
        if limits.max_message_bytes > limits.max_connection_bytes:
            raise ConfigError(
                f"limits.max_held_bytes: {limits.max_held_bytes} is less than four times "
                f"max_message_bytes, {limits.max_message_bytes}; raise the one or lower the other"
            )
        if (self.tls.certificate is None) != (self.tls.key is None):
            raise ConfigError("tls: a certificate and its key go together; give both")
        if self.tls.client_ca is not None and self.tls.certificate is None:
            raise ConfigError("tls.client_ca: needs tls.certificate and tls.key")


def _check_bounds(section: object, prefix: str) -> None:
    for one in fields(section):  # type: ignore[arg-type]
        value, name = getattr(section, one.name), f"{prefix}{one.name}"
        if "least" not in one.metadata:
            _check_bounds(value, f"{name}.")
        elif value == "":
            raise ConfigError(f"{name}: is empty; give a value, or leave it out")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            _check_number(name, value, one.metadata["least"], one.metadata["most"])


def _check_number(name: str, value: float, least: int, most: float) -> None:
    if not value >= least:
        raise ConfigError(f"{name}: {value} is too small; give at least {least}")
    if value > most or math.isinf(value):
        bound = "" if math.isinf(most) else f"; give at most {most}"
        raise ConfigError(f"{name}: {value} is too large{bound}")
