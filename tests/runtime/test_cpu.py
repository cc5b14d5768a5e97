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


def v1(folder: Path, quota: str, period: str = "100000") -> None:
    (folder / "cpu").mkdir()
    (folder / "cpu" / "cpu.cfs_quota_us").write_text(f"{quota}\n")
    (folder / "cpu" / "cpu.cfs_period_us").write_text(f"{period}\n")


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
    ],
)
def test_the_quota_of_version_2_is_kept(tmp_path: Path, limit: str, cpus: int) -> None:
    (tmp_path / "cpu.max").write_text(f"{limit}\n")
    assert available_cpus(tmp_path) == cpus


@pytest.mark.parametrize(
    ("quota", "cpus"), [("-1", 8), ("300000", 3), ("250000", 3), ("1000", 1), ("x", 8), ("0", 8)]
)
def test_the_quota_of_version_1_is_kept(tmp_path: Path, quota: str, cpus: int) -> None:
    v1(tmp_path, quota)
    assert available_cpus(tmp_path) == cpus


def test_version_2_goes_before_version_1(tmp_path: Path) -> None:
    v1(tmp_path, "100000")
    (tmp_path / "cpu.max").write_text("400000 100000\n")
    assert available_cpus(tmp_path) == 4


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
        ("x86_64", None, False),
        ("aarch64", "fp asimd", False),
    ],
)
def test_a_processor_that_is_known_to_lack_vnni_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, machine: str, flags: str | None, lacks: bool
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: machine)
    told = "" if flags is None else f"flags\t\t: {flags}\n"
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nmodel name\t: avx_vnni\n{told}bugs\t:\n")
    assert lacks_vnni(tmp_path / "cpuinfo") is lacks
    assert lacks_vnni(tmp_path / "absent") is False


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
