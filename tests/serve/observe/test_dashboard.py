"""What the dashboard and the documentation say of metrics is what a server has."""

import json
import re
import urllib.request
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.serve.hosting import PATIENCE, Loop
from tests.serve.observe.watching import Caller, observed
from trunkline import Model
from trunkline_serve.events import Failed

ROOT = Path(__file__).resolve().parents[3]
DASHBOARD = json.loads((ROOT / "deploy/grafana/trunkline.json").read_text())
OPERATIONS = (ROOT / "docs/operations.md").read_text()
# Prometheus adds these to whatever it scrapes.
FROM_PROMETHEUS = {"job", "instance"}
_METRIC = re.compile(r"\b(?:trunkline|process)_\w+")

Labels = dict[str, set[str]]
"""Names of labels by name of a series."""


@pytest.fixture(scope="module")
def series(host: Loop, model: Model) -> Labels:
    """What a server serves once everything has happened."""
    found: Labels = defaultdict(set)
    with observed(host, [model]) as hosted, Caller(hosted.address) as caller:
        caller.ask("Ada")
        hosted.engine.events.failed(Failed("tiny", "OVERLOADED", "queue", 1))
        hosted.engine.events.dropped("tiny", "expired", 1)
        address = hosted.host.metrics_address
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=PATIENCE) as reply:
            for family in text_string_to_metric_families(reply.read().decode()):
                for sample in family.samples:
                    found[sample.name].update(sample.labels)
    return found


def expressions() -> Iterator[tuple[str, str]]:
    """Yields (title, expression) of each query of the dashboard."""
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"]
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["name"], variable["definition"]


@pytest.mark.parametrize(("title", "expression"), list(expressions()))
def test_a_query_asks_for_what_there_is(title: str, expression: str, series: Labels) -> None:
    names = set(_METRIC.findall(expression))
    assert names
    assert names <= series.keys()
    for group in re.findall(r"by \(([^)]*)\)", expression):
        labels = set(re.split(r",\s*", group)) - FROM_PROMETHEUS
        assert any(labels <= series[name] for name in names), labels
    for name, selector in re.findall(r"\b((?:trunkline|process)_\w+)\{([^}]*)\}", expression):
        labels = set(re.findall(r"(\w+)\s*(?:=~|!=|=)", selector))
        assert labels <= series[name] | FROM_PROMETHEUS


def test_the_dashboard_shows_every_metric(series: Labels) -> None:
    asked = {_family(name) for _, text in expressions() for name in _METRIC.findall(text)}
    assert {_family(name) for name in series if name.startswith("trunkline_")} <= asked


def test_panels_have_ids_of_their_own_and_do_not_overlap() -> None:
    panels: list[dict[str, Any]] = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not cells & taken
        assert at["x"] + at["w"] <= 24
        taken |= cells


def test_the_documentation_lists_every_metric_with_its_labels(series: Labels) -> None:
    rows = re.findall(r"^\| `(trunkline_\w+)` \| \w+ \|([^|]*)\|", OPERATIONS, re.MULTILINE)
    listed = {name: set(re.findall(r"`(\w+)`", labels)) for name, labels in rows}
    served = {
        _family(name): labels - {"le"}
        for name, labels in series.items()
        if name.startswith("trunkline_")
    }
    assert listed == served


def _family(name: str) -> str:
    return re.sub(r"_(bucket|sum|count)$", "", name)
