"""The ways to ship the server agree with each other, with the server and with their tools."""

import json
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import kubernetes_validate
import pytest
import yaml
from prometheus_client import generate_latest

from trunkline.cli import COMMANDS
from trunkline.errors import ConfigError
from trunkline_serve.commands import serve
from trunkline_serve.models import Registry
from trunkline_serve.observe.metrics import Metrics
from trunkline_serve.settings import Settings

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
DOCKERFILE = DEPLOY / "docker" / "Dockerfile"
UNIT = DEPLOY / "systemd" / "trunkline.service"
MANIFESTS = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
OLDEST_KUBERNETES = "1.30"  # docs/deployment.md


def documents() -> Iterator[dict[str, Any]]:
    for path in MANIFESTS:
        yield from yaml.safe_load_all(path.read_text(encoding="utf-8"))


def manifest(kind: str) -> Any:
    (found,) = [one for one in documents() if one["kind"] == kind]
    return found


def pod() -> Any:
    return manifest("Deployment")["spec"]["template"]


def container() -> Any:
    (found,) = pod()["spec"]["containers"]
    return found


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "trunkline.toml"
    path.write_text(manifest("ConfigMap")["data"]["trunkline.toml"], encoding="utf-8")
    return path


class Step(NamedTuple):
    """One instruction of a Dockerfile."""

    name: str
    text: str


@pytest.fixture
def steps() -> list[Step]:
    lines = DOCKERFILE.read_text(encoding="utf-8").splitlines()
    text = "\n".join(line for line in lines if not line.startswith("#"))
    joined = text.replace("\\\n", " ").splitlines()
    return [Step(*line.split(maxsplit=1)) for line in joined if line.strip()]


def step(steps: list[Step], name: str) -> str:
    (found,) = [one.text for one in steps if one.name == name]
    return found


# The image.


def test_what_the_image_copies_is_sent_to_its_build(steps: list[Step]) -> None:
    ignore = (DEPLOY / "docker" / "Dockerfile.dockerignore").read_text(encoding="utf-8")
    sent = {line[1:] for line in ignore.splitlines() if line.startswith("!")}
    copied = [one.text.split()[:-1] for one in steps if one.name == "COPY"]
    assert {name for names in copied if "--from" not in names[0] for name in names} == sent


def test_the_ports_of_the_image_are_those_it_listens_on(steps: list[Step]) -> None:
    (environment,) = [one.text for one in steps if one.name == "ENV" and "TRUNKLINE_" in one.text]
    given = dict(pair.split("=", 1) for pair in environment.split())
    ports = [given[f"TRUNKLINE_{name}_PORT"] for name in ("LISTEN", "METRICS")]
    assert step(steps, "EXPOSE").split() == ports
    exposed = {str(one["containerPort"]) for one in container()["ports"]}
    assert exposed == set(ports)


def test_the_image_does_not_run_as_root(steps: list[Step]) -> None:
    user, group = step(steps, "USER").split(":")
    assert int(user) > 0 < int(group)


def test_the_image_starts_and_checks_the_server_by_commands_it_has(steps: list[Step]) -> None:
    command, name = json.loads(step(steps, "ENTRYPOINT"))
    assert (command, name in COMMANDS) == ("trunkline", True)
    check = step(steps, "HEALTHCHECK").partition("CMD ")[2].split()
    assert check[:2] == ["trunkline", "health"]


# Kubernetes.


@pytest.mark.parametrize("version", [OLDEST_KUBERNETES, kubernetes_validate.latest_version()])
@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_a_manifest_fits_the_schemas(path: Path, version: str) -> None:
    for one in yaml.safe_load_all(path.read_text(encoding="utf-8")):
        kubernetes_validate.validate(one, version, strict=True)


def test_all_objects_are_there() -> None:
    assert sorted(one["kind"] for one in documents()) == [
        "ConfigMap",
        "Deployment",
        "HorizontalPodAutoscaler",
        "NetworkPolicy",
        "PodDisruptionBudget",
        "Service",
    ]


