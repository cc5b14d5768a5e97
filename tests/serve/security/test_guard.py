import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from grpc_status import rpc_status

from tests.faults.serving.watch import BUDGET, Watch, begun, ended
from tests.serve.hosting import PATIENCE, Loop, wait_for
from tests.serve.security.echo import ECHO, STREAM, echoing
from trunkline.errors import Forbidden, Overloaded, TrunklineError, Unauthenticated
from trunkline_serve.events import Everyone, Failed, Listener
from trunkline_serve.rpc.status import to_error
from trunkline_serve.security.guard import (
    ADMIN_METHODS,
    Access,
    Guard,
    Metadata,
    is_loopback,
    open_access,
)
from trunkline_serve.security.tokens import digest_of
from trunkline_serve.settings import Auth, Listen, Settings, Tls

FILE = f"""
[[token]]
name = "ops"
sha256 = "{digest_of("root")}"
admin = true

[[token]]
name = "app"
sha256 = "{digest_of("user")}"

[[token]]
name = "slow"
sha256 = "{digest_of("slow")}"
calls_per_second = 0.01
"""
ADMIN = sorted(ADMIN_METHODS)


def bearing(token: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {token}"),)


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "tokens.toml"
    path.touch(0o600)
    path.write_text(FILE)
    return str(path)


@pytest.fixture
def access(file: str) -> Access:
    return open_access(Settings(auth=Auth(file)))


def test_a_token_lets_in_and_says_who_calls(access: Access) -> None:
    for metadata in (
        bearing("user"),
        (("authorization", "bearer user"),),
        (("authorization", "BEARER  user "),),
        (("x", "y"), *bearing("user"), ("z-bin", b"\xff")),
    ):
        assert access.check(ECHO, metadata, 1.0).name == "app"


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ((), "wants a token"),
        ((("authorization", ""),), "wants a token"),
        ((("authorization", "user"),), "wants a token"),
        ((("authorization", "Bearer"),), "wants a token"),
        ((("authorization", "Bearer  "),), "wants a token"),
        ((("authorization", "Basic user"),), "wants a token"),
        ((("token", "user"),), "wants a token"),
        ((*bearing("user"), *bearing("user")), "wants a token"),
        (bearing("nobody"), "does not know this token"),
        (bearing(digest_of("user")), "does not know this token"),
    ],
)
def test_without_a_known_token_nobody_gets_in(
    access: Access, metadata: Metadata, message: str
) -> None:
    with pytest.raises(Unauthenticated, match=message) as caught:
        access.check(ECHO, metadata, 1.0)
    assert "nobody" not in str(caught.value)


@pytest.mark.parametrize("method", ADMIN)
def test_only_administrators_load_and_unload(access: Access, method: str) -> None:
    assert access.check(method, bearing("root"), 1.0).name == "ops"
    with pytest.raises(Forbidden, match="the token of 'app' lacks `admin = true`"):
        access.check(method, bearing("user"), 1.0)
    with pytest.raises(Unauthenticated):
        access.check(method, (), 1.0)


@pytest.mark.parametrize("method", ADMIN)
@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.10", "::1", "[::1]", "localhost"])
def test_without_tokens_everybody_on_this_machine_is_an_administrator(
    method: str, host: str
) -> None:
    open_access(Settings(listen=Listen(host))).check(method, (), 1.0)


@pytest.mark.parametrize("method", ADMIN)
@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "models.example", "127.0.0.1.x"])
def test_without_tokens_nobody_from_elsewhere_is_an_administrator(method: str, host: str) -> None:
    access = open_access(Settings(listen=Listen(host)))
    assert access.check(ECHO, (), 1.0).name == ""
    with pytest.raises(Forbidden, match="give the server a file of tokens, or let it listen on"):
        access.check(method, (), 1.0)


def test_addresses_are_told_apart() -> None:
    assert is_loopback("127.0.0.1")
    assert not is_loopback("")
    assert not is_loopback("localhost.example")


ANYWHERE = Listen("0.0.0.0")
ENCRYPTED = Tls("certificate", "key")


@pytest.mark.parametrize(
    ("settings", "warned"),
    [
        (Settings(), ""),
        (Settings(auth=Auth("FILE")), ""),
        (Settings(ANYWHERE), "whoever reaches it may call"),
        (Settings(ANYWHERE, tls=ENCRYPTED), "whoever reaches it may call"),
        (Settings(ANYWHERE, tls=replace(ENCRYPTED, client_ca="authorities")), ""),
        (Settings(ANYWHERE, auth=Auth("FILE")), "tokens travel unencrypted"),
        (Settings(ANYWHERE, auth=Auth("FILE"), tls=ENCRYPTED), ""),
    ],
)
def test_risky_settings_are_told_at_the_start(
    file: str, settings: Settings, warned: str, caplog: pytest.LogCaptureFixture
) -> None:
    open_access(settings if settings.auth.tokens is None else replace(settings, auth=Auth(file)))
    assert len(caplog.records) == bool(warned)
    assert warned in caplog.text


class Heard(Listener):
    """Keeps what failed."""

    def __init__(self) -> None:
        self.failures: list[Failed] = []

    def failed(self, call: Failed) -> None:
        self.failures.append(call)


