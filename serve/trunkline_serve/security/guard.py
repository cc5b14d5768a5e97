"""Who may call which method, decided before anything of the request is read."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from collections.abc import Awaitable, Callable, Iterable
from contextvars import ContextVar
from time import monotonic
from typing import Any, TypeAlias

import grpc
import grpc.aio

from trunkline.errors import Forbidden, Unauthenticated
from trunkline_serve.events import Everyone, Failed
from trunkline_serve.rpc.status import TABLE, to_status
from trunkline_serve.security.tokens import Caller, Tokens
from trunkline_serve.settings import Settings

OPEN_METHOD = "/grpc.health.v1.Health/Check"
"""Probes have no token. It ends by itself, unlike `Watch`."""

ADMIN_METHODS = frozenset(
    {
        "/trunkline.v1.ModelService/LoadModel",
        "/trunkline.v1.ModelService/UnloadModel",
        "/inference.GRPCInferenceService/RepositoryModelLoad",
        "/inference.GRPCInferenceService/RepositoryModelUnload",
    }
)

CALLER: ContextVar[Caller] = ContextVar("caller")
"""Who makes the call that is being answered; set by `Guard`."""


class Meter:
    """Counts the requests of one stream, made where the stream is answered."""

    def __init__(self) -> None:
        self._caller = CALLER.get(None)
        self._first = True  # the stream itself was counted as a call

    def charge(self) -> None:
        """Counts a request.

        Raises:
            Overloaded: There were too many.
        """
        if self._caller is not None and not self._first:
            self._caller.charge(monotonic())
        self._first = False


Metadata = Iterable[tuple[str, str | bytes]]
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"  # generic to type checkers only

_log = logging.getLogger("trunkline_serve")


class Access:
    """Decides who may call what.

    Args:
        tokens: Those who may call; None lets everybody in.
        everyone_is_admin: Whether callers without a token may load and unload models.
    """

    def __init__(self, tokens: Tokens | None, *, everyone_is_admin: bool) -> None:
        self._tokens = tokens
        self._anyone = Caller("", everyone_is_admin)

    @property
    def open(self) -> bool:
        """Whether everybody may do everything."""
        return self._tokens is None and self._anyone.admin

    async def renew(self, now: float) -> None:
        """Looks at the file of tokens if it is time to; other calls go by the old ones meanwhile.

        Args:
            now: Seconds on the monotonic clock.
        """
        if self._tokens is not None and self._tokens.due(now):
            await asyncio.to_thread(self._tokens.look)  # thousands take a tenth of a second

    def check(self, method: str, metadata: Metadata, now: float) -> Caller:
        """Returns who calls, and counts the call.

        Args:
            method: Its full name, `/package.Service/Method`.
            metadata: Of the call, with keys in lower case.
            now: Seconds on the monotonic clock.

        Raises:
            Unauthenticated: A token is wanted, and there is none or an unknown one.
            Overloaded: The token is used more often than it may be.
            Forbidden: The method is for administrators.
        """
        caller = self._anyone
        if self._tokens is not None and method != OPEN_METHOD:
            caller = _holder(self._tokens, _bearer(metadata))
            caller.charge(now)
        if method in ADMIN_METHODS and not caller.admin:
            raise Forbidden(_why_not(method, caller))
        return caller


class Guard(grpc.aio.ServerInterceptor):
    """Lets through what `Access` lets through, and refuses the rest unread.

    Args:
        access: Decides.
        events: Hears of every refusal.
    """

    def __init__(self, access: Access, events: Everyone) -> None:
        self._access = access
        self._events = events

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Returns the handler of a call, or one that refuses it."""
        begun = monotonic()
        details = handler_call_details
        try:
            await self._access.renew(begun)
            caller = self._access.check(details.method, details.invocation_metadata, begun)
        except Exception as error:
            spent = int((monotonic() - begun) * 1e9)
            self._events.failed(Failed("", _reason(error), "admission", spent))
            return _refusing(to_status(error))
        CALLER.set(caller)
        return await continuation(handler_call_details)


def open_access(settings: Settings) -> Access:
    """Returns who may call a server; tells in the log what is risky about its settings.

    Raises:
        ConfigError: The file of tokens cannot be used.
    """
    local = is_loopback(settings.listen.host)
    path = settings.auth.tokens
    if path is None:
        if not local and settings.tls.client_ca is None:
            _log.warning("%s: whoever reaches it may call; set auth.tokens", settings.listen.host)
        return Access(None, everyone_is_admin=local)
    if not local and settings.tls.certificate is None:
        _log.warning("tokens travel unencrypted to %s; set tls", settings.listen.host)
    return Access(Tokens(path), everyone_is_admin=False)


def is_loopback(host: str) -> bool:
    """Returns whether an address can only be reached from this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _bearer(metadata: Metadata) -> str:
    given = [value for key, value in metadata if key == "authorization"]
    scheme, _, token = str(given[0]).partition(" ") if len(given) == 1 else ("", "", "")
    if scheme.lower() != "bearer" or not token.strip():
        raise Unauthenticated(
            "the server wants a token; send one as metadata `authorization: Bearer TOKEN`"
        )
    return token.strip()


def _holder(tokens: Tokens, token: str) -> Caller:
    caller = tokens.find(token)
    if caller is None:
        raise Unauthenticated("the server does not know this token; ask who runs it for another")
    return caller


def _why_not(method: str, caller: Caller) -> str:
    name = method.rpartition("/")[2]
    if caller.name:
        return f"{name} is for administrators; the token of {caller.name!r} lacks `admin = true`"
    return (
        f"{name} is for administrators; "
        "give the server a file of tokens, or let it listen on 127.0.0.1 only"
    )


def _reason(error: Exception) -> str:
    return next((row.reason for row in TABLE if isinstance(error, row.error)), "INTERNAL")


def _refusing(status: grpc.Status) -> Handler:
    """Returns a handler for calls of any kind that does not wait for their messages."""

    async def refuse(requests: object, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        await context.abort_with_status(status)

    handler: Handler = grpc.stream_stream_rpc_method_handler(refuse)
    return handler
