"""What a client can be told, and what it refuses."""

import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from tests.serve.client.scripted import Certificates, Script, serving
from tests.serve.hosting import PATIENCE, Loop
from trunkline import Model
from trunkline.errors import ConfigError, InvalidInput, Unavailable
from trunkline_serve.client import Client, Tls
from trunkline_serve.client.options import is_loopback

Connect = Callable[..., Any]


@pytest.mark.parametrize(
    "target",
    [
        "127.0.0.1:50051",
        "127.9.9.9",
        "localhost:1",
        "LOCALHOST:1",
        "[::1]:50051",
        "::1",
        "dns:///localhost:5",
        "ipv4:127.0.0.1:5,127.0.0.2:5",
        "ipv6:[::1]:5",
        "unix:/run/trunkline.sock",
        "unix-abstract:trunkline",
    ],
)
def test_this_machine_is_known(target: str) -> None:
    assert is_loopback(target)


@pytest.mark.parametrize(
    "target",
    [
        "10.0.0.1:50051",
        "example.org:50051",
        "localhost.example.org:5",
        "127.0.0.1.example.org:5",
        "[2001:db8::1]:5",
        "0.0.0.0:5",
        "ipv4:127.0.0.1:5,10.0.0.1:5",
        "dns://127.0.0.1/example.org:5",
    ],
)
def test_other_machines_are_known(target: str) -> None:
    assert not is_loopback(target)
    with pytest.raises(ConfigError, match="anybody on the way could read the token"):
        Client(target, token="secret")
    Client(target, token="secret", insecure_token=True).close()
    Client(target, token="secret", tls=Tls()).close()
    Client(target).close()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"timeout": 0}, "timeout"),
        ({"retries": -1}, "retries"),
        ({"concurrency": 0}, "concurrency"),
        ({"timeout": None}, "timeout: expected float, got NoneType"),
        ({"timeout": "3"}, "timeout: expected float, got str"),
        ({"timeout": float("inf")}, "timeout: must be above 0, not inf"),
        ({"retries": 1.5}, "retries: expected int, got float"),
        ({"concurrency": True}, "concurrency: expected int, got bool"),
        ({"wait_for_ready": "no"}, "wait_for_ready: expected bool, got str"),
        ({"insecure_token": 1}, "insecure_token: expected bool, got int"),
        ({"tls": True}, "tls: expected a table, got bool"),
        ({"token": b"x"}, "token: expected str, got bytes"),
        ({"keepalive": float("inf")}, "keepalive"),
        ({"keepalive": 9.9}, "keepalive: must be at least 10"),
        ({"token": ""}, "token"),
        ({"token": "a b"}, "token"),
        ({"token": "a\nb"}, "token"),
        ({"token": "é"}, "token"),
        ({"tls": Tls(ca="no/such.pem")}, "tls.ca: cannot read no/such.pem"),
    ],
)
def test_what_could_not_work_is_refused(options: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=f"^{named}") as caught:
        Client("127.0.0.1:1", **options)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("target", "told"),
    [
        ("", "target: is empty; give HOST:PORT"),
        (None, "target: expected str, got NoneType"),
        ("http://127.0.0.1:50051", "target: http://127.0.0.1:50051 is a URL; give HOST:PORT"),
        ("127.0.0.1:99999", "target: 127.0.0.1:99999 has a port above 65535"),
    ],
)
def test_what_is_no_address_is_refused(target: Any, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Client(target)
    assert str(caught.value).startswith(told)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"model": 3}, "model: expected str, got int 3"),
        ({"model": None}, "model: expected str, got NoneType"),
        ({"model": "\ud800"}, "model: is not valid Unicode"),
        ({"version": -1}, "version: must be at least 0"),
        ({"version": "1"}, "version: expected int, got str"),
        ({"version": 1.0}, "version: expected int, got float"),
        ({"version": True}, "version: expected int, got bool"),
        ({"version": 2**63}, "version: must be at least 0 and below"),
    ],
)
def test_a_model_is_named_by_a_string_and_a_number(given: dict[str, Any], told: str) -> None:
    with Client("127.0.0.1:1") as client:
        for call in (
            lambda: client.analyze("Ada", **given),
            lambda: client.describe(**given),
            lambda: client.unload(**{"model": "tiny", **given}),
            lambda: list(client.analyze_stream(["Ada"], **given)),
        ):
            with pytest.raises(InvalidInput) as caught:
                call()
            assert str(caught.value).startswith(told)