def test_all_selectors_find_the_pods() -> None:
    labels = pod()["metadata"]["labels"]
    selectors = [
        manifest("Deployment")["spec"]["selector"]["matchLabels"],
        manifest("Service")["spec"]["selector"],
        manifest("PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        manifest("NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
    ]
    assert all(selector and selector.items() <= labels.items() for selector in selectors)


def test_all_ports_are_the_containers() -> None:
    ports = {one["name"]: one["containerPort"] for one in container()["ports"]}
    probes = [container()[f"{name}Probe"] for name in ("startup", "readiness", "liveness")]
    assert [probe["grpc"]["port"] for probe in probes] == [ports["grpc"]] * 3
    for one in manifest("Service")["spec"]["ports"]:
        assert one["port"] == ports[one["targetPort"]]
    rules = manifest("NetworkPolicy")["spec"]["ingress"]
    assert [one["port"] for rule in rules for one in rule["ports"]] == list(ports)
    assert pod()["metadata"]["annotations"]["prometheus.io/port"] == str(ports["metrics"])


def test_the_pods_are_given_time_to_drain(config: Path) -> None:
    drain = tomllib.loads(config.read_text())["drain_seconds"]
    before = container()["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod()["spec"]["terminationGracePeriodSeconds"] >= before + drain + 5


def test_the_server_takes_its_configuration(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flag, file, bundle = container()["args"]
    mounts = {one["mountPath"]: one["name"] for one in container()["volumeMounts"]}
    assert mounts[str(Path(file).parent)] == "config"
    assert serve([flag, str(config), bundle, "--print-config"]) == 0
    printed = tomllib.loads(capsys.readouterr().out)
    assert printed["models"]["folder"] == str(Path(bundle).parent)
    assert mounts[printed["models"]["folder"]] == "models"


def test_all_mounts_have_a_volume() -> None:
    volumes = {one["name"]: one for one in pod()["spec"]["volumes"]}
    assert volumes.keys() == {one["name"] for one in container()["volumeMounts"]}
    assert volumes["config"]["configMap"]["name"] == manifest("ConfigMap")["metadata"]["name"]
    assert [one["name"] for one in container()["volumeMounts"] if not one.get("readOnly")] == [
        "tmp"
    ]


def test_the_pods_have_no_privileges(steps: list[Step]) -> None:
    outer, inner = pod()["spec"]["securityContext"], container()["securityContext"]
    assert outer["runAsNonRoot"] is True
    assert f"{outer['runAsUser']}:{outer['runAsGroup']}" == step(steps, "USER")
    assert outer["seccompProfile"] == {"type": "RuntimeDefault"}
    assert inner == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod()["spec"]["automountServiceAccountToken"] is False
    assert container()["resources"]["limits"].keys() == {"cpu", "memory"}


def test_variables_of_a_service_are_kept_from_the_pods(monkeypatch: pytest.MonkeyPatch) -> None:
    assert pod()["spec"]["enableServiceLinks"] is False
    monkeypatch.setenv("TRUNKLINE_PORT", "tcp://10.0.0.1:50051")  # what it would bring
    with pytest.raises(ConfigError, match="TRUNKLINE_PORT: no such setting"):
        serve(["--print-config"])


def test_the_autoscaler_reads_what_the_server_counts() -> None:
    spec = manifest("HorizontalPodAutoscaler")["spec"]
    assert spec["scaleTargetRef"]["name"] == manifest("Deployment")["metadata"]["name"]
    assert "replicas" not in manifest("Deployment")["spec"]
    adapter = DEPLOY / "kubernetes" / "prometheus-adapter" / "values.yaml"
    (rule,) = yaml.safe_load(adapter.read_text(encoding="utf-8"))["rules"]["custom"]
    assert [one["pods"]["metric"]["name"] for one in spec["metrics"]] == [rule["name"]["as"]]
    counted = rule["seriesQuery"].partition("{")[0].removesuffix("_count")
    assert f"# TYPE {counted} histogram" in metrics()
    for part in ("sum", "count"):
        assert f"rate({counted}_{part}{{<<.LabelMatchers>>}}[1m])" in rule["metricsQuery"]


def metrics() -> str:
    return generate_latest(Metrics(Registry(), []).registry).decode()


# systemd.


def unit() -> dict[str, list[str]]:
    lines = UNIT.read_text(encoding="utf-8").splitlines()
    found: dict[str, list[str]] = {}
    for name, given, value in (line.partition("=") for line in lines if line[:1] != "#"):
        if given:
            found.setdefault(name, []).append(value)
    return found


def test_the_unit_says_when_it_is_ready_and_is_given_time_to_drain() -> None:
    given = unit()
    assert given["Type"] == ["notify"]
    assert int(given["TimeoutStopSec"][0]) >= Settings().drain_seconds + 5
    assert given["KillMode"] == ["mixed"]


def test_the_unit_starts_the_server_by_flags_it_has(tmp_path: Path) -> None:
    (line,) = unit()["ExecStart"]
    _, command, flag, file, bundle = line.split()
    assert (command, Path(file).name) == ("serve", "trunkline.toml")
    (tmp_path / "trunkline.toml").touch()
    assert serve([flag, str(tmp_path / "trunkline.toml"), bundle, "--print-config"]) == 0


@pytest.fixture
def analyze() -> str:
    found = shutil.which("systemd-analyze")
    if found is None:
        pytest.skip("needs systemd")
    return found


def test_systemd_understands_the_unit(analyze: str, tmp_path: Path) -> None:
    # It wants the command to exist.
    copy = tmp_path / UNIT.name
    installed = unit()["ExecStart"][0].split()[0]
    copy.write_text(UNIT.read_text(encoding="utf-8").replace(installed, sys.executable))
    done = subprocess.run(
        [analyze, "verify", str(copy)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_systemd_finds_the_unit_little_exposed(analyze: str) -> None:
    # In tenths: 0 is safe, 100 is not; a unit that says nothing has 96.
    command = [analyze, "security", "--offline=yes", "--threshold=20", "--no-pager", str(UNIT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