@contextmanager
def guarded(host: Loop, access: Access) -> Iterator[tuple[grpc.Channel, Heard]]:
    heard = Heard()
    with (
        echoing(host, interceptors=[Guard(access, Everyone([heard]))]) as port,
        grpc.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        yield channel, heard


def refused(call: object) -> grpc.RpcError:
    """Returns the error of a call of any kind."""
    with pytest.raises(grpc.RpcError) as caught:
        next(iter(call))  # type: ignore[call-overload]
    error: grpc.RpcError = caught.value
    return error


def test_the_guard_lets_in_unary_calls_and_streams(host: Loop, access: Access) -> None:
    with guarded(host, access) as (channel, heard):
        unary, stream = channel.unary_unary(ECHO), channel.stream_stream(STREAM)
        assert unary(b"1", timeout=PATIENCE, metadata=bearing("user")) == b"1"
        answers = stream(iter([b"1", b"2"]), timeout=PATIENCE, metadata=bearing("user"))
        assert list(answers) == [b"1", b"2"]
        assert not heard.failures


def test_the_guard_refuses_unary_calls_and_silent_streams(host: Loop, access: Access) -> None:
    never = threading.Event()

    def silent() -> Iterator[bytes]:
        never.wait(PATIENCE)
        yield b""

    with guarded(host, access) as (channel, heard):
        with pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary(ECHO)(b"1", timeout=PATIENCE)
        stream = channel.stream_stream(STREAM)(silent(), timeout=PATIENCE / 2)
        for error in (caught.value, refused(stream)):
            assert error.code() is grpc.StatusCode.UNAUTHENTICATED
            assert isinstance(to_error(error), Unauthenticated)
        assert [one.reason for one in heard.failures] == ["UNAUTHENTICATED"] * 2
        never.set()


def test_a_check_of_health_is_open_and_nothing_else_is(host: Loop, access: Access) -> None:
    with guarded(host, access) as (channel, heard):
        health = health_pb2_grpc.HealthStub(channel)
        request = health_pb2.HealthCheckRequest()
        assert health.Check(request, timeout=PATIENCE).status == 1
        assert not heard.failures
        others = ("Health/Watch", "Health/List", "Health/CheckAll", "Healthy/Check")
        methods = (f"/grpc.health.v1.{one}" for one in others)
        for method in ("/unknown.Service/Method", ADMIN[0], *methods):
            with pytest.raises(grpc.RpcError) as caught:
                channel.unary_unary(method)(b"", timeout=PATIENCE)
            assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


def test_reflection_wants_a_token(host: Loop, access: Access) -> None:
    with guarded(host, access) as (channel, _):
        with pytest.raises(grpc.RpcError) as caught:
            ProtoReflectionDescriptorDatabase(channel).get_services()
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


def test_an_administrators_method_is_refused_with_the_mend(host: Loop, access: Access) -> None:
    with guarded(host, access) as (channel, heard):
        call = channel.unary_unary(ADMIN[0])
        with pytest.raises(grpc.RpcError) as caught:
            call(b"", timeout=PATIENCE, metadata=bearing("user"))
        assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
        error = to_error(caught.value)
        assert isinstance(error, Forbidden)
        assert "admin = true" in str(error)
        with pytest.raises(grpc.RpcError) as caught:
            call(b"", timeout=PATIENCE, metadata=bearing("root"))
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
        assert [one.reason for one in heard.failures] == ["FORBIDDEN"]


def test_a_token_above_its_rate_is_told_when_to_come_back(host: Loop, access: Access) -> None:
    with guarded(host, access) as (channel, _):
        call = channel.unary_unary(ECHO)
        assert call(b"1", timeout=PATIENCE, metadata=bearing("slow")) == b"1"
        with pytest.raises(grpc.RpcError) as caught:
            call(b"2", timeout=PATIENCE, metadata=bearing("slow"))
        assert call(b"3", timeout=PATIENCE, metadata=bearing("user")) == b"3"
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    error: TrunklineError = to_error(caught.value)
    assert isinstance(error, Overloaded)
    assert 90 < error.retry_after <= 100
    status = rpc_status.from_call(caught.value)  # type: ignore[arg-type]
    retry = error_details_pb2.RetryInfo()
    assert any(detail.Unpack(retry) for detail in status.details)
    assert 90 <= retry.retry_delay.seconds <= 100


def test_tokens_change_while_a_connection_is_open(host: Loop, access: Access, file: str) -> None:
    with guarded(host, access) as (channel, _):
        call = channel.unary_unary(ECHO)
        assert call(b"1", timeout=PATIENCE, metadata=bearing("user")) == b"1"
        Path(file).write_text(FILE.replace(digest_of("user"), digest_of("new")))
        time.sleep(1.1)
        assert call(b"2", timeout=PATIENCE, metadata=bearing("new")) == b"2"
        with pytest.raises(grpc.RpcError) as caught:
            call(b"3", timeout=PATIENCE, metadata=bearing("user"))
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


def test_thousands_of_new_tokens_do_not_hold_up_the_others(
    host: Loop, access: Access, file: str
) -> None:
    many = "".join(
        f'[[token]]\nname = "n{at}"\nsha256 = "{digest_of(str(at))}"\n' for at in range(2000)
    )
    with guarded(host, access) as (channel, _):
        echo = channel.unary_unary(ECHO)
        echo(b"1", timeout=PATIENCE, metadata=bearing("user"))
        Path(file).write_text(FILE + many)
        watch = Watch()
        looking = host.run(begun(watch))
        wait_for(lambda: echoed(echo, bearing("1999")))
        host.run(ended(looking))
    assert watch.longest < BUDGET


def echoed(echo: Any, metadata: Metadata) -> bool:
    try:
        return bool(echo(b"1", timeout=PATIENCE, metadata=metadata) == b"1")
    except grpc.RpcError:
        return False
