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
from trunkline.errors import ConfigError, Unavailable
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
        "",
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
        ({"keepalive": 9.9}, "keepalive"),
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


def test_half_a_pair_is_refused() -> None:
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
