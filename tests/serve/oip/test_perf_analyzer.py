"""Triton's own load generator, unmodified, against the real server."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.network

SCRIPT = Path(__file__).parents[3] / "scripts" / "perf_analyzer.sh"
CANNOT_BE_HAD = 3
REQUESTS = 20
TEXTS = [
    {"TEXT": ["IBM opened an office in Bern."], "QUESTION": ["Where?"], "TEXT_PAIR": ["Bern"]},
    {"TEXT": ["Ada lives in Zürich."], "QUESTION": ["Who lives there?"], "TEXT_PAIR": ["Ada"]},
]
ROWS = [
    {
        "input_ids": {"content": [4, 5, 6, 0], "shape": [4]},
        "attention_mask": {"content": [1, 1, 1, 0], "shape": [4]},
        "token_type_ids": {"content": [0, 0, 0, 0], "shape": [4]},
    }
]

Analyzer = Callable[..., str]


def analyzer(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [SCRIPT, *arguments],
        env={**os.environ, "PYTHON": sys.executable},
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
    )


@pytest.fixture(scope="module")
def analyze(address: str, tmp_path_factory: pytest.TempPathFactory) -> Analyzer:
    tried = analyzer("--version")
    if tried.returncode == CANNOT_BE_HAD:
        pytest.skip(tried.stderr.strip())
    assert tried.returncode == 0, tried.stderr
    folder = tmp_path_factory.mktemp("perf")

    def measure(model: str, steps: list[dict[str, Any]], *arguments: str) -> str:
        data = folder / "data.json"
        data.write_text(json.dumps({"data": steps}))
        count = f"--request-count={REQUESTS}"
        common = ("-i", "grpc", "-u", address, count, "--input-data", data)
        done = analyzer("-m", model, *common, *arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return measure


def number(report: str, what: str) -> float:
    found = re.search(rf"{what}: ([0-9.]+)", report)
    assert found is not None, report
    return float(found[1])


@pytest.mark.parametrize("arguments", [(), ("-b", "2"), ("--async", "--streaming")])
@pytest.mark.parametrize(("name", "steps"), [("tiny", TEXTS), ("tiny.tensors", ROWS)])
def test_throughput_and_the_servers_statistics_are_reported(
    analyze: Analyzer, name: str, steps: list[dict[str, Any]], arguments: tuple[str, ...]
) -> None:
    report = analyze(name, steps, *arguments)
    assert number(report, "Throughput") > 0
    batch = 2 if "-b" in arguments else 1
    # It asks for statistics while it sends: the first requests may be answered before it begins.
    answered = number(report, "Successful request count")
    assert 0 < answered <= REQUESTS
    assert number(report, "Inference count") == answered * batch
    assert number(report, "Execution count") > 0
    assert "compute infer" in report


def test_one_task_can_be_measured_alone(analyze: Analyzer) -> None:
    alone = [{"TEXT": step["TEXT"]} for step in TEXTS]
    report = analyze("tiny", alone, "--request-parameter", "tasks:ner:string")
    assert number(report, "Throughput") > 0


def test_requests_in_parallel_are_answered(analyze: Analyzer) -> None:
    report = analyze("tiny", TEXTS, "--async", "--concurrency-range", "8")
    assert number(report, "Throughput") > 0
