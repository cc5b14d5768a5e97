"""What a server can be told, with its defaults."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TypeVar

from trunkline.errors import ConfigError

T = TypeVar("T")


def _option(default: T, description: str) -> T:
    """Returns a field whose description is also the help of its command line option."""
    chosen: T = field(default=default, metadata={"help": description})
    return chosen


@dataclass(frozen=True)
class Settings:
    """Settings of one server; each field's `help` metadata says what it is.

    Raises:
        ConfigError: A limit is not positive, or a permitted call could never be admitted.
    """

    host: str = _option("127.0.0.1", "address to listen on")
    port: int = _option(50051, "port to listen on; 0 takes a free one")
    threads: int | None = _option(None, "threads of one run of the graph; default: the CPUs")
    max_text_bytes: int = _option(262_144, "longest text or question, in bytes of UTF-8")
    max_documents: int = _option(256, "most documents of one call")
    max_questions: int = _option(64, "most questions of one document")
    max_message_bytes: int = _option(4 * 1024 * 1024, "largest request, in bytes")
    max_in_flight: int = _option(512, "most documents in the server; more are refused at once")
    batch_tokens: int = _option(4096, "most real tokens of one batch")
    drain_seconds: float = _option(30.0, "seconds that calls get to finish at shutdown")

    def __post_init__(self) -> None:
        """Refuses what could not work."""
        for one in fields(self):
            value = getattr(self, one.name)
            lowest = 0 if one.name in {"port", "drain_seconds"} else 1
            if isinstance(value, int | float) and value < lowest:
                raise ConfigError(f"{one.name}: {value} is too small; give at least {lowest}")
        if self.max_documents > self.max_in_flight:
            raise ConfigError(
                f"max_in_flight: {self.max_in_flight} is less than max_documents, "
                f"{self.max_documents}; raise the one or lower the other"
            )
