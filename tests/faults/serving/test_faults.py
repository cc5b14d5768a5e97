"""Every fault, injected into real servers: no call is lost, none is answered wrongly.

    FAULTS_BUNDLE=B FAULTS_SIZE=1 python -m pytest -rP tests/faults/serving/test_faults.py -k reload

tries them on a bundle of one's own, as often as the report in docs/reliability.md.
"""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.faults.serving import (
    changing,
    clients,
    machine,
    malformed,
    soak,
    stopping,
    texts,
)
from tests.faults.serving.fault_fixture import FaultFixture
from tests.faults.serving.fault_report import FaultReport, table

FAULTS: tuple[Callable[[FaultFixture], FaultReport], ...] = (
    stopping.sigterm,
    stopping.sigterm_fronts,
    stopping.kill_server,
    stopping.kill_engine,
    stopping.kill_front,
    changing.reload,
    changing.corrupt_bundles,
    changing.refused_paths,
    clients.slow_readers,
    clients.half_open,
    clients.vanishing,
    malformed.open_inference,
    malformed.mutated,
    texts.odd_texts,
    texts.large_text,
    machine.clock_jumps,
    machine.full_disk,
    machine.descriptors,
)
FULL_SIZE = {malformed.open_inference}
"""Faults that are always tried as often as in a full report."""


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_nothing_is_lost_and_nothing_is_wrong(
    faults: FaultFixture, fault: Callable[[FaultFixture], FaultReport]
) -> None:
    report = fault(replace(faults, size=1.0) if fault in FULL_SIZE else faults)
    print(table([report]))
    assert report.clean, table([report])


def test_a_short_soak_ends_as_it_began(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "soak.json"
    assert soak.main([str(bundle), "--minutes", "0.05", "--json", str(file)]) == 0
    found = json.loads(file.read_text())
    assert found["command"].startswith("python -m tests.faults.serving.soak tiny ")
    assert found["samples"]
    (report,) = found["faults"]
    assert report["tried"] == report["survived"] > 0
    assert "soak of 0.05 minutes" in capsys.readouterr().out
