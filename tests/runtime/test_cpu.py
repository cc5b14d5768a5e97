import os
import platform
from pathlib import Path

import pytest

from trunkline import session
from trunkline.cpu import available_cpus, lacks_vnni
from trunkline.session import session_options


@pytest.fixture(autouse=True)
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)


def quota_1(folder: Path, quota: str, period: str = "100000") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cpu.cfs_quota_us").write_text(f"{quota}\n")
    (folder / "cpu.cfs_period_us").write_text(f"{period}\n")


def quota_2(folder: Path, limit: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cpu.max").write_text(f"{limit}\n")


@pytest.fixture
def mounts(tmp_path: Path) -> Path:
    """Where cgroups are, below a root of a test's own."""
    folder = tmp_path / "sys" / "fs" / "cgroup"
    folder.mkdir(parents=True)
    return folder


def belong(root: Path, *lines: str) -> None:
    (root / "proc" / "self").mkdir(parents=True)
    (root / "proc" / "self" / "cgroup").write_text("".join(f"{line}\n" for line in lines))


@pytest.mark.parametrize(
    ("limit", "cpus"),
    [
        ("max 100000", 8),
        ("200000 100000", 2),
        ("150000 100000", 2),
        ("1000 100000", 1),
        ("6400000 100000", 8),
        ("50000 25000", 2),
        ("", 8),
        ("nonsense", 8),
        ("x y", 8),
        ("1 0", 8),
    ],
)
def test_the_quota_of_version_2_is_kept(
    tmp_path: Path, mounts: Path, limit: str, cpus: int
) -> None:
    quota_2(mounts, limit)
    assert available_cpus(tmp_path) == cpus


@pytest.mark.parametrize(
    ("quota", "cpus"), [("-1", 8), ("300000", 3), ("250000", 3), ("1000", 1), ("x", 8), ("0", 8)]
)
def test_the_quota_of_version_1_is_kept(
    tmp_path: Path, mounts: Path, quota: str, cpus: int
) -> None:
    quota_1(mounts / "cpu", quota)
    assert available_cpus(tmp_path) == cpus


@pytest.mark.parametrize(
    ("own", "quotas", "cpus"),
    [
        ("/system.slice/app.service", ("200000 100000", "max 100000"), 2),  # CPUQuota=200%
        ("/system.slice/app.service", ("max 100000", "300000 100000"), 3),
        ("/system.slice/app.service", ("600000 100000", "500000 100000"), 5),
        ("/system.slice/app.service/worker", ("400000 100000", "500000 100000"), 4),
        ("/system.slice", ("100000 100000", "700000 100000"), 7),  # of a sister
        ("/docker/0123", ("100000 100000", "100000 100000"), 8),  # the host's path, not to be seen
        ("/../../user.slice", ("100000 100000", "100000 100000"), 8),
        ("/", ("100000 100000", "100000 100000"), 8),
    ],
)
def test_quotas_of_nested_groups_are_kept(
    tmp_path: Path, mounts: Path, own: str, quotas: tuple[str, str], cpus: int
) -> None:
    belong(tmp_path, f"0::{own}")
    (mounts / own.strip("/")).mkdir(parents=True, exist_ok=True)
    quota_2(mounts / "system.slice" / "app.service", quotas[0])
    quota_2(mounts / "system.slice", quotas[1])
    assert available_cpus(tmp_path) == cpus


def test_quotas_of_nested_groups_of_version_1_are_kept(tmp_path: Path, mounts: Path) -> None:
    belong(tmp_path, "12:memory:/m", "4:cpu,cpuacct:/a/b", "1:name=systemd:/x", "0::/x")
    quota_1(mounts / "cpu", "-1")
    quota_1(mounts / "cpu" / "m", "100000")
    assert available_cpus(tmp_path) == 8
    quota_1(mounts / "cpu" / "a" / "b", "600000")
    assert available_cpus(tmp_path) == 6
    quota_1(mounts / "cpu" / "a", "400000")
    assert available_cpus(tmp_path) == 4


def test_a_list_of_groups_that_is_none_is_passed_over(tmp_path: Path, mounts: Path) -> None:
    belong(tmp_path, "", "nonsense", ":")
    quota_2(mounts, "300000 100000")
    assert available_cpus(tmp_path) == 3


def test_without_a_quota_the_affinity_counts(tmp_path: Path) -> None:
    assert available_cpus(tmp_path / "absent") == 8


def test_without_affinity_the_cores_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    assert available_cpus(tmp_path) == 3
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert available_cpus(tmp_path) == 1


@pytest.mark.parametrize(
    ("machine", "flags", "lacks"),
    [
        ("x86_64", "fpu avx2 avx512f avx512bw", True),
        ("AMD64", "fpu sse4_1", True),
        ("x86_64", "avx2 avx512f avx512_vnni", False),
        ("x86_64", "avx2 avx_vnni", False),
        ("x86_64", "avx2 avx_vnni_int8", True),
        ("x86_64", None, True),
        ("aarch64", "fp asimd", False),
    ],
)
def test_only_a_processor_that_shows_vnni_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, machine: str, flags: str | None, lacks: bool
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: machine)
    told = "" if flags is None else f"flags\t\t: {flags}\n"
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nmodel name\t: avx_vnni\n{told}bugs\t:\n")
    assert lacks_vnni(tmp_path / "cpuinfo") is lacks
    # Windows and macOS have no such file.
    assert lacks_vnni(tmp_path / "absent") is (machine != "aarch64")


@pytest.mark.parametrize("lacks", [True, False])
def test_only_without_vnni_are_bytes_multiplied_the_slower_way(
    monkeypatch: pytest.MonkeyPatch, lacks: bool
) -> None:
    monkeypatch.setattr(session, "lacks_vnni", lambda: lacks)
    options = session_options(1)
    if lacks:
        assert options.get_session_config_entry("session.x64quantprecision") == "1"
    else:
        with pytest.raises(RuntimeError, match="x64quantprecision"):
            options.get_session_config_entry("session.x64quantprecision")