@pytest.mark.parametrize(
    ("arguments", "error", "told"),
    [
        ({"bundle": 3}, InvalidInput, "bundle: expected str"),
        ({"bundle": "x", "replace": "no"}, InvalidInput, "replace: expected bool"),
        ({"bundle": "x", "timeout": 0}, ConfigError, "timeout: must be above 0, not 0"),
        ({"bundle": "x", "timeout": "1"}, ConfigError, "timeout: expected float"),
    ],
)
def test_what_is_loaded_is_named_in_full(
    arguments: dict[str, Any], error: type[Exception], told: str
) -> None:
    with Client("127.0.0.1:1") as client, pytest.raises(error, match=f"^{told}"):
        client.load(**arguments)


def test_half_a_pair_is_refused() -> None:
    for name in ("ca", "certificate", "key", "server_name"):
        with pytest.raises(ConfigError, match=f"tls.{name}: expected a string, got 3"):
            Tls(**{name: 3})
    with pytest.raises(ConfigError, match="go together"):
        Tls(certificate="client.pem")


def test_the_token_travels_with_each_call(host: Loop, connect: Connect) -> None:
    script = Script()
    with serving(host, script) as address, connect(address, token="secret") as client:
        client.models()
        assert script.metadata["authorization"] == "Bearer secret"
        client.analyze_stream(["Ada"])
        assert script.metadata["authorization"] == "Bearer secret"
    with serving(host, script) as address, connect(address) as client:
        client.models()
        assert "authorization" not in script.metadata


def test_tls_with_a_certificate_of_the_client(
    host: Loop, connect: Connect, certificates: Certificates
) -> None:
    pair = certificates.read("server.key"), certificates.read("server.pem")
    ca = certificates.path("ca.pem")
    credentials = grpc.ssl_server_credentials([pair], ca.read_bytes(), require_client_auth=True)
    known = Tls(ca, certificates.path("client.pem"), certificates.path("client.key"))
    script = Script()
    with serving(host, script, credentials) as address:
        with connect(address, tls=known, token="secret") as client:
            client.analyze("Ada")
            assert script.metadata["authorization"] == "Bearer secret"
        named = Tls(known.ca, known.certificate, known.key, server_name="trunkline.test")
        with connect(address, tls=named) as client:
            client.analyze("Ada")
        calls = len(script.calls)
        wrong = Tls(known.ca, known.certificate, known.key, server_name="other.test")
        for refused in (None, Tls(ca), Tls(), wrong):
            with connect(address, tls=refused, retries=0) as client, pytest.raises(Unavailable):
                client.analyze("Ada")
        assert len(script.calls) == calls


def test_our_own_server_with_tls(
    host: Loop, connect: Connect, model: Model, certificates: Certificates
) -> None:
    paths = {name: str(certificates.path(name)) for name in ("ca.pem", "server.pem", "server.key")}
    settings = {
        "certificate": paths["server.pem"],
        "key": paths["server.key"],
        "client_ca": paths["ca.pem"],
    }
    known = Tls(paths["ca.pem"], certificates.path("client.pem"), certificates.path("client.key"))
    with host.serving([model], **settings) as hosted:
        with connect(hosted.address, tls=known) as client:
            assert client.analyze("Ada in Rome") == model.analyze("Ada in Rome")
            ((_, streamed),) = client.analyze_stream(["Ada in Rome"])
            assert streamed == model.analyze("Ada in Rome")
        stranger = Tls(paths["ca.pem"])
        with (
            connect(hosted.address, tls=stranger, retries=0) as client,
            pytest.raises(Unavailable),
        ):
            client.analyze("Ada")


def test_a_server_that_is_not_there_yet_is_waited_for(host: Loop, connect: Connect) -> None:
    with serving(host, Script()) as address:
        pass
    with (
        connect(address, wait_for_ready=True, timeout=PATIENCE) as client,
        ThreadPoolExecutor(1) as caller,
    ):
        waiting = caller.submit(client.analyze, "Ada")
        with pytest.raises(TimeoutError):
            waiting.result(0.2)
        with serving(host, Script(), address=address):
            waiting.result(PATIENCE)


def test_a_restarted_server_is_found_by_trying_again(host: Loop, connect: Connect) -> None:
    with serving(host, Script()) as address, connect(address, retries=50) as client:
        client.analyze("Ada")
    with (
        connect(address, retries=50, timeout=PATIENCE) as client,
        ThreadPoolExecutor(1) as caller,
    ):
        trying = caller.submit(client.analyze, "Ada")
        with pytest.raises(TimeoutError):
            trying.result(0.2)
        with serving(host, Script(), address=address):
            trying.result(PATIENCE)


def test_the_client_loads_no_engine() -> None:
    code = "import sys, trunkline_serve.client; print('trunkline_serve.engine' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]
