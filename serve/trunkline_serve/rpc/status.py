"""Errors to gRPC statuses and back, by one table.

Statuses carry google.rpc.Status: always an ErrorInfo, whose metadata repeat every changing part of
the message, and BadRequest or RetryInfo where they fit. What is not in the table is INTERNAL: the
caller gets an id, and the log the trace under the same id.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from trunkline.errors import (
    DeadlinePassed,
    Forbidden,
    InvalidInput,
    NotFound,
    Overloaded,
    RemoteError,
    TrunklineError,
    Unauthenticated,
    Unavailable,
)

DOMAIN = "trunkline"

_log = logging.getLogger("trunkline_serve")
# Statuses travel in trailers, which gRPC cuts off at 8 KiB, and non-ASCII grows threefold there.
_MESSAGE_BYTES = 512
_VALUE_BYTES = 256
_TOO_MANY_CALLS = "Concurrent RPC limit exceeded!"  # what gRPC itself says, with no details
_RETRY = 0.1  # seconds


@dataclass(frozen=True)
class Row:
    """One row of the table.

    Attributes:
        error: The type of error.
        code: Its status code.
        reason: Its name in ErrorInfo.
        metadata: The changing parts of its message.
        rebuild: (metadata, message) to the error, on the client.
        detail: A second detail message, if there is one.
    """

    error: type[TrunklineError]
    code: grpc.StatusCode
    reason: str
    metadata: Callable[[Any], dict[str, str]]
    rebuild: Callable[[Mapping[str, str], str], TrunklineError]
    detail: Callable[[Any], Message | None]


def _bad_request(error: InvalidInput) -> error_details_pb2.BadRequest:
    violation = error_details_pb2.BadRequest.FieldViolation(
        field=_clip(error.field, _VALUE_BYTES), description=_clip(error.reason, _VALUE_BYTES)
    )
    return error_details_pb2.BadRequest(field_violations=[violation])


def _retry_info(error: Overloaded) -> error_details_pb2.RetryInfo:
    delay = Duration()
    delay.FromNanoseconds(int(error.retry_after * 1e9))
    return error_details_pb2.RetryInfo(retry_delay=delay)


def _worded(error: TrunklineError, message: str) -> TrunklineError:
    """Gives an error the server's wording, which says more than its parts."""
    error.args = (message,)
    return error


def _bare(error: type[TrunklineError], code: grpc.StatusCode, reason: str) -> Row:
    """Returns the row of an error that is its message alone."""
    return Row(error, code, reason, lambda _: {}, lambda _, said: error(said), lambda _: None)


TABLE = (
    Row(
        error=InvalidInput,
        code=grpc.StatusCode.INVALID_ARGUMENT,
        reason="INVALID_INPUT",
        metadata=lambda error: {"field": error.field, "reason": error.reason},
        rebuild=lambda data, _: InvalidInput(data["field"], data["reason"]),
        detail=_bad_request,
    ),
    Row(
        error=NotFound,
        code=grpc.StatusCode.NOT_FOUND,
        reason="NOT_FOUND",
        metadata=lambda error: {"what": error.what, "name": error.name},
        rebuild=lambda data, said: _worded(NotFound(data["what"], data["name"]), said),
        detail=lambda _: None,
    ),
    Row(
        error=Overloaded,
        code=grpc.StatusCode.RESOURCE_EXHAUSTED,
        reason="OVERLOADED",
        metadata=lambda error: {"retry_after": f"{error.retry_after:.3f}"},
        rebuild=lambda data, said: _worded(Overloaded(said, float(data["retry_after"])), said),
        detail=_retry_info,
    ),
    _bare(Unavailable, grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE"),
    _bare(DeadlinePassed, grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_PASSED"),
    _bare(Unauthenticated, grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED"),
    _bare(Forbidden, grpc.StatusCode.PERMISSION_DENIED, "FORBIDDEN"),
)
_CODES: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}
_BY_REASON = {row.reason: row for row in TABLE}
# gRPC itself answers with these when there is no server, when something in between cancels a call,
# or when there is no answer in time.
_BARE: dict[grpc.StatusCode, type[TrunklineError]] = {
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.CANCELLED: Unavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlinePassed,
}


def to_status(error: BaseException) -> grpc.Status:
    """Returns the status of an error, and logs it if it is not one of the table."""
    packed: grpc.Status = rpc_status.to_status(status_of(error))
    return packed


def status_of(error: BaseException) -> status_pb2.Status:
    """Does the same, for a status that travels as a message."""
    for row in TABLE:
        if isinstance(error, row.error):
            details = [row.detail(error)]
            return _status(row.code, str(error), row.reason, row.metadata(error), details)
    name = uuid.uuid4().hex[:12]
    _log.error("internal error %s", name, exc_info=error)
    message = f"internal error {name}; the server's log says more under this id"
    return _status(grpc.StatusCode.INTERNAL, message, "INTERNAL", {"id": name}, [])


def to_error(error: grpc.RpcError) -> TrunklineError:
    """Returns the error that a server's status stands for; RemoteError if it has no name here."""
    call: Any = error  # of either kind, blocking or of asyncio
    return error_of(call.code().value[0], call.details() or "", _details(call))


def error_of(code: int, message: str, details: Iterable[AnyMessage]) -> TrunklineError:
    """Does the same for a status that travelled as a message."""
    info = _error_info(details)
    if info is not None and info.reason in _BY_REASON:
        return _BY_REASON[info.reason].rebuild(info.metadata, message)
    if message == _TOO_MANY_CALLS:
        return Overloaded("the server has as many calls as it takes", _RETRY)
    named = _CODES.get(code, grpc.StatusCode.UNKNOWN)
    if named in _BARE:
        return _BARE[named](message)
    return RemoteError(f"{named.name}: {message}")


def _details(call: Any) -> Iterable[AnyMessage]:
    try:
        status = rpc_status.from_call(call)
    except ValueError:  # code or message differ from the details: something in between altered it
        return ()
    return () if status is None else status.details


def _error_info(details: Iterable[AnyMessage]) -> error_details_pb2.ErrorInfo | None:
    info = error_details_pb2.ErrorInfo()
    for detail in details:
        if detail.Unpack(info) and info.domain == DOMAIN:
            return info
    return None


def _status(
    code: grpc.StatusCode,
    message: str,
    reason: str,
    metadata: Mapping[str, str],
    details: Iterable[Message | None],
) -> status_pb2.Status:
    info = error_details_pb2.ErrorInfo(
        reason=reason,
        domain=DOMAIN,
        metadata={key: _clip(value, _VALUE_BYTES) for key, value in metadata.items()},
    )
    status = status_pb2.Status(
        code=code_pb2.Code.Value(code.name), message=_clip(message, _MESSAGE_BYTES)
    )
    status.details.extend(_pack(detail) for detail in (info, *details) if detail is not None)
    return status


def _pack(message: Message) -> AnyMessage:
    packed = AnyMessage()
    packed.Pack(message)
    return packed


def _clip(text: str, limit: int) -> str:
    """Cuts a text to `limit` bytes of UTF-8; a name of a file may have bytes that are none."""
    data = text.encode(errors="backslashreplace")
    clipped = data if len(data) <= limit else data[: limit - 3]
    return clipped.decode(errors="ignore") + ("…" if len(data) > limit else "")
